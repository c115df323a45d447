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


class Lookahead(torch.optim.SGD):
    """Zhang et al. 2019: at each k-th step halfway back to slow weights, which no state holds."""

    def __init__(self, params, lr, k=5):
        super().__init__(params, lr=lr)
        self.slow, self.k = None, k
        for group in self.param_groups:
            group["steps"] = 0

    @torch.no_grad()
    def step(self, closure=None):
        weights = [weight for group in self.param_groups for weight in group["params"]]
        if self.slow is None:
            self.slow = [weight.clone() for weight in weights]
        super().step()
        self.param_groups[0]["steps"] += 1
        if self.param_groups[0]["steps"] % self.k == 0:
            for weight, slow in zip(weights, self.slow, strict=True):
                slow.add_(weight - slow, alpha=0.5)
                weight.copy_(slow)


class Periodic(torch.optim.SGD):
    """Adds a tenth of the first gradient of each period, as some refresh a projection; kept in the state."""

    def __init__(self, params, lr, k=5):
        super().__init__(params, lr=lr)
        self.k = k

    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        for weight in (weight for group in self.param_groups for weight in group["params"]):
            state = self.state[weight]
            state["steps"] = state.get("steps", -1) + 1
            if state["steps"] % self.k == 0:
                state["first"] = weight.grad.clone()
            weight.sub_(state["first"], alpha=0.1 * self.param_groups[0]["lr"])


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
