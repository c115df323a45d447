"""A callback for the `Trainer` of Hugging Face transformers.

>>> for run in tombola.rounds(make_model, out="results/mine"):              # doctest: +SKIP
...     callback = TombolaCallback(run, {"eval_loss": "val_loss", "eval_accuracy": "accuracy"})
...     Trainer(run.model, arguments, callbacks=[callback], train_dataset=train, eval_dataset=test).train()
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tombola.extras import need
from tombola.integrations.reporting import Reporting
from tombola.running.user_run import UserRun

need("transformers", "tombola.integrations.transformers")
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments  # noqa: E402


class TombolaCallback(TrainerCallback):
    """Reports metrics after each evaluation, and takes the snapshots of `rewind`.

    Args:
        run: the run whose model is trained.
        metrics: the trainer's names -> names in tombola.

    A rewound run starts at `run.start_step`; the callback adds it to the trainer's steps. Train that many steps less.
    """

    def __init__(self, run: UserRun, metrics: Mapping[str, str]):
        self._reporting = Reporting(run, metrics)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Check that the run's model is trained."""
        self._reporting.check_model(model)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take the snapshot of this step, if the run wants one."""
        if state.is_world_process_zero:
            self._reporting.stepped(state.global_step)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Report the measured values."""
        if state.is_world_process_zero and metrics:
            self._reporting.logged(state.global_step, metrics)
