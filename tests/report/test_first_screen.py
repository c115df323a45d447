"""The page's first screen and what came with it: the chart of the answer, rewinds, controls, reasons of panels."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
import vl_convert
from page_tables import tables_of

from tombola.analysis.schema import NO_CURVES, checked, checked_curves
from tombola.analysis.statistics import level_statistics
from tombola.analysis.verdicts import verdicts
from tombola.figures.style import DENSITIES, LAYERS, LOOKS, OTHERS, layer_styles, styles
from tombola.figures.style import REWINDS as REWOUND
from tombola.html import render
from tombola.html.answer_chart import answer_spec, answer_table, shown_first
from tombola.html.density_specs import against_density, layers_against_density
from tombola.html.own_table import gather_table
from tombola.html.series import DARK, OUTLINES, series_of
from tombola.html.spec_parts import drawn_bars, shades
from tombola.tasks.metric import ACCURACY

REWINDS = [f"{arm}@{rewind}" for arm in ("ticket", "late-reinit") for rewind in (0, 100, 500, 1000, 5000)]


def page_of(levels: pd.DataFrame) -> str:
    return render.report(gather_table(checked(levels, "the table"), NO_CURVES))


@pytest.fixture(scope="module")
def rewound(make) -> pd.DataFrame:
    levels, _ = make(trials=3, rounds=4, arms=("ticket", "reinit"))
    pieces = []
    for seed, name in enumerate(REWINDS):
        piece = levels[levels["arm"] == ("ticket" if name.startswith("ticket") else "reinit")].assign(arm=name)
        noise = np.random.default_rng(seed).normal(0, 0.0005, len(piece))
        piece["early_stop_test_accuracy"] += noise * (piece["level"] > 0)
        pieces.append(piece)
    return pd.concat(pieces, ignore_index=True)


@pytest.fixture(scope="module")
def rewound_page(rewound) -> str:
    return page_of(rewound)


def drawn(spec, table: pd.DataFrame, series) -> str:
    keys = {each.arm: (each.key, each.label) for each in series}
    rows = json.loads(table.to_json(orient="records"))
    rows = [row | dict(zip(("series", "label"), keys[row["arm"]], strict=True)) for row in rows]
    return vl_convert.vegalite_to_svg({**spec, "width": 700, "data": {"name": spec["data"]["name"], "values": rows}})


def test_the_chart_has_a_tile_for_each_verdict_and_a_curve_for_each_arm(make):
    levels, _ = make(trials=3, rounds=5, arms=("ticket", "reinit", "random-mask"))
    series, statistics, judged = series_of(levels), level_statistics(levels), verdicts(levels)
    table = answer_table(statistics, judged, ACCURACY)
    spec = answer_spec(table, series, "s0", ACCURACY, at=2)
    picture = drawn(spec, table, series)
    for each in series:
        assert f'stroke="{each.color}"' in picture
    mine = judged[judged["arm"] == "ticket"]
    symbols = re.findall(r">([●◐○?])</text>", picture)
    assert len(symbols) == len(mine) == 5
    assert "NaN" not in picture
    assert "undefined" not in picture
    for reason in mine["reason"]:
        assert reason in set(table["reason"])


def test_tiles_lie_side_by_side_about_their_levels(make):
    levels, _ = make(trials=2, rounds=5, arms=("ticket",))
    levels.loc[levels["level"] == 3, "density"] = levels.loc[
        levels["level"] == 2, "density"
    ].to_numpy()  # one density twice
    table = answer_table(level_statistics(levels), verdicts(levels), ACCURACY).sort_values("level")
    left, right, density = (table[name].to_numpy() for name in ("left", "right", "density"))
    assert (left > right).all()
    assert right[:-1] == pytest.approx(left[1:])
    single = [0, 1, 4, 5]
    assert (left[single] > density[single]).all()
    assert (right[single] < density[single]).all()
    assert math.log(left[2] / right[2]) == pytest.approx(math.log(left[3] / right[3]))


def test_an_unfinished_level_keeps_its_room(make):
    levels, _ = make(trials=2, rounds=4, arms=("ticket", "reinit"))
    whole = answer_table(level_statistics(levels), verdicts(levels), ACCURACY)
    partly = levels[(levels["arm"] != "ticket") | (levels["level"] != 2)]
    table = answer_table(level_statistics(partly), verdicts(partly), ACCURACY)
    columns = ["level", "left", "right"]
    expected = whole[(whole["arm"] == "ticket") & (whole["level"] != 2)][columns].to_numpy()
    assert table[table["arm"] == "ticket"][columns].to_numpy() == pytest.approx(expected)


def test_the_page_goes_from_the_answer_to_the_claims(rewound_page):
    order = ["answer", "guide", "found", "figures", "density", "control-arms", "verdicts", "claims", "sheet", "data"]
    places = [rewound_page.index(f'<section id="{key}"') for key in order]
    assert places == sorted(places)
    assert rewound_page.index('class="answer"') < rewound_page.index("<nav")


def test_claims_are_folded_by_outcome_with_the_undecided_last(make):
    page = page_of(make(trials=3, rounds=6)[0])
    outcomes = re.findall(r'<details class="claims" data-print>\s*<summary class="outcome [^"]*">([A-Z][a-z ]+):', page)
    ranks = ["Not reproduced", "Reproduced", "Inconclusive", "Not measured"]
    assert outcomes
    assert outcomes == [each for each in ranks if each in outcomes]


def test_ten_rewound_arms_have_looks_of_their_own(rewound):
    series = series_of(rewound)
    assert len({(each.light, each.dash, each.hollow) for each in series}) == 10
    by_rewind = {each.arm.split("@")[1]: each.light for each in series if each.arm.startswith("late")}
    assert {each.arm.split("@")[1]: each.light for each in series if each.arm.startswith("ticket")} == by_rewind
    assert len(set(by_rewind.values())) == 5
    many = styles(f"ticket@{rewind}" for rewind in range(20))
    assert len({(style.color, style.marker) for style in many.values()}) == 20
    assert {style.color for style in many.values()} <= set(DARK)


def test_a_rewind_is_no_control_and_its_own_question_is_answered(rewound_page):
    text = re.sub(r"<script.*", "", rewound_page, flags=re.DOTALL)
    assert "Rewinding later is not shown to help." in text
    assert "Does rewinding later help?" in text
    assert "Of 16 comparisons with ticket@0" in text  # four rewinds, four levels
    assert not re.search(r"(gains|loses) [\d.]+ (over|against) ticket@", text)
    assert "gains" in text
    assert " over late-reinit@0" in text
    tables = tables_of(rewound_page)
    rewinds = {row[1] for row in tables["rewinds"]["rows"]}
    assert rewinds == set(REWINDS[1:5])
    assert not {row[2] for row in tables["gains"]["rows"]} & set(REWINDS[:5])


def test_of_many_arms_a_few_are_drawn_at_first(rewound, rewound_page):
    series = series_of(rewound)
    assert [each.arm for each in shown_first(series, "ticket@0")] == REWINDS[:6]
    assert [each.arm for each in shown_first(series, "late-reinit@5000")] == [*REWINDS[:5], "late-reinit@5000"]
    assert rewound_page.count('name="series" value="s') == 10
    assert len(re.findall(r'name="series" value="s\d+" checked', rewound_page)) == 6
    assert "The chart shows 6 of 10 arms" in rewound_page


def test_arms_layers_and_densities_have_colours_of_their_own():
    style = render._file("style.css")
    densities = re.findall(r"--r\d: (#\w+);", style)
    ends = re.findall(r"--(?:first|last): (#\w+);", style)
    arms = {color.lower() for pair in DARK.items() for color in pair}
    assert len(densities) == 12
    assert len(ends) == 4
    assert not arms & {color.lower() for color in [*densities, *ends]} - {"#e6e6e6"}
    assert not set(densities) & set(ends)
    assert len(set(shades(30))) == 30


def test_figures_in_files_have_the_colours_of_the_page():
    style = render._file("style.css")
    light = style[: style.index("@media")]
    assert re.findall(r"--r\d: (#\w+);", light) == [color for color, _ in DENSITIES]
    assert re.findall(r"--(?:first|last): (#\w+);", light) == [LAYERS[0], LAYERS[-1]]
    layers = {
        look.color for count in range(1, 31) for look in layer_styles([str(each) for each in range(count)]).values()
    }
    arms = {look.color.lower() for look in (*LOOKS.values(), *OTHERS)} | {each.lower() for each in REWOUND}
    densities = {color for color, _ in DENSITIES}
    assert not layers & densities
    assert not arms & (layers | densities)
    assert len({(look.color, look.marker) for look in layer_styles([str(each) for each in range(30)]).values()}) == 30


def test_an_interval_of_two_trials_is_not_drawn(make):
    levels, _ = make(trials=2, rounds=3, arms=("ticket", "reinit"))
    statistics = level_statistics(levels)
    low, high = drawn_bars(statistics)
    assert low == pytest.approx(statistics["min"])
    assert high == pytest.approx(statistics["max"])
    three = level_statistics(make(trials=3, rounds=3, arms=("ticket",))[0])
    assert drawn_bars(three)[0] == pytest.approx(three["low"])
    pairs = pd.DataFrame({"n": [2, 3], "low": [-9.0, -1.0], "high": [9.0, 1.0]})
    assert np.isnan(drawn_bars(pairs)[0]).tolist() == [True, False]
    page = page_of(levels)
    assert "bars join the two" in page
    assert "without bars: a 95 % interval of two trials" in page
    series = series_of(levels)
    rows = statistics[statistics["measure"] == "early_stop_test_accuracy"]
    spec = against_density("statistics", statistics, "early_stop_test_accuracy", "a", series, ACCURACY)
    bars = re.findall(r'aria-roledescription="rule"|M0,0L0,(-?[\d.]+)', drawn(spec, rows, series))
    assert all(abs(float(length)) < 150 for length in bars if length)  # of 300 pixels


def test_levels_of_one_density_draw_no_zigzag(make):
    levels, _ = make(trials=3, rounds=4, arms=("ticket",))
    for level in (2, 3):
        levels.loc[levels["level"] == level, "density"] = 0.8
    series, statistics = series_of(levels), level_statistics(levels)
    rows = statistics[statistics["measure"] == "early_stop_test_accuracy"]
    spec = against_density("statistics", statistics, "early_stop_test_accuracy", "a", series, ACCURACY)
    picture = drawn(spec, rows, series)
    lines = re.findall(
        r'<path aria-label="[^"]*"[^>]*d="(M[^"]*)"|<path[^>]*d="(M[^"]*L[^"]*)"[^>]*stroke="var\(--s0\)"', picture
    )
    paths = [path for pair in lines for path in pair if path.count("L") == 2 and path.count("M") == 1]
    assert len(paths) == 1  # dense, three levels of one density, the last
    places = [float(point.split(",")[0]) for point in re.split("[ML]", paths[0])[1:]]
    assert places == sorted(set(places))


def test_a_panel_that_is_missing_has_a_reason(make):
    page = page_of(make(trials=1, rounds=2, arms=("ticket",))[0])
    for title in ("Density of each layer", "Overlap of the masks", "Signs that training flips", "Learning curves"):
        assert re.search(rf"{title}[^<]*: not shown\. [A-Z]", page), title
    assert re.search(r"Gain of ticket over its controls: not shown\. The study has no other arm\.", page)


def test_studies_with_an_inherited_description_are_told_by_their_settings():
    class Study:
        def __init__(self, description):
            self.description = description

    settings = [("training.lr", ["0.1", "0.2"]), ("pruning.criterion", ["magnitude", "random"])]
    same = render._leads([Study("the preset's")] * 2, settings)
    assert same == ["training.lr = 0.1; pruning.criterion = magnitude", "training.lr = 0.2; pruning.criterion = random"]
    assert render._leads([Study("one"), Study("other")], settings) == ["one", "other"]


def test_each_shape_has_an_outline(rewound):
    for each in series_of(rewound):
        assert each.outline == OUTLINES[each.shape]


@pytest.mark.slow
def test_many_arms_and_levels_stay_below_the_limit(make):
    arms = (
        "ticket",
        "reinit",
        "random-mask",
        "one-shot",
        "one-shot-reinit",
        *(f"own-{number}" for number in range(10)),
    )
    levels, curves = make(trials=3, rounds=20, arms=arms, evaluations=100)
    levels = checked(levels, "the table")
    page = render.report(gather_table(levels, checked_curves(curves, levels)))
    assert len(page.encode()) < 1.5e6


def test_layers_of_one_density_all_show(make):
    layers = pd.DataFrame(
        [
            {"study": "s", "arm": "ticket", "level": level, "layer": layer, "density": 0.5**level,
             "layer_density": 0.5**level, "size": 10}
            for layer in ("fc1", "fc2", "output")
            for level in (0, 1, 2)
        ]
    )  # fmt: skip
    picture = drawn(layers_against_density(layers, "s0"), layers, series_of(layers))
    widths = re.findall(r'<path[^>]*d="M[^"]*L[^"]*"[^>]*stroke="color-mix[^"]*"[^>]*stroke-width="([\d.]+)"', picture)
    assert [float(width) for width in widths[:3]] == [4.5, 3.0, 1.5]
    assert all(f">{name}</text>" in picture for name in ("fc1", "fc2", "output"))  # the legend
