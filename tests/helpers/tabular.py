"""A table with numbers and categories, and a network that takes each by name."""

import numpy as np
import torch
from torch import nn


def part(rows, seed):
    generator = np.random.default_rng(seed)
    inputs = {
        "numbers": generator.normal(size=(rows, 3)).astype(np.float32),
        "city": generator.integers(0, 4, rows),
        "plan": generator.integers(0, 2, rows),
    }
    return inputs, (inputs["numbers"][:, 0] > 0).astype(np.int64)


def data():
    return {"train": part(60, 1), "test": part(20, 2), "tokens": {"numbers": None, "city": 4, "plan": 2}}


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.city, self.plan = nn.Embedding(4, 2), nn.Embedding(2, 2)
        self.body = nn.Sequential(nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 2))

    def forward(self, numbers, city, plan):
        return self.body(torch.cat([numbers, self.city(city), self.plan(plan)], 1))
