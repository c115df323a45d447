"""The engine of masks that move while a network trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn

from tombola.errors import InputError
from tombola.pruning.mask import Mask
from tombola.pruning.select import lowest
from tombola.training.engine import NetworkFactory, ReplicaState
from tombola.training.engines.cleared import Pruned
from tombola.training.engines.dense import DenseEngine, copied
from tombola.training.optimizers import make_optimizer
from tombola.training.recipe import Recipe

KEEP = "keep"  # what `optimizer_state` calls the mask: "keep/fc1.weight"


class MovingEngine(DenseEngine):
    """Trains one replica under a mask that moves as `Moving` says.

    A weight that is dropped becomes 0.0 and loses its optimiser state; one that is grown starts at 0.0 with none (Evci
    et al. 2020, Section 3). A move of RigL takes the place of a step of the optimiser, as in its Algorithm 1.

    Args:
        starts: one, with `moving`. Its mask is full, and its weights are the whole untrained ones; or those that were
            reached, where `optimizer` is what `optimizer_state` gave.

    Raises:
        InputError: a layer whose mask should move is not trained.
    """

    name = "moving"

    def __init__(
        self, build: NetworkFactory, starts: Sequence[ReplicaState], recipe: Recipe, budget: int, device: torch.device
    ):
        (start,) = starts
        assert start.moving is not None
        state = dict(start.optimizer)
        found = {name: state.pop(f"{KEEP}/{name}", None) for name in start.moving.counts}
        super().__init__(build, [replace(start, optimizer=state)], recipe, budget, device)
        self._moving, self._full = start.moving, start.mask
        if still := [name for name in found if name not in self._parameters]:
            raise InputError(f"layer {still[0]!r} has requires_grad=False, so its mask can't move; exclude the layer")
        self._keep: dict[str, Tensor] = {}
        for name, keep in found.items():
            self._keep[name] = self._first(name) if keep is None else keep.bool()
        self._apply()

    def _first(self, name: str) -> Tensor:
        """Return which weights of a layer live at first: all, or random ones for methods that never train dense."""
        shape, moving = self._full[name].shape, self._moving
        if moving.method not in ("set", "rigl"):
            return torch.ones(shape, dtype=torch.bool)
        return _random(shape.numel(), moving.counts[name], self._draws(name, "first")).view(shape)

    def _draws(self, name: str, when: int | str) -> Generator:
        return self._seeds.generator("mask", f"{self._moving.method}/{self._moving.draw}/{name}/{when}")

    @torch.no_grad()
    def _apply(self) -> None:
        """Let weights, gradients and optimiser follow the mask."""
        self._masked = []
        for name, keep in self._keep.items():
            parameter = self._parameters[name]
            pruned = Pruned(parameter, ~keep)
            pruned.clear_(parameter.detach())
            for slot in self._optimizer.state[parameter].values():
                if isinstance(slot, Tensor) and slot.shape == parameter.shape:
                    pruned.clear_(slot)
            self._masked.append(pruned)

    def _step(self) -> None:
        if self._moving.moves_at(self.iteration):
            move: dict[str, Callable[[str, nn.Parameter], Tensor]] = {
                "gradual": self._gradual,
                "set": self._regrown,
                "rigl": self._regrown,
                "ac-dc": self._phase,
            }
            rule = move[self._moving.method]
            self._keep = {name: rule(name, self._parameters[name]).cpu() for name in self._keep}
            if self._moving.method == "ac-dc" and self._moving.is_dense(self.iteration):
                self._forget()
            self._apply()
            if self._moving.method == "rigl":
                self._optimizer.zero_grad()
                return
        super()._step()

    def _gradual(self, name: str, parameter: nn.Parameter) -> Tensor:
        """Return the largest kept weights, as many as the cubic schedule leaves (Zhu & Gupta 2017)."""
        count = self._moving.gradual_count(parameter.numel(), self._moving.counts[name], self.iteration)
        return _largest(parameter.detach().abs(), self._keep[name].to(parameter.device), count)

    def _phase(self, name: str, parameter: nn.Parameter) -> Tensor:
        """Return all weights in a dense phase, the largest ones where a compressed phase begins (Peste et al. 2021)."""
        if self._moving.is_dense(self.iteration):
            return torch.ones_like(self._keep[name])
        return _largest(parameter.detach().abs(), self._keep[name].to(parameter.device), self._moving.counts[name])

    def _forget(self) -> None:
        """Give the masked layers the optimiser state of a new run.

        The paper resets momentum when weights come back. With Adam's moments its step count goes back to 0, too:
        without bias correction its first steps would be about twice as long. Other optimisers do not begin at zeros, or
        make their state when they are made themselves.
        """
        # Of copies: a user's function may hook into the parameters that it is given.
        copies = {name: nn.Parameter(each.detach().clone()) for name, each in self._parameters.items()}
        fresh = make_optimizer(self._recipe, list(copies.items())).state
        for name in self._keep:
            mine = self._optimizer.state[self._parameters[name]]
            mine.clear()
            mine.update(fresh.get(copies[name], {}))

    def _regrown(self, name: str, parameter: nn.Parameter) -> Tensor:
        """Drop the smallest kept weights and grow as many: random ones (SET), or those of largest gradient (RigL)."""
        keep = self._keep[name].to(parameter.device)
        count = int(keep.sum())
        moved = round(self._moving.moved_share(self.iteration) * count)
        moved = min(moved, keep.numel() - count)  # no more can be grown than are gone
        stays = _largest(parameter.detach().abs(), keep, count - moved)
        if self._moving.method == "set":
            score = torch.rand(keep.shape, generator=self._draws(name, self.iteration)).to(parameter.device)
        else:
            score = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.detach().abs()
        return stays | _largest(score, ~stays, moved)

    @property
    def mask(self) -> Mask:
        """Which weights live now."""
        return Mask({name: self._keep.get(name, keep) for name, keep in self._full.items()})

    def optimizer_state(self, replica: int = 0) -> dict[str, Tensor]:
        """Return a copy of the optimiser's tensors and of the mask."""
        keep = {f"{KEEP}/{name}": copied(mask.to(torch.uint8)) for name, mask in self._keep.items()}
        return super().optimizer_state(replica) | keep


def _largest(values: Tensor, among: Tensor, count: int) -> Tensor:
    """Return bool, of the shape of `values`: the `count` largest of those that `among` names; of equals the last."""
    places = among.flatten().nonzero().squeeze(1)
    goes = lowest(values.flatten()[places].nan_to_num().double(), len(places) - count)
    found = torch.zeros(values.numel(), dtype=torch.bool, device=values.device)
    found[places[~goes]] = True
    return found.view(values.shape)


def _random(size: int, count: int, generator: Generator) -> Tensor:
    keep = torch.zeros(size, dtype=torch.bool)
    keep[torch.randperm(size, generator=generator)[:count]] = True
    return keep
