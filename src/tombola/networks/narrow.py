"""A narrower copy of a network: as many weights as asked for, and all of them trained.

Frankle & Carbin 2019 compare tickets with random sparse networks; the obvious rival is a dense network of the ticket's
size ("why not train a small network from the start?"; Liu et al. 2019, "Rethinking the Value of Network Pruning").
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, get_args

import torch

from tombola.data import Description
from tombola.errors import InputError
from tombola.networks import NETWORKS, Coverage, NetworkSettings, examined, initialised, network_for
from tombola.registry import resolve
from tombola.tasks import Task

WIDTHS = ("width", "hidden", "hidden_size", "channels")
"""What a factory may call its width: a number, or a list of numbers that are scaled together."""
STEPS = 1024  # a width is scaled by a whole number of these
FARTHEST = 1.1  # times as many weights as asked for, or as few, that still pass for as many


@dataclass(frozen=True)
class Narrowed:
    """A narrower network.

    Args:
        settings: with the width among its arguments.
        code: fingerprint of its factory and shapes; "" for one of ours.
        weights: number of its matrix weights.
        share: its multiply-adds for one example, as a share of those of the network that it is a copy of.
    """

    settings: NetworkSettings
    code: str
    weights: int
    share: float


@dataclass
class Narrower:
    """Scales the width of a network.

    Args:
        network: that is scaled.
        data, task: what it is built for.
        coverage: of the network as it is.
    """

    network: NetworkSettings
    data: Description
    task: Task
    coverage: Coverage
    _counts: dict[int, int] = field(default_factory=dict, repr=False)

    def at(self, weights: int, where: str) -> Narrowed:
        """Return the copy whose number of weights is nearest to one asked for.

        Args:
            weights: matrix weights of the whole network.
            where: what asks for it, for messages, such as "arm 'small-dense' at level 3".

        Raises:
            InputError: the network has no width that can be scaled, or weights that can't be pruned; or no width gives
                about as many weights.
        """
        if skipped := self.coverage.skipped:
            raise InputError(
                f"{where}: {self.network.name!r} has weights that are never pruned, such as {skipped[0].name!r}, so a "
                "dense network of a ticket's size can't be told; remove the arm"
            )
        whole = self._count(STEPS)
        low, high = 0, STEPS  # the narrowest copy that has as many lies above `low`
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._count(middle) >= weights else (middle, high)
        # The network itself does not compete: it is the dense run.
        narrower = [each for each in (low, high) if 0 < self._count(each) < max(whole, weights + 1)]
        step = min(narrower, key=lambda each: (abs(self._count(each) - weights), each), default=0)
        found = self._count(step)
        if not weights / FARTHEST <= found <= weights * FARTHEST:
            nearest = (
                f"the nearest is {self._name}={self._scaled(step)!r}, with {found:,}"
                if step
                else "no narrower copy can be built"
            )
            raise InputError(
                f"{where}: no width of {self.network.name!r} gives about {weights:,} weights; {nearest} (the whole "
                f"network has {whole:,}); change pruning.rate or pruning.rounds, or remove the arm"
            )
        return self._narrowed(step)

    def _narrowed(self, step: int) -> Narrowed:
        settings = self._settings(step)
        build = network_for(settings, self.data, self.task)
        coverage = examined(build, self.data, settings)
        code = settings.fingerprint(initialised(build, "pytorch", 0))
        share = coverage.multiply_adds / self.coverage.multiply_adds
        return Narrowed(settings, code, coverage.matrix_weights, share)

    @cached_property
    def _name(self) -> str:
        """The argument that is the network's width."""
        try:
            takes = _parameters(resolve(self.network.name, NETWORKS, "network"))
        except (TypeError, ValueError):  # compiled: it tells nothing of its parameters
            takes = {}
        known = {name: each.default for name, each in takes.items()} | self.network.arguments
        for name in WIDTHS:
            if name in takes and _is_width(known[name]):
                # `width: 1` of a factor means 1.0
                broken = isinstance(known[name], int) and _allows_float(takes[name])
                self._width = float(known[name]) if broken else known[name]
                return name
        raise InputError(
            f"network {self.network.name!r} can't be made narrower for small-dense: its factory takes no "
            f"{', '.join(WIDTHS[:-1])} or {WIDTHS[-1]} that is a number or a list of numbers; give it such an argument"
        )

    def _scaled(self, step: int) -> Any:
        name, share = self._name, step / STEPS
        width = self._width
        assert name
        if isinstance(width, float):
            return width * share
        if isinstance(width, int):
            return max(1, round(width * share))
        return [max(1, round(each * share)) for each in width]

    def _settings(self, step: int) -> NetworkSettings:
        scaled = self._scaled(step)
        return self.network.model_copy(update={"arguments": self.network.arguments | {self._name: scaled}})

    def _count(self, step: int) -> int:
        """Return how many matrix weights a copy has; 0 where it is too narrow to be built."""
        if step not in self._counts:
            self._counts[step] = self._counted(step) if step else 0
        return self._counts[step]

    def _counted(self, step: int) -> int:
        build = network_for(self._settings(step), self.data, self.task)
        try:
            if self.network.name in NETWORKS:
                with torch.device("meta"):
                    module = build()
            else:
                module = initialised(build, "pytorch", 0)
            return sum(module.get_parameter(name).numel() for name in self.coverage.shapes())
        except (InputError, AttributeError):
            return 0


def _parameters(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a factory, with annotations as objects where their names can be resolved."""
    try:
        return inspect.signature(factory, eval_str=True).parameters
    except (NameError, AttributeError, SyntaxError):
        return inspect.signature(factory).parameters


def _allows_float(parameter: inspect.Parameter) -> bool:
    kinds = (parameter.annotation, *get_args(parameter.annotation))
    return isinstance(parameter.default, float) or float in kinds or "float" in kinds


def _is_width(value: Any) -> bool:
    numbers = value if isinstance(value, list | tuple) and value else [value]
    return all(isinstance(each, int | float) and not isinstance(each, bool) and each > 0 for each in numbers)
