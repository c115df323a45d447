"""Streamed data: the same examples as in memory, in the same order, read when they are asked for."""

import os
import time

import numpy as np
import pytest
import streamed_data
import torch
from pydantic import ValidationError
from torch.utils._pytree import tree_leaves

from tombola.data import DataSettings, describe, fingerprint, load, split
from tombola.data.parts import each_tensor
from tombola.errors import DataError
from tombola.seeds import Seeds
from tombola.training.order import Order

SEEDS = Seeds(0, 3)


def settings(name, stream=True, validation=10, **arguments):
    return DataSettings(source=f"streamed_data:{name}", stream=stream, validation=validation, arguments=arguments)


def both(name, normalise="default", workers=0, **arguments):
    """Return a function's data in memory and streamed, split for one trial."""
    return [
        split(load(settings(name, stream, **arguments)), 10, SEEDS, normalise=normalise, workers=number)
        for stream, number in ((False, 0), (True, workers))
    ]


def assert_same(one, other):
    ours, theirs = (tree_leaves((part.inputs, part.targets)) for part in (one, other))
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None and b is None) or (a.dtype == b.dtype and torch.equal(a, b))


CASES = [
    ("map_style", {}),
    ("pairs", {}),
    ("hugging_face", {}),
    ("two_inputs", {}),
    ("texts", {}),
    ("images", {"pixel": "uint8"}),
    ("images", {"pixel": "float32"}),
]


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_all_parts_are_those_in_memory(name, arguments):
    held, streamed = both(name, **arguments)
    assert (held.mean, held.std, held.classes, held.tokens) == (
        streamed.mean,
        streamed.std,
        streamed.classes,
        streamed.tokens,
    )
    assert held.description == streamed.description
    assert describe(settings(name, False, **arguments)) == describe(settings(name, True, **arguments))
    for part in ("train", "validation", "test"):
        one, other = getattr(held, part), getattr(streamed, part)
        assert len(one) == len(other)
        slices = [slice(first, first + 7) for first in range(0, len(one), 7)]
        for ours, theirs in zip(one.blocks(slices), other.blocks(slices), strict=True):
            assert_same(ours, theirs)
        assert_same(one.select(slice(None, None, 9)), other.select(slice(None, None, 9)))
        assert_same(one.select(torch.tensor([5, 0, 5])), other.select(torch.tensor([5, 0, 5])))


@pytest.mark.parametrize("normalise", ["channel", "feature", "none"])
def test_normalisation_is_measured_to_the_last_bit(normalise, monkeypatch):
    monkeypatch.setattr("tombola.data.splitting.BLOCK", 3000)  # several blocks
    held, streamed = both("images", normalise, pixel="float32")
    assert (held.mean, held.std) == (streamed.mean, streamed.std)
    assert_same(held.train.select(slice(None)), streamed.train.select(slice(None)))


def test_batches_keep_their_order_where_evaluations_come_between():
    held, streamed = both("map_style")
    order = Order(len(held.train), 12, SEEDS).batches
    ours, theirs = held.train.batches(order, 5), streamed.train.batches(order, 5)
    for iteration in range(20):  # over several epochs
        assert_same(next(ours), next(theirs))
        if iteration % 4 == 0:
            assert sum(len(block) for block in streamed.test.blocks([slice(0, 20), slice(20, 40)])) == 30


def test_targets_are_read_once_and_prepared():
    held, streamed = both("map_style")
    doubled = streamed.with_targets(lambda targets: targets * 2)
    assert torch.equal(doubled.train.targets, held.train.targets * 2)
    np.testing.assert_array_equal(
        load(settings("map_style")).train_targets, load(settings("map_style", False)).train_targets
    )


def test_planning_reads_a_few_examples_alone(monkeypatch):
    read, item = set(), streamed_data.Rows.__getitem__
    monkeypatch.setattr(streamed_data.Rows, "__getitem__", lambda self, row: read.add(row) or item(self, row))
    about = settings("map_style", train=5000)
    describe(about), fingerprint(about)
    split(load(about), 0.1, SEEDS, normalise="none")
    assert len(read) <= 2 * 16


def test_arguments_and_what_the_function_says_are_identity():
    found = [
        fingerprint(settings("map_style")),
        fingerprint(settings("map_style", train=91)),
        fingerprint(settings("texts")),
        fingerprint(settings("texts", tokens=14)),
        fingerprint(settings("texts", False)),
        fingerprint(settings("texts", False, tokens=14)),
    ]
    assert len(set(found)) == len(found)
    assert describe(settings("texts", False, tokens=14)).tokens == 14


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("unsaid", {}, 'targets are whole numbers.*"classes": the number of classes'),
        ("texts", {"tokens": None}, 'inputs are token ids.*"tokens": the number of token ids'),
        ("texts", {"tokens": 3}, r"t.* item \d+ has the token id \d+, and the function says tokens=3"),
        ("iterable", {}, "can be read only from its start.*map-style"),
        ("columns", {}, "columns lie in memory; remove data.stream"),
        ("shaky", {}, "returned other values on its second call"),
        ("growing", {}, r"\d+ train examples on its first call and \d+ on its second"),
    ],
)
def test_what_cannot_be_streamed_is_named(name, arguments, message):
    with pytest.raises(DataError, match=message):
        describe(settings(name, **arguments))


BAD_ITEMS = [
    ("raises", "train: item 47 can't be read: ValueError: file is cut short"),
    ("nan", "train: inputs holds NaN or infinity in item 47"),
    ("class", "train: item 47 has the class 7, and the function says classes=3"),
    ("shape", r"train: item 47 has arrays of shape \[\(4,\), \(\)\]"),
]


@pytest.mark.parametrize(("what", "message"), BAD_ITEMS)
def test_a_bad_example_is_named_by_its_part_and_number(what, message):
    splits = split(load(settings("awkward", what=what)), 10, SEEDS, normalise="none")
    with pytest.raises(DataError, match=message):
        list(splits.train.blocks([slice(None)]))


def test_values_beyond_float32_are_refused_as_in_memory():
    splits = split(load(settings("map_style")), 10, SEEDS)
    scaling = splits.train.scaling
    scaling.std[:] = 1e-300
    with pytest.raises(DataError, match=r"streamed_data:map_style: train: after normalisation, items 0 to \d+ exceed"):
        splits.train.select(slice(None))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "mnist", "stream": True}, "stream needs your own function"),
        ({"source": "a:b", "stream_workers": 2}, "stream_workers needs stream: true"),
        ({"source": "a:b", "stream": True, "validation": "a:c"}, "give validation a number or a share"),
        ({"source": "a:b", "stream": True, "stream_workers": -1}, "stream_workers"),
    ],
)
def test_settings_that_do_not_go_together(fields, message):
    with pytest.raises(ValidationError, match=message):
        DataSettings(**({"validation": 10} | fields))


def test_classes_that_the_data_exceed_are_refused_in_memory_too():
    with pytest.raises(DataError, match="classes=3, and the data reach 7; correct classes"):
        describe(settings("awkward", False, what="class"))


# Processes that read


def wait_until_gone(processes):
    until = time.monotonic() + 15
    while alive := [process for process in processes if os.path.exists(f"/proc/{process}")]:
        assert time.monotonic() < until, f"{alive} outlive the run"
        time.sleep(0.05)


@pytest.fixture
def readers(tmp_path, monkeypatch):
    """Return a function that says which processes have read examples."""
    folder = tmp_path / "readers"
    folder.mkdir()
    monkeypatch.setenv("TOMBOLA_TEST_READERS", str(folder))
    return lambda: {int(name) for name in os.listdir(folder)} - {os.getpid()}


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="looks at processes through /proc")
@pytest.mark.slow
def test_processes_read_the_same_and_end_when_they_are_no_longer_needed(readers):
    held, streamed = both("slow", workers=2)
    order = Order(len(held.train), 12, SEEDS).batches
    before = torch.random.get_rng_state()
    theirs = streamed.train.batches(order, 0)
    for ours, _ in zip(held.train.batches(order, 0), range(9), strict=False):
        assert_same(ours, next(theirs))
    for ours, block in zip(held.test.blocks([slice(30)]), streamed.test.blocks([slice(30)]), strict=True):
        assert_same(ours, block)
        assert each_tensor(lambda tensor: tensor.add_(1).isfinite().all().item(), block.inputs)  # it may be changed
    assert len(readers()) == 2
    assert torch.equal(before, torch.random.get_rng_state())
    streamed.close()
    wait_until_gone(readers())


@pytest.mark.slow
@pytest.mark.parametrize(("what", "message"), [*BAD_ITEMS[:2], ("kills", r"train: item \d+ .*a process .* ended")])
def test_what_fails_in_another_process_is_one_sentence(what, message):
    splits = split(load(settings("awkward", what=what)), 10, SEEDS, normalise="none", workers=1)
    with pytest.raises(DataError, match=message) as raised:
        list(splits.train.blocks([slice(None)]))
    splits.close()
    assert "\n" not in str(raised.value)
