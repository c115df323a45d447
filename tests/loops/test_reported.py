"""What a trainer reports: steps, columns, early stop, and what a kill leaves of it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tombola.errors import InputError
from tombola.running.reported import Reported
from tombola.tasks import Metric

ACCURACY = Metric("accuracy", "higher", "%")


def reported(folder, metric=ACCURACY, resumed=False):
    return Reported(folder / "reports.jsonl", metric, "run-1", resumed)


def test_a_report_without_a_step_joins_the_last_one(tmp_path):
    found = reported(tmp_path)
    found.note(100, {"loss": 1.0}, 0.0)
    found.note(None, {"accuracy": 0.5}, 0.0)
    found.note(None, {"accuracy": 0.6}, 0.0)
    assert found.rows == {100: {"test_loss": 1.0, "test_accuracy": 0.5}, 101: {"test_accuracy": 0.6}}
    assert found.history()["test_loss"] == [1.0, 1.0]  # the last row has the last value of each


@pytest.mark.parametrize("step", [np.int64(7), np.uint8(7), torch.tensor(7)])
def test_a_step_may_be_any_kind_of_whole_number(tmp_path, step):
    found = reported(tmp_path)
    found.note(step, {"accuracy": 0.5}, 0.0)
    assert found.rows == {7: {"test_accuracy": 0.5}}
    assert reported(tmp_path, resumed=True).rows == found.rows


@pytest.mark.parametrize("step", [1.0, np.float64(1), "1", -1, np.int64(-1), True, torch.ones(2, dtype=torch.int64)])
def test_a_step_that_is_no_count_is_refused(tmp_path, step):
    with pytest.raises(InputError, match=r"run run-1: step=.* must be a whole number, 0 or more"):
        reported(tmp_path).note(step, {"accuracy": 0.5}, 0.0)


def test_early_stop_never_looks_at_test_values(tmp_path):
    found = reported(tmp_path)
    for step, accuracy in ((1, 0.5), (2, 0.9), (3, 0.7)):
        found.note(step, {"accuracy": accuracy}, 0.0)
    assert found.early_stop() == (2, "")


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
def test_early_stop_is_the_lowest_validation_loss(tmp_path_factory, values):
    found = reported(tmp_path_factory.mktemp("reports"))
    for step, (loss, accuracy) in enumerate(values):
        found.note(step, {"val_loss": loss, "val_accuracy": accuracy, "accuracy": 0.5}, 0.0)
    losses = [loss for loss, _ in values]
    assert found.early_stop() == (losses.index(min(losses)), "")


def test_early_stop_by_the_validation_metric(tmp_path):
    found = reported(tmp_path)
    for step, accuracy in enumerate((0.5, 0.9, 0.7)):
        found.note(step, {"val_accuracy": accuracy, "accuracy": 0.1}, 0.0)
    assert found.early_stop() == (1, "")
    found.note(3, {"val_accuracy": 1.0}, 0.0)
    assert found.early_stop() == (1, "val_accuracy")  # row 3 has no test accuracy of its own
    found.note(4, {"val_accuracy": 0.2, "accuracy": 0.2}, 0.0)
    assert found.early_stop() == (1, "val_accuracy")


def test_early_stop_is_a_step_at_which_the_deciding_metric_was_measured(tmp_path):
    found = reported(tmp_path)
    found.note(50, {"accuracy": 0.5, "val_loss": 1.0}, 0.0)
    found.note(100, {"val_loss": 0.5}, 0.0)  # the history fills in the accuracy of step 50
    assert found.early_stop() == (0, "val_loss")
    at_the_end = Reported(None, ACCURACY, "run-2", False)
    for epoch, loss in ((1, 0.1), (2, 0.2), (3, 0.9)):
        at_the_end.note(epoch, {"val_loss": loss}, 0.0)
    at_the_end.note(3, {"accuracy": 0.5}, 0.0)
    assert at_the_end.early_stop() == (2, "val_loss")
    at_the_end.note(4, {"val_loss": 0.1, "accuracy": 0.5}, 0.0)
    assert at_the_end.early_stop() == (3, "")  # as low as the lowest
    apart = Reported(None, ACCURACY, "run-3", False)
    apart.note(1, {"val_loss": 0.1}, 0.0)
    apart.note(2, {"accuracy": 0.5}, 0.0)
    assert apart.early_stop() == (1, "val_loss")


@pytest.mark.parametrize("name", ["accuracy", "test_accuracy", "val_accuracy", "train_accuracy"])
def test_a_share_in_percent_is_refused_under_each_name(tmp_path, name):
    with pytest.raises(InputError, match=f"{name}=93 was reported, but accuracy is a share from 0 to 1"):
        reported(tmp_path).note(1, {name: 93.0}, 0.0)
    other = reported(tmp_path)
    other.note(1, {"top5_accuracy": 93.0, name: 0.93}, 0.0)
    assert 0.93 in other.rows[1].values()


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path):
    found = reported(tmp_path)
    for step in (1, 2):
        found.note(step, {"accuracy": step / 10}, float(step))
    path = tmp_path / "reports.jsonl"
    path.write_text(path.read_text()[:-5])
    again = reported(tmp_path, resumed=True)
    assert again.rows == {1: {"test_accuracy": 0.1}}
    assert again.seconds == 1.0
    assert reported(tmp_path).rows == {}


def test_steps_may_fall_once_after_a_kill(tmp_path):
    reported(tmp_path).note(9, {"accuracy": 0.1}, 0.0)
    found = reported(tmp_path, resumed=True)
    found.note(5, {"accuracy": 0.2}, 0.0)
    assert list(found.rows) == [5]
    with pytest.raises(InputError, match="step 4 was reported after step 5"):
        found.note(4, {"accuracy": 0.2}, 0.0)


def test_divergence_is_of_losses_and_the_deciding_metric(tmp_path):
    found = reported(tmp_path)
    found.note(1, {"accuracy": 0.5, "gradient_norm": math.inf}, 0.0)
    assert found.diverged_at is None
    found.note(2, {"train_loss": math.nan}, 0.0)
    assert found.diverged_at == 2


@pytest.mark.parametrize("name", ["a b", "iteration", "", "1st"])
def test_names_that_a_column_can_not_have(tmp_path, name):
    with pytest.raises(InputError, match="can't be called"):
        reported(tmp_path).note(1, {name: 1.0}, 0.0)


def test_a_tensor_with_a_graph_is_a_number(tmp_path):
    found = reported(tmp_path)
    found.note(1, {"accuracy": torch.tensor(0.5, requires_grad=True)}, 0.0)
    assert found.rows == {1: {"test_accuracy": 0.5}}


def test_a_damaged_file_of_reports_counts_as_none(tmp_path):
    (tmp_path / "reports.jsonl").write_bytes(b"\xff\x00{")
    assert reported(tmp_path, resumed=True).rows == {}


def test_a_resumed_run_must_give_steps(tmp_path):
    """Whether a report without a step comes after the last one or repeats it depends on the trainer's checkpoint."""
    reported(tmp_path).note(None, {"accuracy": 0.5}, 1.0)
    again = reported(tmp_path, resumed=True)
    with pytest.raises(InputError, match=r"resumed from its checkpoint, .* after step 0 or repeats it; call"):
        again.note(None, {"accuracy": 0.5}, 2.0)
    again.note(0, {"accuracy": 0.5}, 2.0)
    again.note(None, {"accuracy": 0.75}, 3.0)  # from here on the trainer counts itself
    assert again.rows == {0: {"test_accuracy": 0.5}, 1: {"test_accuracy": 0.75}}


def test_a_rewound_run_counts_from_its_start(tmp_path):
    found = Reported(tmp_path / "reports.jsonl", ACCURACY, "run-1", resumed=False, first=500)
    with pytest.raises(InputError, match=r"run-1: step 3 was reported, but the run starts from step 500; .* snapshots"):
        found.note(3, {"accuracy": 0.5}, 0.0)
    found.note(None, {"accuracy": 0.5}, 0.0)
    assert found.last_step == 500
