"""What `tombola.rounds` costs beside the bare loop: Conv-2 on made-up CIFAR images, plain PyTorch, one thread.

    python benchmarks/own_loop.py

A step of the bare loop, one of the same loop with a mask by hand, and one of `run.model` take turns. Each ratio is of
the smallest times, because a busy machine only ever adds to them.

The loop with a mask by hand does the same arithmetic as `rounds`. In the bare loop Adam has no second moments of zero,
and MKL takes five times as long for the square root of zeros.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

import tombola
from tombola.networks.conv import conv_2

BATCH, STEPS = 60, int(sys.argv[1]) if len(sys.argv) > 1 else 40


def make() -> nn.Module:
    """Return Conv-2."""
    return conv_2(input_shape=(3, 32, 32), classes=10)


def step_of(model: nn.Module, mask: Mapping[str, Tensor] | None = None) -> Callable[[], float]:
    """Return a function that does one step of Adam and returns its seconds of processor time.

    Args:
        model: in training mode.
        mask: held by hand, by parameter name: gradients and weights are multiplied by it.
    """
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(BATCH, 3, 32, 32, generator=generator), torch.arange(BATCH) % 10
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)
    held = [(dict(model.named_parameters())[name], keep.float()) for name, keep in (mask or {}).items()]
    for weight, keep in held:
        weight.data.mul_(keep)

    def step() -> float:
        begun = time.process_time()
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        for weight, keep in held:
            weight.grad.mul_(keep)
        optimizer.step()
        for weight, keep in held:
            weight.data.mul_(keep)
        return time.process_time() - begun

    return step


def main() -> None:
    """Print the ratio for the dense run and for a level."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        options = {"rounds": 1, "trials": 1, "arms": ["ticket"], "inputs": (3, 32, 32), "figures": False}
        for run in tombola.rounds(make, out=folder, quiet=True, **options):
            steps = {"bare": step_of(make()), "by hand": step_of(make(), run.mask), "rounds": step_of(run.model)}
            times: dict[str, list[float]] = {name: [] for name in steps}
            for turn in range(STEPS):
                for name in list(steps) if turn % 2 else reversed(steps):
                    times[name].append(steps[name]())
            least = {name: min(seconds) for name, seconds in times.items()}
            run.report(STEPS, accuracy=0.5)
            row = ", ".join(f"{name} {1e3 * seconds:7.2f} ms" for name, seconds in least.items())
            over = ", ".join(f"{least['rounds'] / least[name]:.3f} of {name}" for name in ("bare", "by hand"))
            print(f"{run.density:.0%} of the weights: {row}: rounds takes {over}")


if __name__ == "__main__":
    main()
