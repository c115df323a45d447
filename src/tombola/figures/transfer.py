"""A heat map of transferred tickets: where each was found, where it was trained, and what that cost."""

from __future__ import annotations

from collections.abc import Mapping
from string import ascii_uppercase

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tombola.analysis.summary import summarise
from tombola.analysis.transfers import AS_GOOD, OPEN, WORSE, transfers
from tombola.figures.form import SCREEN, Form
from tombola.figures.page import page, page_title
from tombola.figures.setting import Setting
from tombola.figures.training import choose_levels
from tombola.formatting import percent, signed
from tombola.tables.captions import early_stop_note, small_print
from tombola.tasks.metric import Metric, metric_of

MARKS = {AS_GOOD: "=", WORSE: "-", OPEN: "?"}
MOST_PANELS = 3
SHORT = {"mask": "mask", "mask-and-weights": "weights", "mask-and-trained": "trained"}


def transfer(levels: pd.DataFrame, settings: Mapping[str, Setting], form: Form = SCREEN) -> Figure | None:
    """Return the gain of each transferred ticket over the target's own, for up to three levels; None without any.

    A row is a source and what was taken from it, a column a target; letters stand for them, which the small print
    explains. A cell has the mean gain in the test metric at early stop, and a mark: "=" as good as the target's own
    ticket, "-" worse, "?" not decided; "*" better than random places.
    """
    sources = {(study, arm): origin for study, each in settings.items() for arm, origin in each.sources.items()}
    margins = {study: each.margin for study, each in settings.items()}
    table, metric = transfers(levels, sources, margins), metric_of(levels)
    if table.empty:
        return None
    targets = {study: settings[study].target or study for study in dict.fromkeys(table["study"])}
    letters = _letters([*targets.values(), *table["source"]])
    table = table.assign(
        row=[f"{letters[source]} {SHORT[take]}" for source, take in zip(table["source"], table["take"], strict=True)]
    )
    # Two arms of one study may differ in what neither letter nor weights tell, such as the source's seed.
    same = set(table.loc[table.duplicated(["study", "level", "row"]), "row"])
    table["row"] = np.where(table["row"].isin(same), table["row"] + ", " + table["arm"], table["row"])
    density_of = table.groupby("level")["density"].mean().to_dict()
    chosen = choose_levels(density_of)[-MOST_PANELS:]
    key = ", ".join(f"{letter}: {name}" for name, letter in letters.items())
    figure, all_axes = page(
        page_title(levels, f"gain in {metric.words} of transferred tickets over the target's own"),
        panels=len(chosen),
        legend=[],
        small_print=small_print(
            summarise(levels[levels["arm"].isin(table["arm"])]),
            "cells",
            None,
            key,
            early_stop_note(levels),
            "above 0: the transferred ticket is better",
            "= as good as the target's own ticket, - worse, ? not decided; * better than random places",
        ),
        form=form,
    )
    rows = sorted(set(table["row"]))
    shown = table[table["level"].isin(chosen)]
    largest = max(1e-12, float(shown["mean"].abs().max()))
    for letter, axes, level in zip("abc", all_axes, chosen, strict=False):
        cells = shown[shown["level"] == level]
        _grid(axes, cells, rows, {study: letters[name] for study, name in targets.items()}, largest, metric, form)
        axes.set_title(f"({letter}) {percent(density_of[level])} % remain", loc="left", size=0.95 * form.label)
    return figure


def _letters(names: list[str]) -> dict[str, str]:
    """Return a letter for each name, the same for equal names; beyond 26 they repeat doubled."""
    several = list(dict.fromkeys(names))
    return {name: ascii_uppercase[place % 26] * (1 + place // 26) for place, name in enumerate(several)}


def _grid(
    axes: Axes,
    cells: pd.DataFrame,
    rows: list[str],
    targets: Mapping[str, str],
    largest: float,
    metric: Metric,
    form: Form,
) -> None:
    """Draw one level's cells.

    Arguments:
        axes: of the panel.
        cells: rows of `transfers` of that level, with the name of their row.
        rows: names of all rows, from the top.
        targets: study -> name of its column.
        largest: the gain, of either sign, that has the darkest colour.
        metric: of the gains.
        form: the sizes.
    """
    values, columns = np.full((len(rows), len(targets)), np.nan), list(targets)
    for cell in cells.to_dict("records"):
        place = rows.index(cell["row"]), columns.index(cell["study"])
        values[place] = cell["mean"]
        mark = MARKS[cell["verdict"]] + "*" * bool(cell["over_random"])
        text = f"{signed(cell['mean'], metric)} {mark}" if np.isfinite(cell["mean"]) else mark
        axes.text(place[1], place[0], text, ha="center", va="center", size=0.7 * form.tick)
    axes.imshow(values, cmap="PuOr", vmin=-1.6 * largest, vmax=1.6 * largest, aspect="auto")
    axes.set_xticks(range(len(columns)), [targets[study] for study in columns], size=form.tick)
    axes.set_yticks(range(len(rows)), rows, size=0.8 * form.tick)
    axes.set_xlabel("trained on", size=form.label)
