"""Writes the paper's figures from the tables of one study or several, as PNG, SVG or PDF."""

from __future__ import annotations

import io
import os
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tombola.errors import InputError, StoreError, nearest
from tombola.figures.form import SCREEN, Form
from tombola.figures.setting import Setting
from tombola.tasks.metric import metric_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Kind:
    """The record of a figure.

    Args:
        needs: the results that it needs.
        together: whether several studies share one figure; else each has its own.
        networks: what the names of the networks begin with for which it is drawn unasked.
        on_request: whether it is never drawn unasked.
    """

    needs: str
    together: bool = False
    networks: str = ""
    on_request: bool = False


KINDS = {
    "figure-1": Kind("pruned levels of an arm ticket or random-mask", together=True),
    "figure-3": Kind("learning curves of pruned levels of an arm ticket"),
    "figure-4": Kind("pruned levels of an arm other than random-mask"),
    "figure-5": Kind("pruned levels of an arm ticket or reinit", together=True, networks="conv-"),
    "figure-6": Kind(
        "two studies of one network: one with network.arguments.dropout above 0, one without",
        together=True,
        networks="conv-",
    ),
    "figure-7": Kind(
        "learning curves of pruned levels of an arm other than random-mask", together=True, networks="vgg-"
    ),
    "figure-8": Kind(
        "learning curves of pruned levels of an arm other than random-mask", together=True, networks="resnet-"
    ),
    "rounds": Kind("learning curves of two or more levels"),
    "by-round": Kind("early stopping or learning curves of pruned levels", together=True, on_request=True),
    "criteria": Kind("pruned levels of an arm ticket", together=True),
    "rewinding": Kind("a study that rewinds to several iterations"),
    "transfer": Kind("an arm ticket and arms that are transferred, see transfer in docs/studies.md", together=True),
    "cost": Kind("costs: a results folder, or a table with a column cost", on_request=True),
    "layer-densities": Kind("masks of a study's folder", on_request=True),
    "mask-overlap": Kind("masks of two or more trials of a study's folder", on_request=True),
    "live-pixels": Kind("masks of an arm ticket over images, under a linear first layer", on_request=True),
    "sign-flips": Kind("trained weights of a study's folder", on_request=True),
    "mask-distance": Kind("mask distances: an arm early-bird, or pruning.early_bird"),
    "lines-copies": Kind("interpolations between copies; see connectivity in docs/studies.md"),
    "lines-dense-ticket": Kind("interpolations between dense network and ticket; see connectivity in docs/studies.md"),
    "lines-levels": Kind("interpolations between tickets of two levels; see connectivity in docs/studies.md"),
    "barriers": Kind(
        "interpolations at two levels, or between copies from two iterations; see connectivity in docs/studies.md"
    ),
}
FIGURES = tuple(KINDS)
FORMATS = ("png", "svg", "pdf")

# matplotlib's settings belong to the process, so only one thread at a time may draw under ours.
_DRAWING = threading.Lock()


def draw(
    levels: pd.DataFrame,
    curves: pd.DataFrame,
    folder: Path,
    figures: Sequence[str] | None = None,
    *,
    interpolations: pd.DataFrame | None = None,
    settings: Mapping[str, Setting] | None = None,
    form: Form = SCREEN,
    formats: Sequence[str] = ("png", "svg"),
) -> list[Path]:
    """Write figures into `folder`, and return the files. The same tables give the same bytes.

    Where `levels` holds several studies, Figures 1, 5 to 8 and "criteria" show them together; of the others each
    study has its own, with the study's name in the file's.

    Arguments:
        levels: a row per (study, arm, trial, repeat, level).
        curves: a row per evaluation.
        folder: made where it is missing; files of the same names are replaced.
        figures: which of `FIGURES` to draw; by default each that the data support and that is made for their network.
        interpolations: a row per point of each interpolation, from `Results.connectivity`.
        settings: study -> what else is known of it; by default as of a study that says nothing.
        form: sizes, and what bars are.
        formats: any of "png", "svg" and "pdf".

    Raises:
        InputError: the figure or format does not exist, the data do not support one that is asked for, or the studies
            have different metrics. Nothing is written.
        StoreError: a file can't be written.
    """
    for name in figures or ():
        if name not in FIGURES:
            raise InputError(f"unknown figure {name!r}{nearest(name, FIGURES)}")
    for suffix in formats:
        if suffix not in FORMATS:
            raise InputError(f"unknown format {suffix!r}; known: {', '.join(FORMATS)}")
    if levels.empty:
        return []
    import pandas as pd

    metric_of(levels)  # figures of one call speak of one metric
    levels, curves = _plain_columns(levels), curves if curves.empty else _plain_columns(curves)
    settings = {study: (settings or {}).get(study, Setting()) for study in levels["study"].unique()}
    contents: dict[Path, bytes] = {}
    for name in FIGURES if figures is None else dict.fromkeys(figures):
        before = len(contents)
        for ending, studies in _groups(name, levels, settings, asked=figures is not None):
            some = levels[levels["study"].isin(studies)]
            some_curves = curves if curves.empty else curves[curves["study"].isin(studies)]
            found = pd.DataFrame() if interpolations is None else interpolations
            points = found if found.empty else found[found["study"].isin(studies)]
            for suffix, content in _render(name, some, some_curves, points, settings, form, formats).items():
                contents[Path(folder) / f"{name}{ending}{form.suffix}.{suffix}"] = content
        if figures is not None and len(contents) == before:
            raise InputError(f"{name} can't be drawn from these results: it needs {KINDS[name].needs}")
    return [_write(path, content) for path, content in contents.items()]


def rendered(
    levels: pd.DataFrame,
    curves: pd.DataFrame,
    figure: str,
    *,
    lines: pd.DataFrame | None = None,
    settings: Mapping[str, Setting] | None = None,
    form: Form = SCREEN,
    formats: Sequence[str] = ("png",),
) -> dict[str, bytes]:
    """Return one figure of one study as the content of a file, by format; arguments are those of `draw`.

    Raises:
        InputError: the data do not support the figure.
    """
    import pandas as pd

    levels, curves = _plain_columns(levels), curves if curves.empty else _plain_columns(curves)
    settings = {study: (settings or {}).get(study, Setting()) for study in levels["study"].unique()}
    points = pd.DataFrame() if lines is None else lines
    contents = _render(figure, levels, curves, points, settings, form, formats)
    if not contents:
        raise InputError(f"{figure} can't be drawn from these results: it needs {KINDS[figure].needs}")
    return contents


def _plain_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with names as text, categories too, and a column for the network's name."""
    network = table["network"].astype(str) if "network" in table else ""
    return table.assign(study=table["study"].astype(str), arm=table["arm"].astype(str), network=network)


def _groups(
    name: str, levels: pd.DataFrame, settings: Mapping[str, Setting], asked: bool
) -> list[tuple[str, list[str]]]:
    """Return, for each file of a figure, what is added to its name and the studies that it shows."""
    network_of = dict(zip(levels["study"], levels["network"], strict=True))
    studies, kind = list(network_of), KINDS[name]
    if kind.on_request and not asked:
        return []
    if not kind.together:
        return [(ending, [study]) for ending, study in zip(_endings(studies), studies, strict=True)]
    if not asked:
        studies = [study for study in studies if network_of[study].startswith(kind.networks)]
        if name == "criteria" and all(settings[study].criterion == "magnitude" for study in studies):
            return []
    return [("", studies)] if studies else []


def _render(
    name: str,
    levels: pd.DataFrame,
    curves: pd.DataFrame,
    points: pd.DataFrame,
    settings: Mapping[str, Setting],
    form: Form,
    formats: Sequence[str],
) -> dict[str, bytes]:
    import matplotlib

    from tombola.figures import characteristics, density, interpolation, training
    from tombola.figures.cost import cost
    from tombola.figures.mask_distance import mask_distance
    from tombola.figures.rewinding import rewinding
    from tombola.figures.rounds import rounds
    from tombola.figures.transfer import transfer

    makers: dict[str, Callable[[], Figure | None]] = {
        "figure-1": lambda: density.figure_1(levels, form),
        "figure-3": lambda: training.figure_3(levels, curves, form),
        "figure-4": lambda: density.figure_4(levels, form),
        "figure-5": lambda: density.figure_5(levels, form),
        "figure-6": lambda: density.figure_6(levels, settings, form),
        "figure-7": lambda: density.figure_7(levels, curves, settings, form),
        "figure-8": lambda: density.figure_8(levels, curves, settings, form),
        "rounds": lambda: rounds(levels, curves, form),
        "by-round": lambda: density.by_round(levels, curves, form),
        "criteria": lambda: density.criteria(levels, settings, form),
        "rewinding": lambda: rewinding(levels, form),
        "transfer": lambda: transfer(levels, settings, form),
        "cost": lambda: cost(levels, form),
        "layer-densities": lambda: characteristics.layer_densities(levels, settings[levels["study"].iloc[0]], form),
        "mask-overlap": lambda: characteristics.mask_overlap(levels, settings[levels["study"].iloc[0]], form),
        "live-pixels": lambda: characteristics.live_pixels(levels, settings[levels["study"].iloc[0]], form),
        "sign-flips": lambda: characteristics.sign_flips(levels, settings[levels["study"].iloc[0]], form),
        "mask-distance": lambda: mask_distance(levels, settings[levels["study"].iloc[0]], form),
        "lines-copies": lambda: interpolation.error_curves(levels, points, "copies", form),
        "lines-dense-ticket": lambda: interpolation.error_curves(levels, points, "dense-ticket", form),
        "lines-levels": lambda: interpolation.error_curves(levels, points, "levels", form),
        "barriers": lambda: interpolation.barriers(levels, points, settings, form),
    }
    # A user's own matplotlibrc (usetex, say) must neither break a figure nor change its bytes; and without a
    # salt the names inside an SVG are random.
    with _DRAWING, matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["svg.hashsalt"] = "tombola"
        matplotlib.rcParams["pdf.fonttype"] = 42  # TrueType: journals refuse matplotlib's own Type 3
        figure = makers[name]()
        return {} if figure is None else {suffix: _saved(figure, suffix, form) for suffix in formats}


def _saved(figure: Figure, suffix: str, form: Form) -> bytes:
    buffer = io.BytesIO()
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    figure.savefig(buffer, format=suffix, dpi=form.dpi, metadata=dates.get(suffix))
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
            f"can't write the figure {path}: {error.strerror or error}; make the folder writable, or name another"
        ) from error
    return path


def _endings(studies: Iterable[object]) -> list[str]:
    """Return a suffix for the file names of each study; "" for a single study."""
    studies = list(studies)
    if len(studies) == 1:
        return [""]
    endings: list[str] = []
    for study in studies:
        stem = "-" + (re.sub(r"[^A-Za-z0-9_-]+", "-", str(study))[:40].strip("-") or "study")
        ending, number = stem, 2
        # Compared without case: on some file systems A.png and a.png are one file.
        while ending.lower() in {other.lower() for other in endings}:
            ending, number = f"{stem}-{number}", number + 1
        endings.append(ending)
    return endings
