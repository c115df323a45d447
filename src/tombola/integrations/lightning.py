"""A callback for Lightning's `Trainer`.

>>> for run in tombola.rounds(make_model, out="results/mine"):              # doctest: +SKIP
...     callback = TombolaCallback(run, {"val_loss": "val_loss", "val_acc": "accuracy"})
...     Trainer(max_steps=1000, callbacks=[callback]).fit(Module(run.model), data)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tombola.extras import need
from tombola.integrations.reporting import Reporting
from tombola.running.user_run import UserRun

need("lightning", "tombola.integrations.lightning")
from lightning.pytorch import Callback, LightningModule, Trainer  # noqa: E402


class TombolaCallback(Callback):
    """Reports logged metrics after each validation, and takes the snapshots of `rewind`.

    Args:
        run: the run whose model is trained. The LightningModule is this model, or contains it.
        metrics: the module's names -> names in tombola.

    A rewound run starts at `run.start_step`; the callback adds it to the trainer's steps. Train that many steps less.
    """

    def __init__(self, run: UserRun, metrics: Mapping[str, str]):
        self._reporting = Reporting(run, metrics)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the run's model is trained."""
        self._reporting.check_model(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Take the snapshot of this step, if the run wants one."""
        if trainer.is_global_zero:
            self._reporting.stepped(trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report what was logged."""
        if trainer.is_global_zero and not trainer.sanity_checking:
            self._reporting.logged(trainer.global_step, trainer.callback_metrics)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report what was logged."""
        if trainer.is_global_zero:
            self._reporting.logged(trainer.global_step, trainer.callback_metrics)
