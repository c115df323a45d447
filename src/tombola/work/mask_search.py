"""A mask search: found once from a finished run, or from an untrained network, and shared by all that use the mask."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tombola.networks.axes import Axes
from tombola.pruning.patterns import Pattern
from tombola.pruning.select import Scope
from tombola.section import Section
from tombola.seeds import Seeds
from tombola.tasks import ACCURACY, Direction, Metric
from tombola.training.tracking import EarlyBird
from tombola.work.on_data import OnData


class Limit(Section):
    """When a mask is given up for the one before it, pruned by less: see `tombola.studies.BackOff`.

    Args:
        dense: identity of the run that the metric is compared with.
        margin, factor: as in `BackOff`.
        metric, better: name and direction of the metric.
    """

    dense: str
    margin: float
    factor: float
    metric: str = ACCURACY.name
    better: Direction = ACCURACY.better

    @property
    def compared(self) -> Metric:
        """The metric that is compared."""
        return Metric(self.metric, self.better)


class MaskSearch(OnData):
    """A mask found by pruning.

    Args:
        run: identity of the finished run that is pruned: what it had pruned stays pruned. None prunes the untrained
            network.
        criterion, scope, rates, minimum: as in `tombola.pruning.select`; rates by weight name.
        rounds: prunes as much as that many rounds would.
        before: rates of rounds that come before that, where they differ.
        limit: prunes the mask that `run` was made from instead where `run` has lost too much.
        early_bird: takes the weights of the evaluation at which the mask settled, instead of the final ones; `run`
            must have tracked it.
        pattern, axes: of the mask, as in `tombola.pruning.patterns.select_in`.
        examples: of each class, that a method at initialisation is given.
        level, repeat: number the draws of the criterion and of the examples, where those draw.
        code: fingerprint of a user's own criterion.
    """

    kind: ClassVar[str] = "mask-search"

    run: str | None = None
    criterion: str = "magnitude"
    scope: Scope = "layer"
    rates: dict[str, float]
    minimum: int = 0
    rounds: int = 1
    before: tuple[dict[str, float], ...] = ()
    limit: Limit | None = None
    early_bird: EarlyBird | None = None
    pattern: Pattern | None = None
    axes: dict[str, Axes] = Field(default_factory=dict)
    examples: int = 0
    level: int = 0
    repeat: int = 0
    code: str = ""

    def codes(self) -> dict[str, str]:
        """Return the fingerprints of the user's own network, data, task and criterion."""
        return super().codes() | {f"the code of criterion {self.criterion!r}": self.code}

    @property
    def pruned(self) -> list[str]:
        """Names of the weights that some round prunes."""
        return list(dict.fromkeys(name for rates in self.schedule for name, rate in rates.items() if rate))

    @property
    def schedule(self) -> list[dict[str, float]]:
        """The rates of all rounds, the first round first."""
        return [*self.before, *[self.rates] * self.rounds]

    @property
    def needs(self) -> tuple[str, ...]:
        """Identities of the runs that must be done before this can start."""
        dense = None if self.limit is None else self.limit.dense
        return tuple(dict.fromkeys(run for run in (self.run, dense) if run is not None))

    @property
    def seeds(self) -> Seeds:
        """The seeds of the trial, without noise: copies of a run share their mask."""
        return Seeds(self.seed, self.trial)
