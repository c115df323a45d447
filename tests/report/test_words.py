"""Numbers and names as people read them."""

from __future__ import annotations

import pandas as pd
import pytest

from tombola.report.words import in_order, percent, plain, small_print


@pytest.mark.parametrize(
    ("density", "text"),
    [(1, "100"), (0.9996, "100"), (0.9994, "99.9"), (0.513, "51.3"), (0.07, "7.0"), (0.00996, "1.0"),
     (0.0092, "0.92"), (0.0047, "0.47"), (0.00042, "0.042"), (0.0, "0.0")],
)  # fmt: skip
def test_percent(density, text):
    assert percent(density) == text


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


def test_order_of_arms():
    assert in_order(["snip", "late-reinit", "own", "lr-rewind", "ticket"]) == [
        "ticket",
        "lr-rewind",
        "late-reinit",
        "snip",
        "own",
    ]
    assert in_order(["b", "reinit", "a", "ticket", "b"]) == ["ticket", "reinit", "a", "b"]
