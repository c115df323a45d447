"""Claims on error barriers: between which levels, and exactly where tickets match (Paul et al. 2023)."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from made_up_levels import levels_of

from tombola.analysis.claims import evaluate, read_claims
from tombola.analysis.expressions import BadExpression, parse
from tombola.analysis.reading import read_points
from tombola.cli import cli
from tombola.errors import InputError
from tombola.formatting import as_csv

HEIGHTS = {1: 0.001, 2: 0.03, 3: 0.2}  # of the bump between a level and the denser one


def levels():
    """Levels 1 and 3 match or lose as level 1 is connected and 3 is not; level 2 matches without being connected."""
    return levels_of({"ticket": ([0.985, 0.985, 0.9], [3000] * 3)}, trials=4, noise=(0.0002, 10.0))


def points(kind="levels", rewind=0, study="s"):
    rows = []
    for level, height in HEIGHTS.items():
        for trial in range(4):
            for position, bump in ((0.0, 0.0), (0.5, height + 0.0001 * trial), (1.0, 0.0)):
                place = {"study": study, "kind": kind, "trial": trial, "rewind": rewind, "level": level, "copy": 0}
                place |= {"other_level": level - 1, "other_copy": 0, "line": f"{kind}{rewind}{level}{trial}"}
                error = 0.02 + bump
                values = {"test_error": error, "train_error": error, "test_loss": error, "train_loss": error}
                rows.append(place | values | {"density": 0.8**level, "position": position})
    return pd.DataFrame(rows)


def outcome(expression, given, **fields):
    lines = {"id": "a", "source": "s", "sentence": "t", "expression": expression} | fields
    return evaluate(levels(), read_claims(json.dumps({"claims": [lines]}), "own"), points=given)[0]


def test_a_barrier_is_in_points_and_one_number_for_each_trial():
    found = outcome('barrier("ticket", "levels", 0.64)', points(), expected=3, tolerance=0.1)
    assert found.measured == pytest.approx(3 + 0.01 * 1.5)  # bumps of trials 0 to 3
    assert (found.outcome, found.n) == ("reproduced", 4)
    whole = outcome('barrier("ticket", "levels", 0.8, 0.512)', points(), expected=7.7, tolerance=0.1)
    assert whole.measured == pytest.approx((0.1 + 3 + 20) / 3 + 0.01 * 1.5)


def test_the_share_of_levels_that_are_connected_exactly_where_they_match():
    """By hand: level 1 is both, level 2 matches only, level 3 is neither."""
    found = outcome('connected_where_matching("ticket")', points(), expected=0.667, tolerance=0.01)
    assert (found.outcome, found.measured) == ("reproduced", pytest.approx(2 / 3))
    higher = outcome('connected_where_matching("ticket", 5)', points(), expected=1, tolerance=0.01)
    assert (higher.outcome, higher.measured) == ("reproduced", 1.0)
    lenient = outcome('connected_where_matching("ticket", 5, 20)', points(), expected=0.667, tolerance=0.01)
    assert lenient.outcome == "reproduced"  # level 3 then matches, too


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_the_margin_of_another_metric_is_in_percent_of_dense(unit):
    """By hand: dense has an RMSE of about 2 kW, and level 3 one of about 2.08 kW, which is 4 % more."""
    table = levels().drop(columns=["final_test_accuracy", "final_train_accuracy"])
    rmse = unit * (2.98 - table.pop("early_stop_test_accuracy"))
    rmse = rmse.rename("early_stop_test_rmse")
    table = table.assign(early_stop_test_rmse=rmse, metric="rmse", metric_better="lower", metric_unit="kW")
    for margin, share in ((3, 2 / 3), (5, 1 / 3)):
        lines = {"id": "a", "source": "s", "sentence": "t", "expected": share, "tolerance": 0.01, "metric": "rmse"}
        lines["expression"] = f'connected_where_matching("ticket", 2, {margin})'
        (found,) = evaluate(table, read_claims(json.dumps({"claims": [lines]}), "own"), points=points())
        assert (found.outcome, found.measured) == ("reproduced", pytest.approx(share)), found.reason


@pytest.mark.parametrize(
    ("expression", "given", "reason"),
    [
        ('barrier("ticket", "copies", 0.64)', points(), "no interpolations of kind 'copies'"),
        ('barrier("ticket", "levels", 0.64)', None, "no interpolations of kind 'levels'"),
        (
            'barrier("ticket", "levels", 0.64)',
            points().query("level != 2"),
            "no interpolation of kind 'levels' at that",
        ),
        ('barrier("reinit", "levels", 0.64)', points(), "join tickets and the dense network, not 'reinit'"),
        (
            'connected_where_matching("ticket")',
            pd.concat([points(), points(rewind=500)]),
            "from several iterations; name one of ticket@0, ticket@500",
        ),
        (
            'connected_where_matching("ticket")',
            points().query("level != 2").replace({"other_level": {2: 1}}),
            "join levels 1 and 3, which are not successive rounds",
        ),
        ('connected_where_matching("ticket@100")', points(), "no interpolations of kind 'levels' for 'ticket@100'"),
    ],
)
def test_what_is_not_measured_is_said(expression, given, reason):
    found = outcome(expression, given, expected=1, tolerance=1)
    assert found.outcome == "not measured"
    assert reason in found.reason


def test_kinds_are_checked_when_a_claim_is_read():
    with pytest.raises(BadExpression, match="must be one of 'copies', 'dense-ticket', 'levels'"):
        parse('barrier("ticket", "lines", 0.64)')


def test_the_command_reads_connectivity_beside_a_table(tmp_path):
    (tmp_path / "results.csv").write_bytes(as_csv(levels()))
    (tmp_path / "connectivity.csv").write_bytes(as_csv(points()))
    lines = {"id": "a", "source": "s", "sentence": "t", "expression": 'barrier("ticket", "levels", 0.64) > 2'}
    (tmp_path / "own.yaml").write_text(json.dumps({"claims": [lines]}))
    arguments = ["claims", str(tmp_path), "--claims", str(tmp_path / "own.yaml"), "--format", "json"]
    (found,) = json.loads(CliRunner().invoke(cli, arguments, catch_exceptions=False).output)
    assert found["outcome"] == "reproduced"
    assert np.isclose(found["measured"], 3.015)
    (tmp_path / "connectivity.csv").write_bytes(as_csv(points().drop(columns="kind")))
    with pytest.raises(InputError, match=r"connectivity.csv has no column 'kind'"):
        CliRunner().invoke(cli, arguments, catch_exceptions=False)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("test_error", "abc", "test_error=abc is not a number"),
        ("test_error", 5, "test_error=5.* must be at least 0, at most 1"),
        ("test_error", "", "test_error=nan is missing, and other points of the study have it"),
        ("test_loss", "low", "test_loss=low is not a number"),
        ("level", 1.5, "level=1.5 is not a whole number"),
        ("rewind", "-", "rewind=- is not a number"),
        ("trial", "", "trial=nan is missing"),
        ("position", "nan", "position=nan is missing"),
        ("position", 1.5, "position=1.5 must be at least 0, at most 1"),
        ("density", 0, "density=0.* must be above 0, at most 1"),
        ("kind", "zz", "kind=zz must be one of copies, dense-ticket, levels"),
        ("line", "", "line is empty"),
    ],
)
def test_points_in_a_file_are_checked(tmp_path, column, value, reason):
    table = points().astype({column: object})
    table.loc[2, column] = value
    table.to_csv(tmp_path / "connectivity.csv", index=False)
    with pytest.raises(InputError, match=rf"connectivity\.csv, row 3: {reason}") as caught:
        read_points(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_points_without_errors_are_those_of_another_task(tmp_path):
    table = points().drop(columns=["test_error", "train_error"])
    table.to_csv(tmp_path / "connectivity.csv", index=False)
    pd.testing.assert_frame_equal(read_points(tmp_path), table[table.columns], check_dtype=False)
