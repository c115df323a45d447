"""How a study ends in a terminal: its answer, a small chart, and one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from tombola.analysis.answer import Answer, answer_of
from tombola.analysis.stability import partings_of
from tombola.analysis.verdicts import verdicts
from tombola.figures.text_chart import ASCII, UNICODE, Signs, text_chart
from tombola.tables.answer import barriers_in_words, headline, numbers, proof
from tombola.tables.captions import PM
from tombola.tables.summary import summary_table
from tombola.tasks.metric import MARGIN

if TYPE_CHECKING:
    import pandas as pd

    from tombola.analysis.stability import Parting
    from tombola.running.results import Results

WIDTH = 80
KEY = (
    "winning ticket: as good as dense, stops no later. matching: as good. losing: worse. inconclusive: the trials do "
    "not decide. A verdict compares the networks of each trial in pairs, so it can differ from what the bars suggest."
)


def ending(
    levels: pd.DataFrame,
    missing: int = 0,
    encoding: str = "utf-8",
    margin: float = MARGIN,
    partings: tuple[Parting, ...] = (),
) -> Group:
    """Return what `tombola run` prints at its end: the answer, a chart of 80 columns, and the table of the metric.

    Args:
        levels: of one study, as returned by `Results.frame()`.
        missing: work items that are not finished.
        encoding: of the terminal; one without the signs of the chart gets plain letters.
        margin: the accepted loss of the verdicts, as a fraction.
        partings: of the study's interpolations; where they are the answer, sentences on them replace the chart.
    """
    judged = verdicts(levels, margin) if len(levels) else None
    answer = answer_of(levels, margin, missing, judged, partings)
    parts = _in_words(answer)
    if sentences := barriers_in_words(answer):
        parts += [Text("\n" + "\n".join(sentences) + "\n")]
    elif judged is not None and (chart := text_chart(levels, answer, judged, WIDTH, _signs(encoding))):
        parts += [Text(f"\n{chart}\n", no_wrap=True), Text(KEY, style="dim"), Text("")]
    return Group(*parts, summary_table(levels, brief=True), Text(f"{PM}\n")) if len(levels) else Group(*parts)


def ending_of(results: Results, encoding: str) -> Group:
    """Return `ending` of a study's results, by its own margin."""
    return ending(results.frame(), results.missing(), encoding, results.study.margin, partings_of(results))


def short_answer(
    levels: pd.DataFrame, missing: int = 0, margin: float = MARGIN, partings: tuple[Parting, ...] = ()
) -> Group:
    """Return the answer of one study in words, as `tombola report` prints it: a sentence, and what it rests on.

    Args:
        levels, missing, margin, partings: as in `ending`.
    """
    answer = answer_of(levels, margin, missing, partings=partings)
    return Group(*_in_words(answer), *(Text(sentence) for sentence in barriers_in_words(answer)))


def _in_words(answer: Answer) -> list[Text]:
    remarks = " ".join(proof(answer))
    if answer.at is not None:
        _, difference, _ = numbers(answer)
        value = f"{difference.value} {difference.unit}".rstrip()
        remarks = f"{difference.label[:1].upper() + difference.label[1:]}: {value}, {difference.remark}. {remarks}"
    return [Text(headline(answer), style="bold"), *([Text(remarks, style="dim")] if remarks else [])]


def _signs(encoding: str) -> Signs:
    try:
        "".join((UNICODE.mean, UNICODE.bar, UNICODE.dense, UNICODE.less, UNICODE.more)).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE
