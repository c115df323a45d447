"""The dense engine: plain PyTorch, every weight computed whether it lives or not. It serves any module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from tombola.data.augment import Augmentation, augment
from tombola.data.parts import Part, each_tensor
from tombola.tasks import CLASSIFICATION, Task
from tombola.training.engine import NetworkFactory, Score, Start, Weights
from tombola.training.order import Order
from tombola.training.recipe import Recipe

EVALUATION_BLOCK = Task.block  # examples, of engines that serve classification alone


class DenseEngine:
    """Trains one lane by autograd. Gradients of pruned weights are set to zero before the optimiser sees them.

    A pruned weight starts at 0.0 and its gradient is 0.0, so momentum, Adam's moments and weight decay leave it at
    exactly 0.0, and its optimiser state stays zero too.
    """

    name = "dense"
    lanes = 1
    _evaluation_block: int | None = None  # examples; None takes the task's number

    def __init__(
        self, build: NetworkFactory, starts: Sequence[Start], recipe: Recipe, budget: int, device: torch.device
    ):
        if len(starts) != 1:
            raise ValueError(f"the dense engine trains one lane, not {len(starts)}")
        (start,) = starts
        self.iteration = start.iteration
        self._recipe, self._budget, self._device, self._seeds = recipe, budget, device, start.seeds
        self._splits, self._task = start.splits, start.task
        self._order = Order(len(start.splits.train), recipe.batch_size, start.seeds)
        self._augmentation = Augmentation(recipe.augment, recipe.batch_size, start.seeds, start.splits)
        with torch.random.fork_rng(devices=[]):  # constructors draw; their values are replaced at once
            self._module = build().to(device)
        self._half = recipe.precision == "bfloat16"
        if self._half:
            self._module = for_half(self._module)
        self._module.load_state_dict(start.weights)
        self._parameters = {n: p for n, p in self._module.named_parameters() if p.requires_grad}
        self._masked = [
            (self._parameters[name], torch.empty_like(self._parameters[name], requires_grad=False).copy_(keep))
            for name, keep in start.mask.items()
            if name in self._parameters and not bool(keep.all())  # a frozen weight stays as it is anyway
        ]
        self._optimize(start.optimizer)

    def _optimize(self, state: Mapping[str, Tensor]) -> None:
        """Make the optimiser of the parameters, with the state that `optimizer_state` gave."""
        self._optimizer = make_optimizer(self._recipe, list(self._parameters.values()))
        for key, tensor in state.items():
            slot, _, name = key.partition("/")
            mine = self._optimizer.state[self._parameters[name]]
            if slot == "step":
                mine[slot] = tensor.to(self._device, copy=True)
            else:  # in the parameter's memory format: a fused optimiser takes them to be laid out alike
                mine[slot] = torch.empty_like(self._parameters[name], requires_grad=False).copy_(tensor)

    def advance(self, iterations: int) -> list[float]:
        """Train for that many iterations; return the last batch's loss."""
        self._module.train()
        train = self._splits.train
        batches = self._order.batches(self.iteration, iterations).to(self._device)
        changes = None
        if self._recipe.augment:
            changes = self._augmentation.draws(self.iteration, iterations).to(self._device)
        loss = torch.tensor(float("nan"))
        with own_draws(self._device):
            for step, batch in enumerate(batches):
                self._set_learning_rate()
                self._seed_draws()
                examples = train.select(batch)
                if changes is not None:
                    examples = Part(augment(examples.inputs, changes[step], self._augmentation.black), examples.targets)
                loss = self._task.loss(output_of(self._task, self._module, examples, self._half), examples)
                loss.backward()
                self._step()
                self.iteration += 1
        return [loss.item()]

    def _step(self) -> None:
        """Make one step of the optimiser with the gradients that are there."""
        masked = [(p.grad, keep) for p, keep in self._masked if p.grad is not None]
        if masked:
            torch._foreach_mul_([grad for grad, _ in masked], [keep for _, keep in masked])
        self._optimizer.step()
        self._optimizer.zero_grad()

    @torch.no_grad()
    def evaluate(self, part: str, check: Callable[[], None] = lambda: None) -> list[Score]:
        """Return the score on a part; `check` is called between blocks of examples and may raise to stop."""
        self._module.eval()
        with own_draws(self._device):
            self._seed_draws()
            return [
                score(self._module, getattr(self._splits, part), self._half, check, self._task, self._evaluation_block)
            ]

    def weights(self, lane: int = 0) -> Weights:
        """Return a copy of the state_dict on the CPU."""
        return {name: copied(tensor) for name, tensor in self._module.state_dict().items()}

    def optimizer_state(self, lane: int = 0) -> dict[str, Tensor]:
        """Return a copy of the optimiser's tensors as "slot/parameter", such as "exp_avg/fc1.weight"."""
        return {
            f"{slot}/{name}": copied(value)
            for name, parameter in self._parameters.items()
            for slot, value in self._optimizer.state[parameter].items()
            if isinstance(value, Tensor)
        }

    def _set_learning_rate(self) -> None:
        rate = self._recipe.learning_rate(self.iteration, self._budget)
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def _seed_draws(self) -> None:
        """Make what a module draws in this iteration a function of the seeds and the iteration alone."""
        seed_draws(self._seeds.value("dropout", self.iteration), self._device)


def own_draws(device: torch.device) -> AbstractContextManager[None]:
    """Leave the global generators, which modules draw from, as they were."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def seed_draws(seed: int, device: torch.device) -> None:
    """Seed the global generators of the CPU and of the device."""
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    torch.default_generator.manual_seed(seed)


def for_half(module: nn.Module) -> nn.Module:
    """Return a module made ready for bfloat16, in which convolutions are fast only with channels last."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def output_of(task: Task, module: nn.Module, batch: Part, half: bool) -> Any:
    """Return what a module makes of a batch, its products and convolutions in bfloat16 where `half` is set."""
    if not half:
        return task.forward(module, batch)
    batch = Part(each_tensor(_channels_last, batch.inputs), batch.targets)
    with torch.autocast(batch.device.type, torch.bfloat16):
        return tree_map_only(Tensor, _in_full, task.forward(module, batch))


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _in_full(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


@torch.no_grad()
def score(
    module: nn.Module,
    examples: Part,
    half: bool,
    check: Callable[[], None],
    task: Task = CLASSIFICATION,
    block: int | None = None,
) -> Score:
    """Return how well a module, as it is, does on a part.

    Args:
        module: in the mode that it is to be evaluated in.
        examples: the part.
        half: compute products and convolutions in bfloat16.
        check: called between blocks of examples; may raise to stop.
        task: what is learned.
        block: examples that are computed at a time; None takes the task's number.
    """
    step = block or task.block
    total: Tensor | None = None
    for first in range(0, len(examples), step):
        check()
        batch = examples.select(slice(first, first + step))
        sums = task.sums(output_of(task, module, batch, half), batch)
        total = sums if total is None else total + sums
    assert total is not None  # no part is empty
    loss, metric, *others = task.scores(total.tolist())
    return Score(loss, metric, tuple(others))


def make_optimizer(recipe: Recipe, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the recipe's optimiser, fused: one pass over all parameters."""
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    return torch.optim.SGD(
        parameters, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True
    )


def copied(tensor: Tensor) -> Tensor:
    """Return an independent contiguous copy on the CPU: never a view of what training goes on changing."""
    return tensor.detach().to("cpu", copy=True).contiguous()
