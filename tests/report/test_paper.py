"""Figures for print: their sizes, their fonts, their bytes; and bars that are intervals."""

from __future__ import annotations

import re
import zlib
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from tombola.figures import SCREEN, draw, paper
from tombola.figures.density import criteria, figure_1, figure_4, figure_5, figure_8
from tombola.figures.rounds import rounds
from tombola.figures.setting import Setting
from tombola.figures.style import LOOKS
from tombola.figures.training import figure_3
from tombola.tables.captions import bars_are


@pytest.fixture(scope="module", params=[0, 1, 2], ids=["screen", "one column", "two columns"])
def drawn(request, make, make_several) -> tuple[int, list[Figure]]:
    """Figures of studies with much to show - many arms, several studies, a long name - and the columns they span."""
    form = paper(request.param) if request.param else SCREEN
    arms = ("ticket", "reinit", "one-shot", "own-" + "x" * 40)
    levels, curves = make(trials=2, rounds=18, arms=arms, repeats=2, evaluations=10)
    figures = [figure_1(levels, form), figure_3(levels, curves, form), figure_4(levels, form)]
    figures.append(rounds(levels, curves, form))
    levels, curves = make_several({"a": "conv-2", "b": "conv-4", "c": "conv-6"}, trials=2, rounds=12, evaluations=10)
    settings = {name: Setting(learning_rate=f"0.{name}, warmup 20,000", criterion=name) for name in "abc"}
    figures += [figure_5(levels, form), figure_8(levels, curves, settings, form), criteria(levels, settings, form)]
    for figure in figures:
        figure.draw_without_rendering()
    return request.param, figures


def test_a_figure_is_as_wide_as_its_columns(drawn):
    columns, figures = drawn
    for figure in figures:
        width, height = figure.get_size_inches()
        assert width == {0: width, 1: 3.3, 2: 6.9}[columns]
        assert height < 9.5  # of a page's 11


def test_nothing_is_cut_off(drawn):
    for figure in drawn[1]:
        boxes = [artist.get_window_extent() for artist in (*figure.texts, *figure.legends)]
        for panel in figure.axes:
            boxes += [axis.get_tightbbox(figure._get_renderer()) for axis in (panel.xaxis, panel.yaxis)]
        for box in boxes:
            if box is not None:  # an axis without numbers
                assert box.x0 >= 0
                assert box.y0 >= 0
                assert box.x1 <= figure.bbox.x1
                assert box.y1 <= figure.bbox.y1


def test_the_legend_covers_neither_panels_nor_itself(drawn):
    for figure in drawn[1]:
        boxes = [legend.get_window_extent() for legend in figure.legends]
        panels = [axes.get_window_extent() for axes in figure.axes]
        titles = [axes._left_title.get_window_extent() for axes in figure.axes]
        for number, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:number] + panels + titles)


def test_numbers_beside_and_below_axes_do_not_overlap(drawn):
    for figure in drawn[1]:
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                low, high = sorted(axis.get_view_interval())
                labels = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
                boxes = [text.get_window_extent() for place, text in labels if text.get_text() and low <= place <= high]
                assert boxes or axes.get_label() == "<colorbar>"
                for number, box in enumerate(boxes):
                    assert not any(box.overlaps(other) for other in boxes[:number])


def test_a_papers_figure_has_no_title(make):
    levels, _ = make(trials=1, rounds=2, name="my-study")
    assert any("my-study" in text.get_text() for text in figure_4(levels).texts)
    assert not any("my-study" in text.get_text() for text in figure_4(levels, paper(1)).texts)


def test_pdf_has_embedded_truetype_fonts_and_the_same_bytes_every_time(make, tmp_path):
    tables = make(trials=2, rounds=3)
    paths = draw(*tables, tmp_path / "a", ["figure-4", "rounds"], form=paper(1), formats=["pdf"])
    assert [path.name for path in paths] == ["figure-4-1col.pdf", "rounds-1col.pdf"]
    again = draw(*tables, tmp_path / "b", ["figure-4", "rounds"], form=paper(1), formats=["pdf"])
    for first, second in zip(paths, again, strict=True):
        content = first.read_bytes()
        assert content == second.read_bytes()
        assert content.startswith(b"%PDF")
        assert b"/CreationDate" not in content
        streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)
        unpacked = content + b"".join(zlib.decompress(s) for s in streams if s[:1] == b"x")
        assert b"/FontFile2" in unpacked
        assert b"/Type3" not in unpacked


def test_intervals_are_students(make):
    levels, _ = make(trials=4, rounds=3, arms=("ticket", "reinit"), repeats=3)
    figure = figure_4(levels, replace(SCREEN, bars="interval"))
    for axes, measure in zip(figure.axes[1:3], ("early_stop_test_accuracy", "final_test_accuracy"), strict=True):
        for container, arm in zip(axes.containers, ("ticket", "reinit"), strict=True):
            ends = np.array([segment[:, 1] for segment in container.lines[2][0].get_segments()])
            for level, rows in levels[levels.arm == arm].groupby("level"):
                trials = 100 * rows.groupby("trial")[measure].mean()
                expected = stats.t.interval(0.95, 3, trials.mean(), stats.sem(trials))
                assert ends[level] == pytest.approx(expected)
    assert "bars are 95 % t intervals of the mean" in figure.texts[-1].get_text()


def test_one_trial_has_no_interval(make):
    levels, curves = make(trials=1, rounds=3, arms=("ticket", "reinit"), repeats=3)
    for make_figure in (figure_4, lambda levels, form: figure_3(levels, curves, form)):
        figure = make_figure(levels, replace(SCREEN, bars="interval"))
        assert not any(container.has_yerr for axes in figure.axes for container in axes.containers)
        assert any("one trial, so no intervals" in text.get_text() for text in figure.texts)


def test_with_two_trials_bars_join_the_two(make):
    """Their intervals are about thirteen times as long, and would fill the plot."""
    levels, curves = make(trials=2, rounds=4, repeats=2)
    form = replace(SCREEN, bars="interval")
    figure = figure_4(levels, form)
    for arm in ("ticket", "reinit"):
        of_trials = levels[levels.arm == arm].groupby(["level", "trial"])["early_stop_test_accuracy"].mean().unstack()
        container = next(each for each in figure.axes[1].containers if each.lines[0].get_color() == LOOKS[arm].color)
        ends = np.array([segment[:, 1] for segment in container.lines[2][0].get_segments()])
        assert ends == pytest.approx(100 * np.sort(of_trials.to_numpy(), axis=1))
    for each in (figure, figure_1(levels, form), figure_3(levels, curves, form)):
        assert "bars join the two trials, because a 95 % interval of two would fill the plot" in " ".join(
            each.texts[-1].get_text().split()
        )


def test_small_print_names_bars_of_two_trials_beside_intervals():
    assert bars_are({5, 2}, "interval") == "bars are 95 % t intervals of the mean (of two trials, bars join the two)"
    assert bars_are({5, 1}, "interval") == "bars are 95 % t intervals of the mean"
    assert (
        bars_are({2}, "interval", "bands")
        == "bands join the two trials, because a 95 % interval of two would fill the plot"
    )


def test_an_interval_of_two_trials_does_not_leave_the_range_of_accuracies(make):
    levels, _ = make(trials=2, rounds=3, arms=("ticket",))
    levels["early_stop_test_accuracy"] = np.where(levels["trial"] == 0, 0.3, 0.99)
    low, high = figure_4(levels, replace(SCREEN, bars="interval")).axes[1].get_ylim()
    assert -10 < low < high < 110
