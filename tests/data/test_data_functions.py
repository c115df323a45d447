"""Data of one's own by `package.module:function`: every form, and everything that people get wrong."""

import numpy as np
import own_data
import pytest
import torch
from pydantic import ValidationError
from small_studies import run_study, small_study

from tombola.data import SOURCES, DataSettings, describe, fingerprint, functions, load, rows_of, sources, split
from tombola.data.settings import OURS
from tombola.errors import DataError, InputError
from tombola.seeds import Seeds
from tombola.studies import make_plan


def settings(name, **fields):
    return DataSettings(source=f"own_data:{name}", **({"validation": 10} | fields))


@pytest.mark.parametrize("name", ["arrays", "tensors", "map_style", "hugging_face", "frames"])
def test_every_form_holds_the_same(name):
    if name == "frames":
        pytest.importorskip("pandas")
    data, (train, test) = load(settings(name)), own_data.arrays()
    for found, expected in [
        (data.train_inputs, train[0]),
        (data.train_targets, train[1]),
        (data.test_inputs, test[0]),
        (data.test_targets, test[1]),
    ]:
        np.testing.assert_array_equal(found, expected)
    assert data.train_targets.dtype == np.int64
    about = describe(settings(name))
    assert (about.input_shape, about.classes, about.train, about.test, about.validation) == ((6,), 3, 90, 30, 10)


def test_arguments_reach_the_function_and_the_content_is_the_identity():
    assert describe(settings("arrays", arguments={"train": 50})).train == 50
    same = [fingerprint(settings(name)) for name in ("arrays", "tensors", "map_style")]
    assert len(set(same)) == 1
    assert fingerprint(settings("arrays", arguments={"train": 50})) != same[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("growing", r"own_data:growing returned \d+ train examples on its first call and \d+ on its second"),
        ("unseeded", "own_data:unseeded returned other values on its second call"),
        ("with_nan", "train: inputs holds NaN or infinity in 1 of 90 examples, the first at number 7"),
        ("uneven", "train has arrays of 89 and 90 examples"),
        ("ragged", r"item 1 has arrays of shape"),
        ("stream", "can be read only from its start.*map-style"),
        ("channels_last", r"channels last; return array.transpose\(0, 3, 1, 2\)"),
        ("nothing", r"returned a NoneType; it must return \(train, test\)"),
        ("not_in_parts", r"both need the same structure, type and shape; return \(train, test\), each as \(inputs"),
        ("of_objects", r"it must contain numbers.*; convert it, such as by \.astype\('float32'\)"),
        ("failing", r"own_data:failing\(\) failed: RuntimeError: no disk"),
        ("missing", "missing"),
    ],
)
def test_what_cannot_be_trained_on_is_named(name, message):
    with pytest.raises((DataError, InputError), match=message):
        describe(settings(name))


def test_a_frame_must_say_where_its_targets_are():
    pytest.importorskip("pandas")
    assert describe(settings("frames", arguments={"target": "label", "named": False})).classes == 3
    with pytest.raises(DataError, match="train has no column 'colour'; its columns are: a, b, c, d, e, f, kind"):
        describe(settings("frames", arguments={"said": "colour"}))


def test_targets_of_the_wrong_kind_for_the_task():
    with pytest.raises(InputError, match="classification needs one class number"):
        make_plan(small_study(data={"source": "own_data:real_targets", "validation": 10}))


def test_data_that_would_fill_the_memory_are_refused(monkeypatch):
    monkeypatch.setattr("tombola.data.memory.SHARE", 1e-12)
    with pytest.raises(DataError, match="GB of memory"):
        functions.load("own_data:map_style", {})


# Validation


def test_a_share_is_set_aside():
    about = describe(settings("arrays", validation=0.1))
    assert about.validation == 9
    assert len(split(load(settings("arrays")), 0.1, Seeds(0, 0)).validation) == 9


@pytest.mark.parametrize("name", ["last_rows", "first_class"])
def test_a_function_sets_examples_aside(name):
    data = load(settings("arrays"))
    aside, kept = rows_of(data, f"own_data:{name}", Seeds(0, 3))
    expected = np.arange(80, 90) if name == "last_rows" else np.flatnonzero(data.train_targets == 0)
    np.testing.assert_array_equal(aside, expected)
    assert sorted([*aside, *kept]) == list(range(90))
    about = settings("arrays", validation=f"own_data:{name}")
    assert describe(about).validation == len(expected)
    assert fingerprint(about) != fingerprint(settings("arrays"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("too_many", "set 90 of 90 training examples aside"),
        ("repeating", "returned 6 numbers of examples, of which 2 repeat others, such as 7; return each number once"),
        ("varying", "each trial needs the same number"),
        ("nothing", "failed: TypeError.*function\\(inputs, targets, generator\\)"),
    ],
)
def test_a_split_that_cannot_be(name, message):
    with pytest.raises(InputError, match=message):
        rows_of(load(settings("arrays")), f"own_data:{name}", Seeds(0, 3))


@pytest.mark.parametrize("validation", [-1, 1.5, "half", True])
def test_validation_is_a_number_a_share_or_a_function(validation):
    with pytest.raises(ValidationError, match="validation"):
        settings("arrays", validation=validation)


def test_more_validation_than_training_examples():
    with pytest.raises(InputError, match="leaves 0 of 90 training examples"):
        make_plan(small_study(data={"source": "own_data:arrays", "validation": 200}))


def test_tombolas_own_sources_are_known_to_the_settings():
    assert tuple(SOURCES) == OURS


def test_a_function_is_called_twice_when_a_study_is_planned(monkeypatch):
    calls = []
    monkeypatch.setattr(
        own_data, "arrays", lambda: calls.append(0) or (own_data.clusters(90, 1), own_data.clusters(30, 2))
    )
    about = settings("arrays", arguments={}, validation=13)
    sources._remember.cache_clear()
    sources._remember_description.cache_clear()
    sources._remember_fingerprint.cache_clear()
    describe(about), fingerprint(about), load(about)
    assert len(calls) == 2


def test_arguments_belong_to_functions():
    with pytest.raises(ValidationError, match="arguments need your own function"):
        DataSettings(source="mnist", validation=10, arguments={"a": 1})


# Studies


def test_a_study_runs_on_data_of_ones_own(tmp_path):
    data = {"source": "own_data:map_style", "validation": "own_data:last_rows"}
    plan, store = run_study(tmp_path, data=data, training__batch_size=20)
    run = plan.work[plan.rows[-1].job].spec
    assert run.data_code == fingerprint(DataSettings(**data))
    assert len(store.finished()) == len(plan.work)


def test_training_keeps_no_second_copy_of_floats(tmp_path):
    """What is left after a split is what training reads."""
    from tombola.running.options import RunOptions
    from tombola.running.problem import forget_splits, prepared

    forget_splits()
    sources._remember.cache_clear()
    prepared(
        settings("arrays").model_dump_json(),
        Seeds(0, 0),
        RunOptions(),
        torch.device("cpu"),
        "",
        '{"name": "classification"}',
    )
    assert sources._remember.cache_info().currsize == 0
