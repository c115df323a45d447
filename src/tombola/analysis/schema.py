"""The schema of a table of levels: the contract by which tombola reads results that others have measured.

docs/results.md describes it; a test compares the two. A change that older tables can't follow raises `VERSION`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pandas as pd

from tombola.analysis.connectivity import PARTS
from tombola.analysis.measures import PLACES
from tombola.errors import InputError, nearest
from tombola.studies.connectivity import Kind as Between
from tombola.studies.trainer import NAME
from tombola.tasks.metric import ACCURACY, Metric, direction_of, metric_of, unit_of

VERSION = 1
VERSION_COLUMN = "schema"
DENSE = "dense"  # an arm of this name, at level 0, stands for level 0 of all other arms
Kind = Literal["text", "whole number", "number"]


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        name: "<metric>" in it stands for the metric's name.
        kind: of its values.
        meaning: in a line.
        default: value where the column is missing; None: the column is required.
        low, high: bounds of its values.
        open_low: whether `low` itself is out of bounds.
    """

    name: str
    kind: Kind
    meaning: str
    default: Any = None
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False


NAN = math.nan
COLUMNS = (
    Column("arm", "text", "who is compared; `dense` at level 0 stands for level 0 of all arms"),
    Column("trial", "whole number", "number of the independent repetition", low=0),
    Column("level", "whole number", "0 is the dense network; higher is sparser", low=0),
    Column("density", "number", "share of the weights that remain", low=0, high=1, open_low=True),
    Column("early_stop_iteration", "number", "training step at which the run is judged", low=0),
    Column("early_stop_test_<metric>", "number", "test metric at that step"),
    Column("final_test_<metric>", "number", "test metric at the end", default=NAN),
    Column("final_train_<metric>", "number", "training metric at the end", default=NAN),
    Column("study", "text", "name of the study", default="own"),
    Column("network", "text", "name of the network", default="own"),
    Column("repeat", "whole number", "number of the run within a trial", default=0, low=0),
    Column("metric", "text", "name of the metric that decides", default=ACCURACY.name),
    Column("metric_better", "text", "`higher` or `lower`", default=ACCURACY.better),
    Column("metric_unit", "text", "unit; `%` means shares from 0 to 1, shown in percent", default=ACCURACY.unit),
    Column("status", "text", "`ok`, `collapsed`, or `diverged` (then without a metric)", default="ok"),
    Column("remaining_weights", "number", "number of weights that remain", default=NAN, low=0),
    Column("sparsity", "number", "share of the weights that are zero", default=NAN, low=0, high=1),
    Column("early_stop_val_loss", "number", "validation loss at the early-stopping step", default=NAN),
    Column("final_val_loss", "number", "validation loss at the end", default=NAN),
    Column("iterations", "number", "training steps of the run", default=NAN, low=0),
    Column("iterations_before", "number", "training steps behind its starting weights", default=0, low=0),
    Column("seconds", "number", "time that the run took", default=NAN, low=0),
    Column("energy_kwh", "number", "energy that the run took", default=NAN, low=0),
    Column("co2_kg", "number", "carbon dioxide that the run's energy emitted", default=NAN, low=0),
    Column("engine", "text", "what computed the run", default="own"),
    Column("job", "text", "identity of the run", default=""),
    Column(VERSION_COLUMN, "whole number", "version of this schema", default=VERSION),
)
MEASURED = ("early_stop_iteration", "early_stop_test_<metric>")  # missing where a run diverged
POINT_COLUMNS = (
    *(Column(name, "text", "") for name in ("study", "kind", "line")),
    *(Column(name, "whole number", "", low=0) for name in ("trial", "rewind", "level", "other_level")),
    *(Column(name, "whole number", "", low=0) for name in ("copy", "other_copy")),
    Column("density", "number", "", low=0, high=1, open_low=True),
    Column("position", "number", "", low=0, high=1),
    *(Column(f"{part}_loss", "number", "", default=NAN) for part in PARTS),
    *(Column(f"{part}_error", "number", "", default=NAN, low=0, high=1) for part in PARTS),
)
"""Of the points on interpolations; errors are there for classification alone."""
CURVE_COLUMNS = ("arm", "trial", "level", "iteration", "test_<metric>")


NO_CURVES = pd.DataFrame(columns=["study", "arm", "trial", "repeat", "level", "density", "iteration"])


def names(metric: str = ACCURACY.name, required: bool = False) -> list[str]:
    """Return the names of all columns, or of those that a table must have."""
    return [column.name.replace("<metric>", metric) for column in COLUMNS if not required or column.default is None]


def checked(table: pd.DataFrame, where: str = "the table", study: str = "own") -> pd.DataFrame:
    """Return a table of levels with all columns of the schema, after checking what it has.

    >>> verdicts(checked(pandas.read_csv("mine.csv")))                  # doctest: +SKIP

    Args:
        table: a row per (study, arm, trial, repeat, level). Columns that the schema does not name stay.
        where: names it in messages.
        study: name of the study where no column has it.

    Raises:
        InputError: a column is missing, a value is impossible, or a row stands there twice.
    """
    _check_version(table, where)
    levels = table.drop(columns=[VERSION_COLUMN], errors="ignore").reset_index(drop=True)
    for name, value in _metric_columns(levels, where).items():
        levels[name] = value
    metric = metric_of(levels).name
    if missing := [name for name in names(metric, required=True) if name not in levels]:
        raise _lacking(missing[0], table, names(metric, required=True), where)
    for column in COLUMNS[:-1]:
        name = column.name.replace("<metric>", metric)
        if name not in levels:
            levels[name] = study if name == "study" else column.default
        _check_values(levels, column, name, where)
    _check_words(levels, where)
    levels = _with_dense(levels)
    _check_once(levels, where)
    _check_dense(levels, where)
    return levels


def _lacking(name: str, table: pd.DataFrame, needed: Sequence[str], where: str) -> InputError:
    near = nearest(name, map(str, table.columns))
    near = near if near.startswith("; did you mean") else ""
    return InputError(f"{where}: the column {name!r} is missing{near}; needed are {', '.join(needed)}")


def _metric_columns(levels: pd.DataFrame, where: str) -> dict[str, Any]:
    """Return the columns that name the metric, as far as a table lacks them.

    Without a column `metric`, the one column `early_stop_test_...` tells it; its name tells direction and unit.

    Raises:
        InputError: the name does not tell the direction.
    """
    start = "early_stop_test_"
    measured = [str(name).removeprefix(start) for name in levels.columns if str(name).startswith(start)]
    if "metric" in levels:
        name = str(levels["metric"].iloc[0]) if len(levels) else ACCURACY.name
    else:
        name = measured[0] if len(measured) == 1 else ACCURACY.name
    guessed = ACCURACY
    if NAME.fullmatch(name):
        better = direction_of(name)
        if better is None and "metric_better" not in levels:
            raise InputError(
                f"{where}: the metric {name!r} does not say whether higher or lower is better; add a column "
                "metric_better with higher or lower"
            )
        guessed = Metric(name, better or "higher", unit_of(name))
    return {column: value for column, value in guessed.columns.items() if column not in levels}


def _check_version(table: pd.DataFrame, where: str) -> None:
    if VERSION_COLUMN not in table:
        return
    for value in table[VERSION_COLUMN].unique():
        if value != VERSION:
            raise InputError(
                f"{where}: {VERSION_COLUMN}={value}, and this version of tombola reads {VERSION}; upgrade tombola, or "
                "write the table as docs/results.md describes it"
            )


def _check_values(levels: pd.DataFrame, column: Column, name: str, where: str) -> None:
    values = levels[name]
    if column.kind == "text":
        levels[name] = values.astype(object).where(values.notna(), "").astype(str)
        if column.default is None and (empty := levels[name].str.strip() == "").any():
            raise InputError(f"{where}, row {int(empty.to_numpy().argmax()) + 1}: {name} is empty")
        return
    numbers = pd.to_numeric(values, errors="coerce").astype(float)
    bad = values.notna() & (values.astype(str) != "") & numbers.isna() & (values.astype(str).str.lower() != "nan")
    if bad.any():
        raise _wrong(levels, name, bad, "is not a number", where)
    diverged = levels["status"].eq("diverged") if "status" in levels else pd.Series(False, index=levels.index)
    excused = diverged if column.name in MEASURED else pd.Series(False, index=levels.index)
    if column.default is None and (empty := numbers.isna() & ~excused).any():
        remedy = "is missing; a run without a result has status=diverged" if column.name in MEASURED else "is missing"
        raise _wrong(levels, name, empty, remedy, where)
    if column.kind == "whole number" and (odd := numbers.notna() & ~_whole(numbers)).any():
        raise _wrong(levels, name, odd, "is not a whole number", where)
    low = numbers <= column.low if column.open_low else numbers < column.low
    if (out := low | (numbers > column.high)).any():
        ends = f"above {column.low:g}" if column.open_low else f"at least {column.low:g}"
        limits = ends if column.high == math.inf else f"{ends}, at most {column.high:g}"
        raise _wrong(levels, name, out, f"must be {limits}", where)
    if (infinite := numbers.abs() == math.inf).any():
        remedy = "is not finite; a run without a result has status=diverged"
        raise _wrong(levels, name, infinite, remedy if column.name in MEASURED else "is not finite", where)
    if isinstance(column.default, int):  # an empty cell is as good as a missing column
        numbers = numbers.fillna(column.default)
    levels[name] = numbers.astype(int) if column.kind == "whole number" else numbers


def _whole(numbers: pd.Series) -> pd.Series:
    """Return which numbers are whole, and small enough that a float is exact."""
    return (numbers % 1 == 0) & (numbers.abs() < 2**53)


def _wrong(levels: pd.DataFrame, name: str, rows: pd.Series, what: str, where: str) -> InputError:
    first = int(rows.to_numpy().argmax())
    return InputError(f"{where}, row {first + 1}: {name}={levels[name].iloc[first]} {what}")


def _check_words(levels: pd.DataFrame, where: str) -> None:
    for name, known in (("status", ("ok", "collapsed", "diverged")), ("metric_better", ("higher", "lower"))):
        if (odd := ~levels[name].isin(known)).any():
            raise _wrong(levels, name, odd, f"must be one of {', '.join(known)}", where)
    metric = metric_of(levels)
    if metric.unit == "%":
        for place in PLACES:
            values = levels[f"{place}_{metric.name}"]
            if (out := (values < 0) | (values > 1)).any():
                raise _wrong(levels, values.name, out, "must be a share from 0 to 1 (or set metric_unit)", where)


def _with_dense(levels: pd.DataFrame) -> pd.DataFrame:
    """Return a table in which the rows of the arm `dense` are level 0 of each arm that has none in that trial."""
    dense = (levels["arm"] == DENSE) & (levels["level"] == 0)
    others = levels[~dense]
    if not dense.any() or others.empty:
        return levels
    pieces = [others]
    for (study, arm), rows in others.groupby(["study", "arm"], sort=False):
        known = set(rows.loc[rows["level"] == 0, "trial"])
        mine = levels[dense & (levels["study"] == study) & ~levels["trial"].isin(known)]
        pieces.append(mine.assign(arm=arm))
    return pd.concat(pieces, ignore_index=True)


def _check_once(levels: pd.DataFrame, where: str) -> None:
    place = ["study", "arm", "trial", "repeat", "level"]
    if (twice := levels.duplicated(place)).any():
        found = levels[twice].iloc[0]
        said = ", ".join(f"{name}={found[name]}" for name in place)
        raise InputError(f"{where}: two rows have {said}; give each run a row, and runs of one trial a repeat each")


def _check_dense(levels: pd.DataFrame, where: str) -> None:
    """Refuse a table in which a pruned level is denser than level 0 of its arm."""
    by = ["study", "arm", "trial"]
    dense = levels[levels["level"] == 0].groupby(by)["density"].min().rename("dense")
    table = levels.join(dense, on=by)
    if (out := table["density"] > table["dense"] * (1 + 1e-9)).any():
        row = table[out].iloc[0]
        raise InputError(
            f"{where}: level {row['level']} of arm {row['arm']!r} has density {row['density']:g}, and level 0, the "
            f"dense network, {row['dense']:g}; number levels from dense to sparse"
        )


def checked_curves(curves: pd.DataFrame, levels: pd.DataFrame, where: str = "the curves") -> pd.DataFrame:
    """Return a table of learning curves that fits a table of levels.

    Args:
        curves: a row per evaluation: arm, trial, level, iteration, test_<metric>; study and repeat where there are
            several; val_loss and further columns as there are.
        levels: what `checked` returned.
        where: names it in messages.

    Raises:
        InputError: a column is missing, or is not a number; an arm has curves, but none belongs to a row of `levels`.
    """
    metric = metric_of(levels).name
    needed = [name.replace("<metric>", metric) for name in CURVE_COLUMNS]
    if missing := [name for name in needed if name not in curves]:
        raise _lacking(missing[0], curves, needed, where)
    found = curves.reset_index(drop=True)
    if "study" not in found:
        if levels["study"].nunique() > 1:
            raise InputError(f"{where}: the column 'study' is missing, and the table of levels has several studies")
        found["study"] = levels["study"].iloc[0]
    for name, default in (("repeat", 0), ("val_loss", NAN)):
        if name not in found:
            found[name] = default
    for name in (*needed[1:], "repeat", "val_loss"):
        _check_values(found, Column(name, "number", "", default=NAN), name, where)
    found = _with_dense(found)
    place = ["study", "arm", "trial", "repeat", "level"]
    table = found.drop(columns="density", errors="ignore").merge(levels[[*place, "density"]], on=place)
    _check_arms(found, table, levels, where)
    return table


def _check_arms(curves: pd.DataFrame, kept: pd.DataFrame, levels: pd.DataFrame, where: str) -> None:
    """Refuse curves of an arm of which none is kept: without a level they would be dropped in silence."""
    by = ["study", "arm"]
    known = set(map(tuple, kept[by].drop_duplicates().to_numpy()))
    for study, arm in curves[by].drop_duplicates().to_numpy():
        if (study, arm) in known:
            continue
        arms = list(dict.fromkeys(levels.loc[levels["study"] == study, "arm"]))
        if arm in arms:
            problem = "no trial, repeat and level of its curves is in the table of levels; give both the same numbers"
        elif arms:
            problem = f"it is not in the table of levels{nearest(str(arm), arms)}; rename it, or remove its rows"
        else:
            problem = "its study is not in the table of levels; rename the study, or remove its rows"
        raise InputError(f"{where}: arm {arm!r} of study {study!r}: {problem}")


def checked_points(points: pd.DataFrame, where: str = "the points") -> pd.DataFrame:
    """Return a table of the points on interpolations, after checking it.

    Args:
        points: a row per point, as `Results.connectivity()` gives them.
        where: names it in messages.

    Raises:
        InputError: a column is missing, or a value is impossible or missing.
    """
    needed = [column.name for column in POINT_COLUMNS if not column.name.endswith("_error")]
    if missing := [name for name in needed if name not in points]:
        raise InputError(f"{where} has no column {missing[0]!r}; `tombola results FOLDER` writes it again")
    found = points.reset_index(drop=True)
    for column in POINT_COLUMNS:
        if column.name in found:
            _check_values(found, column, column.name, where)
    if (odd := ~found["kind"].isin(get_args(Between))).any():
        raise _wrong(found, "kind", odd, f"must be one of {', '.join(get_args(Between))}", where)
    for name in (f"{part}_error" for part in PARTS if f"{part}_error" in found):  # all of a study's, or none
        known = found[name].notna()
        if (gap := ~known & known.groupby(found["study"]).transform("any")).any():
            raise _wrong(found, name, gap, "is missing, and other points of the study have it", where)
    return found
