"""Seeds: a pure function of study seed, trial, purpose and counter."""

import itertools

import pytest
import torch

from tombola.seeds import PURPOSES, Seeds


def test_every_study_trial_purpose_and_counter_has_its_own_seed():
    cases = itertools.product(range(4), range(12), PURPOSES, range(12))
    values = [Seeds(study, trial).value(purpose, counter) for study, trial, purpose, counter in cases]
    assert len(set(values)) == len(values)
    assert all(0 <= value < 2**63 for value in values)


def test_neighbouring_numbers_do_not_run_together():
    """Trial 1, counter 11 must not be trial 11, counter 1."""
    assert Seeds(1, 11).value("init", 1) != Seeds(11, 1).value("init", 1)
    assert Seeds(1, 1).value("init", 11) != Seeds(1, 11).value("init", 1)


def test_the_values_are_frozen():
    """A changed value means that nobody's results can be repeated."""
    assert Seeds(0, 0).value("init") == 4704038766921837530
    assert Seeds(3, 2).value("order", 7) == 8330749816735325551


def test_a_generator_is_fresh_each_time_and_the_global_one_left_alone():
    before = torch.get_rng_state()
    first, second = (torch.rand(4, generator=Seeds(0, 1).generator("mask", 2)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unknown_purpose_is_a_bug():
    with pytest.raises(ValueError, match="'initialisation'"):
        Seeds(0, 0).value("initialisation")
