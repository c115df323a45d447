"""The dense engine: plain PyTorch, every weight computed whether it lives or not. It serves any module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map_only

from tombola.data.augment import Augmentation, augment
from tombola.data.parts import Examples, Part, each_tensor
from tombola.networks import initialised
from tombola.seeds import own_draws, seed_draws
from tombola.tasks import CLASSIFICATION, Task
from tombola.training.engine import NetworkFactory, ReplicaState, Score, Weights
from tombola.training.engines.cleared import Pruned, clear_pruned
from tombola.training.optimizers import make_optimizer, rate_shares, restore_state, set_rate, state_of
from tombola.training.order import Order
from tombola.training.recipe import Recipe

EVALUATION_BLOCK = Task.block  # examples, of engines that serve classification alone
EVALUATION_PIECE = 100  # examples through convolutions on the CPU: activations stay in the cache, 1.3 to 2x as fast


class DenseEngine:
    """Trains one replica by autograd. Gradients of pruned weights are set to zero before the optimiser sees them.

    A pruned weight starts at 0.0 and its gradient is 0.0, so momentum, Adam's moments and weight decay leave it at
    exactly 0.0, and its optimiser state stays zero too. Where a start says `frozen`, it gets back its starting value
    after each step instead.
    """

    name = "dense"
    replicas = 1
    _piece: int | None = None  # examples that are evaluated at a time

    def __init__(
        self, build: NetworkFactory, starts: Sequence[ReplicaState], recipe: Recipe, budget: int, device: torch.device
    ):
        if len(starts) != 1:
            raise ValueError(f"the dense engine trains one replica, not {len(starts)}")
        (start,) = starts
        self.iteration = start.iteration
        self._recipe, self._budget, self._device, self._seeds = recipe, budget, device, start.seeds
        self._splits, self._task = start.splits, start.task
        order = Order(len(start.splits.train), recipe.batch_size, start.seeds)
        self._batches = start.splits.train.batches(order.batches, start.iteration)
        self._augmentation = Augmentation(recipe.augment, recipe.batch_size, start.seeds, start.splits)
        self._module = initialised(build, "pytorch", 0).to(device)  # what is drawn is replaced at once
        self._half = recipe.precision == "bfloat16"
        if self._half:
            self._module = for_half(self._module)
        if recipe.precision == "float64":
            self._module = self._module.double()
        self._module.load_state_dict(start.weights)
        self._parameters = {n: p for n, p in self._module.named_parameters() if p.requires_grad}
        self._masked = [
            Pruned(self._parameters[name], ~keep)
            for name, keep in start.mask.items()
            if name in self._parameters and not bool(keep.all())  # a frozen weight stays as it is anyway
        ]
        self._frozen = [each.parameter.detach().clone() for each in self._masked] if start.frozen else []
        self._optimize(start.optimizer)

    def _optimize(self, state: Mapping[str, Tensor]) -> None:
        """Make the optimiser of the parameters, with the state that `optimizer_state` gave."""
        self._optimizer = make_optimizer(self._recipe, list(self._parameters.items()))
        self._rate_shares = rate_shares(self._optimizer, self._recipe)
        restore_state(self._optimizer, self._parameters, state)

    def advance(self, iterations: int) -> list[float]:
        """Train for that many iterations; return the last batch's loss."""
        self._module.train()
        changes = None
        if self._augmentation.kinds:
            changes = self._augmentation.draws(self.iteration, iterations).to(self._device)
        loss = torch.tensor(float("nan"))
        with own_draws(self._device):
            for step in range(iterations):
                examples = next(self._batches)
                self._set_learning_rate()
                self._seed_draws()
                if changes is not None:
                    examples = Part(augment(examples.inputs, changes[step], self._augmentation.black), examples.targets)
                if self._augmentation.own:
                    examples = Part(self._augmentation.own_changes(examples.inputs, self.iteration), examples.targets)
                if self._recipe.precision == "float64":
                    examples = as_precise(examples, self._module)
                loss = self._task.loss(output_of(self._task, self._module, examples, self._half), examples)
                loss.backward()
                self._step()
                self.iteration += 1
        return [loss.item()]

    def _step(self) -> None:
        """Make one step of the optimiser with the present gradients."""
        clear_pruned(self._masked)
        if self._recipe.clip_value is not None or self._recipe.clip_norm is not None:
            clip(self._recipe, self._parameters.values())
            clear_pruned(self._masked)  # a norm that is not finite makes all gradients NaN
        self._optimizer.step()
        for parameter in self._parameters.values():
            parameter.grad = None  # as zero_grad does, which takes longer than this on small networks
        for each, value in zip(self._masked, self._frozen, strict=False):
            each.restore(value)  # weight decay moves a weight that has no gradient
        if not self._frozen and not self._recipe.each_alone:  # such a step may move a weight by the gradients of others
            for each in self._masked:
                each.clear_(each.parameter.detach())

    @torch.no_grad()
    def evaluate(self, part: str, check: Callable[[], None] = lambda: None) -> list[Score]:
        """Return the score on a part; `check` is called between blocks of examples and may raise to stop."""
        self._module.eval()
        with own_draws(self._device):
            self._seed_draws()
            return [score(self._module, getattr(self._splits, part), self._half, check, self._piece, self._task)]

    def weights(self, replica: int = 0) -> Weights:
        """Return a copy of the state_dict on the CPU."""
        return {name: copied(tensor) for name, tensor in self._module.state_dict().items()}

    def optimizer_state(self, replica: int = 0) -> dict[str, Tensor]:
        """Return a copy of the optimiser's tensors as "slot/parameter", such as "exp_avg/fc1.weight"."""
        return state_of(self._optimizer, self._parameters)

    def _set_learning_rate(self) -> None:
        set_rate(self._optimizer, self._rate_shares, self._recipe.learning_rate(self.iteration, self._budget))

    def _seed_draws(self) -> None:
        """Make what a module draws in this iteration a function of the seeds and the iteration alone."""
        seed_draws(self._seeds.value("dropout", self.iteration), self._device)


def for_half(module: nn.Module) -> nn.Module:
    """Return a module made ready for bfloat16, in which convolutions are fast only with channels last.

    The module is changed in place. Weights of three-dimensional convolutions stay as they are.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.to(dtype=tensor.dtype, memory_format=torch.channels_last)
    return module


def output_of(task: Task, module: nn.Module, batch: Part, half: bool) -> Any:
    """Return what a module makes of a batch, its products and convolutions in bfloat16 where `half` is set."""
    if not half:
        return task.forward(module, batch)
    batch = Part(each_tensor(lambda tensor: laid_out_for(tensor, half), batch.inputs), batch.targets)
    with torch.autocast(batch.device.type, torch.bfloat16):
        return tree_map_only(Tensor, _in_full, task.forward(module, batch))


def laid_out_for(tensor: Tensor, half: bool) -> Tensor:
    """Return inputs of a module as they lie in memory in training: images with the channels last for bfloat16."""
    return tensor.contiguous(memory_format=torch.channels_last) if half and tensor.dim() == 4 else tensor


def _in_full(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


@torch.no_grad()
def score(
    module: nn.Module,
    examples: Examples,
    half: bool,
    check: Callable[[], None],
    piece: int | None = None,
    task: Task = CLASSIFICATION,
) -> Score:
    """Return how well a module, as it is, does on a part.

    Args:
        module: in the mode that it will be evaluated in.
        examples: the part.
        half: compute products and convolutions in bfloat16.
        check: called between blocks of examples; may raise to stop.
        piece: examples that go through the module at a time; None for what `piece_of` says. It does not decide in
            which order losses are added up, so the score does not depend on it.
        task: the task to learn.
    """
    piece = piece or piece_of(module)
    total: Tensor | None = None
    for block in examples.blocks(slice(first, first + task.block) for first in range(0, len(examples), task.block)):
        check()
        batch = as_precise(block, module)
        sums = task.sums(_in_pieces(task, module, batch, half, piece), batch)
        total = sums if total is None else total + sums
    assert total is not None  # no part is empty
    loss, metric, *others = task.scores(total.tolist())
    return Score(loss, metric, tuple(others))


def _in_pieces(task: Task, module: nn.Module, batch: Part, half: bool, piece: int) -> Any:
    """Return the output for a batch, computed a few examples at a time where it is a tensor."""
    pieces = [batch.select(slice(first, first + piece)) for first in range(0, len(batch), piece)]
    output = output_of(task, module, pieces[0], half)
    if len(pieces) == 1:
        return output
    if not isinstance(output, Tensor):
        return output_of(task, module, batch, half)
    return torch.cat([output, *(output_of(task, module, each, half) for each in pieces[1:])])


def piece_of(module: nn.Module) -> int:
    """Return how many examples to evaluate at a time: all of a block, or fewer through convolutions on the CPU."""
    on_cpu = all(each.device.type == "cpu" for each in module.parameters())
    images = any(isinstance(each, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) for each in module.modules())
    return EVALUATION_PIECE if on_cpu and images and not sees_the_batch(module) else EVALUATION_BLOCK


def sees_the_batch(module: nn.Module) -> bool:
    """Return whether an example's scores in evaluation depend on the others: batch norm without running statistics."""
    return any(isinstance(each, _BatchNorm) and each.running_mean is None for each in module.modules())


def clip(recipe: Recipe, parameters: Iterable[nn.Parameter]) -> None:
    """Clip gradients as the recipe asks, by value and then by norm."""
    parameters = list(parameters)
    if recipe.clip_value is not None:
        nn.utils.clip_grad_value_(parameters, recipe.clip_value)
    if recipe.clip_norm is not None:
        nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)


def as_precise(examples: Part, module: nn.Module) -> Part:
    """Return examples for a module: their floating-point numbers are float64 where its first parameter is."""
    first = next(module.parameters(), None)
    if first is None or first.dtype != torch.float64:
        return examples

    def double(tensor: Tensor) -> Tensor:
        return tensor.double() if tensor.is_floating_point() else tensor

    return Part(each_tensor(double, examples.inputs), each_tensor(double, examples.targets))


def copied(tensor: Tensor) -> Tensor:
    """Return an independent contiguous copy on the CPU: never a view of what training goes on changing."""
    return tensor.detach().to("cpu", copy=True).contiguous()
