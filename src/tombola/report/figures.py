"""Writes the paper's figures from a study's tables, as PNG and SVG."""

from __future__ import annotations

import io
import os
import re
import threading
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tombola.errors import InputError, StoreError, nearest

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FIGURES = ("figure-1", "figure-3", "figure-4")

# matplotlib's settings belong to the process, so only one thread at a time may draw under ours.
_DRAWING = threading.Lock()


def draw(levels: pd.DataFrame, curves: pd.DataFrame, folder: Path, figures: Sequence[str] | None = None) -> list[Path]:
    """Write each figure that the data can support into `folder`, and return the files.

    A figure for which the data hold nothing is left out. The same tables give the same bytes. Where `levels`
    holds several studies, each has its own files, with the study's name in theirs.

    Arguments:
        levels: a row per (study, arm, trial, repeat, level).
        curves: a row per evaluation.
        folder: made where it is missing; files of the same names are replaced.
        figures: which of `FIGURES` to draw; all by default.
    """
    wanted = FIGURES if figures is None else tuple(dict.fromkeys(figures))
    for name in wanted:
        if name not in FIGURES:
            raise InputError(f"no figure {name!r}{nearest(name, FIGURES)}")
    if levels.empty:
        return []
    studies = list(dict.fromkeys(levels["study"]))
    written: list[Path] = []
    for study, suffix in zip(studies, _suffixes(studies), strict=True):
        study_levels = levels[levels["study"] == study]
        study_curves = curves if curves.empty else curves[curves["study"] == study]
        for name in wanted:
            for ending, content in _render(name, study_levels, study_curves).items():
                written.append(_write(Path(folder) / f"{name}{suffix}.{ending}", content))
    return written


def _render(name: str, levels: pd.DataFrame, curves: pd.DataFrame) -> dict[str, bytes]:
    import matplotlib

    from tombola.report import curve_figures, density_figures

    makers = {
        "figure-1": lambda: density_figures.figure_1(levels),
        "figure-3": lambda: curve_figures.figure_3(levels, curves),
        "figure-4": lambda: density_figures.figure_4(levels),
    }
    # A user's own matplotlibrc (usetex, say) must neither break a figure nor change its bytes; and without a
    # salt the names inside an SVG are random.
    with _DRAWING, matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["svg.hashsalt"] = "tombola"
        figure = makers[name]()
        return {} if figure is None else {"png": _png(figure), "svg": _svg(figure)}


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200)
    return buffer.getvalue()


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> Path:
    # Written aside and moved into place: whoever reads the file sees the old figure or the new one, never half.
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            aside.write_bytes(content)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"can't write the figure {path}: {error.strerror or error}; free the folder or name another"
        ) from error
    return path


def _suffixes(studies: Iterable[object]) -> list[str]:
    """Return what to add to the files' names to tell the studies apart: nothing for a single one."""
    studies = list(studies)
    if len(studies) == 1:
        return [""]
    suffixes: list[str] = []
    for study in studies:
        stem = "-" + (re.sub(r"[^A-Za-z0-9_-]+", "-", str(study))[:40].strip("-") or "study")
        suffix, number = stem, 2
        # Compared without case: on some file systems A.png and a.png are one file.
        while suffix.lower() in {other.lower() for other in suffixes}:
            suffix, number = f"{stem}-{number}", number + 1
        suffixes.append(suffix)
    return suffixes
