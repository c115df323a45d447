"""What users may name in a recipe: optimisers, schedules and augmentations, good ones and bad ones."""

import torch


def halving(iteration, budget):
    """Half the rate in the second half."""
    return 1.0 if iteration < budget // 2 else 0.5


def vanishing(iteration, budget):
    return 1.0 if iteration < budget - 1 else 0.0


def negative(iteration, budget):
    return -1.0


def failing(iteration, budget):
    raise RuntimeError("no schedule today")


def noise(inputs, generator):
    """Add noise, in place: which must not reach the data."""
    return inputs.add_(0.1 * torch.randn(inputs.shape, generator=generator))


def unseeded(inputs, generator):
    return inputs + torch.randn(inputs.shape)


def cut(inputs, generator):
    return inputs[:, 1:]


class Counting(torch.optim.Optimizer):
    """Keeps a Python number and a text in its state, and counts in its group: all must survive a resume."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr, "k": 0})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["k"] += 1
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p]
                    state["calls"] = state.get("calls", 0) + 1
                    state["scale"] = state.get("scale", 1.0) * 0.97
                    p.sub_(p.grad, alpha=group["lr"] * state["scale"] / (state["calls"] + group["k"]))


class Forgetful(Counting):
    """Keeps its memory beside its state."""

    seen = 0

    @torch.no_grad()
    def step(self, closure=None):
        self.seen += 1
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(p.grad, alpha=group["lr"] / self.seen)


class Hoarding(Counting):
    """Keeps what can't be saved."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["history"] = [p.detach().clone()]


def two_rates(named, lr):
    """Train the first layer at a hundredth of the rate."""
    first, *others = (parameter for _, parameter in named)
    return torch.optim.SGD([{"params": [first], "lr": lr / 100}, {"params": others}], lr=lr)


def no_optimizer(params, lr):
    return "adam"


def jump_at_8(iteration: int, budget: int) -> float:
    """Let training diverge from iteration 8 on."""
    return 1e25 if iteration >= 8 else 1.0


def jump_at_23(iteration: int, budget: int) -> float:
    """Let training diverge from iteration 23 on."""
    return 1e20 if iteration >= 23 else 1.0
