"""Optimisers that PyTorch lacks, written as their papers describe them: Lion, SAM, and one like Shampoo."""

import torch
from torch.optim import SGD, Optimizer


class Lion(Optimizer):
    """Chen et al. 2023: the sign of an interpolation between momentum and gradient; decoupled weight decay."""

    def __init__(self, params, lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            first, second = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_((momentum * first + p.grad * (1 - first)).sign(), alpha=group["lr"])
                momentum.lerp_(p.grad, 1 - second)


class SAM(Optimizer):
    """Foret et al. 2021: climb to the worst weights nearby, and descend by the gradient there."""

    def __init__(self, params, rho=0.5):
        super().__init__(params, {"rho": rho})
        self.base = SGD(self.param_groups, lr=0.1, momentum=0.9, weight_decay=1e-2)
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def step(self, closure):
        params = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.stack([p.grad.norm() for p in params]).norm()
        before = [p.detach().clone() for p in params]
        for p in params:
            p.add_(p.grad * (self.param_groups[0]["rho"] / norm))
        with torch.enable_grad():
            closure()
        for p, old in zip(params, before, strict=True):
            p.copy_(old)
        self.base.step()


class Shampooish(Optimizer):
    """Gupta et al. 2018, of matrices: the gradient between two factors of its own history."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None or p.dim() != 2:
                    continue
                state = self.state[p]
                left = state.setdefault("left", torch.eye(p.shape[0]) * 1e-3).add_(p.grad @ p.grad.T)
                right = state.setdefault("right", torch.eye(p.shape[1]) * 1e-3).add_(p.grad.T @ p.grad)
                p.sub_(_root(left) @ p.grad @ _root(right), alpha=group["lr"])


def _root(factor):
    """Return factor^(-1/4)."""
    values, vectors = torch.linalg.eigh(factor)
    return vectors @ torch.diag(values.clamp(min=1e-6) ** -0.25) @ vectors.T


class ByHand:
    """No subclass of `Optimizer`, and it changes `.data`: PyTorch sees neither the step nor the change."""

    def __init__(self, params, lr=0.1):
        self.params, self.lr = list(params), lr

    def zero_grad(self):
        for p in self.params:
            p.grad = None

    def step(self):
        for p in self.params:
            if p.grad is not None:
                p.data.add_(p.grad.mean() + p.grad, alpha=-self.lr)  # moves every weight, whatever its own gradient
