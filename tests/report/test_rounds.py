"""The learning curves of all levels."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from tombola.figures.density import by_round
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


def test_training_curves_are_drawn_where_they_are_measured(make):
    levels, curves = make(trials=2, rounds=3, arms=("ticket",))
    curves = curves.assign(train_accuracy=curves["val_accuracy"] + 0.01, train_loss=curves["val_loss"] / 2)
    often = sorted(curves["iteration"].unique())[::4]
    curves.loc[~curves["iteration"].isin(often), ["train_accuracy", "train_loss"]] = np.nan
    axes = rounds(levels, curves).axes
    assert [each.get_ylabel() for each in axes[:4]] == [
        "validation accuracy (%)",
        "validation loss",
        "training accuracy (%)",
        "training loss",
    ]
    for each, measure, scale in ((axes[2], "train_accuracy", 100), (axes[3], "train_loss", 1)):
        for level, line in enumerate(each.lines):
            expected = curves[curves.level == level].groupby("iteration")[measure].mean().dropna()
            assert list(line.get_xdata()) == often
            assert line.get_ydata() == pytest.approx(scale * expected.to_numpy())


def test_what_is_best_in_each_round(make):
    levels, curves = make(trials=2, rounds=4, arms=("ticket", "reinit"))
    key = ["arm", "trial", "repeat", "level"]
    first = curves.groupby(key)["iteration"].min()
    levels["early_stop_iteration"] = [first[tuple(row)] for row in levels[key].to_numpy()]
    curves["test_loss"] = np.arange(len(curves)) / 1000
    curves.loc[~curves["iteration"].isin(first), ["val_accuracy", "test_loss"]] = np.nan
    axes = by_round(levels.assign(early_stop_val_loss=0.5, sparsity=1 - levels["density"]), curves).axes
    assert [each.get_ylabel() for each in axes] == [
        "best validation loss",
        "validation accuracy there (%)",
        "test loss there",
        "sparsity (%)",
    ]
    tickets = curves[curves["arm"] == "ticket"]
    wanted = {1: 100 * tickets.groupby("level")["val_accuracy"].mean(), 2: tickets.groupby("level")["test_loss"].mean()}
    wanted[3] = 100 - 100 * levels[levels["arm"] == "ticket"].groupby("level")["density"].mean()
    for place, values in wanted.items():
        lines = [line for line in axes[place].lines if list(line.get_xdata()) == [0, 1, 2, 3, 4]]
        assert any(line.get_ydata() == pytest.approx(values.to_numpy()) for line in lines)


def test_rounds_of_a_table_without_curves(make):
    levels, curves = make(trials=1, rounds=2, arms=("ticket",))
    axes = by_round(levels.assign(early_stop_val_loss=0.5, sparsity=np.nan), curves.iloc[:0]).axes
    assert [each.get_ylabel() for each in axes] == ["best validation loss"]


def test_points_beyond_the_axes_are_said_to_lie_where_they_lie(make):
    """The metrics of one figure can be better in different directions."""
    levels, curves = make(trials=2, rounds=8, arms=("ticket", "reinit"))
    first = curves["iteration"].min()
    levels = levels.assign(early_stop_iteration=first, early_stop_val_loss=0.5, sparsity=1 - levels["density"])
    collapsed = (curves["arm"] == "reinit") & (curves["level"] > 6)
    curves = curves.drop(columns="test_loss").assign(val_accuracy=np.where(collapsed, 0.1, 0.97))
    said = " ".join(by_round(levels, curves).texts[-1].get_text().split())
    assert "2 points below the axes not shown" in said
