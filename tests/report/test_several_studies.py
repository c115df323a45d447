"""Figures that set several studies beside one another, and those of the convolutional networks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from tombola.errors import InputError
from tombola.figures import Setting, draw
from tombola.figures.density import at_fractions, criteria, figure_1, figure_5, figure_6, figure_8
from tombola.figures.style import STUDIES, of_study, styles

CONV = {"two": "conv-2", "four": "conv-4", "six": "conv-6"}


def legends(figure) -> list[list[str]]:
    return [[text.get_text() for text in legend.get_texts()] for legend in figure.legends]


def curve(axes, study: int, filled: bool = True):
    """Return the line of the study at a place of the figure, filled (ticket, with dropout) or hollow."""
    color, _ = STUDIES[study]
    found = [
        container.lines[0]
        for container in axes.containers
        if container.lines[0].get_color() == color
        and (to_hex(container.lines[0].get_markerfacecolor()) == "#ffffff") != filled
    ]
    (line,) = found
    return line


def means(levels: pd.DataFrame, study: str, arm: str, measure: str) -> np.ndarray:
    """Return the mean over trials, their repeats averaged first, by level."""
    rows = levels[(levels.study == study) & (levels.arm == arm)]
    return rows.groupby(["level", "trial"])[measure].mean().groupby("level").mean().to_numpy()


def test_figure_5_shows_networks_by_colour_and_arms_by_line(make_several):
    levels, _ = make_several(CONV, trials=3, rounds=6, repeats=2)
    figure = figure_5(levels)
    assert legends(figure) == [["conv-2", "conv-4", "conv-6"], ["ticket", "reinit", "dense network"]]
    measures = ["early_stop_iteration", "early_stop_test_accuracy", "final_test_accuracy", "final_train_accuracy"]
    for axes, measure in zip(figure.axes, measures, strict=True):
        assert len(axes.containers) == 6
        scale = 1 if measure == "early_stop_iteration" else 100
        for place, study in enumerate(CONV):
            for arm in ("ticket", "reinit"):
                line = curve(axes, place, filled=arm == "ticket")
                assert line.get_ydata() == pytest.approx(scale * means(levels, study, arm, measure))
                density = levels[(levels.study == study) & (levels.arm == arm)].groupby("level")["density"].first()
                assert line.get_xdata() == pytest.approx(100 * density.to_numpy())
        # Curves of different densities meet at round numbers.
        assert [text.get_text() for text in axes.get_xticklabels()] == ["100", "50"]


def test_no_study_is_hidden_below_the_axis(make_several):
    levels, _ = make_several({f"s{number}": f"conv-{number}" for number in range(9)}, trials=1, rounds=2)
    measure = "early_stop_test_accuracy"
    levels.loc[levels.study == "s8", measure] = 0.1
    axes = figure_5(levels).axes[1]
    assert axes.get_ylim()[0] < 10


def test_studies_of_one_network_go_by_their_own_names(make_several):
    levels, _ = make_several({"layer-wise": "lenet", "global": "lenet"}, trials=1, rounds=2)
    assert legends(figure_1(levels))[0] == ["layer-wise", "global"]


def test_figure_6_pairs_networks_with_and_without_dropout(make_several):
    networks = {"two": "conv-2", "dropped": "conv-2", "four": "conv-4", "six-d": "conv-6"}
    levels, _ = make_several(networks, trials=2, rounds=4)
    settings = {name: Setting(dropout=0.5 if "d" in name else 0.0) for name in networks}
    figure = figure_6(levels, settings)
    assert legends(figure) == [["with dropout", "without dropout", "dense network"]]
    axes = figure.axes[1]
    for study, filled in (("dropped", True), ("two", False)):
        expected = 100 * means(levels, study, "ticket", "early_stop_test_accuracy")
        assert curve(axes, 0, filled).get_ydata() == pytest.approx(expected)
        # Each has a dense network of its own.
        assert any(np.allclose(line.get_ydata(), expected[0]) and len(line.get_ydata()) == 2 for line in axes.lines)
    settings["two"] = Setting(dropout=0.1)
    assert figure_6(levels, settings) is None


def test_figure_8_takes_the_nearest_evaluation(make_several):
    levels, curves = make_several({"a": "resnet-20", "b": "resnet-20"}, trials=2, rounds=3, evaluations=25)
    settings = {"a": Setting(learning_rate="0.1"), "b": Setting(learning_rate="0.03, warmup 20,000")}
    figure = figure_8(levels, curves, settings)
    # Of 50,000 iterations, evaluated every 2,000; a third is 16,667.
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["(a) at iteration 16,000", "(b) at iteration 34,000", "(c) at iteration 50,000"]
    assert legends(figure)[0] == ["learning rate 0.1", "learning rate 0.03, warmup 20,000"]
    for axes, iteration in zip(figure.axes, (16_000, 34_000, 50_000), strict=True):
        there = curves[(curves.iteration == iteration) & (curves.study == "b") & (curves.arm == "one-shot")]
        expected = 100 * there.groupby("level")["test_accuracy"].mean().to_numpy()
        drawn = [container.lines[0].get_ydata() for container in axes.containers]
        assert any(np.allclose(line, expected) for line in drawn)


def test_budgets_that_differ_are_told_in_percent(make_several):
    levels, curves = make_several({"a": "vgg-19", "b": "vgg-19"}, trials=1, rounds=1, evaluations=10)
    curves.loc[curves.study == "b", "iteration"] //= 10
    before_the_first_step = curves[curves.iteration == curves.iteration.min()].assign(iteration=0, test_accuracy=0.1)
    _, panels, _ = at_fractions(levels, pd.concat([before_the_first_step, curves]), (0.01, 1.0))
    assert [panel.title for panel in panels] == ["after 1 % of training", "after 100 % of training"]
    found, _, _ = at_fractions(levels, pd.concat([before_the_first_step, curves]), (0.01,))
    assert len(found) == len(levels)
    first = curves[curves.iteration == curves.study.map({"a": 5_000, "b": 500})]
    assert sorted(found["test_accuracy_0"]) == pytest.approx(sorted(first["test_accuracy"]))


def test_criteria_against_sparsity(make_several):
    levels, _ = make_several({"m": "conv-4", "s": "conv-4"}, trials=2, rounds=5)
    settings = {"m": Setting(), "s": Setting(criterion="stability")}
    figure = criteria(levels, settings)
    assert legends(figure) == [["magnitude", "stability"], ["ticket", "dense network"]]
    for axes in figure.axes:
        assert (axes.get_xlabel(), axes.get_xscale()) == ("sparsity", "linear")
        low, high = axes.get_xlim()
        assert -0.1 < low < 0 < 1 < high < 1.1
        density = levels[(levels.study == "s") & (levels.arm == "ticket")].groupby("level")["density"].first()
        assert curve(axes, 1).get_xdata() == pytest.approx(1 - density.to_numpy())
    assert len(criteria(levels[levels.study == "s"], settings).axes[0].containers) == 5


@pytest.mark.parametrize(
    ("networks", "settings", "expected"),
    [
        ({"a": "conv-4"}, {}, {"figure-5"}),
        ({"a": "conv-4", "b": "conv-4"}, {"a": Setting(dropout=0.5)}, {"figure-5", "figure-6"}),
        ({"a": "lenet", "b": "lenet"}, {"a": Setting(dropout=0.5)}, set()),
        ({"a": "vgg-19", "b": "my.nets:vgg-19"}, {}, {"figure-7"}),
        ({"a": "resnet-20", "b": "conv-2"}, {}, {"figure-5", "figure-8"}),
        ({"a": "lenet", "b": "lenet"}, {"b": Setting(criterion="random")}, {"criteria"}),
    ],
)
def test_what_is_drawn_unasked(make_several, tmp_path, networks, settings, expected):
    tables = make_several(networks, trials=1, rounds=1, arms=("ticket", "reinit"), evaluations=3)
    paths = draw(*tables, tmp_path, settings=settings, formats=["svg"])
    stems = {path.stem for path in paths}
    always = {"figure-1"} | {
        f"{name}-{study}" if len(networks) > 1 else name
        for name in ("figure-3", "figure-4", "rounds")
        for study in networks
    }
    assert stems == always | expected


@pytest.mark.parametrize("name", ["figure-5", "figure-7", "figure-8", "criteria"])
def test_what_is_asked_for_is_drawn_for_any_network(make, tmp_path, name):
    tables = make(trials=1, rounds=1, arms=("ticket", "reinit"))
    assert [path.name for path in draw(*tables, tmp_path, [name], formats=["pdf"])] == [f"{name}.pdf"]


def test_figure_6_says_what_it_needs(make_several, tmp_path):
    tables = make_several(CONV, trials=1, rounds=1, arms=("ticket",))
    with pytest.raises(InputError, match=r"two studies of one network: one with network.arguments.dropout"):
        draw(*tables, tmp_path, ["figure-6"])


def test_many_studies_look_different():
    ticket = styles(["ticket"])["ticket"]
    looks = [of_study(place, ticket) for place in range(3 * len(STUDIES))]
    assert len(set(looks)) == len(looks)
