"""A user's own network, trainer and data, as they would stand in a project of theirs."""

import torch
from torch import nn
from torch.nn import functional

NOISE = torch.Generator().manual_seed(5)
CALLS = []  # the runs that `fit` was given


def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def seeded(seed):
    torch.random.manual_seed(seed)  # its own: the global generator is put back all the same
    return make()


def pretrained():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return make()


def pretrained_backbone():
    module = make()
    module[1].load_state_dict(pretrained()[1].state_dict())
    return module


def examples():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(260, 8, generator=generator)
    return inputs, (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long()


def train(model, seed, steps=20, lr=0.02, first=0, after=lambda step: None):
    """Train by plain PyTorch; each step's batch follows from its number."""
    inputs, targets = examples()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for step in range(first, steps):
        batch = torch.randint(200, (20,), generator=torch.Generator().manual_seed(seed * 1000 + step))
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs[batch]), targets[batch]).backward()
        optimizer.step()
        after(step + 1)


def accuracy(model):
    inputs, targets = examples()
    with torch.no_grad():
        return (model(inputs[200:]).argmax(1) == targets[200:]).float().mean()


def fit(run, steps=20, lr=0.02):
    CALLS.append((run.arm, run.trial, run.repeat, run.level))
    train(run.model, run.seed, steps, lr, after=lambda step: run.snapshot("step-5") if step == 5 else None)
    run.report(steps, accuracy=accuracy(run.model))


def wanted(run, seed=None):
    """Train as `fit`, with a snapshot only where one is wanted."""
    CALLS.append((run.arm, run.trial, run.repeat, run.level))

    def after(step):
        if f"step-{step}" in run.wanted_snapshots:
            run.snapshot(f"step-{step}")

    train(run.model, run.seed if seed is None else seed, first=run.start_step, after=after)
    run.report(20, accuracy=accuracy(run.model))


def restless(run):
    """Train otherwise each time, as a GPU may round."""
    wanted(run, int(torch.randint(10**6, (), generator=NOISE)))


def lazy(run):
    """Return early, without a report."""


def fails_at_level_one(run):
    if run.level == 1:
        raise RuntimeError("no more memory for level 1")
    fit(run)
