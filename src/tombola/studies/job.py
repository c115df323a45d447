"""A job: one training run with everything that decides its outcome."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cached_property
from typing import Literal

from tombola.data import DataSettings
from tombola.networks import NetworkSettings
from tombola.pruning.patterns import Pattern
from tombola.pruning.select import Scope
from tombola.section import Section
from tombola.seeds import Seeds
from tombola.training.popup import Popup
from tombola.training.recipe import Recipe
from tombola.training.watching import EarlyBird, Watch


def folder_name(label: str, identity: str) -> str:
    """Return the name of a result's folder: what it is, as far as a path can say it, then its identity."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", label)[:100].strip("-.")
    return f"{readable}-{identity}" if readable else identity


class Origin(Section):
    """Where a job's weights come from.

    Args:
        job: identity of the run whose weights at `iteration` are taken; None for a fresh initialisation.
        iteration: of that run; training goes on from there.
        moment: "final" takes that run's weights at its end instead; schedule and data order still go on from
            `iteration`.
        draw: which initialisation of the trial: 0 is the dense network's, others are independent of it.
    """

    job: str | None = None
    iteration: int = 0
    moment: Literal["", "final"] = ""
    draw: int = 0


class Limit(Section):
    """When a mask is given up for the one before it, pruned by less: see `tombola.studies.BackOff`.

    Args:
        dense: identity of the run that accuracies are compared with.
        margin, factor: as in `BackOff`.
    """

    dense: str
    margin: float
    factor: float


class Prune(Section):
    """A mask found by pruning a finished run.

    Args:
        job: identity of that run; what it had pruned stays pruned.
        criterion, scope, rates, minimum: as in `tombola.pruning.select`; rates by weight name. Without any, the run's
            own mask is taken as it is.
        rounds: prunes as much as that many rounds would.
        before: rates of rounds that come before that, where they are others.
        limit: prunes the mask that `job` was made from instead where that has lost too much.
        early_bird: takes the weights of the evaluation at which the mask settled, instead of the final ones; `job`
            must have watched it.
        code: fingerprint of a user's own criterion.
        examples: of each class, that a method at initialisation is given.
        draw: which draw of the criterion's, and of those examples.
        pattern: of the mask, and of what a shuffle of it keeps.
    """

    job: str
    criterion: str
    scope: Scope
    rates: dict[str, float]
    minimum: int = 0
    rounds: int = 1
    before: tuple[dict[str, float], ...] = ()
    limit: Limit | None = None
    early_bird: EarlyBird | None = None
    code: str = ""
    examples: int = 0
    draw: int = 0
    pattern: Pattern | None = None

    @property
    def schedule(self) -> list[dict[str, float]]:
        """The rates of all rounds, the first round first."""
        return [*self.before, *[self.rates] * self.rounds]


class MaskRule(Section):
    """How a job's mask is found: by pruning, and then shuffled within layers where a draw is given."""

    prune: Prune
    shuffle: int | None = None


class Job(Section):
    """One training run. Two jobs with equal `identity` have equal outcomes, so only one of them is ever run.

    Args:
        network, data, training, seed, trial: as in the study.
        origin, mask: starting weights and mask; no mask means dense.
        until: the iteration at which training ends, where that is before the end of the budget.
        popup: trains scores and leaves the weights as they are; there is no mask then, it is found.
        noise: which draw of data order, augmentation and dropout; 0 is that of the dense run.
        network_code, data_code: fingerprints of a user's own network and data file.
        label: a readable name; no part of the identity.
        keep: iterations at which other jobs need a snapshot; no part of the identity.
        watch: masks whose distance from evaluation to evaluation is recorded; no part of the identity.
    """

    network: NetworkSettings
    data: DataSettings
    training: Recipe
    seed: int
    trial: int
    origin: Origin
    mask: MaskRule | None = None
    until: int | None = None
    popup: Popup | None = None
    noise: int = 0
    network_code: str = ""
    data_code: str = ""
    label: str = ""
    keep: tuple[int, ...] = ()
    watch: tuple[Watch, ...] = ()

    @cached_property
    def id(self) -> str:
        """16 hexadecimal digits: a hash of every setting that decides the outcome, parents' identities included."""
        settings = self.identity()
        settings.pop("label", None)
        settings.pop("keep", None)
        settings.pop("watch", None)
        settings["network"].pop("output", None)  # decides rates alone, and those are there by name
        # A file is known by its content; where it lies does not matter.
        if self.data_code:
            settings["data"].pop("path", None)
        text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def folder(self) -> str:
        """Name of the job's folder: what it is, then its identity."""
        return folder_name(self.label, self.id)

    @property
    def needs(self) -> tuple[str, ...]:
        """Identities of the jobs that must be done before this one can start."""
        parents = [self.origin.job]
        if self.mask is not None:
            parents += [self.mask.prune.job, self.mask.prune.limit.dense if self.mask.prune.limit else None]
        return tuple(dict.fromkeys(parent for parent in parents if parent is not None))

    @property
    def seeds(self) -> Seeds:
        """The seeds of the job's trial and noise."""
        return Seeds(self.seed, self.trial, self.noise)
