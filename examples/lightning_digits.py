"""Tickets of a LightningModule: a small convolutional network on scikit-learn's digits.

python examples/lightning_digits.py results/lightning
"""

import sys

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import tombola
from tombola.integrations.lightning import TombolaCallback


class Digits(lightning.LightningModule):
    """The script's own module, as it was before."""

    def __init__(self):
        super().__init__()
        first, second = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        head = nn.Sequential(nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
        self.layers = nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(2), second, nn.ReLU(), nn.MaxPool2d(2), head)

    def forward(self, images):
        return self.layers(images)

    def training_step(self, batch, number):
        return functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, number, dataloader_idx=0):
        scores, part = self(batch[0]), ("val", "test")[dataloader_idx]
        self.log(f"{part}_loss", functional.cross_entropy(scores, batch[1]), add_dataloader_idx=False)
        self.log(f"{part}_acc", (scores.argmax(1) == batch[1]).float().mean(), add_dataloader_idx=False)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main(out, rounds=3, trials=3, epochs=6):
    """Train all runs; return their results."""
    data = load_digits()
    whole = TensorDataset(torch.tensor(data.images[:, None] / 16, dtype=torch.float32), torch.tensor(data.target))
    parts = torch.utils.data.random_split(whole, [1197, 200, 400], torch.Generator().manual_seed(0))
    train, *others = (DataLoader(part, 50, shuffle=part is parts[0]) for part in parts)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    for run in tombola.rounds(Digits, out=out, rounds=rounds, rate=0.5, trials=trials, inputs=(1, 8, 8)):
        callback = TombolaCallback(run, {"val_loss": "val_loss", "test_acc": "accuracy"})
        trainer = lightning.Trainer(max_epochs=epochs, callbacks=[callback], enable_model_summary=False, **quiet)
        trainer.fit(run.model, train, others)
    return tombola.Results.open(out)


if __name__ == "__main__":
    print(main(sys.argv[1]).frame().groupby(["arm", "level"])[["density", "final_test_accuracy"]].mean().to_string())
