"""The stacked engine: many runs of one network and recipe as one batched computation. Made for GPUs.

One small network leaves a GPU idle; a hundred of them, stacked along one more dimension, do not. `torch.func.vmap`
turns each layer's product into a batched one. The loss is summed over replicas, so each replica has its own gradient.
The optimisers work element by element, so one optimiser over stacked tensors is one optimiser per replica.

A step reads and writes the same tensors each time: example numbers, learning rates and random draws of many iterations
lie on the device, and a counter there says which of them are next. On a GPU a CUDA graph therefore holds the step.
Nothing is read back before `advance` ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional

from tombola.data.augment import Augmentation, augment
from tombola.data.parts import Splits, held
from tombola.seeds import own_draws
from tombola.training.engine import NetworkFactory, ReplicaState, Score, Weights
from tombola.training.engines.cleared import Pruned, clear_pruned
from tombola.training.engines.dense import EVALUATION_BLOCK, clip, copied
from tombola.training.engines.repeated import Repeated, recorder_of
from tombola.training.engines.stackable import Draws, StackableModule, emulation_unmentioned
from tombola.training.optimizers import make_optimizer, read_rate_from
from tombola.training.order import Order
from tombola.training.recipe import Recipe

STRETCH = 100  # iterations whose example numbers, learning rates and draws lie on the device together


class StackedEngine:
    """Trains replicas in lockstep.

    Raises:
        ValueError: the starts differ in iteration or in the size of their data, or the network can't be stacked.
    """

    name = "stacked"

    def __init__(
        self, build: NetworkFactory, starts: Sequence[ReplicaState], recipe: Recipe, budget: int, device: torch.device
    ):
        first = starts[0]
        if len({(start.iteration, len(start.splits.train)) for start in starts}) > 1:
            raise ValueError("stacked replicas must be at the same iteration, on as many training examples")
        self.replicas, self.iteration = len(starts), first.iteration
        self._recipe, self._budget, self._device = recipe, budget, device
        example = held(first.splits.train).example.inputs
        try:
            self._call = StackableModule(build, example, recipe.batch_size, recipe.precision)
        except ValueError as error:
            raise ValueError(f"this network can't be stacked: {error}") from error
        self._module = self._call.module

        # Replicas with the same data stand together, so that one look-up serves them all.
        groups: dict[int, list[int]] = {}
        for replica, start in enumerate(starts):
            groups.setdefault(id(start.splits), []).append(replica)
        order = [replica for group in groups.values() for replica in group]
        self._position = {replica: place for place, replica in enumerate(order)}
        self._groups: list[tuple[Splits, slice]] = []
        place = 0
        for group in groups.values():
            self._groups.append((starts[group[0]].splits, slice(place, place + len(group))))
            place += len(group)
        ordered = [starts[replica] for replica in order]
        self._take_weights(ordered)
        self._take_sources(ordered)
        self._repeat = Repeated(recorder_of(device))

    def _take_weights(self, starts: Sequence[ReplicaState]) -> None:
        """Stack weights, masks and the optimiser's state."""
        first, device = starts[0], self._device
        stacked = {name: self._call.stack([start.weights[name] for start in starts]) for name in first.weights}
        trained = {name for name, parameter in self._module.named_parameters() if parameter.requires_grad}
        self._parameters = {name: nn.Parameter(stacked[name]) for name in stacked if name in trained}
        self._others = {name: tensor for name, tensor in stacked.items() if name not in trained}
        self._masked = [
            Pruned(self._parameters[name], ~torch.stack([start.mask[name] for start in starts]).to(device))
            for name in first.mask
            if name in trained and not all(bool(start.mask[name].all()) for start in starts)
        ]
        self._optimizer = make_optimizer(self._recipe, list(self._parameters.items()))
        # Fused steps read float32 on a GPU; on the CPU they take the number itself, as the dense engine gives it.
        self._rate = torch.zeros((), dtype=torch.float32 if device.type == "cuda" else torch.float64, device=device)
        read_rate_from(self._optimizer, self._rate)
        for key in first.optimizer:
            slot, _, name = key.partition("/")
            tensors = [start.optimizer[key] for start in starts]
            # The step counter is one number, the same for all replicas of one iteration.
            value = tensors[0].clone().to(device) if slot == "step" else self._call.stack(tensors)
            self._optimizer.state[self._parameters[name]][slot] = value

    def _take_sources(self, starts: Sequence[ReplicaState]) -> None:
        """Make what decides the batches, and the tensors that hold those of a stretch of iterations."""
        recipe, size, device = self._recipe, self._recipe.batch_size, self._device
        sources = dict.fromkeys((id(start.splits), start.seeds) for start in starts)  # runs of a trial share theirs
        of_source = {(id(start.splits), start.seeds): start for start in starts}
        self._orders = [Order(len(of_source[key].splits.train), size, key[1]) for key in sources]
        augmentations = {key: Augmentation(recipe.augment, size, key[1], of_source[key].splits) for key in sources}
        self._augmentations = list(augmentations.values())
        keys = [(id(start.splits), start.seeds) for start in starts]
        self._source = torch.tensor([list(sources).index(key) for key in keys])
        self._black = torch.stack([augmentations[key].black for key in keys]).repeat_interleave(size, 0)
        self._draws = Draws(self._call.draws, [start.seeds for start in starts], device)
        self._losses = torch.zeros(self.replicas, device=device)
        self._place = torch.zeros(1, dtype=torch.int64, device=device)  # of the next iteration in the stretch
        self._rates = torch.zeros(STRETCH, dtype=self._rate.dtype, device=device)
        self._batches = torch.zeros(STRETCH, self.replicas, size, dtype=torch.int64, device=device)
        self._changes = torch.zeros(
            STRETCH if recipe.augment else 0, self.replicas, size, 3, dtype=torch.int64, device=device
        )

    @property
    def facts(self) -> dict[str, Any]:
        """How the replicas are trained, for results."""
        return {"replicas": self.replicas, "cuda_graph": self._repeat.why_plain or self._repeat.is_recorded}

    @staticmethod
    def why_not(recipe: Recipe) -> str:
        """Return why replicas can't share an optimiser under this recipe; "" where they can."""
        if not recipe.each_alone:
            return f"optimizer {recipe.optimizer!r} may mix the replicas' weights"
        if recipe.clip_norm is not None:
            return "clip_norm would take the norm over all replicas"
        if recipe.own_augment:
            return "an augmentation of the user's own is called for one replica"
        return ""

    @staticmethod
    def why_not_network(build: NetworkFactory, example: Tensor, precision: str = "float32", batch_size: int = 2) -> str:
        """Return why a network can't be stacked, with the layer's name; "" where it can.

        Args:
            build: makes the network.
            example: a batch of one, on the device to train on.
            precision: of training.
            batch_size: of training; a forward pass may depend on it.
        """
        try:
            StackableModule(build, example, batch_size, precision)
        except ValueError as error:
            return str(error)
        return ""

    def advance(self, iterations: int) -> list[float]:
        """Train each replica for that many iterations; return each replica's loss on its last batch."""
        self._module.train()
        self._losses.fill_(float("nan"))
        while iterations > 0:
            count = min(STRETCH, iterations)
            self._lay_out(count)
            with own_draws(self._device), emulation_unmentioned():
                for step in range(count):
                    if self._call.draws:
                        self._draws.draw(self.iteration + step)
                    self._repeat(self._one_step, self._optimizer.zero_grad)
            self.iteration += count
            iterations -= count
        found = self._losses.tolist()
        return [found[self._position[replica]] for replica in range(self.replicas)]

    def _lay_out(self, count: int) -> None:
        """Lay on the device what the next iterations need."""
        rates = [self._recipe.learning_rate(self.iteration + each, self._budget) for each in range(count)]
        self._rates[:count].copy_(torch.tensor(rates, dtype=self._rates.dtype))
        batches = torch.stack([order.batches(self.iteration, count) for order in self._orders], 1)
        self._batches[:count].copy_(batches[:, self._source])
        if self._recipe.augment:
            drawn = torch.stack([each.draws(self.iteration, count) for each in self._augmentations], 1)
            self._changes[:count].copy_(drawn[:, self._source])
        self._place.zero_()

    def _one_step(self) -> None:
        """Train each replica for one iteration; a CUDA graph may hold all of this."""
        inputs, targets = self._look_up(self._batches.index_select(0, self._place)[0])
        if self._recipe.augment:
            inputs = self._augment(inputs, self._changes.index_select(0, self._place)[0])
        self._rate.copy_(self._rates.index_select(0, self._place)[0])
        logits = vmap(self._call)(dict(self._parameters), self._others | self._draws.factors, inputs)
        losses = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        losses = losses.view(self.replicas, -1).mean(1)
        losses.sum().backward()
        self._losses.copy_(losses.detach())
        clear_pruned(self._masked)
        if self._recipe.clip_value is not None:
            clip(self._recipe, self._parameters.values())
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._place += 1

    @torch.no_grad()
    @emulation_unmentioned()
    def evaluate(self, part: str, check: Callable[[], None] = lambda: None) -> list[Score]:
        """Return each replica's score on its own part."""
        self._module.eval()
        loss = torch.zeros(self.replicas, dtype=torch.float64, device=self._device)
        right = torch.zeros(self.replicas, dtype=torch.int64, device=self._device)
        for splits, replicas in self._groups:
            examples = held(getattr(splits, part))
            weights = {name: tensor[replicas] for name, tensor in (self._parameters | self._others).items()}
            for first in range(0, len(examples), EVALUATION_BLOCK):
                check()
                targets = examples.targets[first : first + EVALUATION_BLOCK]
                inputs = examples.inputs[first : first + EVALUATION_BLOCK]
                logits = vmap(self._call, in_dims=(0, None, None))(weights, {}, inputs)
                each = targets.expand(len(logits), -1)
                losses = functional.cross_entropy(logits.flatten(0, 1), each.flatten(), reduction="none")
                loss[replicas] += losses.view(len(logits), -1).sum(1)
                right[replicas] += (logits.argmax(2) == targets).sum(1)
        size = len(getattr(self._groups[0][0], part))
        scores = [Score(a / size, b / size) for a, b in zip(loss.tolist(), right.tolist(), strict=True)]
        return [scores[self._position[replica]] for replica in range(self.replicas)]

    def weights(self, replica: int = 0) -> Weights:
        """Return a copy of a replica's state_dict on the CPU."""
        place = self._position[replica]
        stacked = self._parameters | self._others
        return {name: copied(stacked[name][place]) for name in self._module.state_dict()}

    def optimizer_state(self, replica: int = 0) -> dict[str, Tensor]:
        """Return a copy of a replica's optimiser tensors as "slot/parameter", as the dense engine does."""
        place, found = self._position[replica], {}
        for name, parameter in self._parameters.items():
            for slot, value in self._optimizer.state.get(parameter, {}).items():
                if value is not None:  # only this replica's part of it goes to the CPU
                    found[f"{slot}/{name}"] = copied(value if slot == "step" else value[place])
        return found

    def _look_up(self, batches: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs [replicas, batch, ...] and targets [replicas, batch] of example numbers [replicas, batch]."""
        inputs = [held(splits.train).inputs[batches[replicas]] for splits, replicas in self._groups]
        targets = [held(splits.train).targets[batches[replicas]] for splits, replicas in self._groups]
        return torch.cat(inputs), torch.cat(targets)

    def _augment(self, inputs: Tensor, changes: Tensor) -> Tensor:
        """Return the augmented inputs [replicas, batch, ...]; `changes` are the draws [replicas, batch, 3]."""
        return augment(inputs.flatten(0, 1), changes.flatten(0, 1), self._black).view(inputs.shape)
