"""The results table of a results folder, or of a CSV file that one was saved to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from tombola.analysis.measures import measures_of
from tombola.errors import InputError
from tombola.formatting import text_of_csv
from tombola.tasks.metric import COLUMNS as METRIC_COLUMNS
from tombola.tasks.metric import metric_of

if TYPE_CHECKING:
    from tombola.studies.study import Study

NEEDED = (
    "study",
    "network",
    "arm",
    "trial",
    "repeat",
    "level",
    "density",
)
NUMBERS = NEEDED[3:]
NAMES = ("study", "network", "arm", *METRIC_COLUMNS)  # text, be it "NA" or "null"
NOTHING = ("", "nan", "NaN", "NA")  # where a number is expected


def read_levels(path: Path, data: Path | None = None) -> tuple[pd.DataFrame, dict[str, dict[str, Any]]]:
    """Return the table as `Results.frame()` gives it, and each study's settings as far as they are known.

    Arguments:
        path: of a results folder; of a folder with `results.csv`, or such a file: `study.yaml` beside it, where there
            is one, has the settings.
        data: folder of data sets, as for `Results.open`.

    Raises:
        InputError: there are no results; the message says where they were looked for.
    """
    from tombola.running.results import Results
    from tombola.studies.loading import STUDY_FILE, load_study

    if (path / STUDY_FILE).is_file() and (path / "jobs").is_dir():
        results = Results.open(path, data)
        levels = results.frame()
        study: Study | None = results.study
    else:
        file = path / "results.csv" if path.is_dir() else path
        levels = _table(file)
        beside = file.parent / STUDY_FILE
        study = load_study(str(beside)) if beside.is_file() else None
    if levels.empty:
        raise InputError(f"{path} contains no results yet")
    return levels, {} if study is None else {study.name: study.model_dump(mode="json")}


def _table(file: Path) -> pd.DataFrame:
    if not file.is_file():
        raise InputError(
            f"{str(file.parent if file.name == 'results.csv' else file)!r} contains no results: give a results "
            "folder, or a results.csv"
        )
    try:
        columns = pd.read_csv(file, nrows=0).columns
        missing_as = {column: NOTHING for column in columns if column not in NAMES}
        levels = pd.read_csv(file, dtype=dict.fromkeys(NAMES, str), keep_default_na=False, na_values=missing_as)
    except (OSError, ValueError) as error:  # what is no text and what is no table are ValueErrors, too
        raise InputError(f"{file} can't be read as a results table: {str(error).splitlines()[0]}") from error
    for column in set(NAMES) & set(levels.columns):
        levels[column] = levels[column].map(text_of_csv)
    measures = measures_of(metric_of(levels))
    if missing := [column for column in (*NEEDED, *measures) if column not in levels]:
        raise InputError(f"{file} is not a results table: these columns are missing: {', '.join(missing)}")
    for column in (*NUMBERS, *measures):
        if len(levels) and not pd.api.types.is_numeric_dtype(levels[column]):
            raise InputError(f"{file}: the column {column} contains values that are not numbers")
    return levels
