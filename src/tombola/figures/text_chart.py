"""The metric against weights remaining as text: a row for each level, for the end of a run in a terminal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tombola.analysis.answer import Answer
from tombola.analysis.measures import bounds_of, early_of
from tombola.analysis.statistics import level_statistics
from tombola.figures.ranges import padded, worth_showing
from tombola.formatting import number, percent, plain
from tombola.tables.captions import FEWEST
from tombola.tasks.metric import Metric

ROWS = 12


@dataclass(frozen=True)
class Signs:
    """The characters of a chart."""

    mean: str
    bar: str
    dense: str
    less: str
    more: str


UNICODE = Signs(mean="●", bar="─", dense="┊", less="‹", more="›")
ASCII = Signs(mean="o", bar="-", dense=":", less="<", more=">")


def text_chart(
    levels: pd.DataFrame, answer: Answer, verdicts: pd.DataFrame, width: int = 80, signs: Signs = UNICODE
) -> str:
    """Return the chart of the arm that an answer is about; "" where it has nothing to draw.

    Rows go from dense to sparse; of many levels, it shows twelve, that of the answer among them. Bars are 95 %
    intervals, for three trials or more. A dotted line marks the dense network.

    Args:
        levels: a row per (arm, trial, repeat, level) of one study.
        answer: of these levels.
        verdicts: of these levels.
        width: of a line [characters].
        signs: what it is drawn with.
    """
    measure = early_of(answer.metric)
    mine = levels[levels["arm"] == answer.arm]
    if not (mine["level"] == 0).any():
        mine = pd.concat([mine, levels[levels["level"] == 0].assign(arm=answer.arm)])
    statistics = level_statistics(mine, [measure])
    rows = statistics[statistics["mean"].notna()].sort_values("level")
    if rows.empty:
        return ""
    judged = verdicts[verdicts["arm"] == answer.arm].set_index("level")["verdict"].to_dict()
    rows = rows[rows["level"].isin(_shown(rows["level"].to_list(), answer))]
    values = [number(answer.metric.scale * mean, answer.metric) for mean in rows["mean"]]
    cells = [
        (f"{percent(density)} %", value, str(judged.get(level, "dense")))
        for density, value, level in zip(rows["density"], values, rows["level"], strict=True)
    ]
    heads = ("weights", plain(answer.metric.words, 16), "verdict")
    sizes = [max(len(head), *(len(row[place]) for row in cells)) for place, head in enumerate(heads)]
    room = max(10, width - sum(sizes) - 6)
    bars = _bars(rows, answer.metric, room, signs)
    lines = [_line(heads, sizes, "")] + [_line(row, sizes, bar) for row, bar in zip(cells, bars, strict=True)]
    key = f"{signs.mean} mean, {signs.bar}{signs.bar} 95 % interval, {signs.dense} dense network"
    return "\n".join(line.rstrip() for line in [*lines, " " * min(sum(sizes) + 6, width - len(key)) + key])


def _line(cells: tuple[str, ...], sizes: list[int], bar: str) -> str:
    return f"{cells[0]:>{sizes[0]}}  {cells[1]:>{sizes[1]}}  {cells[2]:<{sizes[2]}}  {bar}"


def _shown(levels: list[int], answer: Answer) -> set[int]:
    if len(levels) <= ROWS:
        return set(levels)
    places = np.linspace(0, len(levels) - 1, ROWS).round().astype(int)
    found = [levels[place] for place in places]
    if answer.at is not None and answer.at.level not in found:
        near = min(range(1, ROWS - 1), key=lambda place: abs(found[place] - answer.at.level))  # type: ignore[union-attr]
        found[near] = answer.at.level
    return set(found)


def _bars(rows: pd.DataFrame, metric: Metric, room: int, signs: Signs) -> list[str]:
    """Return a text of `room` characters for each row."""
    means, lows, highs = (metric.scale * rows[name].to_numpy(dtype=float) for name in ("mean", "low", "high"))
    few = rows["n"].to_numpy() < FEWEST
    lows, highs = np.where(few, np.nan, lows), np.where(few, np.nan, highs)
    found = worth_showing([means], lows, highs, metric.better, bounds_of(metric))
    low, high = padded(found.low, found.high)

    def place(value: float) -> int:
        return round((value - low) / (high - low) * (room - 1))

    dense = [place(mean) for mean, level in zip(means, rows["level"], strict=True) if level == 0]
    texts = []
    for mean, start, end in zip(means, lows, highs, strict=True):
        text = [" "] * room
        for at in dense:
            if 0 <= at < room:  # else the row of the dense network says on which side it lies
                text[at] = signs.dense
        if math.isfinite(start):
            first, last = max(place(start), 0), min(place(end), room - 1)
            text[first : last + 1] = signs.bar * max(0, last + 1 - first)
        at = place(mean)
        outside = signs.less if at < 0 else signs.more if at >= room else signs.mean
        text[min(max(at, 0), room - 1)] = outside
        texts.append("".join(text))
    return texts
