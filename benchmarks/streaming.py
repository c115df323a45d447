"""Peak memory and throughput of streamed data against data in memory: `python benchmarks/streaming.py [--gigabytes 1]`.

Each way trains in a process of its own, on pictures of 3 x 64 x 64 that are made when they are asked for.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SHAPE = (3, 64, 64)
TEST = 1000
STEPS, BATCH = 60, 64


class Pictures:
    """Pictures that are drawn from their number."""

    def __init__(self, size: int, first: int, wait: float):
        self.size, self.first, self.wait = size, first, wait

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        time.sleep(self.wait)
        generator = np.random.default_rng(self.first + row)
        return generator.random(SHAPE, dtype=np.float32), row % 10


def pictures(size: int, wait: float) -> dict[str, object]:
    """Return the data as a study would name them."""
    return {"train": Pictures(size, 0, wait), "test": Pictures(TEST, size, wait), "classes": 10}


def measure(arguments: dict[str, float], stream: bool, workers: int, normalise: str) -> dict[str, float]:
    """Return megabytes, seconds to split, and examples a second of a training and of an evaluation."""
    import torch
    from torch import nn

    from tombola.data import DataSettings, forget_copies, load, split
    from tombola.pruning.mask import Mask
    from tombola.seeds import Seeds
    from tombola.training.engine import ReplicaState
    from tombola.training.engines.dense import DenseEngine
    from tombola.training.recipe import Recipe

    settings = DataSettings(
        source="streaming:pictures", validation=0.01, arguments=arguments, stream=stream, normalise=normalise
    )
    begun = time.perf_counter()
    dataset = load(settings)
    splits = split(dataset, settings.validation, Seeds(0, 0), normalise=normalise, workers=workers)
    forget_copies(dataset)
    del dataset
    ready = time.perf_counter() - begun

    def build() -> nn.Module:
        return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(3 * 16 * 16, 10))

    start = ReplicaState(build().state_dict(), Mask({}), Seeds(0, 0), splits)
    recipe = Recipe(lr=0.01, optimizer="sgd", batch_size=BATCH, iterations=10**6)
    engine = DenseEngine(build, [start], recipe, 10**6, torch.device("cpu"))
    engine.advance(2)
    begun = time.perf_counter()
    engine.advance(STEPS)
    training = STEPS * BATCH / (time.perf_counter() - begun)
    begun = time.perf_counter()
    engine.evaluate("test")
    evaluation = TEST / (time.perf_counter() - begun)
    splits.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    readers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3 if workers else 0.0
    found = {"peak": peak, "reader": readers, "split": ready, "training": training, "evaluation": evaluation}
    return {name: round(value, 1) for name, value in found.items()}


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of float32 in the training set [default: 1]")
    parser.add_argument("--normalise", default="none", help="as in a study [default: none]")
    parser.add_argument("--wait", type=float, default=0.0, help="seconds, for each example, on a disk [default: 0]")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = int(options.gigabytes * 1e9 / (4 * np.prod(SHAPE)))
    if options.one:
        from tombola.registry import add_user_folders

        add_user_folders([Path(__file__).parent])
        stream, workers = json.loads(options.one)
        print(json.dumps(measure({"size": size, "wait": options.wait}, stream, workers, options.normalise)))
        return
    print(f"{size:,} training examples, normalise: {options.normalise}")
    for name, one in (("in memory", [False, 0]), ("streamed", [True, 0]), ("2 readers", [True, 2])):
        command = [sys.executable, __file__, *sys.argv[1:], "--one", json.dumps(one)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(
            f"{name:>10}: {found['peak']:6,.0f} MB at most, {found['reader']:4,.0f} MB a reader; "
            f"{found['split']:5.1f} s to split; {found['training']:7,.0f} examples/s in training, "
            f"{found['evaluation']:7,.0f} in evaluation"
        )


if __name__ == "__main__":
    main()
