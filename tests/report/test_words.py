"""Numbers and names as people read them."""

from __future__ import annotations

import pandas as pd
import pytest

from tombola.analysis.order import CONTROLS, in_order
from tombola.figures.style import LOOKS, styles
from tombola.formatting import counted, counted_are, percent, plain
from tombola.html.series import series_of
from tombola.studies.arms import ARMS
from tombola.tables.captions import small_print


@pytest.mark.parametrize(
    ("density", "text"),
    [(1, "100"), (0.9996, "100"), (0.9994, "99.9"), (0.513, "51.3"), (0.07, "7.0"), (0.00996, "1.0"),
     (0.0092, "0.92"), (0.0047, "0.47"), (0.00042, "0.042"), (0.0, "0.0")],
)  # fmt: skip
def test_percent(density, text):
    assert percent(density) == text


def test_one_thing_is_not_counted_as_several():
    assert [counted(number, "trial") for number in (0, 1, 2, 1000)] == [
        "0 trials",
        "1 trial",
        "2 trials",
        "1,000 trials",
    ]
    assert [counted_are(number, "run") for number in (1, 2)] == ["1 run is", "2 runs are"]
    assert counted_are(1, "work item", 16) == "1 of 16 work items is"
    assert counted_are(2, "work item", 16) == "2 of 16 work items are"
    assert counted_are(1, "work item", 1) == "1 of 1 work item is"


def test_plain_is_one_short_line_of_printable_text():
    assert plain(" a\tb\r\nc\x00\u202ed\ud800 ") == "a b c d"
    assert plain("x" * 41) == "x" * 39 + "…"
    assert plain("x" * 40) == "x" * 40
    assert plain(7) == "7"


def test_sample_sizes_of_several_studies():
    alike = pd.DataFrame({"study": ["a", "b"], "arm": "ticket", "level": 1, "n": 5, "runs": 5, "diverged": 0})
    assert small_print(alike, "points", "range").startswith("n = 5 trials; points are means")
    differ = alike.assign(n=[5, 3], runs=[5, 3])
    assert small_print(differ, "points", "range").startswith("a: n = 5 trials · b: n = 3 trials; ")


def test_repeats_of_one_trial_are_not_trials():
    one = pd.DataFrame({"study": ["a"], "arm": "reinit", "level": 1, "n": 1, "runs": 3, "diverged": 0})
    assert "points are means over repeats of one trial, bars span" in small_print(one, "points", "range")
    assert "curves are means over repeats of one trial." in small_print(one, "curves", None)


def test_order_of_arms():
    assert in_order(["snip", "late-reinit", "own", "lr-rewind", "ticket"]) == [
        "ticket",
        "lr-rewind",
        "late-reinit",
        "snip",
        "own",
    ]
    assert in_order(["b", "reinit", "a", "ticket", "b"]) == ["ticket", "reinit", "a", "b"]


def test_curves_of_several_rewinds_stand_together_in_their_order():
    names = ["snip", "ticket@1000", "own@20", "ticket@0", "late-reinit@100", "ticket@100", "me@home"]
    expected = ["ticket@0", "ticket@100", "ticket@1000", "late-reinit@100", "snip", "me@home", "own@20"]
    assert in_order(names) == expected


def test_a_control_stands_behind_its_arm_and_looks_like_no_other():
    """In the pictures and on the page, where each marker must have a shape."""
    arms = ["snip-shuffled-reinit", "own-shuffled", "ticket-reinit", "snip-reinit", "grasp", "snip", "snip-shuffled"]
    arms += ["one-shot-reinit", "one-shot-reinit-shuffled"]
    ordered = in_order(arms)
    assert ordered == [
        "ticket-reinit",
        "one-shot-reinit",
        "one-shot-reinit-shuffled",
        "snip",
        "snip-shuffled",
        "snip-reinit",
        "snip-shuffled-reinit",
        "grasp",
        "own-shuffled",
    ]
    methods = ["ticket", "snip", "grasp", "synflow"]
    looks = styles([*ARMS, *(f"{arm}{control}" for arm in methods for control in CONTROLS)])
    assert len({(look.color, look.marker) for look in looks.values()}) == len(looks)
    assert looks["snip-shuffled"].color == looks["snip"].color
    every = [*ARMS, *(f"{arm}{control}" for arm in ARMS for control in CONTROLS), "own"]
    assert len(series_of(pd.DataFrame({"study": "s", "arm": every}))) == len(set(every))


def test_each_arm_has_a_look_and_controls_are_hollow():
    assert list(LOOKS) == list(ARMS)
    assert {name for name, arm in ARMS.items() if arm.control} <= {name for name, look in LOOKS.items() if look.hollow}
