"""Mask trackers: how far masks still move during a dense run, and when they settle.

You et al. 2020, "Drawing Early-Bird Tickets", Section 3: the mask that pruning would give now hardly changes any more
long before the end of training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tombola.pruning.depths import depths
from tombola.pruning.mask import Mask
from tombola.pruning.select import Scope
from tombola.section import Section
from tombola.training.engine import Weights

Rounds = tuple[dict[str, float], ...]


class EarlyBird(Section):
    """When a mask has settled (You et al. 2020, Section 3.3): at the first evaluation of which this holds.

    Args:
        threshold: that none of the last distances lies above.
        window: how many distances that are.
    """

    threshold: float = Field(default=0.1, ge=0, le=1)
    window: int = Field(default=5, ge=1)

    def settled(self, distances: Sequence[float]) -> bool:
        """Return whether a mask has settled, by its distances so far."""
        return len(distances) >= self.window and max(distances[-self.window :]) <= self.threshold


class TrackedMasks(Section):
    """The masks to track: those of magnitude pruning of the dense run to each level.

    Args:
        rates, scope, minimum: of all rounds, as in `tombola.pruning.select`.
        early_bird: when a mask has settled.
    """

    rates: Rounds
    scope: Scope
    minimum: int = 0
    early_bird: EarlyBird = EarlyBird()

    def has(self, rounds: Sequence[dict[str, float]], scope: Scope, minimum: int, early_bird: EarlyBird) -> bool:
        """Return whether the mask after these rounds is among the watched ones."""
        mine = self.rates[: len(rounds)], self.scope, self.minimum, self.early_bird
        return mine == (tuple(rounds), scope, minimum, early_bird)


class MaskTracker:
    """Tracks masks through one run.

    Args:
        tracked: the masks to track.
        layers: names of the prunable weights.
        facts, tensors: of the tracker that this one continues from.

    Attributes:
        facts: "iteration": of each evaluation but the first; "distance": for each level, how many of the prunable
            weights are in the mask now or were in it at the evaluation before, but not both, 0 to 1; "settled": for
            each level the iteration at which its mask settled, or None.
        tensors: "last/<layer>", of the latest evaluation, and "settled/<level>/<layer>", bits of each settled mask.
    """

    def __init__(
        self,
        tracked: TrackedMasks,
        layers: Iterable[str],
        facts: Mapping[str, Any] | None = None,
        tensors: Mapping[str, Tensor] | None = None,
    ):
        levels = range(len(tracked.rates))
        nothing = {"iteration": [], "distance": [[] for _ in levels], "settled": [None for _ in levels]}
        self.tracked, self._layers = tracked, list(layers)
        self.facts: dict[str, Any] = dict(facts or nothing)
        self.tensors = dict(tensors or {})

    def note(self, iteration: int, weights: Weights) -> None:
        """Take in an evaluation: the iteration, and the weights there."""
        tracked = self.tracked
        scores = {name: weights[name].abs() for name in self._layers}
        now = depths(scores, tracked.rates, tracked.scope, tracked.minimum)
        last = {name: self.tensors.get(f"last/{name}") for name in now}
        self.tensors |= {f"last/{name}": depth for name, depth in now.items()}
        pairs = [(before, now[name]) for name, before in last.items() if before is not None]
        if not pairs:
            return
        self.facts["iteration"].append(iteration)
        for place, distance in enumerate(distances(pairs, len(tracked.rates))):
            self.facts["distance"][place].append(distance)
            if self.facts["settled"][place] is None and tracked.early_bird.settled(self.facts["distance"][place]):
                self.facts["settled"][place] = iteration
                mask = Mask({name: depth > place for name, depth in now.items()})
                self.tensors |= {f"settled/{place + 1}/{name}": bits for name, bits in mask.pack().items()}


def distances(pairs: Sequence[tuple[Tensor, Tensor]], levels: int) -> list[float]:
    """Return the Hamming distance of two masks at each level, over all weights, from 0 to 1.

    Args:
        pairs: of each layer, its `depths` before and now.
        levels: how many.
    """
    before, now = (torch.cat([pair[place].flatten() for pair in pairs]).numpy() for place in (0, 1))
    moved = before != now
    low, high = np.minimum(before, now)[moved], np.maximum(before, now)[moved]
    # A weight is in one mask alone at the levels from the lower of its depths up to the higher.
    differing = np.cumsum(np.bincount(low, minlength=levels + 1) - np.bincount(high, minlength=levels + 1))
    return [int(count) / len(before) for count in differing[:levels]]
