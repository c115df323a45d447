"""The learning curves of all levels."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from tombola.figures.rounds import rounds


def test_each_level_is_the_mean_over_trials(make):
    levels, curves = make(trials=3, rounds=5, arms=("ticket", "reinit"))
    figure = rounds(levels, curves.sample(frac=1, random_state=0))
    tickets = curves[curves.arm == "ticket"]
    for axes, measure, scale in zip(figure.axes, ("val_accuracy", "val_loss"), (100, 1), strict=False):
        assert len(axes.lines) == 6
        for level, line in enumerate(axes.lines):
            expected = tickets[tickets.level == level].groupby("iteration")[measure].mean()
            assert line.get_xdata() == pytest.approx(expected.index.to_numpy())
            assert line.get_ydata() == pytest.approx(scale * expected.to_numpy())
    assert "n = 3 trials; curves are means over trials" in figure.texts[-1].get_text()


def test_colours_run_from_dark_to_light_and_the_bar_names_densities(make):
    figure = rounds(*make(trials=1, rounds=12, arms=("ticket",)))
    brightness = [np.mean(to_rgb(line.get_color())) for line in figure.axes[0].lines]
    assert brightness == sorted(brightness)
    assert len({line.get_color() for line in figure.axes[0].lines}) == 13
    bar = figure.axes[-1]
    assert bar.get_ylabel() == "weights remaining (%)"
    numbers = [text.get_text() for text in bar.get_yticklabels()]
    assert numbers[0] == "100"
    assert set(numbers) <= {
        "100",
        "80.0",
        "64.0",
        "51.2",
        "41.0",
        "32.8",
        "26.2",
        "21.0",
        "16.8",
        "13.4",
        "10.7",
        "8.6",
        "6.9",
    }
    assert "single runs" in figure.texts[-1].get_text()


def test_the_beginning_does_not_squeeze_the_rest(make):
    levels, curves = make(trials=1, rounds=4, arms=("ticket",), evaluations=100)
    first = curves["iteration"] == curves["iteration"].min()
    curves.loc[first, ["val_accuracy", "val_loss"]] = [0.1, 40.0]
    accuracy, loss, _ = rounds(levels, curves).axes
    assert accuracy.get_ylim()[0] > 30
    assert loss.get_ylim()[1] < 2


def test_diverged_runs_are_left_out(make):
    levels, curves = make(trials=2, rounds=3, arms=("ticket",))
    ill = {"trial": 1, "level": 3}
    for table in (levels, curves):
        chosen = (table[list(ill)] == list(ill.values())).all(axis=1)
        column = "status" if table is levels else "val_accuracy"
        table.loc[chosen, column] = "diverged" if table is levels else 0.0
    figure = rounds(levels, curves)
    assert figure.axes[0].lines[3].get_ydata()[-1] > 90
    assert "1 diverged run omitted (ticket)" in figure.texts[-1].get_text().replace("\n", " ")
