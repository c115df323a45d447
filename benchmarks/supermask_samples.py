"""Evaluate the trained probabilities of the arm `supermask` in three ways: what does its fixed number of weights cost?

    python -m benchmarks.supermask_samples [--data FOLDER] [--level 3]

The study lenet-mnist-deconstructing keeps the likeliest weights of each layer, as many as the level has. Zhou et al.
2019 (Section 5) evaluate sampled masks, of no fixed number of weights. Their recipe, start and weights differ too.

This script trains a level's runs again and prints the test accuracy of three kinds of masks:

- fixed: the likeliest weights, as many as the level has. These are the numbers of the study.
- expected: the likeliest weights, as many as the probabilities add up to in each layer.
- sampled: the mean of ten masks, drawn from the probabilities.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from tombola.analysis.intervals import means
from tombola.running.initial_state import frozen_state
from tombola.running.options import RunOptions
from tombola.running.problem import build_of, splits_of
from tombola.running.run import data_folder
from tombola.running.store import Store
from tombola.studies import load_study, make_plan
from tombola.training.engine import ReplicaState
from tombola.training.engines.sampled import SampledEngine, likeliest
from tombola.work import Item, Supermask

STUDY = "lenet-mnist-deconstructing"
SAMPLES = 10


def main() -> None:
    """Train, evaluate and print."""
    parser = argparse.ArgumentParser(description="Evaluate the trained probabilities of supermasks in three ways.")
    parser.add_argument("--data", type=Path, help="folder of data sets")
    parser.add_argument(
        "--level", type=int, choices=range(1, 11), default=3, help="of the study; 3 has the best supermasks"
    )
    given = parser.parse_args()
    root = data_folder(given.data)
    torch.set_num_threads(1)
    plan = make_plan(load_study(STUDY), root)
    rows = [row for row in plan.rows if row.arm == "supermask" and row.level == given.level]
    options = RunOptions(root=str(root.absolute()) if root else None)
    print("test accuracy, %\ntrial  density    fixed  expected density  expected  sampled")
    found = []
    for row in rows:
        found.append(measured(plan.work[row.job], options))
        print("{:5}  {:7.3f}  {:7.2f}  {:16.3f}  {:8.2f}  {:7.2f}".format(row.trial, *found[-1]), flush=True)
    _, fixed, _, expected, sampled = np.array(found).T
    pairs = {
        "fixed": fixed,
        "expected": expected,
        "sampled": sampled,
        "expected - fixed": expected - fixed,
        "sampled - expected": sampled - expected,
    }
    of = means(list(pairs.values()))
    for name, mean, low, high in zip(pairs, of.mean, of.low, of.high, strict=True):
        print(f"{name}: {mean:.2f} ({low:.2f} to {high:.2f})")
    print(f"means of {len(found)} trials with 95 % intervals")


@torch.no_grad()
def measured(item: Item, options: RunOptions) -> tuple[float, float, float, float, float]:
    """Return density and test accuracy (%) at the level's number of weights, at the expected one, and of samples."""
    spec, splits = item.spec, splits_of(item, options)
    assert isinstance(spec, Supermask)
    build = build_of(item, splits)
    with tempfile.TemporaryDirectory() as folder:
        mask, weights, _ = frozen_state(spec, Store(Path(folder)), build, splits)
    start = ReplicaState(weights, mask, spec.seeds, splits, 0, popup=spec.popup, task=spec.task.make())
    assert spec.training.iterations is not None
    engine = SampledEngine(build, [start], spec.training, spec.training.iterations, torch.device("cpu"))
    with torch.enable_grad():
        engine.advance(spec.training.iterations)
    state = engine.optimizer_state()
    scores = {name: state[f"score/{name}"] for name in spec.popup.counts}
    full = {name: state[f"weight/{name}"] for name in scores}
    module, size = build().eval(), sum(score.numel() for score in scores.values())

    def accuracy(masks: Mapping[str, Tensor]) -> float:
        shown = {name: full[name] * keep for name, keep in masks.items()}
        outputs = functional_call(module, {**weights, **shown}, splits.test.inputs)
        return 100 * float((outputs.argmax(1) == splits.test.targets).double().mean())

    chances = {name: score.sigmoid() for name, score in scores.items()}
    expected = {name: round(chance.sum().item()) for name, chance in chances.items()}
    generator = torch.Generator().manual_seed(spec.trial)
    samples = [
        accuracy({name: torch.rand(p.shape, generator=generator) < p for name, p in chances.items()})
        for _ in range(SAMPLES)
    ]
    return (
        sum(spec.popup.counts.values()) / size,
        accuracy({name: likeliest(score, spec.popup.counts[name]) for name, score in scores.items()}),
        sum(expected.values()) / size,
        accuracy({name: likeliest(score, expected[name]) for name, score in scores.items()}),
        float(np.mean(samples)),
    )


if __name__ == "__main__":
    main()
