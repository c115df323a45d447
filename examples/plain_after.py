"""The script of `plain_before.py`, changed to find the winning tickets of its network."""

import torch
from torch import nn
from torch.nn import functional

import tombola


def make_model():
    return nn.Sequential(nn.Linear(20, 100), nn.ReLU(), nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 4))


def make_data(examples=4000):
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(4, 20, generator=generator)
    labels = torch.randint(4, (examples,), generator=generator)
    return centres[labels] + 2 * torch.randn(examples, 20, generator=generator), labels


def fit(model, inputs, labels, steps=600):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(steps):
        batch = torch.randint(len(inputs), (60,))
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()
        optimizer.step()


def accuracy(model, inputs, labels):
    with torch.no_grad():
        return (model(inputs).argmax(1) == labels).float().mean().item()


if __name__ == "__main__":
    inputs, labels = make_data()
    for run in tombola.rounds(make_model, out="results/plain"):
        fit(run.model, inputs[:3000], labels[:3000])
        run.report(accuracy=accuracy(run.model, inputs[3000:], labels[3000:]))
