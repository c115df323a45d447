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

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000", "#767676")
OWN = ("c", "pytorch (c)")  # contenders that are drawn with full lines


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
    for (_, bits), rows in sorted(groups.items()):
        size = statistics.mean(each["bytes"] for each in rows) / 1024
        scores = [100 * each["test"] for each in rows]
        mean = statistics.mean(scores)
        weights = statistics.mean(each["weights"] for each in rows)
        spread = [[mean - min(scores)], [max(scores) - mean]]
        axes.errorbar(size, mean, spread, fmt="o", color=COLOURS[(bits - 1) % len(COLOURS)], capsize=3)
        axes.annotate(f"{bits} bits, {weights:,.0f} weights", (size, mean), (6, 6), textcoords="offset points")
    dense = statistics.mean(100 * test for _, test in found["dense"].values())
    axes.axhline(dense, color="#767676", linestyle="--", label="dense networks, 1,041 KiB")
    axes.set_xlabel("packed file (KiB)")
    axes.set_ylabel("test accuracy (%)")
    axes.set_xlim(left=0)
    axes.margins(x=0.25, y=0.2)
    axes.legend(frameon=False)
    return figure


def latency_against_density(found: dict[str, Any]) -> Figure:
    """Return the shortest latency of one example on one thread against density, a panel for each network.

    Args:
        found: what `benchmarks.export` wrote.
    """
    networks = list(dict.fromkeys(case["network"] for case in found["cases"]))
    figure = _figure(len(networks))
    panels = figure.subplots(1, len(networks), squeeze=False)[0]
    names: dict[str, str] = {}
    for axes, network in zip(panels, networks, strict=True):
        lines: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for case in found["cases"]:
            for row in case["latencies"]:
                if case["network"] == network and (row["batch"], row["threads"], row["float32"]) == (1, 1, True):
                    lines[row["contender"]].append((100 * case["density"], row["least_us"]))
        for name, points in lines.items():
            colour = names.setdefault(name, COLOURS[len(names) % len(COLOURS)])
            axes.plot(*zip(*sorted(points), strict=True), "o-" if name in OWN else "o--", color=colour, label=name)
        axes.set(title=network, xscale="log", yscale="log", xlabel="weights remaining (%)")
        axes.invert_xaxis()
    panels[0].set_ylabel("latency of one example (us)")
    handles = {name: line for axes in panels for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)
    return figure


PICTURES = {
    "size-accuracy.svg": ("packed.json", size_against_accuracy),
    "latency-density.svg": ("export.json", latency_against_density),
}
"""Name of a picture -> the results that it shows, and what draws it."""


def _figure(panels: int = 1) -> Figure:
    figure = Figure(figsize=(7 if panels == 1 else 3.6 * panels, 4), layout="constrained")
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
