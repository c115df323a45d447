"""The cost curve: seconds a level takes, against its density."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure


def draw(curve: dict[float, float], plain: float, path: Path) -> None:
    """Draw seconds of 50,000 iterations, evaluations included, of all workers together, against density."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    densities = sorted(curve, reverse=True)
    axes.plot([100 * d for d in densities], [curve[d] for d in densities], "o-", color="#0072B2", label="tombola")
    axes.axhline(plain, color="#D55E00", linestyle="--", label="plain loop, its better number of threads")
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_ylim(bottom=0)
    ticks = [100, 50, 20, 10, 5, 2, 1, 0.5]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel("weights remaining (%)")
    axes.set_ylabel("seconds a level (50,000 iterations)")
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
