"""Another package adds one of each kind of thing, by entry points alone, and a study uses all of them."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import tombola

PACKAGE = '''
"""What an outside package adds. It imports tombola; tombola does not know it."""

from typing import ClassVar

import torch
from torch import nn

from tombola.pruning import Mask
from tombola.running.problem import build_of, splits_of
from tombola.networks import examine
from tombola.tasks import Classification, Metric
from tombola.training.engines import EngineKind
from tombola.training.engines.dense import DenseEngine
from tombola.work import Kind, MaskUse, OnData, RESULT, WEIGHTS


def narrow(input_shape, classes):
    """A network."""
    features = torch.Size(input_shape).numel()
    return nn.Sequential(nn.Flatten(), nn.Linear(features, 7), nn.ReLU(), nn.Linear(7, classes))


def blobs(examples=90):
    """A data source: points around two centres."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(2 * examples) % 2
    inputs = torch.randn((2 * examples, 5), generator=generator) + 2 * targets[:, None]
    return (inputs[:examples], targets[:examples]), (inputs[examples:], targets[examples:])


def middling(snapshots):
    """A criterion: weights of middling size stay longest."""
    return {name: -(weight.abs() - weight.abs().median()).abs() for name, weight in snapshots.final.items()}


class Stripes(OnData):
    """A kind of work: finds a mask of every n-th weight."""

    kind: ClassVar[str] = "stripes"

    every: int


def stripes():
    return Kind("stripes", "stripes", Stripes, "outside_tombola:execute", (RESULT, WEIGHTS))


def execute(items, store, options):
    for item in items:
        splits = splits_of(item, options)
        shapes = examine(build_of(item, splits)(), splits.input_shape).shapes()
        keep = {name: torch.arange(torch.Size(shape).numel()) % item.spec.every == 0 for name, shape in shapes.items()}
        mask = Mask({name: bits.reshape(shapes[name]) for name, bits in keep.items()})
        store.save_mask(item, mask, {"remaining": mask.counts(), "remarks": {}, "seconds": 0.0})


def striped(trial, level, repeat):
    """An arm: its masks come from the kind of work above."""
    spec = trial.spec(Stripes, every=2**level)
    item = trial.add(spec, f"stripes.level-{level:02}", "stripes")
    return trial.rewound, MaskUse(search=item.id)


class Doubtful(Classification):
    """A task: half of the cross-entropy, and the error as the metric."""

    metrics: ClassVar = (Metric("error", "lower", "%"),)

    def loss(self, output, batch):
        return super().loss(output, batch) / 2

    def scores(self, sums):
        loss, accuracy = super().scores(sums)
        return loss / 2, 1 - accuracy


class CountingEngine(DenseEngine):
    """An engine: the dense one under another name."""

    name = "counting"


def counting():
    return EngineKind("counting", lambda: CountingEngine, lambda case: "", lambda case: False)
'''
POINTS = """
[tombola.networks]
narrow = outside_tombola:narrow
[tombola.data]
blobs = outside_tombola:blobs
[tombola.criteria]
middling = outside_tombola:middling
[tombola.arms]
striped = outside_tombola:striped
[tombola.work]
stripes = outside_tombola:stripes
[tombola.tasks]
doubtful = outside_tombola:Doubtful
[tombola.engines]
counting = outside_tombola:counting
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package, installed."""
    place = tmp_path / "site-packages"
    about = place / "outside_tombola-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-tombola\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(textwrap.dedent(POINTS))
    (place / "outside_tombola.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(place))
    importlib.invalidate_caches()
    yield
    sys.modules.pop("outside_tombola", None)


def test_a_study_uses_what_another_package_adds(package: None, tmp_path: Path) -> None:
    study = tombola.Study.load(
        "demo",
        name="outside",
        trials=1,
        network="narrow",
        data={"source": "blobs", "arguments": {"examples": 80}, "validation": 20},
        task="doubtful",
        training={"iterations": 12, "evaluate_every": 6, "lr": 0.01, "batch_size": 20},
        pruning={"criterion": "middling", "rounds": 2},
        arms=["ticket", "striped"],
    )
    results = tombola.run(study, tmp_path / "out", workers=0, engine="counting", figures=False, quiet=True)
    assert results.missing() == 0
    frame = results.frame()
    assert set(frame["engine"]) == {"counting"}
    assert (results.plan.data.input_shape, results.plan.data.train) == ((5,), 80)
    assert set(frame["metric"]) == {"error"}
    assert frame["final_test_error"].between(0, 1).all()
    kinds = {item.kind for item in results.plan.work.values()}
    assert kinds == {"run", "mask-search", "stripes"}
    for level in (1, 2):
        mask = results.ticket(level=level, arm="striped").mask
        for keep in mask.values():
            places = torch.arange(keep.numel()).reshape(keep.shape) % 2**level == 0
            assert torch.equal(keep, places)
    # Reading the folder needs nothing of the package.
    sys.modules["outside_tombola"] = None  # type: ignore[assignment]
    read = tombola.Results.open(tmp_path / "out")
    assert read.missing() == 0
    assert read.frame().equals(results.frame())


def test_an_unknown_kind_in_a_store_is_named(package: None, tmp_path: Path) -> None:
    from tombola.work import kind_named

    with pytest.raises(tombola.InputError, match="unknown work kind 'stripe'; did you mean 'stripes'"):
        kind_named("stripe")
