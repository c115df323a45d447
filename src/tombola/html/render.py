"""Turns the findings into a page: one HTML text that needs only a browser."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from tombola import __version__
from tombola.analysis.measures import STOP, early_of
from tombola.export.stored import sentences
from tombola.extras import need
from tombola.formatting import (
    byte_size,
    differences,
    latency,
    margin_in_words,
    number,
    percent,
    plain,
    typeset,
    with_interval,
)
from tombola.html import answer_chart, figures, measured
from tombola.html.answer_chart import SYMBOLS, answer_table, shown_first
from tombola.html.embedded import Table, packed, table
from tombola.html.figures import PlotFigure
from tombola.html.gather import Found
from tombola.html.series import Series, series_of
from tombola.tables.answer import at_its_level, headline, numbers, proof
from tombola.tables.captions import BETWEEN, densities_of
from tombola.tasks.metric import Metric, metric_of

VERDICTS = {"winning ticket": "winning", "matching": "matching", "losing": "losing", "inconclusive": "inconclusive"}
NEAR = 1.12  # levels of two studies stand in one row where their densities differ by no more than this factor
OUTCOMES = ("not reproduced", "reproduced", "inconclusive", "not measured")  # in the order of the page


@dataclass(frozen=True)
class Section:
    """Figures under one heading; `short` is its name in the page's table of contents, `absent` has no plot."""

    key: str
    short: str
    title: str
    figures: tuple[PlotFigure, ...]
    absent: tuple[PlotFigure, ...] = ()


def report(found: Found) -> str:
    """Return the page of one study; the same results give the same text."""
    series = series_of(found.levels)
    sections, first = [], shown_first(series, str(found.arm))
    levels = answer_table(found.statistics, found.verdicts, found.metric) if len(found.levels) else found.levels
    if not found.levels.empty:
        density = figures.density_figures(found.statistics, series, found.metric)
        inside = [
            figures.layer_figure(found, series),
            figures.weight_figure(found),
            figures.dead_figure(found),
            figures.overlap_figure(found, series),
            figures.flip_figure(found),
        ]
        sections = [
            _section("rewinding", "Rewinding", "Does rewinding later help?", figures.rewind_figures(found, series)),
            _section("density", "Density", "Against weights remaining", density),
            _section("curves", "Learning curves", "Learning curves", figures.curve_figures(found, series)),
            _section("inside", "Structure", "Structure of the tickets", inside),
            _section("control-arms", "Controls", "Controls and other arms", figures.gain_figures(found, series)),
        ]
    barriers = found.height.metric.name.capitalize()
    tables = [
        table("results", "One row per run: arm, trial, repeat, level", found.levels, exact=True),
        table("statistics", "Mean and 95 % interval of each measure, per arm and level", found.statistics),
        table("verdicts", "Verdict on each level, with its reason and the differences to dense", found.verdicts),
        table("break_down", "Break-down density of each arm", found.break_down),
        table(
            "gains",
            f"Gain of the ticket arm over each control in {found.metric.words}, paired by trial",
            found.gains,
        ),
        table(
            "rewinds", f"Gain of later rewinds over the first in {found.metric.words}, paired by trial", _against(found)
        ),
        table(answer_chart.TABLE, "Levels of the first chart: means, intervals, verdicts", levels),
        table("patterns", "What each pattern costs against unstructured masks of equal density", found.patterns),
        table("curves", "Learning curves at the displayed levels, means and extremes over runs", found.curves),
        table("layers", "Density of each layer, per arm and level", found.layers),
        table("weights", f"Histograms of the kept weights, trial {found.first_trial}", found.histograms),
        table(
            "dead_units",
            f"Units without a live path, ticket arm, trial {found.first_trial}, per level and layer",
            found.dead,
        ),
        table("overlap", "Overlap of the masks of different trials, per level and layer", found.overlap),
        table(
            "sign_flips", "Signs that training flips, ticket arm, means over trials, per level and layer", found.flips
        ),
        table(
            "barriers",
            f"{barriers} barriers on interpolations between runs, per kind, iteration and level",
            found.barriers,
        ),
        *measured.tables(found.measurements.found),
    ]
    more = {"answer": figures.answer_figure(found, levels, first), "drawn": first}
    return _render("report.html.j2", (found,), series, sections, tables, **more)


def _against(found: Found) -> pd.DataFrame:
    # A row's curve is that of its `baseline`, where it has one: here it is that of its arm.
    return found.rewinds.rename(columns={"baseline": "against"})


def compare(studies: Sequence[Found]) -> str:
    """Return the page that compares several studies. Their names must differ, and all need one margin."""
    levels, statistics, judged, broken = (
        _stacked([getattr(found, name) for found in studies])
        for name in ("levels", "statistics", "verdicts", "break_down")
    )
    metric = metric_of(levels)
    series = series_of(levels)
    density = figures.density_figures(statistics, series, metric) if series else []
    tables = [
        table("results", "One row per run: study, arm, trial, repeat, level", levels, exact=True),
        table("statistics", "Mean and 95 % interval of each measure, per study, arm and level", statistics),
        table("verdicts", "Verdict on each level, with its reason and the differences to dense", judged),
        table("break_down", "Break-down density of each study and arm", broken),
    ]
    sections = [_section("density", "Density", "Against weights remaining", density)]
    settings = _differing(studies)
    more = {"side": _side_by_side(statistics, series, metric), "settings": settings}
    more |= {"leads": _leads(studies, settings), "answer": None, "drawn": ()}
    return _render("compare.html.j2", studies, series, sections, tables, **more)


def _render(
    template: str,
    studies: Sequence[Found],
    series: Sequence[Series],
    sections: Sequence[Section],
    tables: Sequence[Table],
    **more: Any,
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tombola.html", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "between": BETWEEN.get,
        "percent": percent,
        "plain": plain,
        "differences": differences,
        "at_its_level": at_its_level,
        "headline": headline,
        "numbers": numbers,
        "proof": proof,
        "with_interval": with_interval,
        "typeset": typeset,
        "number": number,
        "byte_size": byte_size,
        "latency": latency,
        "sentences": sentences,
    }
    tables = [each for each in tables if each.rows]
    drawn = [figure for section in sections for figure in section.figures] + [more["answer"]] * bool(more["answer"])
    plots = {figure.key: figure.spec for figure in drawn if figure.spec}
    data = {
        "series": [{"key": each.key, "study": each.study, "arm": each.arm, "label": each.label} for each in series],
        "tables": packed(tables),
        "plots": plots,
    }
    library = _vega() if plots else ""
    scripts = [Markup(_inline(text)) for text in (library, _file("page.js")) if text]  # none of it is a user's
    return environment.get_template(template).render(
        studies=studies,
        series=series,
        curves_of=[(found.name, _of(series, found)) for found in studies],
        sections=[section for section in sections if section.figures or section.absent],
        on={each.key for found in studies for each in shown_first(_of(series, found), str(found.arm))},
        tables=tables,
        data=data,
        scripts=scripts,
        script_sources=" ".join(map(_source, scripts)),
        style=Markup(_file("style.css")),
        verdicts={found.name: _verdict_rows(found.verdicts, found.metric) for found in studies},
        classes=VERDICTS,
        symbols=SYMBOLS,
        outcomes=OUTCOMES,
        metric=studies[0].metric,
        margin=margin_in_words(studies[0].margin, studies[0].metric),
        near=NEAR,
        version=__version__,
        **more,
    )


def _of(series: Sequence[Series], found: Found) -> list[Series]:
    return [each for each in series if each.study == found.name]


def _section(key: str, short: str, title: str, found: Sequence[PlotFigure]) -> Section:
    plotted, absent = (tuple(figure for figure in found if bool(figure.spec) == has) for has in (True, False))
    return Section(key, short, title, plotted, absent)


def _stacked(pieces: Sequence[pd.DataFrame]) -> pd.DataFrame:
    full = [piece for piece in pieces if not piece.empty]
    return pd.concat(full, ignore_index=True) if full else pieces[0]


def _verdict_rows(verdicts: pd.DataFrame, metric: Metric) -> dict[str, Any]:
    """Return the verdicts as a matrix: arms, and for each level its densities and a cell for each arm."""
    if verdicts.empty:
        return {"arms": [], "levels": []}
    arms = [str(arm) for arm in dict.fromkeys(verdicts["arm"])]
    levels = []
    for level, rows in verdicts.groupby("level"):
        cells = {row["arm"]: row | _difference(row, metric) for row in rows.to_dict("records")}
        levels.append({"level": int(level), "densities": densities_of(rows["density"]), "cells": cells})
    return {"arms": arms, "levels": levels}


def _difference(row: dict[str, Any], metric: Metric) -> dict[str, float]:
    """Return the difference in the metric under names that every metric has."""
    return {f"difference{end}": row[f"{metric.name}_difference{end}"] for end in ("", "_low", "_high")}


def _side_by_side(statistics: pd.DataFrame, series: Sequence[Series], metric: Metric) -> list[dict[str, Any]]:
    """Return the metric and early stop of all series at the same densities, from the nearest levels.

    The densities are those of the curve that has the most levels.
    """
    wanted = {early_of(metric): "metric", STOP: "stop"}
    rows = statistics[statistics["measure"].isin(wanted) & (statistics["density"] > 0)]
    mine = [rows[(rows["study"] == each.study) & (rows["arm"] == each.arm)] for each in series]
    densities = max((sorted(each["density"].unique(), reverse=True) for each in mine), key=len, default=[])
    found = []
    for density in densities:
        cells = []
        for each in mine:
            near = each[(each["density"] / density).between(1 / NEAR, NEAR)]
            near = near.assign(off=(near["density"] / density - 1).abs()).sort_values("off", kind="stable")
            cells.append({wanted[row["measure"]]: row for row in near.to_dict("records")[::-1]})
        found.append({"density": float(density), "cells": cells})
    return found


def _differing(studies: Sequence[Found]) -> list[tuple[str, list[str]]]:
    """Return the settings that differ between the studies, with the value of each."""
    names = dict.fromkeys(name for found in studies for name in found.settings)
    rows = [(name, [found.settings.get(name, "–") for found in studies]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _leads(studies: Sequence[Found], settings: list[tuple[str, list[str]]], most: int = 4) -> list[str]:
    """Return what tells each study: its description, or, where studies inherited one, the settings that differ."""
    descriptions = [found.description for found in studies]
    if len(set(descriptions)) == len(descriptions):
        return descriptions
    differing = settings[:most]
    return ["; ".join(f"{name} = {values[place]}" for name, values in differing) for place in range(len(studies))]


def _file(name: str) -> str:
    return (resources.files("tombola.html") / name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)  # putting it together takes seconds
def _vega() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, which sets `vegaEmbed`.

    Raises:
        InputError: vl-convert is not installed.
    """
    need("vl_convert", "the HTML report")
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")


def _inline(script: str) -> str:
    """Return JavaScript for a page: no text in it ends the element."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _source(script: str) -> str:
    """Return the source of a script in the content security policy; a browser runs no other script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
