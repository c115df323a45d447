"""The results of a study, read from its results folder."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tombola.errors import InputError
from tombola.formatting import as_csv
from tombola.networks import NetworkSettings
from tombola.pruning.mask import Mask
from tombola.running.collapse import said
from tombola.running.ends import Ends
from tombola.running.files import Damaged, write_whole
from tombola.running.kept_plan import plan_to_read
from tombola.running.relative_cost import relative_costs
from tombola.running.store import Store
from tombola.running.ticket import Ticket
from tombola.studies.loading import STUDY_FILE, load_study
from tombola.studies.plan import Plan, Row
from tombola.tasks import ACCURACY_ALONE, Measures
from tombola.training.engine import Weights
from tombola.training.interpolation import measures_of
from tombola.training.loop import early_stop_row, history_columns, train_columns

BEFORE = (
    "study",
    "network",
    "arm",
    "trial",
    "repeat",
    "level",
    "density",
    "remaining_weights",
    "sparsity",
    "early_stop_iteration",
    "early_stop_val_loss",
)
AFTER = ("iterations", "seconds", "status", "engine", "energy_kwh", "co2_kg", "job", "iterations_before", "cost")
MEASURED = ("early_stop_test", "final_test", "final_train")  # of each metric


def level_columns(measures: Measures = ACCURACY_ALONE) -> tuple[str, ...]:
    """Return the columns of a table of levels: the metric that decides in the middle, the task's others at the end."""
    early_stop, final, train = (f"{moment}_{measures.primary.name}" for moment in MEASURED)
    more = (f"{moment}_{metric.name}" for metric in measures.others for moment in MEASURED)
    return (*BEFORE, early_stop, "final_val_loss", final, train, *AFTER, *measures.primary.columns, *more)


LEVEL_COLUMNS = level_columns()

SETTLING_COLUMNS = ("study", "trial", "level", "density", "iteration", "distance", "settled")


PAIR_COLUMNS = ("study", "kind", "trial", "rewind", "level", "other_level", "density", "copy", "other_copy", "position")


def point_columns(measures: Measures = ACCURACY_ALONE) -> tuple[str, ...]:
    """Return the columns of a table of points on lines: errors of classification, else metrics, and losses."""
    measured = (f"{part}_{name}" for name in (*measures_of(measures.metrics), "loss") for part in ("train", "test"))
    return (*PAIR_COLUMNS, *dict.fromkeys(measured), "line")


POINT_COLUMNS = point_columns()


class Results:
    """The results of a study, finished or not.

    >>> results = tombola.run("demo")                                   # doctest: +SKIP
    >>> results.frame().groupby("arm").final_test_accuracy.max()        # doctest: +SKIP
    """

    def __init__(self, plan: Plan, store: Store):
        self.plan, self.store = plan, store
        self.study = plan.study

    @classmethod
    def open(cls, folder: str | Path, data: str | Path | None = None) -> Results:
        """Open a results folder.

        Args:
            folder: the results folder (`--out`).
            data: folder of data sets. Needed only if the study was edited after its last run, and its own data have
                moved.

        Raises:
            InputError: it is not a results folder; or the study was edited since its last run and names a user's own
                function, because reading a folder runs no code.
        """
        if not isinstance(folder, str | Path):
            raise InputError(f"{folder!r} is not a results folder: give the path of one")
        if not (Path(folder) / STUDY_FILE).is_file():
            raise InputError(f"{str(folder)!r} is not a results folder: it has no {STUDY_FILE}")
        study = load_study(str(Path(folder) / STUDY_FILE))
        plan = plan_to_read(Path(folder), study, Path(data) if data else None)
        return cls(plan, Store(folder))

    def __repr__(self) -> str:
        done = self.store.finished() & self.plan.work.keys()
        return f"Results({self.study.name!r} in {str(self.store.root)!r}, {len(done)} of {len(self.plan.work)} done)"

    def frame(self) -> pd.DataFrame:
        """Return one row for each finished (arm, trial, repeat, level).

        The columns are those of `level_columns`; for classification, LEVEL_COLUMNS. Densities, accuracies and other
        metrics in percent lie from 0 to 1. Losses are the task's; for classification, mean cross-entropies in nats.
        `metric`, `metric_better` and `metric_unit` describe the deciding metric. `sparsity` is the share of prunable
        weights that are exactly 0.0 after training, counted, not taken from the mask (NaN for results of versions that
        did not count). `early_stop_iteration` is the iteration of minimum validation loss (the paper's
        Section 2), and a metric "at early stop" is that of the test examples there. A diverged run has status
        "diverged" and no metrics; one whose mask empties a layer, or leaves no path from input to output, has status
        "collapsed". `energy_kwh` is NaN if not measured, `co2_kg` if not known. `cost` is the cost of the run and of
        all that it needs, in dense runs: see `tombola.running.relative_cost`. The dense network is level 0 of every
        arm: one run, shown as repeat 0 of each.
        """
        rows = [self._level(row, facts) for row, facts in self._done]
        return pd.DataFrame(rows, columns=list(level_columns(self.plan.measures)))

    def curves(self) -> pd.DataFrame:
        """Return one row for each evaluation of each row of `frame`.

        The columns are `study`, `arm`, `trial`, `repeat`, `level`, `density`, `iteration`, and `val_` and `test_` with
        the loss and each metric; `train_` too where a run measured the training examples (`training.train_every`). NaN
        stands where an evaluation did not measure them.
        """
        first, columns = (
            ["study", "arm", "trial", "repeat", "level", "density"],
            history_columns(self.plan.measures.metrics),
        )
        more = train_columns(self.plan.measures.metrics)
        if any(column in facts["history"] for _, facts in self._done for column in more):
            columns += more
        pieces = []
        for row, facts in self._done:
            level, history = self._level(row, facts), facts["history"]
            unknown = [math.nan] * len(history["iteration"])
            piece = pd.DataFrame({column: history.get(column, unknown) for column in columns})
            for place, column in enumerate(first):
                piece.insert(place, column, level[column])
            pieces.append(piece)
        return pd.concat(pieces, ignore_index=True) if pieces else pd.DataFrame(columns=[*first, *columns])

    def settling(self) -> pd.DataFrame:
        """Return the mask distances during the dense runs: one row for each trial, level and evaluation.

        The columns are SETTLING_COLUMNS. `distance` is the share of prunable weights, 0 to 1, that are in the mask
        which pruning the dense network by magnitude to the level's density gives at this iteration or at the
        evaluation before, but not in both; `settled` is whether the mask has settled by then (You et al. 2020, Section
        3.3). Empty unless the study has an arm `early-bird` or sets `pruning.early_bird`.
        """
        rows: list[tuple[Any, ...]] = []
        for item in self.plan.work.values():
            if not item.observe.masks:
                continue
            try:
                facts, observed = self.store.facts(item.id), self.store.observed(item.id).masks
            except Damaged:
                continue
            for tracked in item.observe.masks:
                if tracked not in observed:  # of a run that was done before anyone asked for it
                    continue
                found = facts["settling"][observed.index(tracked)]
                for level, (distances, settled) in enumerate(zip(found["distance"], found["settled"], strict=True), 1):
                    density = self.plan.density(level)
                    place = self.study.name, facts["spec"]["trial"], level, density
                    for iteration, distance in zip(found["iteration"], distances, strict=True):
                        rows.append((*place, iteration, distance, settled is not None and iteration >= settled))
        return pd.DataFrame(rows, columns=list(SETTLING_COLUMNS))

    def connectivity(self) -> pd.DataFrame:
        """Return one row for each point of each finished interpolation of the study's `connectivity`.

        The columns are those of `point_columns`; of classification, POINT_COLUMNS. `kind` is "copies", "dense-ticket"
        or "levels", as in `tombola.studies.Connectivity`; a line may stand under two kinds. `position` 0 is the end of
        the run at `level` and `copy`, 1 that of the one at `other_level` and `other_copy`; `density` is that of
        `level`, the sparser of the two. Errors are fractions of all examples of the part, losses and metrics the
        task's. `line` is an identity, as `job` in `frame`.
        """
        columns = list(point_columns(self.plan.measures))
        pieces = []
        for pair in self.plan.pairs:
            try:
                facts = self.store.facts(pair.line)
            except Damaged:
                continue
            place = {
                "study": self.study.name,
                **asdict(pair),
                "density": self.plan.coverage.density(facts["remaining"][0]),
            }
            pieces.append(pd.DataFrame({**facts["along"], **place})[columns])
        return pd.concat(pieces, ignore_index=True) if pieces else pd.DataFrame(columns=columns)

    def ticket(self, trial: int | None = None, level: int = 0, arm: str = "ticket", repeat: int = 0) -> Ticket:
        """Return the mask and starting weights of one row; without `trial`, of the study's first.

        Raises:
            InputError: the study has no such row, or its run is not finished.
        """
        trial = self.study.first_trial if trial is None else trial
        wanted = (arm, trial, repeat if level else 0, level)
        for row in self.plan.rows:
            if (row.arm, row.trial, row.repeat, row.level) == wanted:
                break
        else:
            arms = ", ".join(dict.fromkeys(row.arm for row in self.plan.rows))
            raise InputError(
                f"the study {self.study.name!r} has no arm={arm!r}, trial={trial}, repeat={repeat}, level={level}: "
                f"its arms are {arms}; it has {self.study.trials_text} and levels 0 to {self.study.pruning.rounds}"
            )
        try:
            result = self.store.load(row.job)
        except Damaged as error:
            raise InputError(f"that ticket is not finished yet: {error}") from error
        if (result.facts["spec"].get("mask") or {}).get("frozen"):
            raise InputError(
                f"arm={arm!r} is not a ticket: its pruned weights are frozen at values other than 0.0; take an arm "
                "whose pruned weights are zero"
            )
        data = self.plan.data
        return Ticket(
            mask=result.mask,
            weights=_masked(result.snapshots["start"], result.mask),
            trained=result.snapshots["final"],
            normalisation=result.facts["normalisation"],
            origin={
                "study": self.study.name,
                "arm": arm,
                "trial": trial,
                "repeat": repeat,
                "level": level,
                "rewind": result.facts["spec"].get("initial", {}).get("iteration", 0),
                "job": row.job,
                "network": self.network_of(row.job).model_dump(mode="json"),
                "input_shape": data.input_shape if isinstance(data.input_shape, dict) else list(data.input_shape),
                "classes": self.plan.measures.outputs,
                "tokens": data.tokens,
                "seed": self.study.seed,
                "draw": result.facts["spec"].get("initial", {}).get("draw", 0),
            },
        )

    def network_of(self, job: str) -> NetworkSettings:
        """Return the network of a row's run: the study's, or of `small-dense` a narrower one."""
        found = getattr(self.plan.work[job].spec, "network", self.study.network)
        return self.study.network.model_copy(update={"arguments": found.arguments})

    def save(self) -> None:
        """Write the tables `results.csv` and `curves.csv` into the results folder.

        If the study records mask distances, it also writes `mask_distance.csv`: see `settling`. With `connectivity`, it
            writes `connectivity.csv`, one row per point. `tombola.session.save` also writes barriers and draws figures.

        Raises:
            StoreError: they can't be written.
        """
        tables = {"results": self.frame(), "curves": self.curves()}
        if not (settling := self.settling()).empty:
            tables["mask_distance"] = settling
        if self.study.connectivity is not None:
            tables["connectivity"] = self.connectivity()
        for name, table in tables.items():
            write_whole(self.store.root / f"{name}.csv", as_csv(table))

    def damaged(self) -> list[str]:
        """Return the fault of each damaged result of a run or interpolation."""
        found = []
        rows = dict.fromkeys(row.job for row in self.plan.rows)
        lines = dict.fromkeys(pair.line for pair in self.plan.pairs)
        for read, jobs in ((self._facts, rows), (self.store.facts, lines)):
            for job in jobs:
                if self.store.folder(job) is not None:
                    try:
                        read(job)
                    except Damaged as error:
                        found.append(str(error))
        return found

    def seconds_per_trial(self) -> float | None:
        """Return the mean seconds of computing that a finished trial took: runs, masks, sources and interpolations.

        None where no trial is finished, or a result does not say its seconds.
        """
        unfinished = {self.plan.work[job].spec.settings()["trial"] for job in self._missing_items()}
        seconds: dict[int, float] = {}
        for item in self.plan.work.values():
            trial = item.spec.settings()["trial"]
            if trial in unfinished or not self.store.has(item):
                continue
            took = self.store.facts(item.id).get("seconds")
            if took is None:
                return None
            seconds[trial] = seconds.get(trial, 0.0) + took
        return sum(seconds.values()) / len(seconds) if seconds else None

    def missing(self) -> int:
        """Return the number of missing work items."""
        return len(self._missing_items())

    def _missing_items(self) -> set[str]:
        lost: set[str] = set()  # diverged, or after one that did: there is nothing to wait for
        ends, missing = Ends(self.plan), []
        for item in self.plan.work.values():
            if lost & set(item.needs):
                lost.add(item.id)
            elif not self.store.has(item):
                missing.append(item.id)
            elif (facts := self.store.facts(item.id))["diverged_at"] is not None:
                lost.add(item.id)
            else:
                ends.note(item.id, facts)
        return set(missing) - ends.left_out

    def _facts(self, job: str) -> dict[str, Any]:
        """Return what the result of a row says.

        Raises:
            Damaged: it is not there, not what was written, or lacks what the study measures.
        """
        facts = self.store.facts(job)
        needed = ("iteration", *history_columns(self.plan.measures.metrics))
        if missing := [name for name in needed if name not in facts.get("history", ())]:
            raise Damaged(f"{self.store.folder(job)} has no column {missing[0]} in its history; delete the folder")
        if facts["diverged_at"] is None and len(facts["train"]) <= len(self.plan.measures.metrics):
            raise Damaged(f"{self.store.folder(job)} lacks measures of the training examples; delete the folder")
        return facts

    @cached_property
    def _costs(self) -> dict[str, float]:
        return relative_costs(self.plan)

    @cached_property
    def _done(self) -> list[tuple[Row, dict[str, Any]]]:
        facts: dict[str, dict[str, Any] | None] = {}
        for row in self.plan.rows:
            if row.job not in facts:
                try:
                    facts[row.job] = self._facts(row.job)
                except Damaged:
                    facts[row.job] = None
        done = [(row, found) for row in self.plan.rows if (found := facts[row.job]) is not None]
        ends = Ends(self.plan)
        for row, found in done:
            if found["diverged_at"] is None:
                ends.note(row.job, found)
        # What lies behind an end may be there by chance: several workers were faster than the verdict.
        return [(row, found) for row, found in done if not ends.behind(row)]

    def _level(self, row: Row, facts: dict[str, Any]) -> dict[str, Any]:
        history, nan = facts["history"], math.nan
        coverage = self.plan.coverage
        remaining = facts["remaining"]
        if facts["diverged_at"] is not None:  # then a mask that moves never came to the level's counts
            remaining = remaining | facts["spec"].get("moving", {}).get("counts", {})
        kept = sum(remaining.values())
        unprunable = coverage.matrix_weights - coverage.prunable
        level = {
            "study": self.study.name,
            "network": self.study.network.name,
            "arm": row.arm,
            "trial": row.trial,
            "repeat": row.repeat,
            "level": row.level,
            "density": coverage.density(kept),
            "remaining_weights": kept + unprunable,
            "sparsity": facts["zeros"] / coverage.matrix_weights if "zeros" in facts else nan,
            "iterations": facts["iterations"],
            "seconds": facts["seconds"],
            "status": "collapsed" if said(facts.get("remarks", {})) else "ok",
            "engine": facts["engine"]["name"],
            "energy_kwh": facts.get("energy_kwh", nan),
            "co2_kg": facts.get("co2_kg", nan),
            "job": row.job,
            "iterations_before": self._iterations_before(facts),
            "cost": self._costs[row.job],
            **self.plan.measures.primary.columns,
        }
        if facts["diverged_at"] is not None:
            names = [name for name in level_columns(self.plan.measures) if name not in level]
            return level | dict.fromkeys(names, nan) | {"status": "diverged"}
        stop = early_stop_row(facts)
        return level | {
            "early_stop_iteration": history["iteration"][stop],
            "early_stop_val_loss": history["val_loss"][stop],
            "final_val_loss": history["val_loss"][-1],
            **dict(self._measured(facts, stop)),
        }

    def _iterations_before(self, facts: dict[str, Any]) -> int:
        """Return the iterations behind the starting weights that the run's own iterations do not count.

        That is 0 except for runs that start from trained weights, as those of `fine-tune` and `lr-rewind` do.
        """
        spec = facts["spec"]
        initial = spec.get("initial") or spec.get("origin") or {}  # of version 0.1: origin
        if not (initial.get("trained") or initial.get("moment") == "final"):
            return 0
        before = self.store.facts(initial.get("run") or initial["job"])
        return int(before["history"]["iteration"][-1]) - initial["iteration"] + self._iterations_before(before)

    def _measured(self, facts: dict[str, Any], stop: int) -> Iterator[tuple[str, float]]:
        """Yield the values of all metrics by column; `stop` is the row of the lowest validation loss."""
        for place, metric in enumerate(self.plan.measures.metrics, 1):
            test = facts["history"][f"test_{metric.name}"]
            values = test[stop], test[-1], facts["train"][place]
            yield from zip((f"{moment}_{metric.name}" for moment in MEASURED), values, strict=True)


def _masked(weights: Weights, mask: Mask) -> Weights:
    """Return weights under a mask; a tied weight has several names in a state_dict, and the mask knows one of them."""
    found = mask.apply(weights)
    for name in weights.keys() - mask.keys():
        for masked in mask:
            same = weights[name].dtype == weights[masked].dtype and torch.equal(weights[name], weights[masked])
            if same:
                found[name] = found[masked].clone()
    return found
