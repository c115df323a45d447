"""The line between two runs: what is evaluated on it, and that it is done once and only once."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from small_nets import Dropping, conv_norm, mlp
from small_studies import interpolations, run_study, run_with_needs, small_study
from torch import nn
from torch.nn import functional

import tombola
from tombola.data import Part, Splits
from tombola.running import interpolations as running
from tombola.running.execute import execute
from tombola.running.options import RunOptions
from tombola.running.results import POINT_COLUMNS
from tombola.running.run import prepare
from tombola.running.scheduler import Stop
from tombola.running.store import Store
from tombola.studies import make_plan
from tombola.tasks import Classification
from tombola.training.engines import dense
from tombola.training.interpolation import between, interpolate

SHAPE = (1, 4, 4)
CONNECTIVITY = {"levels": [0, 2], "points": 3}


def parts(shape: tuple[int, ...] = SHAPE, train: int = 61, test: int = 23) -> Splits:
    generator = torch.Generator().manual_seed(0)

    def part(examples: int) -> Part:
        inputs = torch.randn(examples, *shape, generator=generator) * 2 + 1
        return Part(inputs, torch.randint(3, (examples,), generator=generator))

    return Splits(part(train), part(5), part(test), (0.0,), (1.0,), 3)


def weights(module: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Return weights of the module's shapes, and batch norm statistics that are far from the data's."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(tensor.shape, generator=generator) - 0.3 if tensor.is_floating_point() else tensor + seed
        for name, tensor in module.state_dict().items()
    }


def by_hand(
    module: nn.Module, one: dict[str, Any], other: dict[str, Any], position: float, splits: Splits
) -> list[float]:
    """Evaluate a point with nothing but PyTorch: statistics from one batch of all examples."""
    state = {name: (1 - position) * one[name] + position * other[name] for name in one}
    module.load_state_dict({name: value.to(one[name].dtype) for name, value in state.items()})
    module.eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = 1.0  # the batch's own statistics
            layer.train()
    with torch.no_grad():
        module(splits.train.inputs)
        module.eval()
        found = [position]
        for part in (splits.train, splits.test):
            logits = module(part.inputs)
            found += [
                functional.cross_entropy(logits, part.targets).item(),
                (logits.argmax(1) != part.targets).double().mean().item(),
            ]
    return found


@pytest.mark.parametrize("make", [mlp, conv_norm, Dropping])
def test_points_are_as_plain_pytorch_has_them(make: Any) -> None:
    splits, build = parts(), lambda: make(SHAPE, 3)
    one, other = weights(build(), 1), weights(build(), 2)
    found = pd.DataFrame(interpolate(one, other, build, splits, points=3))
    expected = np.array([by_hand(build(), one, other, position, splits) for position in (0.0, 0.5, 1.0)])
    np.testing.assert_allclose(found.to_numpy(), expected, rtol=1e-4, atol=1e-6)


def test_statistics_are_taken_anew_and_it_matters() -> None:
    """The ends' own statistics, which here are nonsense, count for nothing."""
    splits, build = parts(), lambda: conv_norm(SHAPE, 3)
    one, other = weights(build(), 1), weights(build(), 2)
    spoilt = {name: tensor * 50 + 3 if "running" in name else tensor for name, tensor in one.items()}
    assert interpolate(one, other, build, splits, 3) == interpolate(spoilt, other, build, splits, 3)
    module = build()
    module.load_state_dict(one)
    module.eval()
    with torch.no_grad():
        as_they_were = functional.cross_entropy(module(splits.test.inputs), splits.test.targets).item()
    assert interpolate(one, other, build, splits, 3)["test_loss"][0] != pytest.approx(as_they_were, rel=0.01)


def test_statistics_come_from_all_examples_in_even_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a file that is sorted would differ; and a last block of one example can't be normalised."""
    import tombola.training.interpolation as line

    splits, build = parts(train=61), lambda: conv_norm(SHAPE, 3)
    one = weights(build(), 1)
    whole = interpolate(one, one, build, splits, 3)
    monkeypatch.setattr(Classification, "block", 30)  # two of thirty and a remnant of one
    order = splits.train.inputs.flatten(1).mean(1).argsort()
    splits.train.inputs.copy_(splits.train.inputs[order])
    splits.train.targets.copy_(splits.train.targets[order])
    sizes: list[int] = []
    forward = line.output_of
    monkeypatch.setattr(line, "output_of", lambda *all_of_it: sizes.append(len(all_of_it[2])) or forward(*all_of_it))
    batched = interpolate(one, one, build, splits, 3)
    assert sizes == [21, 20, 20] * 3
    assert batched["train_loss"] == pytest.approx(whole["train_loss"], rel=0.05)


def test_nothing_global_is_drawn_from_or_left_behind() -> None:
    splits, build = parts(), lambda: Dropping(SHAPE, 3)
    one, other = weights(build(), 1), weights(build(), 2)
    kept = {name: tensor.clone() for name, tensor in one.items()}
    before = torch.random.get_rng_state()
    first = interpolate(one, other, build, splits, 4, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first == interpolate(one, other, build, splits, 4, seed=3)
    assert all(torch.equal(one[name], kept[name]) for name in one)


def test_what_can_not_be_interpolated_is_the_nearer_end_s() -> None:
    one = {"w": torch.tensor([0.0, 2.0]), "count": torch.tensor(3), "on": torch.tensor([True, False])}
    other = {"w": torch.tensor([1.0, 4.0]), "count": torch.tensor(8), "on": torch.tensor([False, True])}
    for position, whose in ((0.0, one), (0.25, one), (0.75, other), (1.0, other)):
        found = between(one, other, position)
        assert torch.equal(found["w"], torch.tensor([position, 2 + 2 * position]))
        assert torch.equal(found["count"], whose["count"])
        assert torch.equal(found["on"], whose["on"])
    assert torch.equal(between(one, other, 1.0)["w"], other["w"])


def test_a_line_from_a_network_to_itself_is_flat() -> None:
    splits, build = parts(), lambda: conv_norm(SHAPE, 3)
    one = weights(build(), 1)
    found = interpolate(one, one, build, splits, 5)
    assert [len(set(found[column])) for column in ("train_error", "test_error", "test_loss")] == [1, 1, 1]


def test_bfloat16_is_near_float32_and_another() -> None:
    splits, build = parts(), lambda: conv_norm(SHAPE, 3)
    one, other = weights(build(), 1), weights(build(), 2)
    full, half = (interpolate(one, other, build, splits, 3, precision) for precision in ("float32", "bfloat16"))
    assert half["test_loss"] != full["test_loss"]
    assert half["test_loss"] == pytest.approx(full["test_loss"], rel=0.05)


def connected(**changes: Any) -> tombola.Study:
    return small_study(connectivity=CONNECTIVITY, trials=2, **changes)


def start(study: tombola.Study, folder: Path) -> tombola.Results:
    return tombola.run(study, folder, workers=0, figures=False, quiet=True)


def test_the_ends_are_what_the_runs_reached(tmp_path: Path) -> None:
    results = start(connected(), tmp_path / "results")
    points, levels = results.connectivity(), results.frame().set_index("job")
    assert list(points.columns) == list(POINT_COLUMNS)
    assert len(points) == 3 * len(results.plan.pairs)
    assert results.missing() == 0
    for pair in results.plan.pairs:
        line = results.plan.work[pair.line].spec
        rows = points[(points["line"] == pair.line) & (points["kind"] == pair.kind)]
        assert rows["position"].tolist() == [0, 0.5, 1]
        for run, row in ((line.one, rows.iloc[0]), (line.other, rows.iloc[-1])):
            if run in levels.index:
                assert row["test_error"] == pytest.approx(1 - levels.loc[run, "final_test_accuracy"])
                assert row["train_error"] == pytest.approx(1 - levels.loc[run, "final_train_accuracy"])
        if line.one in levels.index:
            assert (rows["density"] == levels.loc[line.one, "density"]).all()
    assert (tmp_path / "results" / "connectivity.csv").read_text().count("\n") == len(points) + 1
    table = pd.read_csv(tmp_path / "results" / "barriers.csv")
    assert len(table) == 2 + 1 + 1  # copies at two levels, and the two kinds that share a line
    again = tombola.Results.open(tmp_path / "results")
    pd.testing.assert_frame_equal(again.connectivity(), points)


def test_copies_see_other_batches_and_end_elsewhere(tmp_path: Path) -> None:
    plan, store = run_study(tmp_path, connectivity={"levels": [0], "copies": 3})
    runs = sorted({run for line in interpolations(plan) for run in line.needs})
    starts, ends = ([store.load(run).snapshots[name] for run in runs] for name in ("start", "final"))
    for name, tensor in starts[0].items():
        assert all(torch.equal(tensor, other[name]) for other in starts)
        assert not any(torch.equal(one[name], other[name]) for one, other in pairwise(ends))


def test_copies_share_their_mask_whatever_finds_it(tmp_path: Path) -> None:
    criterion = {"rounds": 1, "criterion": "small_nets:drawn_anywhere"}
    plan, store = run_study(tmp_path, connectivity={"levels": [1], "between": ["copies"]}, pruning=criterion)
    (line,) = interpolations(plan)
    assert store.mask(line.spec.one) == store.mask(line.spec.other)


class Counter:
    """Counts the lines that are evaluated, and may stop at one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails_at: int = -1):
        self.calls, self.fails_at = 0, fails_at
        follow = running._interpolate

        def counted(*arguments: Any) -> None:
            self.calls += 1
            if self.calls == self.fails_at:
                raise KeyboardInterrupt
            follow(*arguments)

        monkeypatch.setattr(running, "_interpolate", counted)


def test_no_line_is_evaluated_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, counter = start(connected(), tmp_path / "a" / "one"), Counter(monkeypatch)
    assert results.missing() == 0
    start(connected(), tmp_path / "a" / "one")
    start(connected(name="neighbour", description="takes them over"), tmp_path / "a" / "two")
    assert counter.calls == 0
    before = results.connectivity()
    (gone, *_) = interpolations(results.plan)
    shutil.rmtree(tmp_path / "a" / "one" / "jobs" / gone.folder)
    shutil.rmtree(tmp_path / "a" / "two")
    reopened = tombola.Results.open(tmp_path / "a" / "one")
    assert reopened.missing() == 1
    assert set(before["line"]) - set(reopened.connectivity()["line"]) == {gone.id}
    again = start(connected(), tmp_path / "a" / "one")
    assert counter.calls == 1
    pd.testing.assert_frame_equal(again.connectivity(), before)


def test_a_line_that_was_killed_half_way_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = start(connected(), tmp_path / "b" / "straight").connectivity()
    folder = tmp_path / "a" / "killed"
    with monkeypatch.context() as patch:
        scored = dense.score
        calls = iter(range(10**6))

        def killed(*arguments: Any, **options: Any) -> Any:
            if next(calls) == 3:  # in the second point of the first line
                raise KeyboardInterrupt
            return scored(*arguments, **options)

        patch.setattr("tombola.training.interpolation.score", killed)
        with pytest.raises(tombola.StoppedByUser):
            start(connected(), folder)
    assert tombola.Results.open(folder).connectivity().empty
    pd.testing.assert_frame_equal(start(connected(), folder).connectivity(), straight)


def test_a_wish_to_stop_ends_a_line_and_it_can_be_gone_on_with(tmp_path: Path) -> None:
    plan, store = run_study(tmp_path, connectivity=CONNECTIVITY)
    _, options = prepare(plan.study, None, 0, "cpu", "dense", 30.0)
    line = interpolations(plan)[0]
    shutil.rmtree(tmp_path / "jobs" / line.folder)
    stop = Stop(tmp_path / "go")  # never made: as if someone had asked
    stopped = RunOptions(engine="dense", stop_file=str(stop.path))
    assert execute([line.as_json()], str(tmp_path), stopped) == ["stopped"]
    assert not store.has(line)
    assert execute([line.as_json()], str(tmp_path), options) == ["done"]
    assert [path.name for path in sorted((tmp_path / "jobs" / line.folder).iterdir())] == ["SHA256SUMS", "result.json"]


@pytest.mark.parametrize("damage", ["along", "sums", "gone"])
def test_a_damaged_line_is_noticed_and_done_again(tmp_path: Path, damage: str) -> None:
    results = start(connected(), tmp_path / "results")
    line = interpolations(results.plan)[0]
    folder = tmp_path / "results" / "jobs" / line.folder
    if damage == "along":
        text = (folder / "result.json").read_text()
        (folder / "result.json").write_text(text.replace('"position"', '"Position"'))
    elif damage == "sums":
        (folder / "SHA256SUMS").write_text("")
    else:
        (folder / "result.json").unlink()
    assert not Store(tmp_path / "results").has(line)
    again = start(connected(), tmp_path / "results")
    pd.testing.assert_frame_equal(again.connectivity(), results.connectivity())


def test_a_run_can_not_pass_for_whole_without_its_weights(tmp_path: Path) -> None:
    plan, _ = run_study(tmp_path)
    job = next(iter(plan.work.values()))
    sums = tmp_path / "jobs" / job.folder / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if "weights" not in line))
    damaged: list[str] = []
    assert not Store(tmp_path).has(job, damaged)
    assert "does not list weights.safetensors" in damaged[0]


def test_lines_at_a_diverged_end_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = connected(training={"iterations": 12, "lr": 1e30, "optimizer": "sgd"})
    results = start(study, tmp_path / "results")
    assert results.connectivity().empty
    assert results.missing() == 0
    assert "were skipped: they need work that diverged" in " ".join(capsys.readouterr().err.split())
    assert pd.read_csv(tmp_path / "results" / "barriers.csv").empty


def test_levels_behind_the_end_of_an_arm_are_trained_for_a_line(tmp_path: Path) -> None:
    study = connected(pruning={"rounds": 3, "stop_margin": 0.85})  # which no level reaches
    results = start(study, tmp_path / "results")
    assert results.frame()["level"].max() == 0
    assert results.missing() == 0
    assert set(results.connectivity()["level"]) == {0, 2}
    chain = [item for item in results.plan.work.values() if item.label.endswith(".ticket.level-03")]
    assert chain
    assert not any(results.store.has(job) for job in chain)


@pytest.mark.slow
def test_the_same_with_workers_and_a_display(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = start(connected(), tmp_path / "a" / "alone").connectivity()
    results = tombola.run(connected(), tmp_path / "b" / "workers", workers=2, figures=False, verbose=True)
    pd.testing.assert_frame_equal(results.connectivity(), alone)
    said = capsys.readouterr().err
    assert said.count("highest test error") == len(interpolations(results.plan))


def test_a_stack_of_jobs_has_no_line_in_it(tmp_path: Path) -> None:
    """With an engine that stacks, copies are trained together, and lines are followed one by one."""
    results = tombola.run(connected(), tmp_path, workers=0, engine="stacked", figures=False, quiet=True)
    assert results.missing() == 0
    assert {results.store.facts(line.id)["engine"]["name"] for line in interpolations(results.plan)} == {"dense"}


def test_one_line_of_a_plan_made_by_hand(tmp_path: Path) -> None:
    plan = make_plan(connected())
    store = Store(tmp_path)
    store.create()
    line = interpolations(plan)[0]
    assert run_with_needs(plan, line, tmp_path) == "done"
    assert store.facts(line.id)["remaining"] == [plan.remaining[0]] * 2
