"""The figures: what the data say is what is drawn, whatever the data hold."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest

from tombola.errors import InputError, StoreError
from tombola.figures import draw
from tombola.figures.density import figure_1, figure_4
from tombola.figures.style import DENSITIES, LOOKS, OTHERS, styles
from tombola.figures.training import choose_levels, figure_3

DRAWN = ["figure-1", "figure-3", "figure-4", "rounds"]  # unasked, of any network

LENET = {level: 0.8**level for level in range(25)}


def names(paths) -> list[str]:
    return [path.name for path in paths]


def texts(figure) -> str:
    return "\n".join(text.get_text() for text in figure.texts)


def legend(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_all_figures_of_a_full_study(full, tmp_path):
    paths = draw(*full, tmp_path / "new" / "folder")
    assert names(paths) == [f"{name}.{ending}" for name in DRAWN for ending in ("png", "svg")]
    assert names(sorted((tmp_path / "new" / "folder").iterdir())) == sorted(names(paths))
    for path in paths:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
        else:
            ElementTree.parse(path)


def test_the_same_data_give_the_same_bytes(make, tmp_path, monkeypatch):
    tables = make(trials=2, rounds=3)
    first = [path.read_bytes() for path in draw(*tables, tmp_path / "a")]
    # Neither the settings of the process, nor its threads, nor the order of the rows may show.
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 23.0)
    monkeypatch.setitem(matplotlib.rcParams, "svg.hashsalt", None)
    shuffled = [table.sample(frac=1, random_state=1) for table in tables]
    found: dict[int, list[bytes]] = {}

    def work(number: int) -> None:
        found[number] = [path.read_bytes() for path in draw(*shuffled, tmp_path / str(number))]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] == first for number in range(2)] == [True] * 2
    assert matplotlib.rcParams["font.size"] == 23.0


def test_importing_the_room_loads_no_drawing():
    code = "import sys, tombola.figures; print(sorted({'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_drawing_leaves_pyplot_alone(make, tmp_path):
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from conftest import synthetic; from tombola.figures import draw;"
        "draw(*synthetic(trials=1, rounds=1), Path(sys.argv[2])); print('matplotlib.pyplot' in sys.modules)"
    )
    arguments = [sys.executable, "-W", "error", "-c", code, str(Path(__file__).parent), str(tmp_path)]
    result = subprocess.run(arguments, capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == ("False", "")


def test_the_density_axis_is_logarithmic_and_falls(full):
    for figure in (figure_1(full[0]), figure_4(full[0])):
        for axes in figure.axes:
            left, right = axes.get_xlim()
            assert axes.get_xscale() == "log"
            assert left > 100 > right
            ticks = [text.get_text() for text in axes.get_xticklabels()]
            assert ticks[0] == "100"
            densities = 100 * full[0]["density"].unique()
            assert set(np.round(axes.get_xticks(), 6)) <= set(np.round(densities, 6))


def test_numbers_below_the_axis_do_not_overlap(full):
    figure = figure_1(full[0])
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in axes.get_xticklabels() if text.get_text()]
        assert len(boxes) > 3
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


@pytest.mark.parametrize("name", ["study", "W" * 100, "a long name with words of all kinds and no end to it at all"])
def test_nothing_is_cut_off(make, name):
    levels, curves = make(trials=2, rounds=3, arms=("ticket", "reinit", "W" * 60), name=name, repeats=2)
    levels = levels.assign(network="M" * 60)
    for figure in (figure_1(levels), figure_3(levels, curves), figure_4(levels)):
        figure.draw_without_rendering()
        whole = figure.bbox
        inside = [*figure.texts, *figure.legends, *(axes.yaxis.label for axes in figure.axes)]
        for artist in inside:
            box = artist.get_window_extent()
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= whole.x1
            assert box.y1 <= whole.y1


def drawn_bars(axes) -> dict[str, tuple]:
    """Return x, mean, and the ends of each bar for each curve, by colour."""
    found = {}
    for container in axes.containers:
        line, _, (bars,) = container.lines
        ends = np.array([segment[:, 1] if len(segment) else (np.nan, np.nan) for segment in bars.get_segments()])
        found[line.get_color()] = (line.get_xdata(), line.get_ydata(), ends)
    return found


def test_bars_reach_from_the_lowest_to_the_highest_run(make):
    levels, _ = make(trials=3, rounds=4, repeats=3)
    figure = figure_4(levels)
    for axes, measure in zip(figure.axes[1:3], ("early_stop_test_accuracy", "final_test_accuracy"), strict=True):
        for arm in ("ticket", "reinit", "one-shot", "one-shot-reinit"):
            x, mean, ends = drawn_bars(axes)[LOOKS[arm].color]
            rows = levels[levels.arm == arm]
            trial_means = rows.groupby(["level", "trial"])[measure].mean()
            by_level = rows.groupby("level")
            assert x == pytest.approx(100 * by_level["density"].first().to_numpy())
            assert mean == pytest.approx(100 * trial_means.groupby("level").mean().to_numpy())
            assert ends[:, 0] == pytest.approx(100 * by_level[measure].min().to_numpy())
            assert ends[:, 1] == pytest.approx(100 * by_level[measure].max().to_numpy())
    assert "3 trials, 9 runs (reinit, one-shot-reinit)" in texts(figure)
    assert "bars span the lowest and highest run" in texts(figure)


def test_one_trial_has_no_bars_and_says_so(make):
    levels, curves = make(trials=1, rounds=3, arms=("ticket", "reinit"))
    for figure in (figure_1(levels), figure_3(levels, curves), figure_4(levels)):
        assert not any(container.has_yerr for axes in figure.axes for container in axes.containers)
        assert "n = 1 trial; single runs, so no bars" in texts(figure).replace("\n", " ")


def test_what_each_figure_shows(full):
    levels, curves = full
    assert legend(figure_1(levels)) == ["ticket", "random-mask", "dense network"]
    assert legend(figure_4(levels)) == ["ticket", "reinit", "one-shot", "one-shot-reinit", "dense network"]
    figure = figure_3(levels, curves)
    densities = ["100 %", "51.2 %", "21.0 %", "6.9 %", "3.5 %", "1.8 %"]
    assert legend(figure) == [*densities, "51.2 % reinit", "21.0 % reinit"]
    assert len(figure.axes) == 3
    dashed = [line for line in figure.axes[2].lines if line.get_linestyle() == "--"]
    assert len(dashed) == 2


def test_figure_3_draws_means_over_trials_and_their_extremes(make):
    levels, curves = make(trials=3, rounds=7, arms=("ticket",), evaluations=30)
    axes = figure_3(levels, curves).axes[0]
    by_iteration = curves[curves.level == 7].groupby("iteration")["test_accuracy"]
    color, _ = DENSITIES[2]
    line = next(line for line in axes.lines if line.get_color() == color and line.get_linestyle() == "-")
    assert line.get_ydata() == pytest.approx(100 * by_iteration.mean().to_numpy())
    x, _, ends = drawn_bars(axes)[color]
    assert len(x) >= 3
    assert ends[:, 0] == pytest.approx(100 * by_iteration.min()[x].to_numpy())
    assert ends[:, 1] == pytest.approx(100 * by_iteration.max()[x].to_numpy())


def test_figure_3_shows_where_curves_differ_at_any_scale(make):
    levels, curves = make(trials=2, rounds=7, arms=("ticket",))
    low, high = figure_3(levels, curves).axes[0].get_ylim()
    assert 95 < low < 97.9 < 98.2 < high < 100
    curves["test_accuracy"] = 0.1 + (curves["test_accuracy"] - 0.1) / 10
    low, high = figure_3(levels, curves).axes[0].get_ylim()
    assert 18.4 < low < 18.8 < high < 19.5


@pytest.mark.parametrize(
    ("density_of", "expected"),
    [
        (LENET, [0, 3, 7, 12, 15, 18]),
        ({level: LENET[level] for level in range(9)}, [0, 3, 7]),
        ({level: LENET[level] for level in range(4)}, [0, 1, 2, 3]),
        ({0: 1.0, 1: 0.8, 2: 0.64}, [0, 1, 2]),
        ({0: 1.0}, [0]),
        ({0: 1.0, 1: 0.001, 2: 0.0}, [0, 1]),
        ({level: 0.99**level for level in range(11)}, [0, 2, 4, 6, 8, 10]),
        ({}, []),
    ],
)
def test_levels_of_figure_3(density_of, expected):
    assert choose_levels(density_of) == expected


def test_a_collapsed_control_does_not_squeeze_the_rest(make):
    levels, _ = make(trials=2, rounds=12, arms=("ticket", "reinit"))
    measure = "early_stop_test_accuracy"
    levels.loc[(levels.arm == "reinit") & (levels.level > 10), measure] = 0.1135
    figure = figure_4(levels)
    assert figure.axes[1].get_ylim()[0] > 85
    assert "2 points below the axes not shown" in texts(figure)
    levels.loc[levels.level > 4, measure] = 0.1135
    assert figure_4(levels).axes[1].get_ylim()[0] < 11.35


def test_diverged_runs_are_left_out_of_every_figure(make):
    levels, curves = make(trials=3, rounds=3, arms=("ticket",))
    ill = (levels.trial == 1) & (levels.level == 2)
    levels.loc[ill, ["status", "early_stop_test_accuracy"]] = ["diverged", 0.0]
    curves.loc[(curves.trial == 1) & (curves.level == 2), "test_accuracy"] = 0.0
    for figure in (figure_1(levels), figure_3(levels, curves), figure_4(levels)):
        small = texts(figure).replace("\n", " ")
        assert "n = 2 to 3 trials" in small
        assert "1 diverged run omitted (ticket)" in small
    sound = curves[(curves.level == 2) & (curves.trial != 1)].groupby("iteration")["test_accuracy"].mean()
    means = [line.get_ydata() for line in figure_3(levels, curves).axes[0].lines]
    assert any(len(m) == len(sound) and np.allclose(m, 100 * sound.to_numpy()) for m in means)


def odd_inputs(make):
    levels, curves = make(trials=2, rounds=3, arms=("ticket", "reinit", "random-mask"))
    nothing = levels.assign(early_stop_test_accuracy=np.nan, early_stop_iteration=np.nan)
    zero = levels.copy()
    zero.loc[zero.level == 3, ["density", "remaining_weights"]] = 0
    holes = levels.copy()
    holes.loc[holes.level == 1, "early_stop_test_accuracy"] = np.nan
    pieces = curves.copy()
    pieces.loc[pieces.level == 2, "test_accuracy"] = np.nan
    pieces.loc[pieces.level == 1, "test_accuracy"] = np.inf
    lost = levels.assign(status="diverged")
    categories = levels.astype({"arm": "category", "study": "category"})
    return {
        "nothing at all": (levels.iloc[:0], curves.iloc[:0], []),
        "no columns": (pd.DataFrame(), pd.DataFrame(), []),
        "no curves": (levels, pd.DataFrame(), ["figure-1", "figure-4"]),
        "dense only": (levels[levels.level == 0], curves[curves.level == 0], []),
        "no dense": (levels[levels.level > 0], curves[curves.level > 0], DRAWN),
        "no early stop": (nothing, curves, ["figure-3", "figure-4", "rounds"]),
        "own arm only": (levels.assign(arm="own"), curves.assign(arm="own"), ["figure-4", "rounds"]),
        "random masks only": (levels[levels.arm == "random-mask"], curves[curves.level > 9], ["figure-1"]),
        "nothing left at the last level": (zero, curves, DRAWN),
        "holes": (holes, pieces, DRAWN),
        "all diverged": (lost, curves, []),
        "constant": (levels.assign(early_stop_test_accuracy=1.0), curves.assign(test_accuracy=0.5), DRAWN),
        "categories": (categories, curves.astype({"arm": "category"}), DRAWN),
        "one evaluation": (
            levels,
            curves[curves.iteration == curves.iteration.max()],
            ["figure-1", "figure-4"],
        ),
        "no status, no network": (levels.drop(columns=["status", "network"]), curves, DRAWN),
    }


@pytest.mark.parametrize("case", [
    "nothing at all", "no columns", "no curves", "dense only", "no dense", "no early stop", "own arm only",
    "random masks only", "nothing left at the last level", "holes", "all diverged", "constant", "categories",
    "one evaluation", "no status, no network",
])  # fmt: skip
def test_odd_data_give_what_they_hold(make, case, tmp_path):
    levels, curves, expected = odd_inputs(make)[case]
    paths = draw(levels, curves, tmp_path, formats=["svg"])
    assert [path.stem for path in paths] == expected


HOSTILE = [
    "$x_{",
    "a $x$ b",
    "<script>alert(1)</script>",
    "_hidden",
    "a\nb\x00\x1b[31m",
    "日本",
    "--><b>",
    "%s {0}",
]


def test_hostile_names_of_arms(make, tmp_path):
    levels, curves = make(trials=1, rounds=1, arms=("ticket", *HOSTILE))
    shown = legend(figure_4(levels))
    assert len(shown) == len(HOSTILE) + 2
    assert {"$x_{", "a $x$ b", "_hidden", "a b [31m", "□□", "%s {0}"} <= set(shown)
    root = ElementTree.parse(draw(levels, curves, tmp_path, ["figure-4"])[1]).getroot()
    assert not any("script" in element.tag for element in root.iter())


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_of_studies(make, tmp_path, name):
    levels, curves = make(trials=1, rounds=1, arms=("ticket",), name=name)
    root = ElementTree.parse(draw(levels, curves, tmp_path, ["figure-1"])[1]).getroot()
    assert not any("script" in element.tag for element in root.iter())


def test_several_studies_have_files_of_their_own(make, tmp_path):
    studies = ["a/b", "A-b", "../.."]
    tables = [make(trials=1, rounds=1, name=name) for name in studies]
    levels, curves = (pd.concat(parts) for parts in zip(*tables, strict=True))
    paths = draw(levels, curves, tmp_path, ["figure-4"])
    assert [p.name for p in paths if p.suffix == ".png"] == [
        "figure-4-a-b.png",
        "figure-4-A-b-2.png",
        "figure-4-study.png",
    ]
    assert {path.parent for path in paths} == {tmp_path}


def test_a_choice_of_figures(make, tmp_path):
    tables = make(trials=1, rounds=1)
    assert names(draw(*tables, tmp_path, ["figure-4", "figure-4"])) == ["figure-4.png", "figure-4.svg"]
    with pytest.raises(InputError, match=r"unknown figure 'figure-2'; did you mean 'figure-"):
        draw(*tables, tmp_path, ["figure-2"])
    with pytest.raises(InputError, match="unknown format 'gif'; known: png, svg, pdf"):
        draw(*tables, tmp_path, formats=["gif"])
    assert draw(*tables, tmp_path, []) == []


def test_a_figure_that_is_asked_for_and_not_supported_is_a_mistake(make, tmp_path):
    levels, curves = make(trials=1, rounds=1, arms=("ticket",))
    with pytest.raises(InputError, match="figure-1 can't be drawn from these results: it needs pruned levels of"):
        draw(levels[levels.level == 0], curves, tmp_path, ["figure-1"])
    for name, what in {"figure-6": "dropout above 0", "figure-7": "learning curves", "rounds": "learning"}.items():
        with pytest.raises(InputError, match=rf"{name} can't be drawn from these results: it needs .*{what}"):
            draw(levels, curves.iloc[:0], tmp_path, ["figure-4", name])
    assert not list(tmp_path.iterdir())


def test_a_folder_that_can_not_be_written(make, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"can't write the figure .*figure-1\.png"):
        draw(*make(trials=1, rounds=1), tmp_path / "file")


def test_own_arms_differ_from_the_fixed_ones_beside_them_in_colour_or_line():
    names = ["fine-tune", "lr-rewind", "gradual", *(f"one-shot-{number}" for number in range(4))]
    found = styles(names)
    assert len({(style.color, style.line) for style in found.values()}) == len(names)


def test_an_arm_has_one_style():
    alone, together = styles(["own", "ticket"]), styles(iter(["zzz", "own", "reinit", "ticket", "abc"]))
    assert alone["ticket"] == together["ticket"] == LOOKS["ticket"]
    assert alone == styles(["ticket", "own"])
    own = styles(f"arm {number}" for number in range(len(OTHERS)))
    assert len(set(own.values())) == len(OTHERS)
    assert len({style.marker for style in LOOKS.values()}) == len(LOOKS)
    assert len({(style.color, style.marker) for style in (*LOOKS.values(), *OTHERS)}) == len(LOOKS) + len(OTHERS)
    assert len(styles(f"arm {number}" for number in range(50))) == 50


def test_an_own_arm_looks_the_same_with_and_without_others_beside_it(make):
    levels, _ = make(trials=1, rounds=2, arms=("ticket", "random-mask", "own"))
    colors = {line.get_color() for line in figure_4(levels).axes[0].lines}
    assert styles(["own"])["own"].color in colors
