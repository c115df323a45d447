"""The training loop: what is noted when, and that stopping it anywhere changes nothing."""

import copy
import math
import time
from functools import partial

import pytest
import small_nets
import torch
from plain_loop import assert_equal_states, begin, engine_at, random_mask, recipe, splits

from tombola.tasks import Classification
from tombola.training import loop
from tombola.training.engine import ReplicaState, Score
from tombola.training.loop import Interrupted, Record, train


class Scripted:
    """An engine whose losses are written down; its weights are its iteration."""

    name, replicas = "scripted", 1

    def __init__(self, validation=None, losses=None, iteration=0, blocks=3):
        self.iteration, self.blocks = iteration, blocks
        self.validation, self.losses = validation or {}, losses or {}
        self.asked, self.advanced = [], []

    def advance(self, iterations):
        assert iterations >= 1
        self.iteration += iterations
        self.advanced.append(iterations)
        return [self.losses.get(self.iteration, 1.0)]

    def evaluate(self, part, check=lambda: None):
        for _ in range(self.blocks):
            check()
        self.asked.append((self.iteration, part))
        loss = self.validation.get(self.iteration, 1.0) if part == "validation" else 5.0 + self.iteration
        return [Score(loss, 0.5)]

    def weights(self, replica=0):
        return {"w": torch.tensor(float(self.iteration))}

    def optimizer_state(self, replica=0):
        return {}


def rows(record):
    return record.history["iteration"]


def moments(record):
    return {name: weights["w"].item() for name, weights in record.snapshots.items()}


@pytest.mark.parametrize(
    ("budget", "every", "expected"),
    [
        (10, 4, [0, 4, 8, 10]),
        (10, 5, [0, 5, 10]),
        (10, 100, [0, 10]),
        (3, 1, [0, 1, 2, 3]),
        (1, 1, [0, 1]),
    ],
)
def test_it_is_evaluated_before_the_first_step_and_after_the_last(budget, every, expected):
    record, engine = Record(), Scripted()
    train(engine, [record], budget=budget, evaluate_every=every)
    assert rows(record) == expected
    assert engine.iteration == budget
    assert {len(column) for column in record.history.values()} == {len(expected)}
    assert engine.asked[-1] == (budget, "train")
    assert record.train == (5.0 + budget, 0.5)


def test_validation_and_test_stand_in_their_own_columns():
    record = Record()
    train(Scripted({0: 0.1, 5: 0.2}), [record], budget=5, evaluate_every=5)
    assert record.history == {
        "iteration": [0, 5],
        "val_loss": [0.1, 0.2],
        "val_accuracy": [0.5, 0.5],
        "test_loss": [5.0, 10.0],
        "test_accuracy": [0.5, 0.5],
    }


def test_a_rewound_run_counts_from_its_iteration():
    """It is evaluated where it starts, then at the same iterations as the dense run."""
    record = Record()
    train(Scripted(iteration=7), [record], budget=20, evaluate_every=5)
    assert rows(record) == [7, 10, 15, 20]
    assert moments(record)["start"] == 7


def test_the_best_snapshot_is_the_first_of_the_lowest_validation_loss():
    record = Record()
    validation = {0: 0.9, 2: 0.5, 4: 0.3, 6: 0.4, 8: 0.3, 10: 0.35}
    train(Scripted(validation), [record], budget=10, evaluate_every=2)
    assert moments(record) == {"start": 0, "best": 4, "final": 10}
    assert record.best_row == 2


def test_the_start_may_be_the_best():
    record = Record()
    train(Scripted({0: 0.1}), [record], budget=4, evaluate_every=2)
    assert moments(record)["best"] == 0


@pytest.mark.parametrize("keep", [(0,), (3,), (4,), (3, 7), (10,)])
def test_snapshots_are_kept_where_they_are_asked_for(keep):
    """Between evaluations, at one, before the first step and after the last."""
    record = Record()
    train(Scripted(), [record], budget=10, evaluate_every=4, keep=keep)
    kept = {name: at for name, at in moments(record).items() if name.startswith("iteration-")}
    assert kept == {f"iteration-{k}": k for k in keep}
    assert rows(record) == [0, 4, 8, 10]


def test_a_moment_before_the_start_or_after_the_end_is_not_made_up():
    record = Record()
    train(Scripted(iteration=5), [record], budget=10, evaluate_every=4, keep=(2, 11))
    assert set(record.snapshots) == {"start", "best", "final"}


# Divergence


def test_a_loss_that_is_not_finite_ends_the_job_early():
    losses = dict.fromkeys(range(7, 1000), math.nan)
    record, engine = Record(), Scripted(losses=losses)
    train(engine, [record], budget=1000, evaluate_every=100)
    assert record.diverged_at is not None
    assert 7 <= record.diverged_at <= 100
    assert engine.iteration <= 100
    assert rows(record)[0] == 0
    assert moments(record)["best"] == 0
    assert "final" in record.snapshots


def test_a_validation_loss_that_is_not_finite_is_a_divergence():
    record, engine = Record(), Scripted({20: math.inf})
    train(engine, [record], budget=100, evaluate_every=10)
    assert (record.diverged_at, engine.iteration) == (20, 20)
    assert moments(record)["best"] == 0


VECTORS = (20,)
MLP = partial(small_nets.mlp, VECTORS, 4)


def test_a_huge_learning_rate_gives_a_verdict_and_no_exception():
    start = begin(MLP, random_mask(MLP, VECTORS, 0.5), splits(VECTORS))
    record = Record()
    train(engine_at(MLP, start, recipe(optimizer="sgd", lr=1e18)), [record], budget=1000, evaluate_every=50)
    assert record.diverged_at is not None
    assert record.diverged_at <= 50


def test_when_it_diverged_does_not_depend_on_the_clock(monkeypatch):
    """A slow machine looks at the loss more often; the verdict is part of the result and must be the same."""
    found = []
    for seconds in (0.0, 0.25, 100.0):
        monkeypatch.setattr(loop, "SLICE", seconds)
        start = begin(MLP, random_mask(MLP, VECTORS, 0.5), splits(VECTORS))
        record = Record()
        # All is well until the learning rate jumps at iteration 23.
        jump = recipe(optimizer="sgd", lr=0.01, schedule="own_training:jump_at_23")
        train(engine_at(MLP, start, jump), [record], budget=1000, evaluate_every=50)
        found.append((record.diverged_at, rows(record)))
    assert found[0][0] >= 23
    assert found[1:] == found[:-1]


# Stopping


def stopping_at(look):
    """Return a check that raises at that look."""
    looks = iter(range(10**6))

    def check():
        if next(looks) == look:
            raise Interrupted

    return check


def test_a_wish_to_stop_saves_and_is_passed_on():
    saved, record, engine = [], Record(), Scripted()
    with pytest.raises(Interrupted):
        train(
            engine,
            [record],
            budget=100,
            evaluate_every=10,
            check=stopping_at(8),
            save=lambda: saved.append(engine.iteration),
        )
    assert saved == [engine.iteration]
    assert engine.iteration < 100
    assert record.train is None
    assert "final" not in record.snapshots


def test_other_errors_are_not_taken_for_a_wish_to_stop():
    """After a bug there is nothing worth saving."""

    def broken():
        raise ZeroDivisionError

    saved = []
    with pytest.raises(ZeroDivisionError):
        train(Scripted(), [Record()], budget=9, evaluate_every=3, check=broken, save=lambda: saved.append(1))
    assert saved == []


def test_checkpoints_are_written_as_often_as_asked():
    saved, engine = [], Scripted()
    train(engine, [Record()], budget=20, evaluate_every=1, save=lambda: saved.append(engine.iteration), save_every=0)
    assert saved == list(range(20))
    saved.clear()
    train(Scripted(), [Record()], budget=20, evaluate_every=1, save=lambda: saved.append(1), save_every=3600)
    assert saved == []


def test_checkpoints_of_a_stack_take_a_small_share_of_the_time(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: clock[0])

    class Slow(Scripted):
        replicas = 2

        def advance(self, iterations):
            clock[0] += iterations
            return super().advance(iterations) * 2

        def evaluate(self, part, check=lambda: None):
            return super().evaluate(part, check) * 2

    saved, engine = [], Slow()

    def save():
        saved.append(engine.iteration)
        clock[0] += 2.0

    train(engine, [Record(), Record()], budget=130, evaluate_every=1, save=save, save_every=5)
    assert saved == [6, 47, 88, 129]  # 2 s of 42


DROPPING = partial(small_nets.Dropping, VECTORS, 4)
TRAINING = {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "schedule": "cosine", "warmup": 3}


def run_in_pieces(looks, **training):
    """Train from checkpoint to checkpoint, stopped at these looks one after the other; then to the end."""
    settings, budget = recipe(**(TRAINING | training)), 20
    begun = begin(DROPPING, random_mask(DROPPING, VECTORS, 0.5), splits(VECTORS))
    box = {"start": begun, "record": Record()}
    for look in [*looks, 10**6]:
        engine = engine_at(DROPPING, box["start"], settings, budget)
        record = copy.deepcopy(box["record"])

        def save(engine=engine, record=record):
            at = (engine.weights(), begun.mask, begun.seeds, begun.splits, engine.iteration, engine.optimizer_state())
            box.update(start=ReplicaState(*at), record=copy.deepcopy(record))

        try:
            train(engine, [record], budget=budget, evaluate_every=6, keep=(6, 7), save=save, check=stopping_at(look))
        except Interrupted:
            continue
        return record
    raise AssertionError("it never came to the end")


def test_stopped_anywhere_and_resumed_all_is_bit_equal(monkeypatch):
    """At every single look: between steps, before, in and between evaluations, at snapshots, in the last evaluation."""
    monkeypatch.setattr(loop, "SLICE", 0.0)
    monkeypatch.setattr(Classification, "block", 40)  # several looks in each evaluation
    whole = run_in_pieces([])
    assert rows(whole) == [0, 6, 12, 18, 20]
    total = 0
    for look in range(10**6):
        resumed = run_in_pieces([look])
        assert resumed.history == whole.history
        assert resumed.train == whole.train
        assert resumed.snapshots.keys() == whole.snapshots.keys()
        for name, weights in whole.snapshots.items():
            assert_equal_states(resumed.snapshots[name], weights)
        total = look
        if look > 55:
            break
    assert total > 40
    for pieces in ([3] * 12, [0, 9, 1, 13, 2, 2, 17], list(range(10))):
        resumed = run_in_pieces(pieces)
        assert resumed.history == whole.history
        assert_equal_states(resumed.snapshots["final"], whole.snapshots["final"])


def test_a_divergence_is_found_at_the_same_place_however_often_it_was_stopped(monkeypatch):
    monkeypatch.setattr(loop, "SLICE", 0.0)
    # All is well until the learning rate jumps at iteration 8.
    jump = {"schedule": "own_training:jump_at_8", "warmup": 0}
    whole = run_in_pieces([], **jump)
    assert 8 <= whole.diverged_at <= 12
    for pieces in *([look] for look in range(20)), [3] * 8, list(range(7)):
        resumed = run_in_pieces(pieces, **jump)
        assert resumed.diverged_at == whole.diverged_at
        assert repr(resumed.history) == repr(whole.history)  # NaN is not equal to itself
        assert_equal_states(resumed.snapshots["best"], whole.snapshots["best"])


def test_seconds_add_up_over_interruptions():
    class Slow(Scripted):
        def advance(self, iterations):
            time.sleep(0.03)
            return super().advance(iterations)

    record = Record()
    with pytest.raises(Interrupted):
        train(Slow(), [record], budget=4, evaluate_every=1, check=stopping_at(14))
    first = record.seconds
    assert 0.03 <= first < 1
    at = rows(record)[-1]
    train(Slow(iteration=at), [record], budget=4, evaluate_every=1)
    assert record.seconds >= first + 0.03 * (4 - at)


def test_snapshots_do_not_go_on_training():
    start = begin(MLP, random_mask(MLP, VECTORS, 0.5), splits(VECTORS))
    record = Record()
    train(engine_at(MLP, start, recipe(lr=0.1)), [record], budget=9, evaluate_every=3, keep=(3,))
    assert_equal_states(record.snapshots["start"], start.weights)
    assert not torch.equal(record.snapshots["iteration-3"]["1.weight"], record.snapshots["final"]["1.weight"])


# Several replicas


class TwoReplicas(Scripted):
    replicas = 2

    def advance(self, iterations):
        (loss,) = super().advance(iterations)
        return [loss, 1.0]

    def evaluate(self, part, check=lambda: None):
        (score,) = super().evaluate(part, check)
        return [score, Score(7.0 - self.iteration, 0.25)]

    def weights(self, replica=0):
        return {"w": torch.tensor(float(self.iteration + 1000 * replica))}


def test_replicas_have_their_own_records():
    records = [Record(), Record()]
    train(TwoReplicas({3: 0.5}), records, budget=6, evaluate_every=3)
    assert [rows(record) for record in records] == [[0, 3, 6]] * 2
    assert records[1].history["val_loss"] == [7.0, 4.0, 1.0]
    assert moments(records[0]) == {"start": 0, "best": 3, "final": 6}
    assert moments(records[1]) == {"start": 1000, "best": 1006, "final": 1006}
    assert records[1].train == (1.0, 0.25)


def test_a_replica_that_diverges_does_not_end_the_others():
    records = [Record(), Record()]
    train(TwoReplicas({3: math.nan}), records, budget=9, evaluate_every=3)
    assert records[0].diverged_at == 3
    assert records[1].diverged_at is None
    assert rows(records[1]) == [0, 3, 6, 9]
    assert moments(records[1])["best"] == 1009


def test_resuming_beside_a_replica_that_diverged_adds_no_row_twice():
    """The first replica has no row of this iteration, for it had diverged; the second one has."""
    records, engine = [Record(), Record()], TwoReplicas({3: math.nan}, blocks=0)
    with pytest.raises(Interrupted):
        train(engine, records, budget=9, evaluate_every=3, check=lambda: stop_when(engine.iteration == 6))
    assert rows(records[1]) == [0, 3, 6]
    train(engine, records, budget=9, evaluate_every=3)
    assert rows(records[1]) == [0, 3, 6, 9]


@pytest.mark.parametrize("further", [0, 1])
def test_a_replica_that_has_its_row_goes_with_one_that_has_not(further):
    """Two jobs at iteration 0 may be stacked: one stopped after its first evaluation, the other not begun."""
    records = [Record(), Record()]
    row = {"iteration": 0, "val_loss": 1.0, "val_accuracy": 0.5, "test_loss": 5.0, "test_accuracy": 0.5}
    for column, value in row.items():
        records[further].history[column].append(value)
    records[further].snapshots = {"start": {"w": torch.tensor(0.0)}, "best": {"w": torch.tensor(0.0)}}
    train(TwoReplicas(), records, budget=6, evaluate_every=3)
    assert [rows(record) for record in records] == [[0, 3, 6]] * 2
    assert set(records[0].snapshots) == set(records[1].snapshots) == {"start", "best", "final"}


def stop_when(it_is_time):
    if it_is_time:
        raise Interrupted
