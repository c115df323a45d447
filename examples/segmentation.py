"""Tickets of a network with a segmentation head: which pixels of a noisy image belong to its disc?

python examples/segmentation.py results/discs
"""

import sys

import torch
from torch import nn
from torch.nn import functional

import tombola

SIZE = 24  # pixels


class Segmenter(nn.Module):
    """One level down and up again, with the way around: a small U-Net."""

    def __init__(self, width=12):
        super().__init__()
        self.down, self.bottom = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 2 * width, 3, padding=1)
        self.up, self.merge = nn.ConvTranspose2d(2 * width, width, 2, 2), nn.Conv2d(2 * width, width, 3, padding=1)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, images):
        """Return a score for each pixel: [batch, height, width]."""
        first = torch.relu(self.down(images))
        below = torch.relu(self.bottom(functional.max_pool2d(first, 2)))
        return self.head(torch.relu(self.merge(torch.cat([first, self.up(below)], 1))))[:, 0]


def discs(examples, seed):
    """Return images [N, 1, size, size] and their masks [N, size, size]."""
    generator = torch.Generator().manual_seed(seed)
    down, right, radius = torch.rand(3, examples, 1, 1, generator=generator)
    places = torch.arange(SIZE)
    truth = (places[:, None] - SIZE * down) ** 2 + (places - SIZE * right) ** 2 < (3 + 5 * radius) ** 2
    return (truth + torch.randn(examples, SIZE, SIZE, generator=generator))[:, None], truth.float()


def main(out, rounds=2, trials=3, steps=300):
    """Train all runs; return their results."""
    (images, truth), (test, expected) = discs(1000, 0), discs(200, 1)
    metric, options = {"metric": "iou", "better": "higher", "unit": "%"}, {"inputs": (1, SIZE, SIZE), "figures": False}
    for run in tombola.rounds(Segmenter, out=out, rounds=rounds, rate=0.6, trials=trials, metric=metric, **options):
        optimizer = torch.optim.Adam(run.model.parameters(), lr=3e-3)
        for _ in range(steps):
            batch = torch.randint(len(images), (20,), generator=run.rng)
            optimizer.zero_grad()
            functional.binary_cross_entropy_with_logits(run.model(images[batch]), truth[batch]).backward()
            optimizer.step()
        found, wanted = run.model(test) > 0, expected > 0
        run.report(steps, iou=(found & wanted).sum() / (found | wanted).sum())
    return tombola.Results.open(out)


if __name__ == "__main__":
    print(main(*sys.argv[1:]).frame().groupby(["arm", "level"])[["density", "final_test_iou"]].mean().to_string())
