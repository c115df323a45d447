"""What a user's own trainer reports: rows of metrics by step, kept on the disk while the run is under way."""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tombola.errors import InputError
from tombola.running.files import writing
from tombola.tasks import Metric
from tombola.training.loop import history_columns

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
PARTS = ("val_", "test_", "train_")


class Reported:
    """The reports of one run.

    A name is kept as a column: `val_loss` and `train_accuracy` as they are, `accuracy` as `test_accuracy`.

    Args:
        path: a file with a JSON value in each line, which survives a kill. None keeps none.
        metric: the one that decides.
        label: of the run, for messages.
        resumed: whether the trainer may continue from a checkpoint. Else earlier reports are deleted.
        first: the step that the run starts from.
    """

    def __init__(self, path: Path | None, metric: Metric, label: str, resumed: bool, first: int = 0):
        self._path, self._metric, self._label, self._first = path, metric, label, first
        self.rows: dict[int, dict[str, float]] = {}
        self.seconds = 0.0  # of the processes that worked on the run before
        self._earlier = False  # whether the rows are from before a kill
        if path is not None and resumed:
            self._read(path)
        elif path is not None:
            path.unlink(missing_ok=True)

    def _read(self, path: Path) -> None:
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return
        for line in lines:
            try:
                found = json.loads(line)
                self._put(found["step"], found["values"])
                self.seconds = found["seconds"]
            except (ValueError, KeyError, TypeError):
                break  # the line at which the process was killed
        self._earlier = bool(self.rows)

    @property
    def last_step(self) -> int | None:
        """The highest step so far; None before the first report."""
        return max(self.rows, default=None)

    def note(self, step: int | None, values: Mapping[str, Any], seconds: float) -> None:
        """Add a report.

        Args:
            step: None adds to the last step, or to the one after it where the last step has such values already.
            values: numbers or tensors of one element, by name.
            seconds: spent on the run so far.

        Raises:
            InputError: a name or value can't be used, or the step lies before the last one.
        """
        columns = {self._column(name): self._number(name, value) for name, value in values.items()}
        if not columns:
            raise InputError(f"run {self._label}: report was called without a metric; report {self._metric.name}=...")
        at = self._step(step, columns)
        self._put(at, columns)
        if self._path is None:
            return
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": at, "values": columns, "seconds": seconds}) + "\n")

    def _put(self, step: int, columns: Mapping[str, float]) -> None:
        for later in [each for each in self.rows if each > step]:  # of a process that was killed after its checkpoint
            del self.rows[later]
        self.rows[step] = self.rows.get(step, {}) | dict(columns)

    def _step(self, step: Any, columns: Mapping[str, float]) -> int:
        last = self.last_step
        if step is None:
            if last is None:
                return self._first
            if self._earlier:
                raise InputError(
                    f"run {self._label} resumed from its checkpoint, and reported without a step: tombola can't tell "
                    f"whether the report comes after step {last} or repeats it; call run.report(step=..., ...)"
                )
            return last + 1 if self.rows[last].keys() & columns.keys() else last
        try:
            whole = -1 if isinstance(step, bool) else operator.index(step)  # NumPy's integers too
        except (TypeError, ValueError):
            whole = -1
        if whole < 0:
            raise InputError(f"run {self._label}: step={step!r} must be a whole number, 0 or more")
        step = whole
        if step < self._first:
            raise InputError(
                f"run {self._label}: step {step} was reported, but the run starts from step {self._first}; count from "
                "run.start_step, and name snapshots in the unit of the reports"
            )
        if last is not None and step < last and not self._earlier:
            raise InputError(
                f"run {self._label}: step {step} was reported after step {last}; steps must not decrease: count them "
                "over the whole run"
            )
        self._earlier = False
        return step

    def _column(self, name: str) -> str:
        if not NAME.fullmatch(name) or name == "iteration":
            raise InputError(f"run {self._label}: a metric can't be called {name!r}; use letters, digits and _")
        return name if name.startswith(PARTS) else f"test_{name}"

    def _number(self, name: str, value: Any) -> float:
        try:
            if isinstance(value, str | bytes):  # float() reads text, and "1_0" is 10
                raise TypeError
            number = float(value.detach() if isinstance(value, Tensor) else value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"run {self._label}: {name} was reported as a {type(value).__name__}; report one number"
            ) from error
        shares = {f"{part}{self._metric.name}" for part in PARTS}
        is_share = self._metric.unit == "%" and self._column(name) in shares
        if is_share and (number > 1 or number < 0):
            raise InputError(
                f"run {self._label}: {name}={number:g} was reported, but {self._metric.name} is a share from 0 to 1; "
                f"report {name}={number / 100:g}, or set the metric's unit"
            )
        return number

    @property
    def diverged_at(self) -> int | None:
        """The first step at which the deciding metric or a loss was not finite; None where all were."""
        return None if self.diverged is None else self.diverged[0]

    @property
    def diverged(self) -> tuple[int, str] | None:
        """The first such step, and the name as it was reported; None where all values were finite."""
        watched = {f"{part}{name}" for part in PARTS for name in ("loss", self._metric.name)}
        for step in sorted(self.rows):
            for name, value in self.rows[step].items():
                if name in watched and not math.isfinite(value):
                    return step, name.removeprefix("test_")
        return None

    def require_metric(self) -> None:
        """Check that the deciding metric was reported.

        Raises:
            InputError: it was not.
        """
        wanted = f"test_{self._metric.name}"
        if any(wanted in row for row in self.rows.values()):
            return
        names = sorted({name.removeprefix("test_") for row in self.rows.values() for name in row})
        got = f"only {', '.join(names)}" if names else "nothing"
        raise InputError(
            f"run {self._label} ended, and {self._metric.name} was expected but {got} was reported; call "
            f"run.report({self._metric.name}=...) before the run ends, or name another metric"
        )

    def history(self) -> dict[str, list[float]]:
        """Return a list for each column, with NaN where nothing was reported.

        A row per step. The last row has the last value that was reported of each column.
        """
        others = sorted({name for row in self.rows.values() for name in row})
        columns = dict.fromkeys((*history_columns((self._metric,)), *others))
        steps = sorted(self.rows)
        found: dict[str, list[float]] = {
            name: [self.rows[step].get(name, math.nan) for step in steps] for name in columns
        }
        for values in found.values():
            known = [value for value, step in zip(values, steps, strict=True) if not math.isnan(value)]
            if math.isnan(values[-1]) and known:
                values[-1] = known[-1]
        found["iteration"] = [float(step) for step in steps]
        return found

    def early_stop(self) -> tuple[int, str]:
        """Return the row of the lowest validation loss, or of the best validation metric; else the last row.

        Only steps at which the deciding metric was reported count: its value at early stop is what verdicts compare.

        Returns:
            the row, and the name of what was better at a step without the deciding metric; "" if nothing was.
        """
        rows, name = [self.rows[step] for step in sorted(self.rows)], self._metric.name
        better = ""
        for column, sign in (("val_loss", 1.0), (f"val_{name}", 1.0 if self._metric.better == "lower" else -1.0)):
            values = {
                row: sign * each[column] for row, each in enumerate(rows) if math.isfinite(each.get(column, math.nan))
            }
            both = [row for row in values if math.isfinite(rows[row].get(f"test_{name}", math.nan))]
            if values and not better and (not both or min(values.values()) < min(values[row] for row in both)):
                better = column
            if both:
                return min(both, key=values.__getitem__), better
        return len(rows) - 1, better
