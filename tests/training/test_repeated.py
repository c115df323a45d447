"""Steps of a stack as a CUDA graph would repeat them, on the CPU: the same operations on the same tensors."""

import gc
import weakref
from functools import partial

import pytest
import small_nets
import torch
from plain_loop import CPU, assert_equal_states, random_mask, recipe, splits
from taped import TapeRecorder

from tombola.networks import initialised
from tombola.seeds import Seeds
from tombola.training.engine import ReplicaState
from tombola.training.engines import repeated, stacked
from tombola.training.engines.repeated import PLAIN_STEPS, Repeated, out_of_memory
from tombola.training.engines.stacked import StackedEngine

IMAGES = (2, 6, 6)
MLP = partial(small_nets.mlp, IMAGES, 4, (12, 8))
CONV = partial(small_nets.conv_norm, IMAGES, 4)
DROPPING = partial(small_nets.conv_norm_dropout, IMAGES, 4)


def starts_of(build):
    data = [splits(IMAGES), splits(IMAGES)]
    found = []
    for number, density in enumerate((1.0, 0.2, 0.1)):
        mask = random_mask(build, IMAGES, density, seed=number)
        weights = mask.apply(initialised(build, "glorot-normal", number).state_dict())
        found.append(ReplicaState(weights, mask, Seeds(5, number % 2), data[number % 2]))
    return found


def resumed(engine, starts):
    return [
        ReplicaState(
            engine.weights(replica),
            start.mask,
            start.seeds,
            start.splits,
            engine.iteration,
            engine.optimizer_state(replica),
        )
        for replica, start in enumerate(starts)
    ]


@pytest.fixture
def recorder(monkeypatch):
    """Let stacks on the CPU be recorded, and lay out few iterations at a time."""
    made = TapeRecorder()
    monkeypatch.setattr(stacked, "recorder_of", lambda device: made)
    monkeypatch.setattr(stacked, "STRETCH", 6)
    return made


@pytest.mark.parametrize(
    ("build", "settings"),
    [
        (MLP, {"optimizer": "adam", "warmup": 15, "weight_decay": 1e-3}),
        (MLP, {"optimizer": "adamw", "schedule": "cosine", "clip_value": 0.01}),
        (MLP, {"optimizer": "sgd", "lr": 0.05}),
        (CONV, {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "schedule": "step", "milestones": (9,)}),
        (CONV, {"augment": ("flip", "crop"), "precision": "bfloat16"}),
        (DROPPING, {"optimizer": "adam"}),
    ],
    ids=["adam-warmup", "adamw-cosine-clip", "sgd", "batch-norm-momentum", "augment-bfloat16", "dropout"],
)
def test_a_recorded_step_does_what_a_plain_one_does(build, settings, recorder, monkeypatch):
    starts, settings = starts_of(build), recipe(**settings)
    with monkeypatch.context() as plainly:
        plainly.setattr(stacked, "recorder_of", lambda device: None)
        plain = StackedEngine(build, starts, settings, 40, CPU)
    engine = StackedEngine(build, starts, settings, 40, CPU)
    for iterations in (2, 5, 8):  # within a stretch, to the end of one, and beyond
        assert engine.advance(iterations) == plain.advance(iterations)
        assert engine.evaluate("validation") == plain.evaluate("validation")
    assert (recorder.plain, recorder.replayed) == (PLAIN_STEPS, 15 - PLAIN_STEPS)
    assert engine.facts == {"replicas": 3, "cuda_graph": True}
    again = StackedEngine(build, resumed(engine, starts), settings, 40, CPU)
    assert again.advance(7) == plain.advance(7)
    for replica in range(len(starts)):
        assert_equal_states(again.weights(replica), plain.weights(replica))
        assert_equal_states(again.optimizer_state(replica), plain.optimizer_state(replica))


def test_a_replica_that_diverges_between_evaluations_is_seen_at_the_next_one(recorder):
    starts = starts_of(MLP)
    next(iter(starts[1].weights.values())).fill_(float("inf"))
    losses = StackedEngine(MLP, starts, recipe(), 40, CPU).advance(20)
    assert [loss == loss for loss in losses] == [True, False, True]


class Failing(TapeRecorder):
    def __init__(self, *errors):
        super().__init__()
        self.errors = errors

    def recorded(self, step):
        try:
            raise self.errors[0]
        finally:
            for error in self.errors[1:]:
                raise error


def test_a_step_that_cannot_be_recorded_is_made_plainly_and_the_reason_is_kept(monkeypatch):
    starts, plain = starts_of(MLP), StackedEngine(MLP, starts_of(MLP), recipe(), 40, CPU)
    failing = Failing(RuntimeError("operation not permitted when stream is capturing\nmore lines"))
    monkeypatch.setattr(stacked, "recorder_of", lambda device: failing)
    engine = StackedEngine(MLP, starts, recipe(), 40, CPU)
    assert engine.advance(12) == plain.advance(12)
    assert failing.plain == PLAIN_STEPS
    reason = "a training step can't be captured as a CUDA graph: operation not permitted when stream is capturing"
    assert engine.facts["cuda_graph"] == reason
    assert plain.facts["cuda_graph"] == repeated.ON_CPU


def test_a_step_that_reads_a_value_is_not_recorded(recorder):
    engine = StackedEngine(MLP, starts_of(MLP), recipe(optimizer="rmsprop"), 40, CPU)
    engine.advance(6)  # on the CPU, RMSprop takes its rate as a number
    assert "operation not permitted" in engine.facts["cuda_graph"]


def test_too_little_memory_for_a_recording_is_not_taken_for_a_step_that_cannot_be_recorded():
    """Ending the capture fails then too, with another error."""
    tidied = []
    hidden = Failing(torch.OutOfMemoryError("made up"), RuntimeError("operation failed due to a previous error"))
    repeat = Repeated(hidden)

    def again():
        repeat(lambda: None, lambda: tidied.append(True))

    for _ in range(PLAIN_STEPS):
        again()
    with pytest.raises(torch.OutOfMemoryError):
        again()
    assert tidied == [True]
    assert not out_of_memory(RuntimeError("another"))


def test_a_stack_frees_its_memory_as_soon_as_nobody_holds_it(recorder):
    """Half a stack would else find the memory of the whole one taken."""
    engine = StackedEngine(MLP, starts_of(MLP), recipe(), 40, CPU)
    engine.advance(5)
    weight = weakref.ref(engine._parameters["1.weight"])
    recorder.__init__()
    gc.disable()
    try:
        del engine
        assert weight() is None
    finally:
        gc.enable()


def test_the_tape_refuses_what_a_capture_refuses():
    """Or the tests above would show nothing."""
    for reads in (lambda: torch.ones(1).item(), lambda: torch.ones(2).nonzero(), lambda: torch.tensor([1.0])):
        with pytest.raises(RuntimeError, match="not permitted"):
            TapeRecorder().recorded(reads)
