"""The engine of supermasks that are sampled while their probabilities are trained (Zhou et al. 2019, Section 5)."""

from __future__ import annotations

import torch
from torch import Tensor

from tombola.pruning.select import lowest
from tombola.training.engines.popup import PopupEngine
from tombola.training.popup import initial_scores


class SampledEngine(PopupEngine):
    """Trains a score m for each weight; the forward pass of each step sees a weight with probability sigmoid(m).

    Each step draws a new sample, as a function of the seeds and the iteration alone. Gradients pass the draw
    straight through: dL/dm = dL/dw * w * sigmoid(m) (1 - sigmoid(m)). Evaluations, snapshots and the mask take the
    likeliest weights of each layer, as many as asked for; the paper evaluates samples, which have no fixed number.
    Scores start where the expected number of weights is the one asked for.
    """

    name = "sampled"
    _next: int | None = None  # the iteration that the module's present sample is for; None outside training

    def advance(self, iterations: int) -> list[float]:
        """Train for that many iterations, each on a sample of its own."""
        self._next = self.iteration
        self._show()
        try:
            return super().advance(iterations)
        finally:
            self._next = None
            self._show()

    def _step(self) -> None:
        self._next = self.iteration + 1  # the sample that is shown after the step
        super()._step()

    def _drawn(self, name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
        share = (self._counts[name] + 0.5) / (shape.numel() + 1)
        return initial_scores(shape, generator) + torch.tensor(share).logit()

    def _slope(self, scores: Tensor) -> Tensor:
        probability = scores.sigmoid()
        return probability * (1 - probability)

    def _shown(self, name: str) -> Tensor:
        scores = self._parameters[name].detach()
        if self._next is None:
            return likeliest(scores, self._counts[name])
        draws = self._seeds.generator("scores", f"{self._draw}/{name}/{self._next}")
        return torch.rand(scores.shape, generator=draws).to(scores.device) < scores.sigmoid()


def likeliest(scores: Tensor, count: int) -> Tensor:
    """Return bool, of the shape of `scores`: the `count` highest; of equal ones the last."""
    values = scores.nan_to_num().flatten()
    return ~lowest(values, len(values) - count).view(scores.shape)
