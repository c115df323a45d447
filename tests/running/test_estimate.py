"""The measurement behind `tombola plan`: few steps, small ones where the network is large, and an honest scale."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import tombola
from tombola.running import estimate, run
from tombola.running.estimate import (
    SECONDS,
    SECONDS_EACH,
    Levels,
    Pace,
    layer_shares,
    measure_pace,
    measured_batch,
    random_mask,
)
from tombola.running.options import RunOptions
from tombola.running.store import Store
from tombola.studies.loading import preset_names
from tombola.studies.plan import Plan, make_plan
from tombola.tables import overview
from tombola.tables.overview import engine_lines, plan_table
from tombola.training.engines import EngineKind
from tombola.training.engines.dense import DenseEngine


class Machine:
    """A clock, and engines that advance it; they remember what they were asked for."""

    def __init__(self, plan: Plan, step: Callable[[int, float], float]):
        self.plan, self.step = plan, step
        self.now, self.steps, self.made = 0.0, 0, 0
        self.batches: set[int] = set()
        self.densities: list[float] = []

    def clock(self) -> float:
        return self.now

    def choose(self, name: str, build: Any, mask: Any, recipe: Any, example: Any, **_: Any) -> Any:
        machine = self

        class Fake:
            def __init__(self, build: Any, starts: Any, recipe: Any, budget: int, device: torch.device):
                self.density, self.batch = starts[0].mask.density, recipe.batch_size
                machine.made += 1
                machine.densities.append(self.density)
                machine.batches.add(self.batch)

            def advance(self, iterations: int) -> None:
                machine.steps += iterations
                machine.now += iterations * machine.step(self.batch, self.density)

            def evaluate(self, part: str) -> None:
                machine.now += 0.01

        return made_of(Fake)


def made_of(engine: Any) -> EngineKind:
    return EngineKind("made-up", lambda: engine, lambda case: "", lambda case: True)


def fields(**changes: Any) -> dict[str, Any]:
    return {"trials": 1, "pruning.rounds": 12} | changes


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Machine, Pace]]:
    def measure(preset: str, step: Callable[[int, float], float]) -> tuple[Machine, Pace]:
        plan = make_plan(tombola.Study.load(preset, **fields()))
        machine = Machine(plan, step)
        monkeypatch.setattr(estimate, "choose_kind", machine.choose)
        return machine, measure_pace(plan, "auto", "cpu", 1, machine.clock)

    return measure


def test_slow_steps_are_measured_once_after_the_first(measured):
    machine, pace = measured("demo", lambda batch, density: 100.0)
    assert (machine.steps, machine.made) == (2, 1)
    assert pace.iteration == (100.0,)
    assert pace.densities == (1.0,)


def test_the_sparsest_level_is_measured_although_the_dense_one_took_all_the_time(measured):
    """Else each sparse level counted as dense, and a study of three trials took as long as one of one."""
    machine, pace = measured("demo", lambda batch, density: 0.1 if density < 0.5 else 2.0)
    assert machine.made == 2
    assert pace.iteration == pytest.approx((0.1, 2.0))


@pytest.mark.parametrize("seconds", [1e-3, 0.03, 0.5, 2.0])
def test_all_measurements_end_in_time(measured, seconds):
    machine, pace = measured("demo", lambda batch, density: seconds)
    one = 2 * (2 * max(seconds, SECONDS_EACH)) + 2 * SECONDS_EACH  # the level that is measured when time is over
    assert machine.now < max(SECONDS + one, 2 * one)  # dense and sparsest
    assert 1 <= len(pace.densities) <= 4
    assert pace.iteration == pytest.approx([seconds] * len(pace.densities))


def test_the_densest_and_the_sparsest_level_come_first_and_the_rest_lies_between(measured):
    machine, pace = measured("demo", lambda batch, density: 0.7 * density + 0.01)
    remaining = machine.plan.remaining
    assert machine.densities[:2] == pytest.approx([1.0, remaining[-1] / remaining[0]], rel=0.25)  # 23 random weights
    assert list(pace.densities) == sorted(pace.densities)
    np.testing.assert_allclose(pace.iteration, 0.7 * np.array(pace.densities) + 0.01, rtol=0.1)  # of random masks


def test_large_steps_are_measured_on_fewer_examples_and_scaled(measured):
    machine, pace = measured("vgg19-cifar10", lambda batch, density: 0.05 * batch)
    asked = machine.plan.study.training.batch_size
    assert machine.batches == {pace.batch}
    assert 2 <= pace.batch < asked / 4
    assert pace.scaled
    assert pace.iteration == pytest.approx([0.05 * asked] * len(pace.iteration))


def batches_of_presets() -> list[str]:
    """Return a preset for each network, batch size and data.

    Presets on 10,000 images need a file. Their networks and batch sizes occur in other presets.
    """
    names = sorted((name for name in preset_names() if not name.endswith("-10k")), key=lambda name: (len(name), name))
    kinds: dict[str, str] = {}
    for name in names:
        study = tombola.Study.load(name)
        kinds.setdefault(str((study.network, study.training.batch_size, study.data)), name)
    return list(kinds.values())


@pytest.mark.parametrize("name", batches_of_presets())
def test_no_preset_measures_a_step_of_seconds(name):
    """A step of at most 2e10 operations takes two seconds on a core that does 10 a nanosecond, which is a slow one."""
    plan = make_plan(tombola.Study.load(name, trials=1))
    example = 6 * sum(layer.size * layer.uses for layer in plan.coverage.layers)
    batch = measured_batch(plan, "cpu")
    assert 2 <= batch <= plan.study.training.batch_size
    assert batch * example <= 2e10 or batch == 2
    assert measured_batch(plan, "cuda") == plan.study.training.batch_size
    if batch < plan.study.training.batch_size:
        assert (batch + 1) * example > 2e10


def test_an_engine_that_computes_pruned_weights_too_is_measured_once(monkeypatch):
    made = []

    class Counted(DenseEngine):
        def __init__(self, *arguments: Any):
            made.append(1)
            super().__init__(*arguments)

    monkeypatch.setattr(estimate, "choose_kind", lambda *_, **__: made_of(Counted))
    monkeypatch.setattr(estimate, "SAME_AT_ANY_DENSITY", (Counted,))
    ticks = count()
    plan = make_plan(tombola.Study.load("demo", **fields()))
    pace = measure_pace(plan, "auto", "cpu", 1, lambda: next(ticks) * SECONDS_EACH / 3)
    assert len(made) == 1
    assert len(pace.densities) == 4
    assert len(set(pace.iteration)) == 1


@pytest.mark.parametrize(("zeros_too", "said"), [(True, False), (False, True)])
def test_a_forecast_from_the_dense_network_alone_says_so(monkeypatch, tmp_path, zeros_too, said):
    """An engine that computes pruned weights too takes the same time at each level: its forecast lacks nothing."""
    plan = make_plan(tombola.Study.load("demo", **fields()))
    machine = Machine(plan, lambda batch, density: 100.0)
    kind = machine.choose("", None, None, None, None)
    monkeypatch.setattr(estimate, "choose_kind", lambda *_, **__: kind)
    monkeypatch.setattr(estimate, "SAME_AT_ANY_DENSITY", (kind.load(),) if zeros_too else ())
    pace = measure_pace(plan, "auto", "cpu", 1, machine.clock)
    assert (len(pace.densities) > 1) is zeros_too
    monkeypatch.setattr(overview, "measure_pace", lambda *_, **__: pace)
    stream = io.StringIO()
    Console(file=stream, width=200).print(plan_table(plan, Store(tmp_path), "cpu", "auto", 1))
    assert ("of the dense network alone" in stream.getvalue()) is said


def test_the_caller_keeps_its_threads():
    before = torch.get_num_threads()
    measure_pace(make_plan(tombola.Study.load("demo", **fields())), "dense", "cpu", before + 1)
    assert torch.get_num_threads() == before


def test_each_layer_keeps_what_the_level_leaves_it():
    """Under equal densities a convolution would keep 12 % where the schedule leaves it 48 %."""
    plan = make_plan(tombola.Study.load("conv2-cifar10", trials=1))
    rates = plan.study.pruning.resolve(plan.coverage)
    mask = random_mask(plan, 6, torch.Generator().manual_seed(0))
    for name, shape in plan.coverage.shapes().items():
        expected = np.prod([1 - rates[level][name] for level in range(6)])
        assert layer_shares(plan, 6)[name] == pytest.approx(expected, rel=0.01)
        assert mask[name].float().mean().item() == pytest.approx(expected, abs=0.02), shape
    sizes = plan.coverage.sizes()
    assert sum(layer_shares(plan, 6)[name] * sizes[name] for name in sizes) == pytest.approx(plan.remaining[6])


def test_under_global_pruning_every_pruned_layer_keeps_an_equal_share():
    plan = make_plan(tombola.Study.load("lenet-mnist-global", trials=1))
    shares = layer_shares(plan, 3)
    assert sum(shares[name] * size for name, size in plan.coverage.sizes().items()) == pytest.approx(plan.remaining[3])
    assert len(set(shares.values())) <= 2


def test_a_verbose_plan_names_the_engine_and_what_stays_dense():
    plan = make_plan(tombola.Study.load("conv2-cifar10", trials=1))
    head, *reasons = engine_lines(plan)[1:]
    assert head == "engine at the last level on the CPU: sparse"
    stacked = "on a GPU runs are trained in stacks"
    assert reasons == ["  mlp: conv1: a multilayer perceptron has no Conv2d", stacked]
    own = make_plan(tombola.Study.load("demo", **fields(), network="small_nets:Dropping"))
    random = "it draws at random, and is not an nn.Dropout layer"
    assert engine_lines(own)[-1] == f"on a GPU each run is trained alone: its forward pass: {random}"
    muon = make_plan(tombola.Study.load("demo", **fields(), **{"training.optimizer": "muon"}))
    alone = "only the dense engine trains with optimizer muon"
    assert engine_lines(muon)[-2:] == [f"  no sparse engine: {alone}", f"on a GPU each run is trained alone: {alone}"]


def test_a_verbose_plan_of_streamed_data_names_an_engine_that_takes_them() -> None:
    data = {"source": "streamed_data:map_style", "validation": 10, "stream": True}
    plan = make_plan(tombola.Study.load("demo", **fields(), data=data, **{"training.batch_size": 20}))
    head, *reasons = engine_lines(plan)[1:]
    assert head == "engine at the last level on the CPU: sparse"
    assert reasons[0] == "  mlp: it needs its data in memory, and data.stream is set"
    assert reasons[-1].startswith("on a GPU each run is trained alone: it needs its data in memory")


@pytest.mark.parametrize("engine", ["auto", "stacked"])
def test_a_forecast_builds_the_network_once_to_look_at(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying whether it can be stacked puts other layers into a network; not into that one."""
    plan = make_plan(tombola.Study.load("demo", **fields(), network="small_nets:conv_norm_dropout"))
    levels = Levels(plan, engine)
    before = str(levels.module)
    kinds = {levels.kind(levels.mask(level)).name for level in (0, len(plan.remaining) - 1)}
    assert kinds == ({"dense", "sparse"} if engine == "auto" else {"stacked"})
    assert str(levels.module) == before


def test_an_engine_that_cannot_train_a_layer_is_refused_before_any_work(tmp_path):
    study = tombola.Study.load("demo", **fields(), network="small_nets:hooked")
    with pytest.raises(tombola.InputError, match=r"can't train this network \(1: it has hooks; 3: it has hooks\); use"):
        tombola.run(study, tmp_path / "results", engine="sparse", workers=0, quiet=True, figures=False)
    assert not (tmp_path / "results").exists()


def test_the_two_levels_between_which_the_engine_changes_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dense engine trains level 1 of this study: its time is not a mean of dense and sparse ones."""
    plan = make_plan(tombola.Study.load("demo", **fields()))
    levels = Levels(plan, "auto")
    names = [levels.kind(levels.mask(level)).name for level in range(len(plan.remaining))]
    change = names.index("mlp")
    assert names == ["dense"] * change + ["mlp"] * (len(names) - change)
    assert change > 1
    ticks = count()
    pace = measure_pace(plan, "auto", "cpu", 1, lambda: next(ticks) * 1e-3, each=0.0)
    at = {plan.density(level): level for level in range(len(plan.remaining))}
    assert {at[density] for density in pace.densities} >= {0, change - 1, change, len(names) - 1}


def test_a_forecast_never_stops_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("made-up data")

    monkeypatch.setattr(estimate._Measurement, "_times", fail)
    monkeypatch.setattr(estimate, "must_compile", lambda kind: True)
    said: list[str] = []
    plan = make_plan(tombola.Study.load("demo", **fields()))
    assert run._pace(plan, RunOptions(), said.append) is None
    assert said == ["compiling the sparse engines, once on this machine: about 20 seconds"]


def test_masks_that_move_are_expected_to_take_as_long_as_dense_runs() -> None:
    """Their engine computes pruned weights too, though `cost` counts the multiply-adds of live weights alone."""
    plan = make_plan(tombola.Study.load("demo", arms=["gradual", "ticket"], **fields()))
    pace = Pace((0.01, 1.0), (1e-6, 1e-3), (0.0, 0.0), 60, False)
    moving = [pace.seconds(item) for item in plan.work.values() if item.kind == "moving-run"]
    runs = [pace.seconds(item) for item in plan.work.values() if item.kind == "run"]
    assert moving == pytest.approx([max(runs)] * len(moving))
    assert min(runs) < max(runs) / 5
