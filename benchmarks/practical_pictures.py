"""Draws the pictures of docs/practical.md from benchmarks/results/*.json: `python -m benchmarks.practical_pictures`.

A picture whose results are not there is left as it is, and its file is named.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from tombola.formatting import counted

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000", "#767676")
OWN = ("c", "pytorch (c)")  # contenders that are tombola's sparse exports
OURS, THEIRS = "#0072B2", "#BBBBBB"


def size_against_accuracy(found: dict[str, Any]) -> Figure:
    """Return size against test accuracy of packed files, mean and range over trials, with the dense networks' mean.

    Args:
        found: what `benchmarks.packed` wrote.
    """
    groups: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for each in found["packed"].values():
        groups[each["level"], each["bits"]].append(each)
    figure = _figure()
    axes = figure.add_subplot()
    named: set[int] = set()
    for (_, bits), rows in sorted(groups.items()):
        size = statistics.mean(each["bytes"] for each in rows) / 1024
        scores = [100 * each["test"] for each in rows]
        mean = statistics.mean(scores)
        weights = statistics.mean(each["weights"] for each in rows)
        spread = [[mean - min(scores)], [max(scores) - mean]]
        colour, label = COLOURS[(bits - 1) % len(COLOURS)], "" if bits in named else counted(bits, "bit")
        axes.errorbar(size, mean, spread, fmt="o", color=colour, capsize=3, label=label or None)
        axes.annotate(f"{weights:,.0f}", (size, mean), (5, 4), textcoords="offset points", fontsize=8, color=colour)
        named.add(bits)
    dense = statistics.mean(100 * test for _, test in found["dense"].values())
    axes.axhline(dense, color="#767676", linestyle="--", label="dense networks, 1,041 KiB")
    axes.set_xlabel("packed file (KiB); the numbers are kept weights")
    axes.set_ylabel("test accuracy (%)")
    axes.margins(x=0.12, y=0.2)
    axes.legend(frameon=False, loc="upper left", ncols=2, fontsize=9)
    return figure


def latencies(found: dict[str, Any]) -> Figure:
    """Return the shortest latency of one example on one thread, a panel of bars for each network.

    Of each network it shows the density nearest to 5 %. Contenders that compute in lower precision have a star.

    Args:
        found: what `benchmarks.export` wrote.
    """
    by_network: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for case in found["cases"]:
        by_network[case["network"]].append(case)
    cases = [min(each, key=lambda case: abs(case["density"] - 0.05)) for each in by_network.values()]
    figure = _figure(len(cases))
    for axes, case in zip(figure.subplots(1, len(cases), squeeze=False)[0], cases, strict=True):
        rows = [row for row in case["latencies"] if (row["batch"], row["threads"]) == (1, 1)]
        rows.sort(key=lambda row: -row["least_us"])
        names = [row["contender"] + ("" if row["float32"] else " *") for row in rows]
        times = [row["least_us"] for row in rows]
        colours = [OURS if row["contender"] in OWN else THEIRS for row in rows]
        bars = axes.barh(names, times, color=colours)
        labels = [f"{each:,.1f}" if each < 100 else f"{each:,.0f}" for each in times]
        axes.bar_label(bars, labels, padding=3, fontsize=8)
        axes.set_title(f"{case['network']}, {100 * case['density']:.2g} % of the weights", size=10, loc="left")
        axes.set_xlabel("microseconds for one example")
        axes.set_xlim(0, 1.25 * max(times))
        axes.tick_params(axis="y", labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return figure


PICTURES = {
    "size-accuracy.svg": ("packed.json", size_against_accuracy),
    "latency.svg": ("export.json", latencies),
}
"""Name of a picture -> the results that it shows, and what draws it."""


def _figure(panels: int = 1) -> Figure:
    figure = Figure(figsize=(7 if panels == 1 else 4 * panels, 4), layout="constrained")
    FigureCanvasSVG(figure)
    return figure


def main(results: Path = HERE / "results", images: Path = IMAGES) -> None:
    """Draw each picture whose results are there; the same results give the same bytes."""
    images.mkdir(parents=True, exist_ok=True)
    for name, (source, draw) in PICTURES.items():
        if not (results / source).exists():
            print(f"{name}: {results / source} is missing, so it is not drawn")
            continue
        with rc_context({"svg.hashsalt": "tombola"}):
            draw(json.loads((results / source).read_text())).savefig(images / name, metadata={"Date": None})
        print(images / name)


if __name__ == "__main__":
    main()
