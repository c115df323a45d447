"""What figures show where runs are uneven: few trials, other evaluations, other densities, no finite values."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import vl_convert
from made_up_levels import levels_of

from tombola.analysis.paired import at_equal_density, paired_gains
from tombola.analysis.statistics import level_statistics
from tombola.figures.density import at_fractions, figure_8
from tombola.figures.interpolation import barriers, error_curves
from tombola.figures.rounds import rounds
from tombola.figures.setting import Setting
from tombola.figures.training import figure_3
from tombola.html import figures, gather
from tombola.html.series import series_of
from tombola.html.spec_parts import drawn_bars
from tombola.html.training_specs import curves_of_arm
from tombola.running.results import POINT_COLUMNS
from tombola.tasks.metric import ACCURACY

ARMS = {arm: ([0.98, 0.97], [4000.0, 4000.0]) for arm in ("ticket", "reinit")}


def curves_for(levels: pd.DataFrame, iterations: Mapping[tuple[str, int], Sequence[int]]) -> pd.DataFrame:
    """Return the evaluations of each run: trial 0 has 0.9 and trial 1 has 0.8 throughout."""
    rows = [
        {name: run[name] for name in ("study", "arm", "trial", "level", "density")}
        | {"repeat": 0, "iteration": iteration}
        | {f"{part}_accuracy": 0.9 - 0.1 * run["trial"] for part in ("val", "test")}
        | {f"{part}_loss": 0.5 for part in ("val", "test")}
        for run in levels.to_dict("records")
        for iteration in iterations[run["arm"], run["trial"]]
    ]
    return pd.DataFrame(rows)


def captions(levels: pd.DataFrame) -> list[str]:
    statistics = level_statistics(levels)
    return [each.caption for each in figures.density_figures(statistics, series_of(levels), ACCURACY)]


def small_print(figure) -> str:
    return " ".join(text.get_text() for text in figure.texts[::-1])


def test_the_caption_covers_points_of_fewer_trials():
    levels = levels_of(ARMS)
    assert all("joins" not in caption and "no bar" not in caption for caption in captions(levels))
    few = levels[(levels["arm"] == "ticket") | (levels["trial"] < 2)]
    assert all("95 % intervals" in caption and figures.OF_TWO in caption for caption in captions(few))
    one = levels[(levels["arm"] == "ticket") | (levels["trial"] < 1)]
    assert all(figures.OF_ONE in caption and figures.OF_TWO not in caption for caption in captions(one))


def test_a_bar_of_two_trials_joins_their_means_and_one_trial_has_none():
    first, again = (levels_of(ARMS, trials=2, seed=seed).assign(repeat=seed) for seed in (0, 1))
    levels = pd.concat([first, again[again["level"] > 0]])
    statistics = level_statistics(levels, ["early_stop_test_accuracy"])
    rows = statistics[(statistics["arm"] == "reinit") & (statistics["level"] == 1)]
    runs = levels[(levels["arm"] == "reinit") & (levels["level"] == 1)]
    of_trials = runs.groupby("trial")["early_stop_test_accuracy"].mean()
    low, high = drawn_bars(rows)
    assert (low[0], high[0]) == pytest.approx((of_trials.min(), of_trials.max()))
    one = level_statistics(levels[levels["trial"] == 0], ["early_stop_test_accuracy"])
    assert np.isnan(drawn_bars(one)).all()


def test_thinning_keeps_arms_that_were_evaluated_at_other_iterations():
    levels = levels_of(ARMS, trials=1)
    grids = {("ticket", 0): range(100, 25_001, 100), ("reinit", 0): range(150, 25_051, 100)}
    thinned, every, *_ = gather._thinned(curves_for(levels, grids), [0, 1, 2], ACCURACY)
    assert every == 3
    counts = thinned.groupby(["arm", "level"])["iteration"].count()
    assert set(counts) == {84}  # each third of 250
    assert set(thinned.groupby("arm")["iteration"].max()) == {25_000, 25_050}
    assert len(counts) == 2 * 3


OFFSET = {(arm, trial): range(100 + 50 * trial, 1001, 100 - 50 * trial) for arm in ARMS for trial in (0, 1)}
APART = {(arm, trial): range(100 + 50 * trial, 1001, 100) for arm in ARMS for trial in (0, 1)}


def test_a_mean_curve_has_the_evaluations_of_all_its_runs():
    levels = levels_of(ARMS, trials=2)
    curves = curves_for(levels, OFFSET)  # every 100 iterations from 100; every 50 from 150
    for figure in (figure_3(levels, curves), rounds(levels, curves)):
        lines = [line.get_ydata() for line in figure.axes[0].lines if len(line.get_ydata()) == 9]
        assert lines
        assert all(np.allclose(line, 85) for line in lines)
        assert "the evaluations that all its runs have" in small_print(figure)
    shown, _, note, _ = gather._thinned(curves, [0, 1, 2], ACCURACY)
    assert shown["mean"].to_numpy() == pytest.approx(0.85)
    assert "all its runs" in note


def test_runs_without_a_common_evaluation_have_no_mean_curve():
    levels = levels_of(ARMS, trials=2)
    whole = {key: range(100, 1001, 100) for key in APART}
    assert gather._thinned(curves_for(levels, whole), [0, 1, 2], ACCURACY)[2] == ""
    curves = curves_for(levels, whole | {("reinit", trial): APART["reinit", trial] for trial in (0, 1)})
    shown, _, note, _ = gather._thinned(curves, [0, 1, 2], ACCURACY)
    assert set(shown["arm"]) == {"ticket"}
    assert "3 curves not shown, because no evaluation is of all its runs (reinit)" in note
    shown, _, note, _ = gather._thinned(curves_for(levels, APART), [0, 1, 2], ACCURACY)
    assert shown.empty
    assert "6 curves not shown" in note
    assert figure_3(levels, curves_for(levels, APART)) is rounds(levels, curves_for(levels, APART)) is None


def test_figures_7_and_8_average_all_trials_in_each_panel():
    levels = levels_of(ARMS, trials=2)
    shown, panels, _ = at_fractions(levels, curves_for(levels, OFFSET), (0.17, 1.0))
    assert [panel.title for panel in panels] == ["at iteration 200", "at iteration 1,000"]
    assert shown[[panel.measure for panel in panels]].notna().all(axis=None)
    short = {key: range(100, 1001 if key[0] == "ticket" else 601, 100) for key in OFFSET}
    figure = figure_8(levels, curves_for(levels, short), {"s": Setting()})
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[0] == "(a) at iteration 300"
    assert titles[1:] == [
        f"({letter}) at iteration {at}, 6 runs omitted (reinit)" for letter, at in (("b", 700), ("c", "1,000"))
    ]


def of_densities(densities: Mapping[str, Sequence[float]]):
    """Return what a page of learning curves shows where arms have these densities at level 0, 1, ..."""
    values = {"n": 1, "runs": 1, "mean": 0.9, "min": 0.9, "max": 0.9}
    curves = pd.DataFrame(
        {"study": "s", "arm": arm, "level": level, "iteration": iteration, "density": density} | values
        for arm, found in densities.items()
        for level, density in enumerate(found)
        for iteration in (100, 200)
    )
    about = {"arm": "ticket", "metric": ACCURACY, "measured_on": "validation", "cut_note": "", "every": 1}
    return SimpleNamespace(curves=curves, **about), series_of(curves)


def legend_of(found, series, key: str) -> list[str]:
    spec = curves_of_arm(found.curves, series, key, ACCURACY, "validation")
    expression = spec["layer"][0]["encoding"]["color"]["legend"]["labelExpr"]
    names = json.loads(expression[1 : expression.index(")[arm]")])
    return list(names[key].values())


def test_learning_curves_name_the_density_of_their_own_arm():
    found, series = of_densities({"ticket": (1, 0.5, 0.25), "reinit": (1, 0.8, 0.64)})
    assert legend_of(found, series, "s0") == ["100", "50", "25"]
    assert legend_of(found, series, "s1") == ["100", "80", "64"]
    figure = figures.curve_figures(found, series)[0]
    assert figure.title == "Learning curves: all arms at one level"
    assert figures.ARMS_DIFFER in figure.caption
    assert [text for _, text in figure.choices[0].options] == ["100 %", "50.0-80.0 %", "25.0-64.0 %"]
    found, series = of_densities({"ticket": (1, 0.5, 0.25), "reinit": (1, 0.5, 0.25)})
    figure = figures.curve_figures(found, series)[0]
    assert figure.title == "Learning curves: all arms at one density"
    assert [text for _, text in figure.choices[0].options] == ["100 %", "50.0 %", "25.0 %"]


def test_levels_of_one_density_are_curves_of_their_own():
    found, series = of_densities({"ticket": (1, 0.5, 0.5)})
    assert legend_of(found, series, "s0") == ["100", "50 (level 1)", "50 (level 2)"]
    spec = curves_of_arm(found.curves, series, "s0", ACCURACY, "validation")
    rows = found.curves.assign(series="s0", min=0.9, max=0.9)[["series", "level", "density", "iteration", "mean"]]
    values = json.loads(rows.to_json(orient="records"))
    picture = vl_convert.vegalite_to_svg({**spec, "width": 500, "data": {"name": "curves", "values": values}})
    assert all(f">{name}</text>" in picture for name in ("100", "50 (level 1)", "50 (level 2)"))
    assert all(f'stroke="var(--r{place})"' in picture for place in range(3))


def lines_of(heights: Mapping[tuple[int, int], float]) -> pd.DataFrame:
    """Return interpolations between copies: (rewind, trial) -> the error in the middle; the ends have 0.1."""
    rows = []
    for (rewind, trial), height in heights.items():
        place = {"study": "s", "kind": "copies", "trial": trial, "rewind": rewind, "level": 0, "other_level": 0}
        place |= {"copy": 0, "other_copy": 1, "line": f"{rewind}-{trial}", "density": 1.0}
        for position, error in ((0.0, 0.1), (0.5, height), (1.0, 0.1)):
            errors = {f"{part}_{what}": error for part in ("train", "test") for what in ("error", "loss")}
            rows.append(place | errors | {"position": position})
    return pd.DataFrame(rows)[list(POINT_COLUMNS)]


@pytest.mark.parametrize("first", [np.inf, np.nan])
def test_an_infinite_barrier_is_drawn_above_the_axis(first):
    levels = levels_of(ARMS, trials=2)
    points = lines_of({(0, 0): first, (0, 1): 0.15, (100, 0): 0.12, (100, 1): 0.12})
    figure = barriers(levels, points, {"s": Setting()})
    (axes,) = figure.axes
    (curve,) = [line for line in axes.lines if line.get_marker() == "o"]
    assert np.isnan(curve.get_ydata()[0])  # not 5 points, the barrier of the other trial
    assert curve.get_ydata()[1] == pytest.approx(2)
    (arrow,) = [line for line in axes.lines if line.get_marker() == "^"]
    assert list(arrow.get_xdata()) == [0]
    assert "infinite means, because of 1 interpolation without finite values" in small_print(figure)
    lines = error_curves(levels, points, "copies").axes[0].lines
    assert any(np.isnan(line.get_ydata()[1]) for line in lines)
    assert not any(np.allclose(line.get_ydata()[1], 15) for line in lines)
    assert "gaps where 1 interpolation" in small_print(error_curves(levels, points, "copies"))


def test_barriers_that_are_all_infinite_have_a_figure():
    points = lines_of({(0, 0): np.inf, (100, 0): np.inf})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = barriers(levels_of(ARMS, trials=1), points, {"s": Setting()})
    assert "2 interpolations" in small_print(figure)
    (legend,) = [text.get_text() for each in figure.legends for text in each.get_texts() if "stable" in text.get_text()]
    assert legend == "stable at or below 2 points"


def test_finite_barriers_have_no_arrow():
    figure = barriers(levels_of(ARMS, trials=1), lines_of({(0, 0): 0.2, (100, 0): 0.1}), {"s": Setting()})
    assert "infinite" not in small_print(figure)
    assert not [line for line in figure.axes[0].lines if line.get_marker() == "^"]


def test_a_page_does_not_deny_an_arm_of_another_density():
    levels = levels_of(ARMS, trials=3)
    levels.loc[(levels["arm"] == "reinit") & (levels["level"] > 0), "density"] /= 2
    gains = at_equal_density(paired_gains(levels, "ticket", "reinit", "early_stop_test_accuracy"), levels)
    found = SimpleNamespace(arm="ticket", levels=levels, gains=gains, controls=None, metric=ACCURACY)
    (figure,) = figures.gain_figures(found, series_of(levels))
    assert figure.caption == "No other arm has results of the same trials at the densities of ticket."
    found.levels = levels[levels["arm"] == "ticket"]
    (figure,) = figures.gain_figures(found, series_of(found.levels))
    assert figure.caption == "The study has no other arm."


def test_a_dense_run_that_a_panel_omits_counts_once():
    levels = levels_of(ARMS, trials=2)
    short = curves_for(levels, {key: range(100, 1001, 100) for key in OFFSET})
    short = short[(short["level"] > 0) | (short["trial"] > 0) | (short["iteration"] <= 300)]
    figure = figure_8(levels, short, {"s": Setting()})
    assert figure.axes[-1].get_title(loc="left") == "(c) at iteration 1,000, 2 runs omitted (dense)"
