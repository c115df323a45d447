"""Studies on streamed data: to the last bit those on data in memory, wherever they are stopped."""

import numpy as np
import pytest
import torch
from interrupting import run_interrupted
from small_studies import OPTIONS, interpolations, run_study, small_study

import tombola
from tombola.data import DataSettings, load, split
from tombola.errors import DataError, InputError
from tombola.pruning import Mask
from tombola.running.execute import execute
from tombola.running.run import prepare
from tombola.running.store import Store
from tombola.seeds import Seeds
from tombola.studies import make_plan
from tombola.training.engine import ReplicaState
from tombola.training.engines import choose_engine
from tombola.training.engines.dense import DenseEngine
from tombola.training.engines.mlp import MlpEngine
from tombola.training.engines.sparse import SparseEngine
from tombola.training.engines.stacked import StackedEngine
from tombola.training.recipe import Recipe


def data(name="map_style", stream=True, workers=0, **arguments):
    section = {"source": f"streamed_data:{name}", "validation": 10, "arguments": arguments, "stream": stream}
    return section | ({"stream_workers": workers} if workers else {})


def outcomes(plan, store):
    """Return what came of each piece of work, by a label that does not depend on how data are read."""
    found = {}
    for item in plan.work.values():
        if item.kind == "mask-search":
            found[item.label] = store.mask(item.id).pack()
        elif item.kind == "interpolation":
            found[item.label] = store.facts(item.id)["along"]
        else:
            result = store.load(item.id)
            found[item.label] = (result.history, result.mask.pack(), result.snapshots, result.facts["normalisation"])
    return found


def assert_same(one, other):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, tuple | list):
        assert len(one) == len(other)
        for each in zip(one, other, strict=True):
            assert_same(*each)
    else:
        np.testing.assert_equal(one, other)  # NaN, where test examples were not measured, is NaN


def assert_alike(folder, workers=0, name="map_style", arguments=None, **changes):
    """Run a study on data in memory and streamed; return the streamed one's plan and store."""
    changes = {"training__batch_size": 12, "pruning__rounds": 1} | changes
    held = run_study(folder / "held", data=data(name, False, **(arguments or {})), **changes)
    streamed = run_study(folder / "streamed", data=data(name, True, workers, **(arguments or {})), **changes)
    assert_same(outcomes(*held), outcomes(*streamed))
    return streamed


EVERY_KIND = {
    "arms": ["ticket", "snip", "grasp", "early-bird", "edge-popup-trained"],
    "training__iterations": 8,
    "pruning__init_examples": 3,
    "connectivity": {"levels": [0], "points": 3},
}


def test_every_kind_of_work_is_that_on_data_in_memory(tmp_path):
    plan, _ = assert_alike(tmp_path, **EVERY_KIND)
    assert {item.kind for item in plan.work.values()} == {"run", "mask-search", "supermask", "interpolation"}
    assert interpolations(plan)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("images", {"network": "small_nets:conv_norm_dropout", "training__augment": ["flip", "crop"]}),
        ("two_inputs", {"network": "streamed_data:Pair"}),
        ("texts", {"network": "task_nets:Transformer", "task": "language-model"}),
        ("map_style", {"training__precision": "float64", "pruning__criterion": "streamed_data:by_gradient"}),
    ],
)
def test_networks_tasks_and_augmentation_are_those_of_data_in_memory(name, changes, tmp_path):
    assert_alike(tmp_path, name=name, arms=["ticket"], **changes)


def test_stopped_anywhere_and_resumed_it_is_bit_equal(tmp_path, monkeypatch):
    changes = {"network": "small_nets:Dropping", "training__batch_size": 12, "pruning__rounds": 1, "data": data()}
    straight = run_study(tmp_path / "straight", **changes)
    monkeypatch.setattr("tombola.training.loop.SLICE", 0.0)
    crooked = run_interrupted(small_study(**changes), tmp_path / "crooked", monkeypatch)
    assert_same(outcomes(*straight), outcomes(*crooked))


def test_how_many_processes_read_is_no_part_of_an_identity():
    one, other = (make_plan(small_study(data=data(workers=number))) for number in (0, 2))
    assert one.work.keys() == other.work.keys()
    assert {item.readers for item in other.work.values()} == {2}
    assert one.work.keys().isdisjoint(make_plan(small_study(data=data(stream=False))).work)


# Engines


def choice(name, streams, network="small_nets:mlp", many=False, density=0.05):
    from small_nets import mlp

    def build():
        return mlp((20,), 3)

    generator = torch.Generator().manual_seed(0)
    shapes = {key: weight.shape for key, weight in build().state_dict().items() if weight.dim() == 2}
    mask = Mask({key: torch.rand(shape, generator=generator) < density for key, shape in shapes.items()})
    recipe = Recipe(lr=0.1, batch_size=60, iterations=10)
    return choose_engine(name, build, mask, recipe, torch.zeros(1, 20), many, streams=streams)


def test_engines_that_need_tensors_decline():
    pytest.importorskip("numba")
    assert choice("auto", False) is MlpEngine
    assert choice("auto", True) is SparseEngine  # it trains by autograd, batch by batch
    assert choice("auto", True, density=1.0) is DenseEngine
    assert choice("sparse", True) is SparseEngine
    assert choice("stacked", False, many=True) is StackedEngine
    assert choice("stacked", True, many=True) is DenseEngine
    with pytest.raises(InputError, match=r"'mlp' can't train .*in memory, and data.stream is set.*auto or dense"):
        choice("mlp", True)


@pytest.mark.parametrize("engine", [MlpEngine, StackedEngine])
def test_an_engine_that_gets_streamed_data_all_the_same_says_so(engine):
    from small_nets import mlp

    splits = split(load(DataSettings(**data())), 10, Seeds(0, 0))
    module, recipe = mlp((6,), 3), Recipe(lr=0.1, batch_size=12, iterations=5)
    mask = Mask({"1.weight": torch.ones(12, 6, dtype=torch.bool)})
    start = ReplicaState(module.state_dict(), mask, Seeds(0, 0), splits)
    with pytest.raises(ValueError, match="needs its data in memory"):
        engine(lambda: mlp((6,), 3), [start], recipe, 5, torch.device("cpu")).advance(1)


def test_sparse_layers_train_on_streamed_data_as_on_data_in_memory(tmp_path, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr("small_studies.OPTIONS", type(OPTIONS)(engine="sparse"))
    plan, store = assert_alike(
        tmp_path, name="images", network="small_nets:conv_norm", pruning__rate=0.9, training__augment=["flip"]
    )
    assert {store.facts(row.job)["engine"]["name"] for row in plan.rows} == {"sparse"}


# Failures


def test_a_bad_example_ends_its_run_with_one_sentence(tmp_path):
    plan, store = make_plan(small_study(data=data("awkward", what="raises"), training__batch_size=12)), Store(tmp_path)
    store.create()
    first = next(iter(plan.work.values()))
    with pytest.raises(DataError, match="train: item 47 can't be read: ValueError: file is cut short"):
        execute([first.as_json()], str(tmp_path), OPTIONS)


def test_too_few_examples_of_a_class_are_told_before_anything_is_trained():
    study = small_study(data=data(), arms=["snip"], pruning__init_examples=80)
    with pytest.raises(InputError, match="init_examples=80: class 0 has"):
        prepare(study, None, 0, "cpu", "auto", 30.0)


def test_impossible_targets_of_a_task_are_told_when_they_are_read(tmp_path):
    study = small_study(
        data=data("labels"), task="multilabel", network="streamed_data:labelling", training__batch_size=12
    )
    prepare(study, None, 0, "cpu", "auto", 30.0)  # the example is not among the first
    plan, store = make_plan(study), Store(tmp_path)
    store.create()
    with pytest.raises(InputError, match=r"multilabel takes targets of 0 and 1.* the target 3"):
        execute([next(iter(plan.work.values())).as_json()], str(tmp_path), OPTIONS)


# Processes that read


@pytest.mark.slow
def test_every_engine_of_batches_with_processes_that_read(tmp_path):
    assert_alike(tmp_path, workers=2, arms=["snip", "edge-popup"], pruning__init_examples=3)


@pytest.mark.slow
def test_a_study_of_processes_that_read_in_processes_that_train(tmp_path):
    changes = {"training__batch_size": 12, "pruning__rounds": 1}
    study = small_study(data=data("slow", workers=1), **changes)
    results = tombola.run(study, tmp_path / "out", workers=2, quiet=True, figures=False)
    assert len(results.store.finished()) == len(results.plan.work)
    held = run_study(tmp_path / "held", data=data("slow", False), **changes)
    assert_same(outcomes(*held), outcomes(results.plan, results.store))
