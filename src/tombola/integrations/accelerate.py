"""A tracker for Hugging Face Accelerate, which reports the values that a loop logs.

>>> for run in tombola.rounds(make_model, out="results/mine"):              # doctest: +SKIP
...     tracker = TombolaTracker(run, {"val_loss": "val_loss", "accuracy": "accuracy"})
...     accelerator = Accelerator(log_with=tracker)
...     accelerator.init_trackers("mine")
...     model, optimizer, loader = accelerator.prepare(run.model, optimizer, loader)
...     ...
...     accelerator.log({"accuracy": accuracy}, step=step)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tombola.extras import need
from tombola.integrations.reporting import Reporting
from tombola.running.user_run import UserRun

need("accelerate", "tombola.integrations.accelerate")
from accelerate.tracking import GeneralTracker  # noqa: E402


class TombolaTracker(GeneralTracker):
    """Reports logged metrics; `stepped` takes the snapshots of `rewind`.

    Args:
        run: the run whose model the loop trains.
        metrics: the loop's names -> names in tombola.
    """

    name = "tombola"
    requires_logging_directory = False

    def __init__(self, run: UserRun, metrics: Mapping[str, str]):
        super().__init__()
        self._reporting = Reporting(run, metrics, from_zero=False)

    @property
    def tracker(self) -> UserRun:
        """The run."""
        return self._reporting.run

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Do nothing: pass settings of the training to `tombola.rounds(settings=...)`."""

    def log(self, values: Mapping[str, Any], step: int | None = None, **_: Any) -> None:
        """Report the logged values; values without a step join the last step."""
        self._reporting.logged(step, values)

    def stepped(self, step: int) -> None:
        """Take the snapshot of this step, if the run wants one. Call it after each optimiser step."""
        self._reporting.stepped(step)
