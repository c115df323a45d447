"""The engine of edge-popup: scores are trained instead of weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from tombola.pruning.mask import Mask
from tombola.training.engine import NetworkFactory, ReplicaState
from tombola.training.engines.dense import DenseEngine, clip, copied
from tombola.training.popup import initial_scores, seen
from tombola.training.recipe import Recipe

SCORE, WEIGHT = "score", "weight"  # what `optimizer_state` calls them: "score/fc1.weight"


class PopupEngine(DenseEngine):
    """Trains the scores of one replica's weights by the straight-through estimator (Ramanujan et al. 2020, Section 3).

    The module always holds the weights that the forward pass sees: w where |s| is among the layer's largest, else
    0.0. So the loss's gradient with respect to them is there after a backward pass, and the scores' is
    dL/ds = dL/dw * w * sign(s), of the weights that are not seen too: as if all |s| were the factors of their weights.
    Biases and the affine parameters of batch norm stay as they were; its running statistics are taken as usual.

    Args:
        starts: one, with `popup`. Its weights are the whole untrained ones, or, where `optimizer` is what
            `optimizer_state` gave, those that were seen.
    """

    name = "popup"

    def __init__(
        self, build: NetworkFactory, starts: Sequence[ReplicaState], recipe: Recipe, budget: int, device: torch.device
    ):
        super().__init__(build, [replace(start, optimizer={}) for start in starts], recipe, budget, device)
        (start,) = starts
        assert start.popup is not None
        self._counts, self._full, self._draw = start.popup.counts, start.mask, start.popup.draw
        state = dict(start.optimizer)
        generator = start.seeds.generator("scores", start.popup.draw)
        self._seen = {n: p for n, p in self._module.named_parameters() if n in self._counts}
        self._module.requires_grad_(False)
        self._weights: dict[str, Tensor] = {}
        self._parameters = {}
        for name, parameter in self._seen.items():
            parameter.requires_grad_(True)
            scores = state.pop(f"{SCORE}/{name}", None)
            weight = state.pop(f"{WEIGHT}/{name}", start.weights[name])
            # Laid out in memory as the parameter is, so that they can be multiplied element by element.
            self._weights[name] = torch.empty_like(parameter, requires_grad=False).copy_(weight)
            drawn = self._drawn(name, parameter.shape, generator) if scores is None else scores
            self._parameters[name] = nn.Parameter(torch.empty_like(parameter, requires_grad=False).copy_(drawn))
        self._optimize(state)
        self._show()

    @torch.no_grad()
    def _step(self) -> None:
        for name, parameter in self._seen.items():
            if parameter.grad is not None:
                scores = self._parameters[name]
                scores.grad = parameter.grad.mul_(self._weights[name]).mul_(self._slope(scores))
                parameter.grad = None
        if self._recipe.clip_value is not None or self._recipe.clip_norm is not None:
            clip(self._recipe, self._parameters.values())
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._show()

    def _drawn(self, name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Return the initial scores of a layer."""
        return initial_scores(shape, generator)

    def _slope(self, scores: Tensor) -> Tensor:
        """Return the derivative, by its score, of what a weight is multiplied by."""
        return scores.sign()

    def _shown(self, name: str) -> Tensor:
        """Return bool: which weights of a layer the forward pass sees."""
        return seen(self._parameters[name], self._counts[name])

    @torch.no_grad()
    def _show(self) -> None:
        """Let the module see the weights that the scores choose."""
        for name, parameter in self._seen.items():
            hidden = ~self._shown(name)
            parameter.copy_(self._weights[name]).masked_fill_(hidden, 0.0)

    @property
    def mask(self) -> Mask:
        """Which weights the forward pass sees now."""
        chosen = {name: self._shown(name) for name in self._parameters}
        return Mask({name: chosen.get(name, keep) for name, keep in self._full.items()})

    def optimizer_state(self, replica: int = 0) -> dict[str, Tensor]:
        """Return a copy of the optimiser's tensors, of the scores and of the untrained weights."""
        scores = {f"{SCORE}/{name}": copied(tensor) for name, tensor in self._parameters.items()}
        weights = {f"{WEIGHT}/{name}": copied(tensor) for name, tensor in self._weights.items()}
        return super().optimizer_state(replica) | scores | weights
