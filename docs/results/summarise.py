"""Write docs/results/summary.md: every published claim beside what the pages of docs/results measured.

python docs/results/summarise.py            # of the pages beside this script
python docs/results/summarise.py PAGES      # of another folder of pages

A page counts by its results.csv and the study files beside it. The script writes the tables. It keeps what is written
by hand: the part above MARK, and the sentence behind each claim's name below a table, which says why a claim is not
reproduced.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tombola.analysis.claims import NOT_MEASURED, NOT_REPRODUCED, Claim, Outcome, evaluate, published_claims
from tombola.analysis.reading import read_levels, read_points
from tombola.tables.claims import measured_text

MARK = "<!-- made by docs/results/summarise.py from here on; sentences behind **names** are kept -->"
HEAD = """# Summary

This page compares every published claim that comes with tombola with the measurements of the pages here. The column
"measured" has the mean over n trials with its 95 % interval.
[Statistics](../statistics.md#claims-tombola-claims-results) defines the results. Tombola does not judge a claim about
the full budget on a study with a smaller one."""
REASON = re.compile(r"^- \*\*(?P<claim>[^*]+)\*\* (?P<text>.+(?:\n  .+)*)$", re.MULTILINE)
UNKNOWN = "The cause is not known."
FIRST = ("Frankle & Carbin 2019", "a public ")  # the paper and the studies that repeat it come before all others
Found = tuple[str, Outcome]  # name of the page, and what it says of a claim


def main() -> None:
    """Write the summary of the pages in a folder."""
    pages = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    summary = pages / "summary.md"
    old = summary.read_text() if summary.exists() else HEAD
    head, _, below = old.partition(MARK)
    reasons = {found["claim"]: found["text"] for found in REASON.finditer(below)}
    claims = published_claims()
    found = [each for page in sorted(pages.glob("*/results.csv")) for each in _judged(page.parent, claims)]
    parts = [head.rstrip(), MARK, _counts(found, claims)]
    sources = dict.fromkeys(claim.source for claim in claims)
    for source in sorted(sources, key=lambda each: ([not each.startswith(start) for start in FIRST], each)):
        parts += _section(source, [claim for claim in claims if claim.source == source], found, reasons)
    summary.write_text("\n\n".join(parts) + "\n")


def _judged(page: Path, claims: Sequence[Claim]) -> list[Found]:
    """Return what a page measured, each of its studies judged by its own settings."""
    levels, settings = read_levels(page / "results.csv")
    known = levels[levels["study"].isin(settings)]  # without its settings a study may be of any recipe
    outcomes = evaluate(known, claims, settings, points=read_points(page / "results.csv"))
    return [(page.name, outcome) for outcome in outcomes if outcome.applies and outcome.outcome != NOT_MEASURED]


def _counts(found: list[Found], claims: Sequence[Claim]) -> str:
    """Return how many claims have which result; several pages may measure one."""
    counts = Counter(outcome.outcome for _, outcome in found)
    measured = len({outcome.claim.id for _, outcome in found})
    told = ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))
    return f"The pages measure {measured} of {len(claims)} claims. Results over all pages: {told or 'none'}."


def _section(source: str, claims: Sequence[Claim], found: list[Found], reasons: dict[str, str]) -> list[str]:
    rows, sentences = [], []
    for claim in claims:
        mine = [each for each in found if each[1].claim.id == claim.id]
        start = f"| {claim.id} | {' '.join(claim.sentence.split())} | {claim.expectation} |"
        rows += [
            f"{start} {measured_text(outcome)} | {outcome.n} | {outcome.outcome} "
            f"| [{page}]({page}/README.md), {outcome.study} |"
            for page, outcome in mine
        ] or [f"{start} | | not measured | |"]
        if claim.id in reasons or any(outcome.outcome == NOT_REPRODUCED for _, outcome in mine):
            sentences.append(f"- **{claim.id}** {reasons.get(claim.id, UNKNOWN)}")
    table = ["| claim | statement | published | measured | n | result | page, study |", "|---|---|---|---|---|---|---|"]
    return [f"## {source}", "\n".join([*table, *rows]), *(["\n".join(sentences)] if sentences else [])]


if __name__ == "__main__":
    main()
