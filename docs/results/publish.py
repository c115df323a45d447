"""Publish results folders as one page of docs/results: tables, figures, report and claims.

python docs/results/publish.py results/lenet-mnist docs/results/lenet-mnist
python docs/results/publish.py results/lenet-mnist docs/results/lenet-mnist --figure cost --figure sign-flips
python docs/results/publish.py results/a results/b docs/results/a-against-b
python docs/results/publish.py results/trials-10-to-19 docs/results/lenet-mnist --keep-rows

The script keeps the part of the page's README.md above MARK, which is written by hand. It writes the part below.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
from rich.console import Console

import tombola
from tombola.analysis.claims import Outcome, evaluate, published_claims
from tombola.analysis.learning_curves import of_sound_runs, to_the_shortest
from tombola.figures import draw, gather, gather_interpolations
from tombola.figures.setting import Setting
from tombola.html.write import write_comparison, write_report, write_table_report
from tombola.session import save
from tombola.studies import dump_study, make_plan
from tombola.tables import level_tables
from tombola.tables.captions import PM
from tombola.tables.claims import measured_text

MARK = "<!-- made by docs/results/publish.py from here on -->"
PLACE = ["arm", "trial", "repeat", "level"]  # of a row
NOT_KEPT = "The page does not have the masks and evaluations of"
ROWS = 50  # of the curves' summary, for each level
Drawing = Callable[..., list[Path]]  # draws the figures that are named
# Figures that need no more than the table of levels.
OF_LEVELS = ("figure-1", "figure-4", "figure-5", "figure-6", "criteria", "rewinding", "transfer", "cost")


def main() -> None:
    """Publish results folders as a page."""
    given = _options()
    *sources, target = given.folders
    studies = [tombola.Results.open(source) for source in sources]
    own, curves, settings = gather(studies)
    points = gather_interpolations(studies, settings)
    page_studies, levels = [results.study for results in studies], own
    joined = given.keep_rows
    if joined:
        page_studies, levels = _joined(target, studies, own)
    pictures = _pictures(target, joined) if given.keep_pictures else []

    target.mkdir(parents=True, exist_ok=True)
    for old in set(target.glob("*.png")) - set(pictures):
        old.unlink()
    whole = partial(draw, own, curves, target, interpolations=points, settings=settings, formats=["png"])
    of_page = {study.name: Setting.of(study) for study in page_studies}
    # The evaluations of kept rows are gone: the figures of levels alone show these rows.
    of_rows = partial(draw, levels, curves.iloc[:0], target, settings=of_page, formats=["png"]) if joined else None
    figures = _figures(given.figure, whole, of_rows, pictures, len(studies))

    levels.to_csv(target / "results.csv", index=False)
    if not pictures:
        _summary(to_the_shortest(of_sound_runs(own, curves))).to_csv(target / "curves-summary.csv")
    for study in page_studies:
        name = "study.yaml" if len(studies) == 1 else f"{study.slug}.yaml"
        (target / name).write_text(dump_study(study.without_folder()))
    report = target / ("report.html" if len(studies) == 1 else "comparison.html")
    if len(studies) > 1:
        write_comparison(studies, report)
    else:
        save(studies[0], figures=False)
        for more in ("connectivity.csv", "barriers.csv", "mask_distance.csv"):
            if (sources[0] / more).exists():
                shutil.copy(sources[0] / more, target / more)
        if joined:
            write_table_report(levels, report, file=target / "results.csv", study=page_studies[0])
        else:
            write_report(studies[0], report)

    outcomes = [
        outcome
        for results, study in zip(studies, page_studies, strict=True)
        for outcome in evaluate(
            levels if joined else results.frame(), published_claims(), {study.name: study.model_dump()}, points=points
        )
    ]
    tables = [_of_all(levels)] if joined else [_table(source) for source in sources]
    page = target / "README.md"
    parts = [
        page.read_text().partition(MARK)[0].rstrip() if page.exists() else f"# {target.name}",
        MARK,
        f"[{report.name}]({report.name}) is the report. Download it and open it in a browser: GitHub shows only its "
        "source.",
        *_claims(outcomes),
        *(f"![{path.stem}]({path.name})" for path in figures),
        "`results.csv` has a row per run. `curves-summary.csv` has the mean, lowest and highest test accuracy at some\n"
        f"evaluations. {_files(studies)}. `docs/results/publish.py` wrote these files.",
        *_which_rows(levels, own, bool(pictures)),
        "## All levels",
        *("\n".join(f"    {line}".rstrip() for line in table.splitlines()) for table in tables),
    ]
    page.write_text("\n\n".join(parts) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Publish results folders as one page.")
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="results folders; last, the page's folder"
    )
    parser.add_argument("--figure", action="append", default=[], help="also draw this figure; repeat for several")
    parser.add_argument(
        "--keep-rows", action="store_true", help="keep the page's rows of trials and arms that the results folder lacks"
    )
    parser.add_argument(
        "--keep-pictures",
        action="store_true",
        help="with --keep-rows: keep the page's pictures of masks and learning curves, which show the rows kept",
    )
    return parser.parse_args()


def _figures(
    asked: list[str], whole: Drawing, of_rows: Drawing | None, pictures: list[Path], studies: int
) -> list[Path]:
    """Draw a page's figures and return them in their order on the page.

    Args:
        asked: figures beside those that every page has.
        whole: draws figures of the results folders.
        of_rows: draws figures of the page's whole table, which has more rows; None where it has not.
        pictures: that stay as they are.
        studies: how many results folders there are.
    """
    found = pictures or whole()
    if of_rows:
        found = [*of_rows(), *found]
    # For one study, Figure 3 replaces `rounds`. For several studies, only figures of all studies together are useful.
    unwanted = ("rounds",) if studies == 1 else ("figure-1", "figure-3", "figure-4", "figure-5", "rounds")
    drawn = {path.read_bytes(): path for path in found}  # of one network, Figures 4 and 5 are the same picture
    twice = set(found) - set(drawn.values())
    for path in ({path for path in found if path.stem.startswith(unwanted)} | twice) - set(pictures):
        path.unlink()
    of_levels = [name for name in asked if of_rows and name in OF_LEVELS]
    others = [name for name in asked if name not in of_levels]
    extra = whole(others) if others else []
    if of_rows and of_levels:
        extra = [*extra, *of_rows(of_levels)]
    shown = [path for path in dict.fromkeys([*extra, *found]) if path.exists()]
    return sorted(shown, key=lambda path: path.stem.startswith("rounds"))


def _joined(
    target: Path, studies: list[tombola.Results], own: pd.DataFrame
) -> tuple[list[tombola.Study], pd.DataFrame]:
    """Return the one study of the page's rows and the results folder's, and its table.

    Rows of trials and arms that the folder lacks stay. They are rows of this very study only if its plan gives each
    run the same identity: it follows from settings, data and code.
    """
    if len(studies) > 1:
        raise SystemExit("--keep-rows needs one results folder")
    if studies[0].missing():
        raise SystemExit("--keep-rows needs a finished results folder")
    if not (target / "results.csv").exists():
        raise SystemExit(f"{target} has no results.csv to keep rows of; leave out --keep-rows")
    if not (target / "study.yaml").exists():
        raise SystemExit(f"{target} has several studies; --keep-rows joins rows of one")
    page, study = tombola.Study.load(target / "study.yaml"), studies[0].study
    if page.name != study.name:
        raise SystemExit(f"the page is of the study {page.name!r}, the results folder of {study.name!r}")
    if any(each.connectivity or each.pruning.early_bird for each in (page, study)):
        raise SystemExit("--keep-rows does not join interpolations and mask distances")
    found = pd.read_csv(target / "results.csv", dtype={"job": str})
    found = found[~_places(found).isin(_places(own))]
    if found.empty:
        raise SystemExit("the page has no row that the results folder lacks; leave out --keep-rows")
    if set(found["arm"]) & set(own["arm"]) and set(found["trial"]) & set(own["trial"]):
        raise SystemExit("--keep-rows joins trials or arms, not both; publish a folder with all of one of them first")
    study = _with_rows(study, page, found)
    jobs = {(row.arm, row.trial, row.repeat, row.level): row.job for row in make_plan(study).rows}
    for name, rows in (("page", found), ("results folder", own)):
        places = rows[PLACE].itertuples(index=False, name=None)
        others = [place for place, job in zip(places, rows["job"], strict=True) if jobs.get(place) != job]
        if others:
            raise SystemExit(f"{len(others)} of {len(rows)} rows of the {name} are of other runs, such as {others[0]}")
    rows = pd.concat([found, own]).set_index(PLACE, drop=False)
    if lacking := [place for place in jobs if place not in rows.index]:
        raise SystemExit(f"page and results folder lack {len(lacking)} of {len(jobs)} rows, such as {lacking[0]}")
    return [study], rows.loc[list(jobs)].reset_index(drop=True)


def _with_rows(study: tombola.Study, page: tombola.Study, kept: pd.DataFrame) -> tombola.Study:
    """Return the study with its own trials and arms and those of the rows that the page keeps."""
    numbers = sorted({*study.trial_numbers, *map(int, kept["trial"])})
    if numbers != list(range(numbers[0], numbers[-1] + 1)):
        raise SystemExit(f"trials {', '.join(map(str, numbers))} have gaps; publish those between first")
    arms = {arm.label: arm for arm in (*page.arms, *study.arms)}  # the page's order, and the study's settings
    return study.model_copy(update={"first_trial": numbers[0], "trials": len(numbers), "arms": tuple(arms.values())})


def _pictures(target: Path, joined: bool) -> list[Path]:
    """Return a page's pictures of masks and learning curves, if they show all rows that it has."""
    found = sorted(path for path in target.glob("*.png") if path.stem not in OF_LEVELS)
    if not joined or not found:
        raise SystemExit("--keep-pictures needs --keep-rows, and a page with pictures of masks or learning curves")
    if NOT_KEPT in (target / "README.md").read_text():
        raise SystemExit("--keep-pictures: the page's pictures lack some of its rows already")
    return found


def _which_rows(levels: pd.DataFrame, own: pd.DataFrame, of_kept: bool) -> list[str]:
    """Return which rows the pictures of masks and evaluations show, if not all."""
    kept = levels[~_places(levels).isin(_places(own))]
    if kept.empty:
        return []
    shown, others = (kept, own) if of_kept else (own, kept)
    return [
        f"`curves-summary.csv`, learning curves and pictures of masks show {_rows_text(shown, others)} alone.\n"
        f"{NOT_KEPT} {_rows_text(others, shown)}."
    ]


def _rows_text(rows: pd.DataFrame, others: pd.DataFrame) -> str:
    """Return the trials that some rows have, or the arms if others have the same trials."""
    numbers = sorted({int(number) for number in rows["trial"]})
    if numbers == sorted({int(number) for number in others["trial"]}):
        return ", ".join(dict.fromkeys(rows["arm"]))
    first, last = numbers[0], numbers[-1]
    if last - first == len(numbers) - 1:
        return f"trials {first} to {last}" if last > first else f"trial {first}"
    return f"trials {', '.join(map(str, numbers))}"


def _places(rows: pd.DataFrame) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(rows[PLACE])


def _of_all(levels: pd.DataFrame) -> str:
    """Return what `tombola results` prints, of a table that no results folder holds."""
    text = io.StringIO()
    screen = Console(file=text, width=120, no_color=True)
    screen.print(level_tables(levels))
    screen.print(f"{PM}\n", markup=False, highlight=False)
    return text.getvalue()


def _files(studies: list[tombola.Results]) -> str:
    names = [f"`{results.study.slug}.yaml`" for results in studies]
    return "`study.yaml` is the study" if len(names) == 1 else f"{', '.join(names)} are the studies"


def _table(source: Path) -> str:
    command = [sys.executable, "-m", "tombola", "results", str(source)]  # tombola may not be installed
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _claims(outcomes: list[Outcome]) -> list[str]:
    """Return a table of the claims about such a study, and a note on its columns."""
    rows = [
        f"| {outcome.claim.id} | {' '.join(outcome.claim.sentence.split())} | {outcome.claim.expectation} | "
        f"{outcome.reason if outcome.measured is None else measured_text(outcome)} | {outcome.n} | {outcome.outcome} |"
        for outcome in outcomes
        if outcome.applies and not outcome.other_recipe
    ]
    if not rows:
        return []
    table = ["| claim | statement | expected | measured | n | result |", "|---|---|---|---|---|---|", *rows]
    return [
        "\n".join(table),
        'The column "measured" has the mean over n trials with its 95 % interval. '
        "[Statistics](../../statistics.md#claims-tombola-claims-results)\n"
        "defines the results. `tombola claims` prints the same table.",
    ]


def _summary(curves: pd.DataFrame) -> pd.DataFrame:
    iterations = sorted(curves["iteration"].unique())
    chosen = {*iterations[:: max(1, len(iterations) // ROWS)], iterations[-1]}
    place = ["study", "arm", "level", "iteration"]
    # Early stop comes at another iteration in each run: a mean over some of the runs would be no point of the curve.
    whole = curves["test_accuracy"].notna().groupby([curves[name] for name in place]).transform("all")
    curves = curves.assign(test_accuracy=curves["test_accuracy"].where(whole))
    groups = curves[curves["iteration"].isin(chosen)].groupby(place, sort=False)
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
