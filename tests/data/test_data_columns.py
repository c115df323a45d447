"""Columns are matched by name between train and test; labels that are not classes are refused."""

import numpy as np
import own_data
import pytest
from small_studies import small_study

from tombola.data import functions
from tombola.data.streamed import Streamed
from tombola.errors import DataError, InputError
from tombola.studies import make_plan

FORMS = ["map", "frame", "pair", "items", "hugging_face"]


def loaded(name, **arguments):
    return functions.load(f"column_data:{name}", arguments)


@pytest.mark.parametrize("form", FORMS)
def test_columns_of_test_in_another_order_are_reordered(form):
    if form in ("frame", "pair"):
        pytest.importorskip("pandas")
    found, (train, test) = loaded("table", form=form, order=-1), own_data.arrays()
    np.testing.assert_array_equal(found.train_inputs, train[0])
    np.testing.assert_array_equal(found.test_inputs, test[0])
    assert loaded("table", form=form).fingerprint == found.fingerprint


@pytest.mark.parametrize("form", ["pair", "items", "hugging_face"])
def test_streamed_columns_are_reordered_too(form):
    if form == "pair":
        pytest.importorskip("pandas")
    stream = Streamed("column_data:table", {"form": form, "order": -1})._stream
    for which, (inputs, _) in zip(("train", "test"), own_data.arrays(), strict=True):
        np.testing.assert_array_equal(stream.take(which, [0, 4])[0], inputs[[0, 4]])


@pytest.mark.parametrize("form", FORMS)
def test_columns_of_other_names_are_refused(form):
    if form in ("frame", "pair"):
        pytest.importorskip("pandas")
    message = r"test.* lacks 'a' and also has 'alpha'; rename, add or remove columns"
    with pytest.raises(DataError, match=message):
        loaded("table", form=form, renamed=True)
    if form not in ("map", "frame"):
        with pytest.raises(DataError, match=message):
            Streamed("column_data:table", {"form": form, "renamed": True})


def test_named_inputs_keep_their_own_numbers_of_tokens():
    streamed = Streamed("column_data:named_inputs", {"order": -1})
    inputs, _ = streamed._stream.take("test", list(range(20)))  # ids of one input exceed those of the other
    held = loaded("named_inputs", order=-1)
    assert list(held.test_inputs) == list(held.train_inputs) == ["few", "many"]
    for name, array in held.test_inputs.items():
        np.testing.assert_array_equal(inputs[name], array)


def test_two_columns_of_one_name_are_refused():
    pytest.importorskip("pandas")
    with pytest.raises(DataError, match="two columns with the name 'a'"):
        loaded("twice")


@pytest.mark.parametrize("target", [["kind", "a"], {"x": 1}, True, 1.5])
def test_a_target_that_names_no_column_is_refused(target):
    with pytest.raises(DataError, match=r"column_data:table returned target=.*must be the name of one column"):
        loaded("table", target=target)


def planned(task="classification", **arguments):
    data = {"source": "column_data:labels", "arguments": arguments, "validation": 5}
    return make_plan(small_study(data=data, task=task, training__batch_size=20))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, 'labels: no training example has the class 1 to 9, 11 to 19; number .*, or return .*"classes"'),
        ({"train": [0, 1], "test": [0, 1, 2]}, "labels: test has the class 2, which train lacks; remove those"),
        ({"train": [0, 1, -1], "test": [0]}, "labels: train has the label -1; number the classes from 0"),
        ({"train": [0, 1], "test": [0, -1], "classes": 2}, "labels: test has the label -1; number"),
    ],
)
def test_labels_that_are_no_classes_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        planned(**arguments)


def test_classes_without_an_example_may_be_said():
    assert planned(classes=21).data.classes == 21


def test_whole_numbers_may_be_learned_by_regression():
    assert planned(task="regression", train=[0, 10, -20]).data.classes is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other_structure", r"train are floating numbers, \(5,\) per example, those of test a map of 'x': floating"),
        ("other_type", r"train are floating numbers, \(5,\) per example, those of test whole numbers, one per example"),
    ],
)
def test_parts_of_another_structure_are_described_in_words(name, message):
    with pytest.raises(DataError, match=message):
        loaded(name)
