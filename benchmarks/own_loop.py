"""What `tombola.rounds` costs beside the bare loop: Conv-2 on made-up CIFAR images, plain PyTorch, one thread.

    python benchmarks/own_loop.py

A step of the bare loop and one of `run.model` take turns. The ratio is of the smallest times, because a busy machine
only ever adds to them.
"""

import sys
import tempfile
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

import tombola
from tombola.networks.conv import conv_2

BATCH, STEPS = 60, int(sys.argv[1]) if len(sys.argv) > 1 else 40


def make() -> nn.Module:
    """Return Conv-2."""
    return conv_2(input_shape=(3, 32, 32), classes=10)


def step_of(model: nn.Module) -> Callable[[], float]:
    """Return a function that does one step of Adam and returns its seconds of processor time."""
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(BATCH, 3, 32, 32, generator=generator), torch.arange(BATCH) % 10
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)

    def step() -> float:
        begun = time.process_time()
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        return time.process_time() - begun

    return step


def main() -> None:
    """Print the ratio for the dense run and for a level."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        options = {"rounds": 1, "trials": 1, "arms": ["ticket"], "inputs": (3, 32, 32), "figures": False}
        for run in tombola.rounds(make, out=folder, quiet=True, **options):
            steps = step_of(make()), step_of(run.model)
            times: tuple[list[float], list[float]] = ([], [])
            for turn in range(STEPS):
                for which in (0, 1) if turn % 2 else (1, 0):
                    times[which].append(steps[which]())
            bare, ours = map(min, times)
            run.report(STEPS, accuracy=0.5)
            kept = f"{run.density:.0%} of the weights"
            print(f"{kept:<20} bare {1e3 * bare:7.2f} ms, rounds {1e3 * ours:7.2f} ms, ratio {ours / bare:.3f}")


if __name__ == "__main__":
    main()
