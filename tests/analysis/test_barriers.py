"""Error barriers against numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from tombola.analysis import barrier_statistics, barriers
from tombola.running.results import POINT_COLUMNS


def points(*lines):
    """Return the points of lines: each (fields that differ, test errors), training errors being half of those."""
    pieces = []
    for number, (fields, errors) in enumerate(lines):
        place = {"study": "s", "kind": "copies", "trial": 0, "rewind": 0, "level": 0, "other_level": 0, "density": 1.0}
        place |= {"copy": 0, "other_copy": 1, "line": f"line-{number}"} | fields
        columns = {
            "position": np.linspace(0, 1, len(errors)),
            "test_error": errors,
            "train_error": [error / 2 for error in errors],
            "test_loss": errors,
            "train_loss": errors,
        }
        pieces.append(pd.DataFrame(columns | place)[list(POINT_COLUMNS)])
    return pd.concat(pieces, ignore_index=True)


@pytest.mark.parametrize(
    ("errors", "barrier"),
    [
        ([0.02, 0.10, 0.04], 0.07),  # 0.10 - (0.02 + 0.04) / 2
        ([0.02, 0.01, 0.02], 0.0),  # lower in between: the ends are points of the line too
        ([0.02, 0.03, 0.06], 0.02),  # no bump: half of what the ends differ by
        ([0.03, 0.03, 0.03], 0.0),
    ],
)
def test_a_barrier_by_hand(errors, barrier):
    (row,) = barriers(points(({}, errors))).to_dict("records")
    assert row["test_barrier"] == pytest.approx(barrier)
    assert row["train_barrier"] == pytest.approx(barrier / 2)
    assert row["test_ends"] == pytest.approx((errors[0] + errors[-1]) / 2)


def test_the_order_of_rows_does_not_matter():
    table = points(({}, [0.02, 0.10, 0.04]), ({"trial": 1}, [0.5, 0.1, 0.1]))
    shuffled = table.sample(frac=1, random_state=0)
    found = barriers(shuffled).sort_values("trial", ignore_index=True)
    pd.testing.assert_frame_equal(found, barriers(table))


def test_a_line_that_two_kinds_share_counts_under_both():
    table = points(
        ({"kind": "dense-ticket", "level": 2, "line": "shared"}, [0.1, 0.2, 0.1]),
        ({"kind": "levels", "level": 2, "line": "shared"}, [0.1, 0.2, 0.1]),
    )
    found = barrier_statistics(table, 0.02)
    assert found[["kind", "pairs"]].values.tolist() == [["dense-ticket", 1], ["levels", 1]]
    assert found["test_mean"].tolist() == pytest.approx([0.1, 0.1])


def test_pairs_of_a_trial_are_averaged_first():
    """Trial 0 has barriers 0.01 and 0.03, trial 1 has 0.06: the mean is 0.04, not that of three pairs."""
    table = points(
        ({"copy": 0}, [0.0, 0.01, 0.0]),
        ({"copy": 1, "other_copy": 2}, [0.0, 0.03, 0.0]),
        ({"trial": 1}, [0.0, 0.06, 0.0]),
    )
    (row,) = barrier_statistics(table, 0.04).to_dict("records")
    assert (row["pairs"], row["trials"]) == (3, 2)
    assert row["test_mean"] == pytest.approx(0.04)
    assert row["test_std"] == pytest.approx(np.std([0.01, 0.03, 0.06], ddof=1))
    half = 12.7062047 * np.std([0.02, 0.06], ddof=1) / np.sqrt(2)  # t with one degree of freedom, 97.5 %
    assert (row["test_low"], row["test_high"]) == pytest.approx((0.04 - half, 0.04 + half))
    assert row["train_mean"] == pytest.approx(0.02)


def test_one_trial_has_no_interval():
    (row,) = barrier_statistics(points(({}, [0.0, 0.01, 0.0])), 0.02).to_dict("records")
    assert row["test_mean"] == pytest.approx(0.01)
    assert np.isnan([row["test_low"], row["test_high"], row["test_std"]]).all()


@pytest.mark.parametrize(("highest", "stable"), [(0.12, True), (0.1201, False), (0.05, True)])
def test_stable_is_at_or_below_the_threshold(highest, stable):
    (row,) = barrier_statistics(points(({}, [0.1, highest, 0.1])), 0.02).to_dict("records")
    assert row["stable"] == stable
    assert row["threshold"] == 0.02


def test_it_is_the_test_error_that_decides():
    table = points(({}, [0.0, 0.03, 0.0]))
    assert not barrier_statistics(table, 0.02)["stable"].any()
    assert barrier_statistics(table.assign(test_error=0.0), 0.02)["stable"].all()


def test_no_lines_give_empty_tables():
    empty = pd.DataFrame(columns=list(POINT_COLUMNS))
    assert list(barriers(empty).columns) == list(barriers(points(({}, [0.0, 0.0, 0.0]))).columns)
    assert list(barrier_statistics(empty, 0.02).columns) == list(
        barrier_statistics(points(({}, [0.0, 0.0, 0.0])), 0.02).columns
    )
