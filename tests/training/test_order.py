"""The data order: a pure function of the iteration."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola.seeds import Seeds
from tombola.training.order import Order


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.data())
def test_epochs_are_permutations_and_a_remainder_is_left_out(examples, data):
    batch = data.draw(st.integers(1, examples))
    order = Order(examples, batch, Seeds(1, 0))
    assert order.epoch_length == examples // batch
    for epoch in range(3):
        numbers = order.batches(epoch * order.epoch_length, order.epoch_length)
        assert numbers.shape == (examples // batch, batch)
        assert numbers.dtype == torch.int64
        flat = numbers.flatten().tolist()
        assert len(set(flat)) == len(flat)
        assert set(flat) <= set(range(examples))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 40), st.lists(st.integers(0, 15), max_size=6))
def test_how_it_is_cut_makes_no_difference(first, pieces):
    """Resuming at any iteration, in the middle of an epoch too, sees what an uninterrupted run sees."""
    whole = Order(23, 3, Seeds(0, 0)).batches(0, first + sum(pieces))
    order = Order(23, 3, Seeds(0, 0))
    for count in pieces:
        assert torch.equal(order.batches(first, count), whole[first : first + count])
        first += count


def test_going_back_gives_the_same_again():
    order = Order(23, 3, Seeds(0, 0))
    late, early = order.batches(30, 5), order.batches(1, 5)
    assert torch.equal(order.batches(30, 5), late)
    assert torch.equal(Order(23, 3, Seeds(0, 0)).batches(1, 5), early)
    assert not torch.equal(late, early)


def test_epochs_trials_and_studies_differ():
    epochs = [Order(50, 10, Seeds(0, 0)).batches(5 * epoch, 5) for epoch in range(3)]
    trials = [Order(50, 10, Seeds(study, trial)).batches(0, 5) for study, trial in ((0, 1), (1, 0))]
    for number, one in enumerate(epochs + trials):
        for other in (epochs + trials)[:number]:
            assert not torch.equal(one, other)


def test_every_example_is_left_out_now_and_then_but_none_always():
    """The remainder must not be the same examples in each epoch."""
    order = Order(10, 4, Seeds(0, 0))
    assert set(order.batches(0, 2 * 20).flatten().tolist()) == set(range(10))


def test_the_global_generator_plays_no_part():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = Order(50, 10, Seeds(0, 0)).batches(0, 7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(Order(50, 10, Seeds(0, 0)).batches(0, 7), first)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="a batch of 11 from 10 examples"):
        Order(10, 11, Seeds(0, 0))
