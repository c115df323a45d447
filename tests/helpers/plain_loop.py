"""Made-up data, and the plain masked PyTorch loop that every engine has to agree with."""

import copy

import torch
from torch.nn import functional

from tombola.data import Part, Splits
from tombola.networks import examine, initialised
from tombola.pruning import Mask
from tombola.seeds import Seeds
from tombola.training.engine import ReplicaState
from tombola.training.engines.dense import DenseEngine
from tombola.training.order import Order
from tombola.training.recipe import Recipe

CPU = torch.device("cpu")
SEEDS = Seeds(5, 0)


def splits(shape, classes=4, train=230, validation=50, test=70):
    """Noisy clusters, one for each class."""
    generator = torch.Generator().manual_seed(torch.Size(shape).numel())
    centres = torch.randn(classes, *shape, generator=generator)

    def part(examples):
        targets = torch.randint(classes, (examples,), generator=generator)
        return Part(0.5 * centres[targets] + torch.randn(examples, *shape, generator=generator), targets)

    return Splits(part(train), part(validation), part(test), (0.0,), (1.0,), classes)


def random_mask(build, shape, density, seed=1):
    """Keep that share of the weights of every prunable layer, anywhere."""
    generator = torch.Generator().manual_seed(seed)
    shapes = examine(build(), shape).shapes()
    return Mask({name: torch.rand(size, generator=generator) < density for name, size in shapes.items()})


def begin(build, mask, data, seeds=SEEDS):
    """Return a start at iteration 0."""
    return ReplicaState(mask.apply(initialised(build, "glorot-normal", 3).state_dict()), mask, seeds, data)


def engine_at(build, start, recipe, budget=1000):
    return DenseEngine(build, [start], recipe, budget, CPU)


def recipe(**settings):
    return Recipe(**({"lr": 0.01, "batch_size": 20, "iterations": 1000} | settings))


class Plain:
    """A plain loop: backward, step, and the mask multiplied onto the weights after each step."""

    def __init__(self, build, start, recipe, rate, dtype=torch.float32):
        """`rate` gives the learning rate of an iteration."""
        self.module = build().to(dtype)
        self.module.load_state_dict(copy.deepcopy(start.weights))
        self.dtype, self.start, self.rate, self.iteration = dtype, start, rate, start.iteration
        self.order = Order(len(start.splits.train), recipe.batch_size, start.seeds)
        parameters = self.module.parameters()
        if recipe.optimizer == "adam":
            self.optimizer = torch.optim.Adam(
                parameters, betas=(0.9, 0.999), eps=1e-8, weight_decay=recipe.weight_decay
            )
        else:
            self.optimizer = torch.optim.SGD(
                parameters, lr=1.0, momentum=recipe.momentum, weight_decay=recipe.weight_decay
            )

    def step(self):
        """Do one step and return its loss."""
        self.module.train()
        (batch,) = self.order.batches(self.iteration, 1)
        train = self.start.splits.train
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.iteration)
        self.optimizer.zero_grad()
        loss = functional.cross_entropy(self.module(train.inputs[batch].to(self.dtype)), train.targets[batch])
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                if name in self.start.mask:
                    parameter.mul_(self.start.mask[name])
        self.iteration += 1
        return loss.item()


def assert_equal_states(one, other):
    """Require that two dicts of tensors are equal to the last bit."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype, name
        assert torch.equal(tensor, other[name]), name
