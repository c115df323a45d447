"""Results as a notebook shows them: tables, verdicts and drawings in the place of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import pandas as pd

from tombola.analysis.answer import answer_of
from tombola.analysis.measures import early_of
from tombola.analysis.order import in_order
from tombola.analysis.stability import partings_of
from tombola.analysis.verdicts import verdicts
from tombola.errors import InputError, nearest
from tombola.figures import FIGURES, Setting
from tombola.figures.draw import rendered
from tombola.formatting import percent, plain, value
from tombola.running.files import write_whole
from tombola.running.results import Results as RunningResults
from tombola.tables.answer import headline, proof
from tombola.tasks.metric import metric_of

PLOTS = {"density": "figure-4", "curves": "figure-3"}  # short names; the others are those of `tombola figures`


@dataclass(frozen=True)
class Drawing:
    """A figure that a notebook shows.

    Args:
        name: of the figure.
        png: its content.
    """

    name: str
    png: bytes = field(repr=False)

    def _repr_png_(self) -> bytes:
        return self.png

    def save(self, path: str | Path) -> None:
        """Write it to a PNG file.

        Raises:
            StoreError: it can't be written.
        """
        write_whole(Path(path), self.png, "name an existing folder with free space")


class Verdicts(pd.DataFrame):
    """The table of `tombola.analysis.verdicts`, whose reasons a notebook shows whole."""

    def _repr_html_(self) -> str:
        if not {"arm", "level", "verdict"} <= set(self.columns):  # a part of the table
            return pd.DataFrame(self).to_html()
        rows = [
            (plain(row["arm"]), row["level"], f"{percent(row['density'])} %", row["n"], row["verdict"], row["reason"])
            for row in self.to_dict("records")
        ]
        return _html(("arm", "level", "density", "trials", "verdict", "reason"), rows)


class Results(RunningResults):
    """The results of a study, finished or not.

    >>> results = tombola.run("demo")                                   # doctest: +SKIP
    >>> results.frame().groupby("arm").final_test_accuracy.max()        # doctest: +SKIP
    >>> results.plot("density")                                         # doctest: +SKIP
    """

    def verdicts(self, margin: float | None = None) -> Verdicts:
        """Return the verdict on each level of each arm, with its reason: see `tombola.analysis.verdicts`.

        Args:
            margin: the loss that still counts as none, as a fraction; the study's where it is not given.

        Raises:
            InputError: nothing is done yet, or `margin` is not a number between 0 and 1.
        """
        return Verdicts(verdicts(self._levels(), self.study.margin if margin is None else margin))

    def plot(self, figure: str = "density") -> Drawing:
        """Return a figure, which a notebook shows.

        Args:
            figure: "density" (the test metric against the weights that remain), "curves" (learning curves), or a name
                of `tombola figures`, such as "figure-1" or "barriers".

        Raises:
            InputError: there is no such figure, or the results do not support it.
        """
        name = PLOTS.get(figure, figure)
        if name not in FIGURES:
            raise InputError(f"no figure {figure!r}{nearest(str(figure), [*PLOTS, *FIGURES])}")
        settings = {self.study.name: Setting.of_results(self)}
        contents = rendered(self._levels(), self.curves(), name, lines=self.connectivity(), settings=settings)
        return Drawing(name, contents["png"])

    def _levels(self) -> pd.DataFrame:
        levels = self.frame()
        if levels.empty:
            raise InputError(f"{str(self.store.root)!r} holds no results yet; run the study first")
        return levels

    def _repr_html_(self) -> str:
        """Return the answer, and the mean of the test metric at early stop by level and arm."""
        levels = self.frame()
        work = self.plan.work
        missing = self.missing()
        answer = answer_of(levels, self.study.margin, missing, partings=partings_of(self))
        head = f"<p>Study {escape(plain(self.study.name))}: {len(work) - missing} of {len(work)} done</p>"
        head += f"<p><b>{escape(headline(answer))}</b> {escape(' '.join(proof(answer)))}</p>"
        if levels.empty:
            return head
        metric = metric_of(levels)
        means = levels.groupby(["level", "arm"])[early_of(metric)].mean()
        densities = levels.groupby("level")["density"].mean()
        arms = in_order(levels["arm"])
        rows = []
        for level, density in densities.items():
            cells = [means.get((level, arm), float("nan")) for arm in arms]
            rows.append(
                (level, f"{percent(density)} %", *("" if cell != cell else value(cell, metric) for cell in cells))
            )
        title = f"<p>Test {escape(metric.words)} at early stop, mean over trials</p>"
        return head + title + _html(("level", "density", *map(plain, arms)), rows)


def _html(heads: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> str:
    """Return a table as HTML; its texts come from users' files."""
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
