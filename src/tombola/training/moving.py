"""Masks that move while a network trains: baselines that never train it dense, or that prune it within one run.

Gradual magnitude pruning (Zhu & Gupta 2017), SET (Mocanu et al. 2018), RigL (Evci et al. 2020) and AC/DC (Peste et al.
2021). The mask of an iteration is a function of the state and the iteration alone, so a run resumes bit by bit.
"""

from __future__ import annotations

import math
from typing import Literal

from tombola.section import Section

Method = Literal["gradual", "set", "rigl", "ac-dc"]


class Moving(Section):
    """How a mask moves, in iterations.

    Args:
        method: which rule.
        counts: weight name -> how many weights of that layer are kept at the end; layers that are not named stay whole.
        begin: from where on the mask may move.
        end: where it moves last; below the budget.
        every: iterations between two moves; of `ac-dc`, the length of a phase.
        fraction: of `set` and `rigl`: the share of a layer's kept weights that move at a time, of `rigl` at the start.
        draw: which random places of the trial.
    """

    method: Method
    counts: dict[str, int]
    begin: int
    end: int
    every: int
    fraction: float = 0.3
    draw: int = 0

    def moves_at(self, iteration: int) -> bool:
        """Return whether the mask may change before the step that leads away from `iteration`."""
        if self.method in ("set", "rigl"):  # Evci et al. 2020, Algorithm 1: t mod dT = 0 and t < T_end
            return max(self.begin, 1) <= iteration < self.end and iteration % self.every == 0
        if self.method == "ac-dc" and self.begin + self._last_dense * self.every < iteration < self.end:
            return False
        regular = self.begin <= iteration <= self.end and (iteration - self.begin) % self.every == 0
        return regular or iteration == self.end

    def gradual_count(self, size: int, count: int, iteration: int) -> int:
        """Return how many of a layer's weights gradual pruning keeps at a move: s_f (1 - (1 - x)^3) are gone.

        Zhu & Gupta 2017, Equation 1, with an initial sparsity of 0; x goes from 0 at `begin` to 1 at `end`.
        """
        done = min(1.0, max(0.0, (iteration - self.begin) / max(1, self.end - self.begin)))
        return size - round((size - count) * (1 - (1 - done) ** 3))

    def moved_share(self, iteration: int) -> float:
        """Return the share of kept weights that move: a / 2 (1 + cos(pi t / T_end)), of SET always a.

        Evci et al. 2020, Section 3; Mocanu et al. 2018, Methods.
        """
        if self.method == "set":
            return self.fraction
        return self.fraction / 2 * (1 + math.cos(math.pi * iteration / self.end))

    def is_dense(self, iteration: int) -> bool:
        """Return whether AC/DC trains all weights: before `begin`, and in every second phase after it until `end`.

        Peste et al. 2021, Algorithm 1: a dense warm-up, compressed and dense phases in turn, a last compressed one. The
        last dense phase lasts until `end`. Otherwise a dense phase of a few steps could come right before `end`.
        """
        if iteration >= self.end:
            return False
        phase = min((iteration - self.begin) // self.every, self._last_dense)
        return iteration < self.begin or phase % 2 == 1

    @property
    def _last_dense(self) -> int:
        """The number of AC/DC's last dense phase, odd; the first compressed phase is 0."""
        return (self.end - self.begin) // self.every // 2 * 2 - 1

    def kept_share(self, sizes: dict[str, int], budget: int) -> float:
        """Return the mean share of weights that are computed with over a run of `budget` iterations, 0 to 1.

        A move of RigL needs the gradients of all weights: one of the three products of a step is dense (Evci et al.
        2020, Appendix H).
        """
        size, count = sum(sizes.values()), sum(self.counts.get(name, size) for name, size in sizes.items())
        if self.method in ("set", "rigl"):
            moves = sum(map(self.moves_at, range(budget))) if self.method == "rigl" else 0
            return (count + (size - count) / 3 * moves / budget) / size
        total, kept = 0, size
        for iteration in range(budget):
            if self.moves_at(iteration):
                dense = self.method == "ac-dc" and self.is_dense(iteration)
                kept = size if dense else count if self.method == "ac-dc" else self._gradual(sizes, iteration)
            total += kept
        return total / (size * budget)

    def _gradual(self, sizes: dict[str, int], iteration: int) -> int:
        return sum(self.gradual_count(size, self.counts.get(name, size), iteration) for name, size in sizes.items())
