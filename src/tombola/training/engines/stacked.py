"""The stacked engine: many runs of one network and recipe as one batched computation. Made for GPUs.

One small network leaves a GPU idle; a hundred of them, stacked along one more dimension, do not. `torch.func.vmap`
turns each layer's product into a batched one. The loss is summed over replicas, so each replica has its own gradient.
The optimisers work element by element, so one optimiser over stacked tensors is one optimiser per replica.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from tombola.data.augment import Augmentation, augment
from tombola.data.parts import Splits, held
from tombola.training.engine import NetworkFactory, ReplicaState, Score, Weights
from tombola.training.engines.dense import EVALUATION_BLOCK, clear_pruned, clip, copied
from tombola.training.optimizers import make_optimizer, state_of
from tombola.training.order import Order
from tombola.training.recipe import Recipe


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
        with torch.random.fork_rng(devices=[]):  # constructors draw; their values are not used
            self._module = build().to(device)
        if not self.fits(build, first.splits.train.example.inputs):
            raise ValueError(
                "this network can't be stacked: it draws at random, or uses operations that vmap does not support"
            )

        # Replicas with the same data stand together, so that one look-up serves them all.
        groups: dict[int, list[int]] = {}
        for replica, start in enumerate(starts):
            groups.setdefault(id(start.splits), []).append(replica)
        self._replica_order = [replica for group in groups.values() for replica in group]
        ordered = [starts[replica] for replica in self._replica_order]
        self._position = {replica: place for place, replica in enumerate(self._replica_order)}
        self._groups: list[tuple[Splits, slice]] = []
        place = 0
        for group in groups.values():
            self._groups.append((starts[group[0]].splits, slice(place, place + len(group))))
            place += len(group)

        self._orders = [Order(len(start.splits.train), recipe.batch_size, start.seeds) for start in ordered]
        self._augmentations = [
            Augmentation(recipe.augment, recipe.batch_size, start.seeds, start.splits) for start in ordered
        ]
        stacked = {name: torch.stack([start.weights[name] for start in ordered]).to(device) for name in first.weights}
        trained = {name for name, parameter in self._module.named_parameters() if parameter.requires_grad}
        self._parameters = {name: nn.Parameter(stacked[name]) for name in stacked if name in trained}
        self._others = {name: tensor for name, tensor in stacked.items() if name not in trained}
        self._masked = [
            (self._parameters[name], ~torch.stack([start.mask[name] for start in ordered]).to(device))
            for name in first.mask
            if name in trained and not all(bool(start.mask[name].all()) for start in ordered)
        ]
        self._optimizer = make_optimizer(recipe, list(self._parameters.items()))
        for key in first.optimizer:
            slot, _, name = key.partition("/")
            tensors = [start.optimizer[key] for start in ordered]
            # The step counter is one number, the same for all replicas of one iteration.
            value = tensors[0].clone() if slot == "step" else torch.stack(tensors)
            target = "cpu" if slot == "step" and recipe.optimizer == "rmsprop" else device  # which is not fused
            self._optimizer.state[self._parameters[name]][slot] = value.to(target)

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
    def fits(build: NetworkFactory, example: Tensor) -> bool:
        """Return whether a network can be stacked; `example` is a batch of one, on the device to train on."""
        with torch.random.fork_rng(devices=[]):
            module = build().to(example.device)
        if len(list(module.named_parameters())) < len(list(module.named_parameters(remove_duplicate=False))):
            return False  # a tied weight would come apart
        tensors = {name: torch.stack([tensor, tensor]) for name, tensor in module.state_dict().items()}
        batch = example.expand(2, *example.shape[1:])  # batch norm can't train on one example
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)  # it is only a trial
                vmap(lambda weights, inputs: functional_call(module, weights, inputs))(
                    tensors, torch.stack([batch, batch])
                )
        except (RuntimeError, ValueError):  # what vmap raises for randomness and for control flow that reads values
            return False
        return True

    def advance(self, iterations: int) -> list[float]:
        """Train each replica for that many iterations; return each replica's loss on its last batch."""
        self._module.train()
        batches = torch.stack([order.batches(self.iteration, iterations) for order in self._orders]).to(self._device)
        changes = None
        if self._recipe.augment:
            drawn = [each.draws(self.iteration, iterations) for each in self._augmentations]
            changes = torch.stack(drawn, 1).to(self._device)  # [iterations, replicas, batch, 3]
        losses = torch.full((self.replicas,), float("nan"))
        for step in range(iterations):
            for group in self._optimizer.param_groups:
                group["lr"] = self._recipe.learning_rate(self.iteration, self._budget)
            inputs, targets = self._look_up(batches[:, step])
            if changes is not None:
                inputs = self._augment(inputs, changes[step])
            logits = vmap(self._call)(dict(self._parameters), self._others, inputs)
            losses = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
            losses = losses.view(self.replicas, -1).mean(1)
            losses.sum().backward()
            clear_pruned(self._masked)
            if self._recipe.clip_value is not None:
                clip(self._recipe, self._parameters.values())
            self._optimizer.step()
            self._optimizer.zero_grad()
            self.iteration += 1
        found = losses.tolist()
        return [found[self._position[replica]] for replica in range(self.replicas)]

    @torch.no_grad()
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
        place = self._position[replica]
        state = state_of(self._optimizer, self._parameters)
        return {key: value if key.startswith("step/") else value[place].clone() for key, value in state.items()}

    def _call(self, parameters: Mapping[str, Tensor], others: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._recipe.precision == "bfloat16"):
            return functional_call(self._module, {**parameters, **others}, inputs).float()

    def _look_up(self, batches: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs [replicas, batch, ...] and targets [replicas, batch] of example numbers [replicas, batch]."""
        inputs = [held(splits.train).inputs[batches[replicas]] for splits, replicas in self._groups]
        targets = [held(splits.train).targets[batches[replicas]] for splits, replicas in self._groups]
        return torch.cat(inputs), torch.cat(targets)

    def _augment(self, inputs: Tensor, changes: Tensor) -> Tensor:
        """Return the augmented inputs [replicas, batch, ...]; `changes` are the draws [replicas, batch, 3]."""
        black = torch.stack([each.black for each in self._augmentations]).repeat_interleave(inputs.shape[1], 0)
        return augment(inputs.flatten(0, 1), changes.flatten(0, 1), black).view(inputs.shape)
