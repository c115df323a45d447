"""How many runs a stack holds, and what happens when memory runs out."""

from __future__ import annotations

import math
import os

import pytest
import torch
from small_studies import small_study

from tombola.running import problem, stack_size
from tombola.running.execute import execute
from tombola.running.options import RunOptions
from tombola.running.stack_size import StackSize, evenly, most_on_host
from tombola.running.store import Store
from tombola.seeds import Seeds
from tombola.studies import make_plan
from tombola.training.engine import ReplicaState, Score
from tombola.training.engines.stacked import StackedEngine
from tombola.training.loop import Interrupted

STACKS = RunOptions(engine="stacked", stack=16)


class MadeUpMemory:
    """Of a device where the data take 10 bytes and each run of a stack takes 60."""

    def __init__(self, free=200, each=60):
        self.left, self.each, self.in_use = free, each, []

    def free(self):
        return self.left

    def peak(self, action):
        before = len(self.in_use)
        action()
        (replicas,) = self.in_use[before:]
        return 10 + self.each * replicas


@pytest.fixture
def built(monkeypatch):
    """Return a memory that the stacks are sized by; `in_use` holds the sizes of all stacks that were made."""
    memory = MadeUpMemory()
    make = StackedEngine.__init__

    def noting(engine, build, starts, *rest):
        make(engine, build, starts, *rest)
        memory.in_use.append(engine.replicas)

    monkeypatch.setattr(StackedEngine, "__init__", noting)
    monkeypatch.setattr(stack_size, "memory_of", lambda device: memory)
    monkeypatch.setattr(stack_size, "_SIZES", {})
    return memory


def run(folder, **settings):
    """Execute the dense runs of a study in one call; return the losses of each trial."""
    facts = facts_of_run(folder, **settings)
    return {trial: each["history"]["val_loss"] for trial, each in facts.items()}


def facts_of_run(folder, **settings):
    """Execute the dense runs of a study in one call; return what is known of each trial."""
    study = small_study(trials=5, pruning__rounds=0, training__iterations=6, training__evaluate_every=3, **settings)
    plan, store = make_plan(study), Store(folder)
    store.create()
    items = list(plan.work.values())
    assert set(execute([item.as_json() for item in items], str(folder), STACKS)) <= {"done", "diverged"}
    assert not list(store.root.glob("**/checkpoint*"))
    return {item.spec.trial: store.facts(item.id) for item in items}


def test_a_stack_holds_as_many_runs_as_the_measured_memory_allows(tmp_path, built):
    whole = run(tmp_path / "parts")
    assert built.in_use == [1, 2, 2, 1, 2]  # measured with one and two; (0.8 * 200 - 10) / 60 is 2
    built.in_use.clear()
    built.left = 90
    assert run(tmp_path / "fewer") == {trial: pytest.approx(losses, rel=1e-5) for trial, losses in whole.items()}
    assert built.in_use == [1] * 5  # measured only once


def test_runs_that_take_nothing_are_stacked_all_together(tmp_path, built):
    built.each = 0
    run(tmp_path)
    assert built.in_use == [1, 2, 5]


def test_memory_is_measured_by_the_largest_part_of_the_data(tmp_path, built, monkeypatch):
    """Without validation examples too."""
    parts, evaluate = [], StackedEngine.evaluate
    monkeypatch.setattr(
        StackedEngine, "evaluate", lambda self, part, *rest: (parts.append(part), evaluate(self, part, *rest))[1]
    )
    run(tmp_path, data__validation=0)
    assert built.in_use[:2] == [1, 2]
    assert parts[:2] == ["train", "train"]


@pytest.mark.parametrize("where", ["advance", "evaluate"])
def test_when_memory_runs_out_a_stack_is_halved_and_no_run_is_lost(where, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole")
    method, sizes = getattr(StackedEngine, where), []

    def greedy(engine, *arguments):
        result = method(engine, *arguments)
        sizes.append(engine.replicas)
        if engine.replicas > 2 and engine.iteration >= 3:
            raise torch.OutOfMemoryError("made up")
        return result

    monkeypatch.setattr(StackedEngine, where, greedy)
    assert run(tmp_path / "halves") == {trial: pytest.approx(losses, rel=1e-5) for trial, losses in whole.items()}
    assert list(dict.fromkeys(sizes)) == [5, 2, 3, 1]


def test_a_stack_is_halved_where_memory_ran_out_between_the_checkpoints_of_its_runs(tmp_path, monkeypatch):
    """The first three are then as far as iteration 3, the others at the start."""
    whole = run(tmp_path / "whole")
    save, advance, saved = Store.save_checkpoint, StackedEngine.advance, []

    def saving(store, *arguments):
        if len(saved) == 3:
            raise torch.OutOfMemoryError("made up")
        save(store, *arguments)
        saved.append(1)

    def greedy(engine, iterations):
        if engine.replicas == 5 and engine.iteration >= 3:
            raise Interrupted  # which saves first
        return advance(engine, iterations)

    monkeypatch.setattr(Store, "save_checkpoint", saving)
    monkeypatch.setattr(StackedEngine, "advance", greedy)
    assert run(tmp_path / "parts") == {trial: pytest.approx(losses, rel=1e-5) for trial, losses in whole.items()}
    assert len(saved) == 3


def test_a_run_that_diverges_in_a_stack_ends_there_and_the_others_go_on(tmp_path, monkeypatch):
    evaluate = StackedEngine.evaluate

    def lost(engine, *arguments):
        scores = evaluate(engine, *arguments)
        return [Score(math.nan, 0.1) if engine.iteration >= 3 and n == 1 else each for n, each in enumerate(scores)]

    monkeypatch.setattr(StackedEngine, "evaluate", lost)
    facts = facts_of_run(tmp_path)
    assert {trial: each["diverged_at"] for trial, each in facts.items()} == {0: None, 1: 3, 2: None, 3: None, 4: None}
    assert {trial: each["iterations"] for trial, each in facts.items()} == {0: 6, 1: 3, 2: 6, 3: 6, 4: 6}
    assert facts[1]["history"]["iteration"] == [0, 3]


def test_a_single_run_that_does_not_fit_says_so(tmp_path, monkeypatch):
    def greedy(engine, iterations):
        raise torch.OutOfMemoryError("made up")

    monkeypatch.setattr(StackedEngine, "advance", greedy)
    with pytest.raises(torch.OutOfMemoryError, match="made up"):
        run(tmp_path)


def test_the_memory_of_the_host_limits_stacks_of_large_networks():
    page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")

    def most(share, snapshots):
        weight = torch.empty(int(page * pages * share) // 4, device="meta")
        return most_on_host(ReplicaState({"fc.weight": weight}, {}, Seeds(0, 0), None), snapshots)

    assert most(1 / 400, 0) == pytest.approx(25, abs=1)
    assert most(1 / 400, 6) == pytest.approx(10, abs=1)
    assert most(1.0, 0) == 1


def test_parts_are_as_even_as_they_can_be():
    for count in range(1, 40):
        for most in range(1, 12):
            parts = evenly(range(count), most)
            sizes = [len(part) for part in parts]
            assert [each for part in parts for each in part] == list(range(count))
            assert max(sizes) <= most
            assert max(sizes) - min(sizes) <= 1
            assert len(parts) == -(-count // most)


def test_a_stack_of_two_that_does_not_fit_is_not_measured_further():
    class Full(MadeUpMemory):
        def peak(self, action):
            raise torch.OutOfMemoryError("made up")

    start = ReplicaState({}, {}, Seeds(0, 0), None)
    with pytest.raises(torch.OutOfMemoryError):
        StackSize(Full(), lambda starts: None, [start, start])


def test_the_data_of_several_trials_are_kept_where_memory_allows_it(monkeypatch):
    made, make = [], problem.prepared
    monkeypatch.setattr(problem, "prepared", lambda *key: made.append(key[1].trial) or make(*key))
    monkeypatch.setattr(problem, "_KEPT", {})
    items = list(make_plan(small_study(trials=3, pruning__rounds=0)).work.values())

    def use(*trials):
        made.clear()
        for trial in trials:
            assert problem.splits_of(items[trial], STACKS) is problem.splits_of(items[trial], STACKS)
        return list(made)

    assert use(0, 0, 1, 0, 2) == [0, 1, 0, 2]  # the last trial's alone
    size = problem.bytes_of(problem.splits_of(items[0], STACKS))
    assert size == 1797 * 65 * 4 + 1797 * 4  # 64 pixels of float32, and a target of int64
    monkeypatch.setattr(problem, "memory_for_splits", lambda device: 2.5 * size)
    problem.forget_splits()
    assert use(0, 1, 0, 1, 2, 1, 0) == [0, 1, 2, 0]  # two of them, and 0 was used before 1
