"""The results table of a results folder, or of a CSV file that one was saved to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from tombola.analysis.schema import COLUMNS, NO_CURVES, checked, checked_curves, checked_points
from tombola.errors import InputError
from tombola.formatting import text_of_csv

if TYPE_CHECKING:
    from tombola.studies.study import Study

TEXTS = tuple(column.name for column in COLUMNS if column.kind == "text")  # be it "NA" or "null"
NOTHING = ("", "nan", "NaN", "NA")  # where a number is expected


def read_levels(path: Path, data: Path | None = None) -> tuple[pd.DataFrame, dict[str, dict[str, Any]]]:
    """Return the table as `Results.frame()` gives it, and each study's settings as far as they are known.

    Arguments:
        path: of a results folder; of a folder with `results.csv`, or such a file. Beside it `study.yaml` may have the
            settings of its study, or `<name>.yaml` those of one of its studies.
        data: folder of data sets, as for `Results.open`.

    Raises:
        InputError: there are no results; the message says where they were looked for.
    """
    from tombola.running.results import Results

    if _is_results_folder(path):
        results = Results.open(path, data)
        levels, settings = results.frame(), {results.study.name: results.study}
    else:
        file = path / "results.csv" if path.is_dir() else path
        levels = read_table(file)
        settings = studies_beside(file, levels)
    if levels.empty:
        raise InputError(f"{path} contains no results yet")
    return levels, {name: study.model_dump(mode="json") for name, study in settings.items()}


def seconds_of(path: Path, levels: pd.DataFrame, data: Path | None = None) -> dict[str, float | None]:
    """Return study -> the mean seconds of computing that a trial takes; None if unknown.

    Arguments:
        path, data: as in `read_levels`. Of a table, only its rows count; of a results folder, all work.
        levels: as returned by `read_levels`.
    """
    from tombola.analysis.power import seconds_per_trial
    from tombola.running.results import Results

    if _is_results_folder(path):
        results = Results.open(path, data)
        return {results.study.name: results.seconds_per_trial()}
    return {str(study): seconds_per_trial(rows) for study, rows in levels.groupby("study")}


def studies_beside(file: Path, levels: pd.DataFrame) -> dict[str, Study]:
    """Return the studies of a table's rows, by name, as far as their files lie beside it.

    Args:
        file: of the table.
        levels: what it holds.

    Raises:
        InputError: such a file is not a study; or `study.yaml`, beside `results.csv`, is of another study.
    """
    from tombola.studies.loading import STUDY_FILE, load_study
    from tombola.studies.study import slug_of

    names = list(dict.fromkeys(levels["study"]))
    beside = [file.with_name(STUDY_FILE), *(file.with_name(f"{slug_of(name)}.yaml") for name in names)]
    found = [load_study(str(each)) for each in beside if each.is_file()]
    if file.name == "results.csv" and beside[0].is_file() and found[0].name not in names:
        raise InputError(
            f"{beside[0]} is the study {found[0].name!r}, but {file.name} has rows of {', '.join(map(repr, names))}: "
            "set its name to the table's, or remove it"
        )
    return {study.name: study for study in found if study.name in names}


def read_points(path: Path, data: Path | None = None) -> pd.DataFrame:
    """Return the points on interpolations as `Results.connectivity()` gives them; empty where there are none.

    Arguments:
        path: as in `read_levels`; beside a `results.csv`, they are in `connectivity.csv`.
        data: folder of data sets, as for `Results.open`.

    Raises:
        InputError: the file is there, and can't be used.
    """
    from tombola.running.results import Results

    if _is_results_folder(path):
        return Results.open(path, data).connectivity()
    file = (path if path.is_dir() else path.parent) / "connectivity.csv"
    if not file.is_file() or (path.is_file() and path.name != "results.csv"):
        return pd.DataFrame()
    return checked_points(_csv(file), str(file))


def read_curves(file: Path, levels: pd.DataFrame) -> pd.DataFrame:
    """Return the learning curves beside a table of levels: of `curves.csv`, or of `<name>-curves.csv`.

    Args:
        file: of the levels.
        levels: what it holds, checked.

    Returns:
        A row per evaluation, as `Results.curves()` gives them; empty where there is no such file.

    Raises:
        InputError: the file is there, and can't be used.
    """
    beside = file.with_name("curves.csv" if file.name == "results.csv" else f"{file.stem}-curves.csv")
    if not beside.is_file():
        return NO_CURVES
    return checked_curves(_csv(beside), levels, str(beside))


def read_table(file: Path) -> pd.DataFrame:
    """Return the levels in a CSV file, whoever wrote it: see `tombola.analysis.schema`.

    Raises:
        InputError: it can't be read, or does not follow the schema.
    """
    if not file.is_file():
        raise InputError(
            f"{str(file.parent if file.name == 'results.csv' else file)!r} contains no results: give a results "
            "folder, or a results.csv"
        )
    table = _csv(file)
    name = file.absolute().parent.name if file.name == "results.csv" else file.stem
    return checked(table, str(file), name)


def _csv(file: Path) -> pd.DataFrame:
    try:
        columns = pd.read_csv(file, nrows=0).columns
        missing_as = {column: NOTHING for column in columns if column not in TEXTS}
        table = pd.read_csv(file, dtype=dict.fromkeys(TEXTS, str), keep_default_na=False, na_values=missing_as)
    except (OSError, ValueError) as error:  # a file that is not text or not a table raises a ValueError, too
        raise InputError(f"{file} can't be read as a results table: {str(error).splitlines()[0]}") from error
    for column in set(TEXTS) & set(table.columns):
        table[column] = table[column].map(text_of_csv)
    return table


def _is_results_folder(path: Path) -> bool:
    from tombola.studies.loading import STUDY_FILE

    return (path / STUDY_FILE).is_file() and (path / "jobs").is_dir()
