"""The shared part of all callbacks: the values to report and the snapshots to take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tombola.errors import InputError
from tombola.pruning.held_weight import held_weight
from tombola.running.user_run import UserRun


class Reporting:
    """Reports a trainer's logged values to a run.

    Args:
        run: of `tombola.rounds` or of a study's trainer.
        metrics: the trainer's name of each value -> its name in tombola, such as {"eval_loss": "val_loss", "test_acc":
            "accuracy"}. Other values are not reported.
        from_zero: the trainer counts the steps of this run from 0, although a rewound run starts at `run.start_step`.
    """

    def __init__(self, run: UserRun, metrics: Mapping[str, str], from_zero: bool = True):
        if not isinstance(run, UserRun):
            raise InputError(
                f"a {type(run).__name__} is not a run; pass the run that tombola.rounds or a study's trainer receives"
            )
        if not isinstance(metrics, Mapping) or not metrics:
            raise InputError(
                f"metrics={metrics!r} must map the trainer's names to tombola's, such as {{'eval_loss': 'val_loss'}}"
            )
        self.run, self.metrics = run, dict(metrics)
        self._steps = {int(name.rpartition("-")[2]): name for name in run.wanted_snapshots}
        self._taken: set[int] = set()
        self._before = run.start_step if from_zero else 0

    def stepped(self, step: int) -> None:
        """Take the snapshot of a step, if other runs start from it."""
        step += self._before
        if step in self._steps and step not in self._taken:  # a trainer may call once a micro-batch
            self._taken.add(step)
            self.run.snapshot(self._steps[step])

    def logged(self, step: int | None, values: Mapping[str, Any]) -> None:
        """Report the values that `metrics` names."""
        found = {ours: values[theirs] for theirs, ours in self.metrics.items() if theirs in values}
        if found:
            self.run.report(step=None if step is None else self._before + step, **found)

    def check_model(self, module: Any) -> None:
        """Check that a trainer trains the run's model, or something that contains it.

        Raises:
            InputError: a parameter that the mask holds is not among those of the module.
        """
        trained = {id(parameter) for parameter in module.parameters()}
        parameters = dict(self.run.model.named_parameters())
        for name in self.run.mask:
            if id(parameters[name]) not in trained or held_weight(parameters[name]) is None:
                raise InputError(
                    f"run {self.run.label}: the trainer trains another module: it lacks {name!r} of run.model; "
                    "give run.model to the trainer"
                )
