"""Publish a results folder as a page of docs/results: tables, figures, the report, and its claims.

python docs/results/publish.py results/lenet-mnist docs/results/lenet-mnist

What the page's README.md says above MARK is written by hand and kept; what is below is made here.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

import tombola
from tombola.analysis.claims import Outcome, evaluate, published_claims
from tombola.report.html.write import write_report
from tombola.studies import dump_study

MARK = "<!-- made by docs/results/publish.py from here on -->"
ROWS = 50  # of the curves' summary, for each level


def main() -> None:
    """Publish the folder."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    results = tombola.Results.open(source)
    results.save()
    for old in target.glob("*.png"):
        old.unlink()
    figures = sorted(path for path in (source / "figures").glob("*.png") if "rounds" not in path.name)
    tables = [source / name for name in ("results.csv", "connectivity.csv", "barriers.csv")]
    for path in (*(table for table in tables if table.exists()), *figures):
        shutil.copy(path, target / path.name)
    (target / "study.yaml").write_text(dump_study(results.study.without_folder()))
    _summary(pd.read_csv(source / "curves.csv")).to_csv(target / "curves-summary.csv")
    write_report(results, target / "report.html")

    page = target / "README.md"
    head = page.read_text().partition(MARK)[0].rstrip() if page.exists() else f"# {results.study.name}"
    table = subprocess.run(
        [Path(sys.executable).with_name("tombola"), "results", source], capture_output=True, text=True, check=True
    ).stdout
    parts = [
        head,
        MARK,
        "[report.html](report.html) is the whole report: open it in a browser (GitHub shows its source).",
        *_claims(evaluate(results.frame(), published_claims(), {results.study.name: results.study.model_dump()})),
        *(f"![{path.stem}]({path.name})" for path in figures),
        "`results.csv` is the table that the run wrote, a row per run; `curves-summary.csv` has mean, lowest and\n"
        "highest test accuracy of some evaluations; `study.yaml` is the study. `docs/results/publish.py` made it all.",
        "## All levels",
        "\n".join(f"    {line}".rstrip() for line in table.splitlines()),
    ]
    page.write_text("\n\n".join(parts) + "\n")


def _claims(outcomes: list[Outcome]) -> list[str]:
    """Return the claims that are about such a study, as a table, and what its columns are."""
    rows = [
        f"| {outcome.claim.id} | {' '.join(outcome.claim.sentence.split())} | {outcome.claim.expectation} | "
        f"{_measured(outcome)} | {outcome.n} | {outcome.outcome} |"
        for outcome in outcomes
        if outcome.applies
    ]
    if not rows:
        return []
    table = ["| claim | it says | expected | measured | n | outcome |", "|---|---|---|---|---|---|", *rows]
    return [
        "\n".join(table),
        "Measured is the mean over n trials with its 95 % interval; what the outcomes mean is in\n"
        "[statistics](../../statistics.md). `tombola claims` prints the same table.",
    ]


def _measured(outcome: Outcome) -> str:
    if outcome.measured is None:
        return outcome.reason
    if outcome.low is None:
        return f"{outcome.measured:.3g}"
    return f"{outcome.measured:.3g} [{outcome.low:.3g}, {outcome.high:.3g}]"


def _summary(curves: pd.DataFrame) -> pd.DataFrame:
    iterations = sorted(curves["iteration"].unique())
    chosen = {*iterations[:: max(1, len(iterations) // ROWS)], iterations[-1]}
    groups = curves[curves["iteration"].isin(chosen)].groupby(["study", "arm", "level", "iteration"], sort=False)
    return groups.agg(
        density=("density", "mean"),
        runs=("test_accuracy", "size"),
        test_accuracy_mean=("test_accuracy", "mean"),
        test_accuracy_min=("test_accuracy", "min"),
        test_accuracy_max=("test_accuracy", "max"),
        val_loss_mean=("val_loss", "mean"),
    ).round(5)


if __name__ == "__main__":
    main()
