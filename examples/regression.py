"""Finds tickets of a regression: scikit-learn's diabetes data, mean absolute error, less is better.

python examples/regression.py results/diabetes
"""

import sys

import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.nn import functional

import tombola


def make_model():
    """Return a small perceptron."""
    return nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))


def main(out, rounds=6, trials=5, steps=400):
    """Train all runs; return their results."""
    data = load_diabetes()
    inputs = torch.tensor(20 * data.data, dtype=torch.float32)
    targets = torch.tensor((data.target - 152) / 77, dtype=torch.float32)[:, None]
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    train, validation, test = order[:300], order[300:370], order[370:]
    metric = {"metric": "absolute_error", "better": "lower", "unit": "standard deviations"}
    for run in tombola.rounds(make_model, out=out, rounds=rounds, trials=trials, metric=metric, figures=False):
        optimizer = torch.optim.Adam(run.model.parameters(), lr=1e-3)
        for step in range(1, steps + 1):
            batch = train[torch.randint(len(train), (30,), generator=run.rng)]
            optimizer.zero_grad()
            functional.mse_loss(run.model(inputs[batch]), targets[batch]).backward()
            optimizer.step()
            if step % 20 == 0:
                with torch.no_grad():
                    loss = functional.mse_loss(run.model(inputs[validation]), targets[validation])
                    error = (run.model(inputs[test]) - targets[test]).abs().mean()
                run.report(step, val_loss=loss, absolute_error=error)
    return tombola.Results.open(out)


if __name__ == "__main__":
    frame = main(sys.argv[1]).frame()
    print(frame.groupby(["arm", "level"])[["density", "early_stop_test_absolute_error"]].mean().to_string())
