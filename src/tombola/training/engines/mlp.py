"""The engine for sparse multilayer perceptrons: whole stretches of training in one compiled loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tombola.data.parts import Part, held
from tombola.pruning.mask import Mask
from tombola.training.engine import ReplicaState, Score, Weights
from tombola.training.engines.kernels import LINE, WIDTH, score_mlp, train_mlp
from tombola.training.engines.mlp_trace import Mlp, is_plain, mlp_of
from tombola.training.engines.mlp_wiring import Layout
from tombola.training.engines.replacing import uses_of, why_not_layer
from tombola.training.order import Order
from tombola.training.recipe import Recipe

PAYS_BELOW = 0.65
"""Density of all weights below which this engine trains faster than the dense one.

Measured on one thread of an AVX-512 processor against a plain masked PyTorch loop with fused Adam. Lenet-300-100 with
batches of 60: 0.94 times as fast at a density of 1, 1.1 at 0.8, 1.4 at 0.65, 1.9 at 0.5, 5 at 0.2, 13 at 0.07, 22 at
0.036, 45 at 0.012. The two meet at 0.8 for Lenet and batches of 128, at 0.65 for layers of 1000 neurons and batches of
128, at 0.55 for layers of 2000 and batches of 256, where a tile no longer fits the second-level cache.
"""

PAYS_BELOW_SMALL = 0.4
"""The same for batches of less than `WIDTH` / 2, which cost what `WIDTH` examples cost. Lenet, batches of 16: 0.48."""

# Iterations that one call trains: Python sees an interruption between two, and the example numbers of all are held.
STRETCH = 500
BETAS = (0.9, 0.999)


class MlpEngine:
    """Trains one multilayer perceptron on the CPU, at a cost that follows its live weights.

    Raises:
        ValueError: more than one replica, a network that is not an MLP, data that do not fit it, augmentation, or
            another device.
    """

    name = "mlp"
    replicas = 1

    def __init__(
        self,
        build: Callable[[], nn.Module],
        starts: Sequence[ReplicaState],
        recipe: Recipe,
        budget: int,
        device: torch.device,
    ):
        if len(starts) != 1:
            raise ValueError(f"the mlp engine trains one replica at a time, not {len(starts)}")
        if device.type != "cpu":
            raise ValueError(f"the mlp engine runs on the CPU, not on {device}")
        if reason := self.why_not_recipe(recipe):
            raise ValueError(reason)
        (start,) = starts
        with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away; so is what they drew
            module = build()
        mlp = self.mlp(module, start.mask)
        if mlp is None:
            raise ValueError("the mlp engine can't train this network: it is not a multilayer perceptron with ReLUs")
        self.iteration = start.iteration
        self._recipe, self._budget, self._splits = recipe, budget, start.splits
        self._order = Order(len(start.splits.train), recipe.batch_size, start.seeds)
        self._mlp = mlp
        self._train = self._arrays(held(start.splits.train))
        self._layout = Layout(mlp, start.mask)
        self._values = self._layout.collect(start.weights)
        self._moments = np.zeros((2, self._layout.size), np.float32)
        self._step = 0
        if start.optimizer:
            first = next(iter(self._layout.slots))
            self._step = int(start.optimizer.get(f"step/{first}", torch.tensor(0)))
            for row, name in zip(self._moments, self._moment_names, strict=False):
                row[:] = self._layout.collect({each: start.optimizer[f"{name}/{each}"] for each in self._layout.slots})

    @staticmethod
    def mlp(module: nn.Module, mask: Mask) -> Mlp | None:
        """Return the MLP that this engine would train, None if it can't train this module and mask."""
        mlp = mlp_of(module)
        return mlp if mlp and mask.keys() <= {layer.weight for layer in mlp.layers} else None

    @staticmethod
    def why_not_recipe(recipe: Recipe) -> str:
        """Return what this engine lacks to follow a recipe; "" where it lacks nothing."""
        if recipe.precision != "float32":
            return f"precision: {recipe.precision}; the mlp engine computes in float32"
        if recipe.augment:
            return "augment: the mlp engine does not augment"
        if recipe.optimizer not in ("adam", "sgd") or recipe.optimizer_options:
            options = f" with {recipe.optimizer_options}" if recipe.optimizer_options else ""
            return f"optimizer: {recipe.optimizer}{options}; the mlp engine supports only plain adam and sgd"
        if recipe.clip_norm is not None or recipe.clip_value is not None:
            return "clip_norm and clip_value: the mlp engine does not clip gradients"
        return ""

    @classmethod
    def why_not(cls, module: nn.Module, mask: Mask, recipe: Recipe) -> str:
        """Return why this engine can't train the module, naming the layer where it is one; "" if it can."""
        if reason := cls.why_not_recipe(recipe):
            return reason
        if cls.mlp(module, mask) is not None:
            return ""
        uses = uses_of(module)
        for name, layer in module.named_modules():
            if list(layer.children()):
                continue
            if not is_plain(layer):
                return f"{name or 'the network'}: a multilayer perceptron has no {type(layer).__name__}"
            if reason := why_not_layer(layer, uses):
                return f"{name or 'the network'}: {reason}"
        return "its forward pass is not a sequence of linear layers with ReLUs between them"

    @classmethod
    def pays(cls, module: nn.Module, mask: Mask, batch_size: int) -> bool:
        """Return whether this engine can train the module, and faster than the dense engine does."""
        mlp = cls.mlp(module, mask)
        if mlp is None:
            return False
        total = live = 0
        for layer in mlp.layers:
            size = layer.inputs * layer.outputs
            total += size
            live += int(mask[layer.weight].sum()) if layer.weight in mask else size
        return live < total * (PAYS_BELOW if batch_size >= WIDTH / 2 else PAYS_BELOW_SMALL)

    def advance(self, iterations: int) -> list[float]:
        """Train for that many iterations; return the last batch's training loss, nan for 0 iterations."""
        loss = float("nan")
        while iterations > 0:
            count = min(STRETCH, iterations)
            rates = [self._recipe.learning_rate(self.iteration + i, self._budget) for i in range(count)]
            sizes, roots = np.array(rates), np.ones(count)
            if self._recipe.optimizer == "adam":
                steps = self._step + 1 + np.arange(count)
                sizes, roots = sizes / (1 - BETAS[0] ** steps), np.sqrt(1 - BETAS[1] ** steps)
            loss = train_mlp(
                self._layout.wiring,
                self._values,
                self._moments,
                (
                    self._recipe.optimizer == "adam",
                    np.float32(self._recipe.momentum),
                    np.float32(self._recipe.weight_decay),
                ),
                sizes.astype(np.float32),
                roots.astype(np.float32),
                *self._train,
                self._order.batches(self.iteration, count).numpy(),
            )
            self.iteration += count
            self._step += count
            iterations -= count
        return [loss]

    def evaluate(self, part: str, check: Callable[[], None] = lambda: None) -> list[Score]:
        """Return the score on a part; `check` is called first and may raise to stop."""
        check()
        inputs, targets = self._arrays(held(getattr(self._splits, part)))
        loss, right = score_mlp(self._layout.wiring, self._values, inputs, targets)
        return [Score(loss / len(targets), right / len(targets))]

    def weights(self, replica: int = 0) -> Weights:
        """Return the whole state_dict; pruned weights are exactly 0.0."""
        return self._layout.spread(self._values)

    def optimizer_state(self, replica: int = 0) -> dict[str, Tensor]:
        """Return what `torch.optim` holds as "exp_avg/fc1.weight" and so on, 0.0 where a weight is pruned."""
        state: dict[str, Tensor] = {}
        for row, name in zip(self._moments, self._moment_names, strict=False):
            state |= {f"{name}/{each}": tensor for each, tensor in self._layout.spread(row).items()}
        if self._recipe.optimizer == "adam":
            state |= {f"step/{each}": torch.tensor(float(self._step)) for each in self._layout.slots}
        return state

    @property
    def _moment_names(self) -> tuple[str, ...]:
        if self._recipe.optimizer == "adam":
            return ("exp_avg", "exp_avg_sq")
        return ("momentum_buffer",) if self._recipe.momentum else ()

    def _arrays(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        """Return a part as float32 [examples, features] and int64 [examples], without a copy where possible."""
        layers = self._mlp.layers
        inputs = part.inputs.contiguous()
        if self._mlp.flattens:
            inputs = inputs.flatten(1)
        if inputs.dim() != 2 or inputs.shape[1] != layers[0].inputs or inputs.dtype != torch.float32:
            raise ValueError(
                f"the network takes float32 [examples, {layers[0].inputs}], the data are "
                f"{inputs.dtype} {list(part.inputs.shape)}"
            )
        # The compiled loop would write where such a target points to.
        if len(part) and not 0 <= int(part.targets.min()) <= int(part.targets.max()) < layers[-1].outputs:
            raise ValueError(f"the network has {layers[-1].outputs} classes, but the data have more")
        if inputs.shape[1] < LINE:
            inputs = nn.functional.pad(inputs, (0, LINE - inputs.shape[1]))
        return inputs.numpy(), part.targets.contiguous().numpy()
