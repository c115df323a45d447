"""Trackers: finished runs are logged to TensorBoard, MLflow or Weights & Biases, or to a user's own tracker."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tombola.errors import InputError
from tombola.extras import need
from tombola.registry import resolve
from tombola.running.store import Store
from tombola.studies.plan import Plan
from tombola.work import Item


class Tracker(Protocol):
    """Receives the metrics of one run."""

    def log(self, values: dict[str, float], step: int) -> None:
        """Take the metrics of a step."""

    def close(self) -> None:
        """Called after the last step."""


class RunName(NamedTuple):
    """The name of a run in a tracker.

    Args:
        folder: the results folder.
        study: its name.
        group: the arm and level, such as "ticket/level-03".
        name: of the run, such as "ticket.level-03.trial-1".
        settings: the run's settings, for display.
    """

    folder: Path
    study: str
    group: str
    name: str
    settings: dict[str, Any]


class TensorBoard:
    """Writes event files to `<results folder>/tensorboard/<arm>/<level>/<run>`."""

    def __init__(self, run: RunName):
        need("tensorboard", "tracker tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.folder / "tensorboard" / run.group / run.name))

    def log(self, values: dict[str, float], step: int) -> None:
        """Write the metrics of a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


class Mlflow:
    """Writes to the tracking server that MLflow's own settings name; the study is the experiment."""

    def __init__(self, run: RunName):
        need("mlflow", "tracker mlflow")
        from mlflow import MlflowClient

        self._client = MlflowClient()
        experiment = self._client.get_experiment_by_name(run.study)
        number = experiment.experiment_id if experiment else self._client.create_experiment(run.study)
        tags = {"mlflow.runName": run.name, "group": run.group}
        self._run = self._client.create_run(number, tags=tags).info.run_id
        for name, value in run.settings.items():
            self._client.log_param(self._run, name, value)

    def log(self, values: dict[str, float], step: int) -> None:
        """Write the metrics of a step."""
        for name, value in values.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._run)


class WeightsAndBiases:
    """Writes to `<results folder>/wandb`, offline unless WANDB_MODE says otherwise; the study is the project."""

    def __init__(self, run: RunName):
        need("wandb", "tracker wandb")
        import os

        import wandb

        self._run = wandb.init(
            project=run.study,
            name=run.name,
            group=run.group,
            config=run.settings,
            dir=str(run.folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
            reinit="create_new",
            settings=wandb.Settings(silent=True),  # tombola has a display of its own
        )

    def log(self, values: dict[str, float], step: int) -> None:
        """Write the metrics of a step."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


TRACKERS: dict[str, Callable[[RunName], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": Mlflow,
    "wandb": WeightsAndBiases,
}


class Tracking:
    """Logs each finished run of a plan. An error in a tracker ends the logging, and never a run.

    Args:
        name: one of TRACKERS, or `package.module:function` that is called with a `RunName` and returns a tracker.
        plan, store: of the study.
        note: shows a message.

    Raises:
        InputError: the tracker does not exist.
    """

    def __init__(self, name: str, plan: Plan, store: Store, note: Callable[[str], None]):
        self._make: Callable[[RunName], Tracker] = resolve(name, TRACKERS, "tracker")
        self._name, self._plan, self._store, self._note = name, plan, store, note
        self._works = True

    def finished(self, item: Item) -> None:
        """Log a stored run: the rows of its history under their steps. Other work has no history."""
        facts = self._store.facts(item.id)
        if not self._works or "history" not in facts:
            return
        try:
            tracker = self._make(self._named(item, facts))
            try:
                for step, values in _rows(facts["history"]):
                    tracker.log(values, step)
            finally:
                tracker.close()
        except (Exception, SystemExit) as error:  # a client without a login may call sys.exit
            self._works = False
            reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            self._note(f"tracker {self._name} failed and logs nothing more; the runs continue ({reason})")

    def _named(self, item: Item, facts: Mapping[str, Any]) -> RunName:
        study = self._plan.study
        row = next((row for row in self._plan.rows if row.job == item.id), None)
        trial = facts["spec"]["trial"]
        settings: dict[str, Any] = {"trial": trial, "job": item.id}
        if row is None or not row.level:
            group = "dense" if row else item.group
        else:
            group = f"{row.arm}/level-{row.level:02}"
            settings |= {"arm": row.arm, "level": row.level, "repeat": row.repeat}
        kept = sum(facts["remaining"].values())
        settings["density"] = self._plan.coverage.density(kept)
        repeat = f".repeat-{row.repeat}" if row and row.repeat else ""
        name = f"{group.replace('/', '.')}.trial-{trial}{repeat}"
        return RunName(self._store.root, study.name, group, name, settings)


def _rows(history: Mapping[str, list[float]]) -> list[tuple[int, dict[str, float]]]:
    """Return the step and the known values of each row of a history."""
    names = [name for name in history if name != "iteration"]
    rows = [{name: history[name][row] for name in names} for row in range(len(history["iteration"]))]
    return [
        (int(step), {name: value for name, value in values.items() if not math.isnan(value)})
        for step, values in zip(history["iteration"], rows, strict=True)
    ]
