"""The page of a table that others have measured: verdicts, figures and claims, but nothing of weights or masks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tombola.analysis.claims import Claim
from tombola.analysis.connectivity import height_of
from tombola.analysis.reading import read_points
from tombola.analysis.schema import VERSION
from tombola.errors import InputError
from tombola.export.stored import Measurements
from tombola.formatting import counted
from tombola.html.gather import Found, checked_claims, controls_of, judge, rules_of
from tombola.html.reproducibility import Group, Sheet, flat_settings
from tombola.html.weights import Pictures
from tombola.studies.loading import dump_study
from tombola.studies.study import Study
from tombola.tables.captions import HEIGHTS
from tombola.tasks.metric import MARGIN

NOTHING = pd.DataFrame()


def gather_table(
    levels: pd.DataFrame,
    curves: pd.DataFrame,
    file: Path | None = None,
    claims: Sequence[Claim] | None = None,
    margin: float | None = None,
    study: Study | None = None,
) -> Found:
    """Return what a table says, for the page.

    Args:
        levels: of one study, as `tombola.analysis.schema.checked` gives it.
        curves: as `checked_curves` gives them; may be empty.
        file: that the table was read from.
        claims: to check; the published ones where they are not given.
        margin: the loss that still counts as none, as a fraction: see `verdicts`; that of `study` by default.
        study: whose table it is; None where that is not known.

    Raises:
        InputError: the table is empty or holds several studies, or `margin` is not a number between 0 and 1.
    """
    names = list(dict.fromkeys(levels["study"]))
    if len(names) != 1:
        held = f"{len(names)} studies: {', '.join(names)}" if names else "no rows"
        raise InputError(f"{file or 'the table'} holds {held}; a report shows one study: give a table of one study")
    margin = (study.margin if study else MARGIN) if margin is None else margin
    controls = controls_of(study) if study else None
    judged = judge(levels, curves, margin, rules_of(study) if study else None, controls)
    points = read_points(file) if file else NOTHING
    return Found(
        name=names[0],
        description=study.description if study else "",
        study_file=dump_study(study.without_folder()) if study else "",
        settings=flat_settings(study) if study else {},
        metric=judged.metric,
        height=HEIGHTS[height_of(NOTHING)],
        levels=levels,
        statistics=judged.statistics,
        verdicts=judged.verdicts,
        break_down=judged.break_down,
        gains=judged.gains,
        rewinds=judged.rewinds,
        controls=controls,
        patterns=NOTHING,
        curves=judged.curves,
        every=judged.every,
        cut_note=judged.cut_note,
        measured_on=judged.measured_on,
        layers=NOTHING,
        dead=NOTHING,
        overlap=NOTHING,
        flips=NOTHING,
        barriers=NOTHING,
        histograms=NOTHING,
        pictures=Pictures("A table has no masks to look at."),
        measurements=Measurements((), ()),
        claims=checked_claims(levels, study.model_dump(mode="json") if study else {}, claims, points),
        answer=judged.answer,
        findings=judged.findings,
        sheet=Sheet("", (_about(levels, file),)),
        margin=margin,
    )


def _about(levels: pd.DataFrame, file: Path | None) -> Group:
    facts = [
        ("rows", f"{len(levels):,}"),
        ("arms", ", ".join(dict.fromkeys(levels["arm"]))),
        ("trials", counted(levels["trial"].nunique(), "trial")),
        ("schema", f"version {VERSION}"),
    ]
    if file is not None:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        facts += [("file", file.name), ("sha256", digest)]
    return Group("The table", tuple(facts))
