"""The next token, or tokens that are hidden."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor, nn

from tombola.data import Description, Part, is_one_shape
from tombola.errors import InputError
from tombola.tasks.classification import kind_of
from tombola.tasks.metric import Metric
from tombola.tasks.segmentation import cross_entropy
from tombola.tasks.task import Task, exp, ratio, require_tensor

IDS = "input_ids"  # the name of token ids among several inputs
PERPLEXITY, BITS = Metric("perplexity", "lower"), Metric("bits_per_token", "lower", "bits")


class LanguageModel(Task):
    """Scores of tokens: mean cross-entropy in nats over tokens.

    The network takes int64 [N, T] token ids, and returns [N, T, C] scores. Where the data have no targets, the scores
    at each position are those of the next token: position t sees tokens 0 to t. Of several inputs, these tokens are
    those named `input_ids`, else the first. Otherwise the targets are int64 [N, T] token ids, for each position its
    own, and the first input has as many.

    Args:
        metric: "perplexity", e to the mean cross-entropy, or "bits_per_token", the mean cross-entropy in bits (bits
            per character where tokens are characters).
        ignore_index: token id of targets that count for nothing, such as padding.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (PERPLEXITY, BITS)
    example: ClassVar[str] = "token"
    block: ClassVar[int] = 50
    has_logits: ClassVar[bool] = True
    only_shown: ClassVar[tuple[str, ...]] = ("metric",)

    metric: Literal["perplexity", "bits_per_token"] = "perplexity"
    ignore_index: int = -100

    @property
    def primary(self) -> Metric:
        """The metric that decides."""
        return PERPLEXITY if self.metric == "perplexity" else BITS

    def prepared(self, targets: Tensor | None) -> Tensor | None:
        """Return int64."""
        return None if targets is None else targets.long()

    def outputs(self, data: Description) -> int | None:
        """Return the number of token ids."""
        first: int | None = _ids(data.tokens, data.output_shape)
        return first if data.classes is None or first is None else max(first, data.classes)

    def loss(self, output: Tensor, batch: Part) -> Tensor:
        """Return the mean cross-entropy of the tokens that count."""
        scores, targets = self._shifted(output, batch)
        return cross_entropy(scores.transpose(1, 2), targets, self.ignore_index)

    def sums(self, output: Tensor, batch: Part) -> Tensor:
        """Return float64 [2]: summed loss, and the number of tokens that count."""
        scores, targets = self._shifted(output, batch)
        loss = cross_entropy(scores.transpose(1, 2), targets, self.ignore_index, "sum").double()
        return torch.stack([loss, (targets != self.ignore_index).sum().double()])

    def scores(self, sums: Sequence[float]) -> tuple[float, ...]:
        """Return loss, perplexity and bits per token."""
        loss = ratio(*sums)
        return loss, exp(loss), loss / math.log(2)

    def _shifted(self, output: Tensor, batch: Part) -> tuple[Tensor, Tensor]:
        """Return scores [N, T, C] and what they are scores of, [N, T]."""
        if batch.targets is not None:
            return output, batch.targets
        return output[:, :-1], _ids(batch.inputs, None)[:, 1:]

    def check_data(self, data: Description, source: str) -> None:
        """Check that the inputs are token ids."""
        tokens, shape = self.outputs(data), data.input_shape
        first = shape if is_one_shape(shape) else _ids(shape, data.output_shape)
        if data.output_shape is None and isinstance(data.tokens, dict) and IDS not in shape:
            alike = [name for name, each in data.tokens.items() if each is not None and shape[name] == first]
            if len(alike) > 1:
                raise InputError(
                    f"task: language-model can't tell which inputs of {source} are the tokens to predict: "
                    f"{', '.join(alike)}; name them {IDS}, or return targets"
                )
        if tokens is None or len(first) != 1:
            raise InputError(
                f"task: language-model needs int64 token ids of shape (N, tokens) as inputs, but an example of "
                f"{source} has shape {shape} and type {data.input_dtype}; choose another task, or save such inputs"
            )
        if data.output_shape is None and first[0] < 2:
            raise InputError(
                f"task: language-model needs two tokens or more in an example, but {source} has {first[0]}"
            )
        if data.output_shape is not None and (data.target_dtype != "int64" or data.output_shape != first):
            raise InputError(
                f"task: language-model needs no targets, or an int64 token id for each position, but {source} has "
                f"{kind_of(data)}; remove the targets: each token is then the target of the one before"
            )

    def check_output(self, output: Any, batch: Part, data: Description, source: str) -> None:
        """Check that there is a row of scores for each token."""
        examples, positions = _ids(batch.inputs, batch.targets).shape
        wanted = f"token scores of shape {(examples, positions, self.outputs(data))} for {examples} examples"
        shape = tuple(require_tensor(output, wanted).shape)
        if len(shape) != 3 or shape[:2] != (examples, positions) or shape[2] < (self.outputs(data) or 0):
            raise InputError(f"the network must return {wanted}; it returned {shape}")

    @torch.no_grad()
    def check_network(self, module: nn.Module, batch: Part) -> None:
        """Check that no position sees the token that it is to predict: the loss would then say nothing."""
        if batch.targets is not None:
            return
        tokens = _ids(batch.inputs, None)
        other = tokens.clone()
        other[:, -1] = (tokens[:, -1] == 0).long()
        one, two = (self.forward(module, Part(_with_ids(batch.inputs, each))) for each in (tokens, other))
        if not torch.allclose(one[:, :-1], two[:, :-1], rtol=1e-4, atol=1e-5):
            raise InputError(
                "task: language-model: the network's scores depend on later tokens, so it sees the tokens that it "
                "must predict; add a causal mask, or give separate targets with the data"
            )

    def chance(self, data: Description) -> float | None:
        """Return the metric where all tokens are equally likely."""
        tokens = self.outputs(data)
        if tokens is None:
            return None
        return float(tokens) if self.metric == "perplexity" else math.log2(tokens)

    def made_up_targets(self, data: Description, examples: int, generator: Generator) -> Tensor | None:
        """Return random tokens, or None where the data have no targets."""
        if data.output_shape is None:
            return None
        assert isinstance(data.output_shape, tuple)
        return torch.randint(self.outputs(data) or 1, (examples, *data.output_shape), generator=generator)


def _ids(values: Any, targets: Any) -> Any:
    """Return, of what is known of each input, that of the tokens that the network has scores for."""
    if isinstance(values, dict):
        return values[IDS] if IDS in values and targets is None else next(iter(values.values()))
    return values[0] if isinstance(values, tuple) else values


def _with_ids(inputs: Any, tokens: Tensor) -> Any:
    """Return the inputs with other token ids."""
    if isinstance(inputs, dict):
        return inputs | {IDS if IDS in inputs else next(iter(inputs)): tokens}
    return (tokens, *inputs[1:]) if isinstance(inputs, tuple) else tokens
