"""Which networks can be stacked: what `torch.func.vmap` can batch, and dropout layers, whose draws come from outside.

Dropout in a stack must draw for each replica what that replica would draw alone. So the layer multiplies by numbers
that are drawn beforehand, by the same calls in the same order as in the replica's own forward pass. A CUDA graph then
needs no random numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from tombola.networks import initialised
from tombola.seeds import Seeds, draw_states, own_draws, seed_torch
from tombola.training.engine import NetworkFactory
from tombola.training.engines.dense import for_half, laid_out_for
from tombola.training.engines.mlp_trace import hooks_gradients
from tombola.training.engines.repeated import first_line, out_of_memory


class GivenDropout(nn.Module):
    """Dropout by given factors: 0.0 for what is dropped, 1 / (1 - p) for what is kept.

    Attributes:
        factors: of the shape of the inputs; a caller of the network gives them as a buffer of this name.
    """

    factors: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factors", torch.ones(()), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return the inputs times the factors, or as they are in evaluation."""
        return input * self.factors if self.training else input


@dataclass(frozen=True)
class Draw:
    """What a dropout layer draws in each forward pass.

    Args:
        name: of the buffer of factors.
        p: the probability that a number is dropped.
        like: a tensor of the shape and type of the layer's inputs, all ones.
    """

    name: str
    p: float
    like: Tensor


class StackableModule:
    """A network whose forward pass `torch.func.vmap` can batch over replicas.

    Args:
        build: makes the network.
        example: a batch of one, on the device to train on.
        batch_size: of training.
        precision: of training.

    Raises:
        ValueError: it can't be stacked; the message names the layer and the reason.
    """

    def __init__(self, build: NetworkFactory, example: Tensor, batch_size: int, precision: str):
        self.module = initialised(build, "pytorch", 0).to(example.device)  # what is drawn is not used
        self._device, self._half = example.device, precision == "bfloat16"
        if self._half:
            self.module = for_half(self.module)
        alone = dict(self.module.named_parameters())
        for name, _ in self.module.named_parameters(remove_duplicate=False):
            if name not in alone:  # a stack would hold it twice, and the two would come apart
                raise ValueError(f"{name.rpartition('.')[0]}: it shares a parameter with another layer")
        for name, layer in self.module.named_modules():
            if hooks_gradients(layer):
                raise ValueError(f"{name or 'the network'}: it has hooks on gradients, which a stack does not call")
        batch = example.expand(max(2, batch_size), *example.shape[1:])  # batch norm can't train on one example
        # Dropout draws number by number as they lie in memory, which is as they lie in a run alone.
        self.draws = self._take_dropouts(laid_out_for(batch, self._half))
        self._try(batch)

    def __call__(self, tensors: Mapping[str, Tensor], others: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Return one replica's class scores in float32; called under `vmap`."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half, cache_enabled=False):
            return functional_call(self.module, {**tensors, **others}, inputs).float()

    def stack(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return one tensor of each replica, as one on the device; kernels of convolutions lie as in a run alone.

        The batched convolution takes its layout from its weights, and the layers after it keep that.
        """
        stacked = torch.stack(list(tensors)).to(self._device)
        if not self._half or stacked.dim() != 5:
            return stacked
        return stacked.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, stacked.shape[:2])

    def _take_dropouts(self, batch: Tensor) -> list[Draw]:
        """Put `GivenDropout` instead of dropout layers; return what they draw, in the order of their calls."""
        layers = {n: m for n, m in self.module.named_modules() if type(m) is nn.Dropout and m.p > 0}
        if not layers:
            return []
        called: list[tuple[str, Tensor]] = []

        def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], dict[str, Tensor]], None]:
            return lambda _, given, options: called.append((name, torch.ones_like(*given, *options.values())))

        hooks = [layer.register_forward_pre_hook(note(name), with_kwargs=True) for name, layer in layers.items()]
        with torch.no_grad(), own_draws(self._device), self._naming_the_layer():
            self({}, {}, batch)
        for hook in hooks:
            hook.remove()
        for name, layer in layers.items():
            if [each for each, _ in called].count(name) != 1:
                raise ValueError(f"{name}: a dropout layer must be called exactly once in a forward pass")
            parent, _, child = name.rpartition(".")
            setattr(self.module.get_submodule(parent), child, GivenDropout().to(self._device).train(layer.training))
        return [Draw(f"{name}.factors", layers[name].p, like) for name, like in called]

    def _try(self, batch: Tensor) -> None:
        """Compute a stack of two, with gradients as in training, and as in an evaluation."""
        trained = {name for name, each in self.module.named_parameters() if each.requires_grad}
        tensors = {name: torch.stack([each, each]).detach() for name, each in self.module.state_dict().items()}
        leaves = {name: each.requires_grad_() for name, each in tensors.items() if name in trained}
        others = {name: each for name, each in tensors.items() if name not in trained}
        others |= {draw.name: torch.stack([draw.like, draw.like]) for draw in self.draws}
        with own_draws(self._device), emulation_unmentioned(), self._naming_the_layer():
            draws = draw_states()
            scores = vmap(self)(leaves, others, torch.stack([batch, batch]))
            if leaves:
                torch.autograd.grad(scores.sum(), list(leaves.values()), allow_unused=True)
            with torch.no_grad():
                self.module.eval()
                vmap(self, in_dims=(0, None, None))(tensors, {}, batch)
            if draw_states() != draws:  # vmap itself refuses draws of PyTorch
                raise ValueError("its forward pass: it draws random numbers outside PyTorch, which a stack would share")

    @contextmanager
    def _naming_the_layer(self) -> Iterator[None]:
        """Turn what a forward pass raises into a ValueError that names the layer and the reason."""
        inside: list[str] = []
        hooks = []
        for name, layer in self.module.named_modules():
            hooks.append(layer.register_forward_pre_hook(lambda *_, name=name: inside.append(name)))
            hooks.append(layer.register_forward_hook(lambda *_: (inside.pop(), None)[1]))
        try:
            yield
        except (RuntimeError, ValueError) as error:  # what vmap raises
            if out_of_memory(error):
                raise
            where = inside[-1] if inside else ""
            raise ValueError(f"{where or 'its forward pass'}: {_reason(error)}") from error
        finally:
            for hook in hooks:
                hook.remove()


@contextmanager
def emulation_unmentioned() -> Iterator[None]:
    """Silence PyTorch where it emulates a batched operation by a loop: a stack is right all the same."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
        yield


def _reason(error: Exception) -> str:
    """Return in plain words why vmap can't batch an operation."""
    text = str(error)
    if "random operation" in text:
        return "it draws at random, and is not an nn.Dropout layer"
    if ".item()" in text or "control flow" in text:
        return "it reads the values of tensors"
    return f"torch.func.vmap can't batch it: {first_line(error)}"


class Draws:
    """The factors of dropout layers for each step of a stack.

    Args:
        draws: of the network's dropout layers, in the order of their calls.
        seeds: of each replica; replicas of equal seeds draw the same.
        device: of the factors.

    Attributes:
        factors: float [replicas, ...] by the buffer's name; `draw` writes into them.
    """

    def __init__(self, draws: Sequence[Draw], seeds: Sequence[Seeds], device: torch.device):
        self._draws, self._device = draws, device
        self._seeds = list(dict.fromkeys(seeds))
        self._of = torch.tensor([self._seeds.index(each) for each in seeds], device=device)
        self.factors = {draw.name: torch.stack([draw.like] * len(seeds)) for draw in draws}

    def draw(self, iteration: int) -> None:
        """Draw the factors of the step that follows on `iteration`."""
        drawn: dict[str, list[Tensor]] = {draw.name: [] for draw in self._draws}
        for seeds in self._seeds:
            seed_torch(seeds.value("dropout", iteration), self._device)
            for draw in self._draws:
                drawn[draw.name].append(functional.dropout(draw.like, draw.p))
        for name, each in drawn.items():
            torch.index_select(torch.stack(each), 0, self._of, out=self.factors[name])
