"""An own run: one training by a user's own trainer; and the mask search that needs nothing but its weights.

Tombola knows neither the data nor the recipe of such a training. Two placeholders stand in their fields. They equal the
defaults, so identity leaves them out.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from tombola.data import DataSettings
from tombola.tasks import Direction, Metric
from tombola.training.recipe import Recipe
from tombola.work.interpolation import Interpolation
from tombola.work.mask_search import MaskSearch
from tombola.work.run import Run

OWN_DATA = DataSettings(source="own", validation=1)
OWN_RECIPE = Recipe(lr=1.0, batch_size=1, iterations=1)


class OwnRun(Run):
    """One training by a user's own trainer, under a mask.

    Args:
        trainer: `package.module:function`, or "loop <name>" for the body of a loop over `tombola.rounds`.
        arguments: settings of the trainer that decide the outcome.
        trainer_code: fingerprint of the trainer; "" for a loop, whose code is not known.
        level: which the trainer is told.
        prunable: the shape of each prunable parameter by name.
        input_shape: of one example, where the network takes one float32 tensor.
        metric, better, unit: of the metric that decides. The unit changes no result.
    """

    kind: ClassVar[str] = "own-run"

    data: DataSettings = OWN_DATA
    training: Recipe = OWN_RECIPE
    trainer: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    trainer_code: str = ""
    level: int = 0
    prunable: dict[str, tuple[int, ...]]
    input_shape: tuple[int, ...] | None = None
    metric: str
    better: Direction
    unit: str = ""

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide the outcome and differ from their defaults."""
        return {name: value for name, value in super().identity().items() if name != "unit"}

    def codes(self) -> dict[str, str]:
        """Return the fingerprints of the user's own network and trainer."""
        return super().codes() | {f"the code of trainer {self.trainer!r}": self.trainer_code}

    @property
    def primary(self) -> Metric:
        """The metric that decides how good a run is."""
        return Metric(self.metric, self.better, self.unit)


class OwnMaskSearch(MaskSearch):
    """A mask found by pruning an own run, or the untrained network of one: by its weights alone.

    Args:
        prunable, input_shape: as in `OwnRun`.
    """

    kind: ClassVar[str] = "own-mask-search"

    data: DataSettings = OWN_DATA
    prunable: dict[str, tuple[int, ...]]
    input_shape: tuple[int, ...] | None = None


class OwnInterpolation(Interpolation):
    """Points between two own runs, evaluated by a user's own function.

    Args:
        prunable, input_shape: as in `OwnRun`.
        evaluate: `package.module:function`, or "loop <name>" for a function that `tombola.rounds` was given.
        evaluate_code: fingerprint of the function.
        metric, better, unit: as in `OwnRun`.
    """

    kind: ClassVar[str] = "own-interpolation"

    data: DataSettings = OWN_DATA
    prunable: dict[str, tuple[int, ...]]
    input_shape: tuple[int, ...] | None = None
    evaluate: str
    evaluate_code: str = ""
    metric: str
    better: Direction
    unit: str = ""

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide the outcome and differ from their defaults."""
        return {name: value for name, value in super().identity().items() if name != "unit"}

    @property
    def primary(self) -> Metric:
        """The metric that decides how good a run is."""
        return Metric(self.metric, self.better, self.unit)
