"""The plain loop that tombola is compared with: short, honest PyTorch; data in memory, fused optimiser, a mask."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


def plain_loop(
    module: nn.Module,
    masks: dict[str, Tensor],
    inputs: Tensor,
    targets: Tensor,
    lr: float,
    batch_size: int,
    half: bool = False,
) -> Callable[[int], None]:
    """Return a function that trains for that many steps; `half` means bfloat16 and channels last."""
    if half:
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(module.parameters(), lr=lr, fused=True)
    masked = [(parameter, masks[name]) for name, parameter in module.named_parameters() if name in masks]

    def steps(count: int) -> None:
        for batch in torch.randint(len(inputs), (count, batch_size)):
            loss = functional.cross_entropy(_logits(module, inputs[batch], half), targets[batch])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                for parameter, mask in masked:
                    parameter.mul_(mask)

    return steps


def _logits(module: nn.Module, inputs: Tensor, half: bool) -> Tensor:
    if not half:
        return module(inputs)  # type: ignore[no-any-return]
    with torch.autocast("cpu", torch.bfloat16):
        return module(inputs.contiguous(memory_format=torch.channels_last)).float()  # type: ignore[no-any-return]


@torch.no_grad()
def plain_evaluation(module: nn.Module, inputs: Tensor, targets: Tensor, half: bool = False) -> tuple[float, float]:
    """Return mean loss and accuracy, a thousand examples at a time."""
    loss, right = 0.0, 0
    for x, y in zip(inputs.split(1000), targets.split(1000), strict=True):
        logits = _logits(module, x, half)
        loss += functional.cross_entropy(logits, y, reduction="sum").item()
        right += int((logits.argmax(1) == y).sum())
    return loss / len(inputs), right / len(inputs)


def pace(action: Callable[[int], object], count: int, seconds: float) -> float:
    """Return the seconds of one of the `count` units that `action(count)` does: the median over repeats."""
    action(1)
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        begun = time.perf_counter()
        action(count)
        times.append((time.perf_counter() - begun) / count)
    return sorted(times)[len(times) // 2]
