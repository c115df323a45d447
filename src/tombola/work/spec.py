"""What every kind of work has in common: a frozen spec with an identity, and the item that carries it to a worker."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Self

from tombola.revision import NUMERICS
from tombola.section import Section
from tombola.training.tracking import TrackedMasks

ID_DIGITS = 16


class Spec(Section):
    """Everything that decides the outcome of one piece of work, and nothing else.

    Two specs with equal `settings` have equal outcomes, so only one of them is ever executed. Where results lie, how
    the work is called and what is observed on the way stand in the `Item` instead.
    """

    kind: ClassVar[str]

    def settings(self) -> dict[str, Any]:
        """Return what the identity is a hash of, as JSON values: kind, revision, and settings beyond their defaults."""
        return {"kind": self.kind, "revision": NUMERICS, **self.identity()}

    @cached_property
    def id(self) -> str:
        """16 hexadecimal digits: the identity, which holds the identities of all that this work needs."""
        return identity_of(self.settings())

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other values, and with an identity of its own."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("id", None)  # pydantic copies what was cached, too
        return copied

    @property
    def needs(self) -> tuple[str, ...]:
        """Identities of the work that must be done before this can start."""
        return ()

    def codes(self) -> dict[str, str]:
        """Return the fingerprints of a user's own code and data, by a name that says what each belongs to."""
        return {}


def identity_of(settings: dict[str, Any]) -> str:
    """Return the identity of settings as `Spec.settings` gives them."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]


class Observations(Section):
    """What is recorded while work is executed, without any effect on its outcome.

    Args:
        snapshots: iterations at which the weights are kept because other work starts from them.
        masks: masks whose distance from evaluation to evaluation is recorded.
        named: snapshots that a user's own trainer must take, such as "step-500".
        test_every: iterations between measurements on the test examples, 1 for each evaluation; None measures them at
            early stop and at the end alone.
        train_every: iterations between measurements on the training examples, 1 for each evaluation; None measures
            them at the end alone.
    """

    snapshots: tuple[int, ...] = ()
    masks: tuple[TrackedMasks, ...] = ()
    named: tuple[str, ...] = ()
    test_every: int | None = None
    train_every: int | None = None

    def with_(self, other: Observations) -> Observations:
        """Return all that either of the two asks for."""
        masks = (*self.masks, *(each for each in other.masks if each not in self.masks))
        snapshots, named = {*self.snapshots, *other.snapshots}, {*self.named, *other.named}
        return Observations(
            snapshots=tuple(sorted(snapshots)),
            masks=masks,
            named=tuple(sorted(named)),
            test_every=_both(self.test_every, other.test_every),
            train_every=_both(self.train_every, other.train_every),
        )


def _both(one: int | None, other: int | None) -> int | None:
    """Return the interval whose multiples hold those of both; None stands for no measurements."""
    asked = [each for each in (one, other) if each is not None]
    return math.gcd(*asked) if asked else None


@dataclass(frozen=True)
class Cost:
    """What a piece of work is expected to cost; an upper bound where training may end early.

    Args:
        iterations: training steps.
        batch_size: examples in a step.
        evaluated: examples that pass through the network outside training steps, over all evaluations.
        density: share of the matrix weights that take part, 0 to 1.
        size: multiply-adds of its dense network, relative to the study's: not 1 for the source of a transfer.
    """

    iterations: int = 0
    batch_size: int = 0
    evaluated: int = 0
    density: float = 1.0
    size: float = 1.0

    def operations(self, multiply_adds: float) -> float:
        """Return floating-point operations; a multiply-add counts as two, and pruned weights cost nothing.

        A training step costs three passes (forward, backward for weights, backward for inputs), an evaluation one.
        Layer densities are taken to be equal.

        Args:
            multiply_adds: of one example in the study's dense network.
        """
        return 2.0 * self.density * self.size * multiply_adds * (3 * self.iterations * self.batch_size + self.evaluated)


@dataclass(frozen=True)
class Item:
    """A planned piece of work: what a worker is given.

    Args:
        spec: what decides the outcome.
        label: a readable name; the result's folder is called by it.
        group: the line of `tombola plan` that counts it: "dense", an arm, "masks", "interpolations".
        cost: the expected cost.
        observe: what is recorded on the way.
        data_file: where the user's data file lies; its content is part of the spec, its place is not.
        readers: processes that read the user's streamed data, which change no result.
        arm, repeat: which a user's own trainer is told: those of the first row that shows the item.
    """

    spec: Spec
    label: str
    group: str = ""
    cost: Cost = field(default_factory=Cost)
    observe: Observations = field(default_factory=Observations)
    data_file: str | None = None
    readers: int = 0
    arm: str = ""
    repeat: int = 0
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", self.spec.id)

    @property
    def kind(self) -> str:
        """Name of the work kind."""
        return self.spec.kind

    @property
    def needs(self) -> tuple[str, ...]:
        """Identities of the work that must be done before this can start."""
        return self.spec.needs

    @property
    def folder(self) -> str:
        """Name of the result's folder: the readable label, as far as a path can hold it, then the identity."""
        readable = re.sub(r"[^A-Za-z0-9._-]+", "-", self.label)[:100].strip("-.")
        return f"{readable}-{self.id}" if readable else self.id

    def as_json(self) -> dict[str, Any]:
        """Return the item as JSON values, which `tombola.work.item_from_json` reads."""
        return {
            "id": self.id,
            "kind": self.kind,
            "spec": self.spec.model_dump(mode="json"),
            "label": self.label,
            "group": self.group,
            "cost": vars(self.cost),
            "observe": self.observe.model_dump(mode="json"),
            "data_file": self.data_file,
            "readers": self.readers,
            "arm": self.arm,
            "repeat": self.repeat,
        }
