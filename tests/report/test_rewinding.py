"""Accuracy against the iteration that is rewound to."""

from __future__ import annotations

import pandas as pd
import pytest

from tombola.figures.rewinding import rewinding

KS = (0, 100, 1000)


@pytest.fixture
def rewound(make):
    """Three trials of two arms, one curve for each k."""
    levels, _ = make(trials=3, rounds=4, arms=("ticket", "late-reinit", "random-mask"))
    parts = []
    for k in KS:
        part = levels.assign(arm=levels["arm"] + f"@{k}")
        part.loc[part["level"] > 0, "final_test_accuracy"] += k / 1e5
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def test_each_curve_is_the_mean_over_trials_at_each_k(rewound):
    figure = rewinding(rewound)
    _, final = figure.axes
    curves = [container.lines[0] for container in final.containers]
    assert len(curves) == 2 * 4  # tickets and late-reinit at levels 1 to 4; random-mask has no place here
    expected = [
        [100 * rewound[(rewound.arm == f"{arm}@{k}") & (rewound.level == level)].final_test_accuracy.mean() for k in KS]
        for arm in ("ticket", "late-reinit")
        for level in (1, 2, 3, 4)
    ]
    assert [list(curve.get_xdata()) for curve in curves] == 8 * [list(KS)]
    assert [list(curve.get_ydata()) for curve in curves] == [pytest.approx(values) for values in expected]
    dense = rewound[(rewound.arm == "ticket@0") & (rewound.level == 0)].final_test_accuracy.mean()
    assert any(list(line.get_ydata()) == pytest.approx([100 * dense] * 2) for line in final.lines)
    assert [text.get_text() for text in final.get_xticklabels()] == ["0", "100", "1,000"]


def test_diverged_runs_are_left_out_and_counted(rewound):
    ill = (rewound["arm"] == "ticket@100") & (rewound["level"] == 2) & (rewound["trial"] == 1)
    rewound["status"] = rewound["status"].mask(ill, "diverged")
    rewound.loc[ill, "final_test_accuracy"] = 0.1
    figure = rewinding(rewound)
    small_print = " ".join(text.get_text() for text in figure.texts)
    curve = figure.axes[1].containers[1].lines[0]
    assert min(curve.get_ydata()) > 90
    assert "1 diverged run omitted (ticket)" in small_print


def test_without_several_iterations_there_is_no_figure(make, rewound):
    levels, _ = make(trials=1, rounds=2)
    assert rewinding(levels) is None
    assert rewinding(rewound[rewound["arm"] == "ticket@100"]) is None


def test_an_arm_of_another_name_is_drawn_where_there_is_no_ticket(rewound):
    own = rewound[rewound["arm"].str.startswith("ticket@")]
    figure = rewinding(own.assign(arm=own["arm"].str.replace("ticket", "slow")))
    assert len(figure.axes[1].containers) == 4


def test_an_arm_that_has_runs_from_one_iteration_alone_has_no_place(rewound):
    """The others' diverged, or are yet to come."""
    ill = rewound["arm"].isin([f"{arm}@{k}" for arm in ("ticket", "late-reinit") for k in KS[1:]])
    rewound["status"] = rewound["status"].mask(ill, "diverged")
    figure = rewinding(rewound)
    assert len(figure.axes[1].containers) == 4  # random-mask
    assert [text.get_text() for text in figure.axes[1].get_xticklabels()] == ["0", "100", "1,000"]


def test_the_dense_line_is_the_mean_of_trials_whose_repeats_are_averaged(rewound):
    """And it counts a diverged dense run once, though each iteration shows it."""
    dense = rewound["level"] == 0
    again = rewound[dense & (rewound["trial"] == 0)].assign(repeat=1)
    again["final_test_accuracy"] += 0.004
    rewound["status"] = rewound["status"].mask(dense & (rewound["trial"] == 2), "diverged")
    figure = rewinding(pd.concat([again, rewound], ignore_index=True))
    trials = [rewound[dense & (rewound["trial"] == trial)]["final_test_accuracy"].iloc[0] for trial in (0, 1)]
    expected = 100 * (trials[0] + 0.002 + trials[1]) / 2
    assert any(list(line.get_ydata()) == pytest.approx([expected] * 2) for line in figure.axes[1].lines)
    assert "1 diverged run omitted (dense)" in " ".join(text.get_text() for text in figure.texts)


def test_a_table_without_values_at_the_end_has_one_panel(rewound):
    figure = rewinding(rewound.assign(final_test_accuracy=float("nan")))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["(a)"]
    nothing = rewound.assign(final_test_accuracy=float("nan"), early_stop_test_accuracy=float("nan"))
    assert rewinding(nothing) is None
