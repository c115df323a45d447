"""Tickets of a timm ConvNeXt, from its configuration, on images of CIFAR-10 in an .npz file.

python examples/timm_cifar.py cifar10_10k.npz results/timm
"""

import sys

import numpy as np
import timm
import torch
from torch.nn import functional

import tombola


def make_model():
    """Return a small ConvNeXt for images of 32 pixels; nothing is downloaded."""
    sizes = {"depths": (1, 1, 2, 1), "dims": (16, 32, 64, 128), "patch_size": 2}
    return timm.create_model("convnext_atto", pretrained=False, num_classes=10, **sizes)


def images_of(file, part, examples):
    """Return images [N, 3, 32, 32], normalised, and their classes."""
    images = torch.tensor(file[f"x_{part}"][:examples], dtype=torch.float32) / 255
    return (images - 0.47) / 0.25, torch.tensor(file[f"y_{part}"][:examples], dtype=torch.int64)


def main(path, out, rounds=2, trials=5, steps=300, examples=10_000):
    """Train all runs; return their results."""
    with np.load(path) as file:
        (train, targets), (test, truth) = images_of(file, "train", examples), images_of(file, "test", examples)
    options = {"rounds": rounds, "rate": 0.6, "trials": trials, "inputs": (3, 32, 32), "figures": False}
    for run in tombola.rounds(make_model, out=out, **options):
        optimizer = torch.optim.AdamW(run.model.parameters(), lr=2e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            batch = torch.randint(len(train), (64,), generator=run.rng)
            optimizer.zero_grad()
            functional.cross_entropy(run.model(train[batch]), targets[batch]).backward()
            optimizer.step()
            schedule.step()
        run.model.eval()
        with torch.no_grad():
            run.report(steps, accuracy=(run.model(test).argmax(1) == truth).float().mean())
    return tombola.Results.open(out)


if __name__ == "__main__":
    print(main(*sys.argv[1:]).frame().groupby(["arm", "level"])[["density", "final_test_accuracy"]].mean().to_string())
