"""Finds the matching sparsities of a character-level GPT: two layers of attention on a text file.

python examples/char_gpt.py tinyshakespeare/input.txt results/gpt
"""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

import tombola

LENGTH, WIDTH, LAYERS = 64, 128, 2  # characters; units; layers of attention


class Gpt(nn.Module):
    """A transformer that sees earlier characters only."""

    def __init__(self, characters):
        super().__init__()
        self.tokens, self.places = nn.Embedding(characters, WIDTH), nn.Parameter(0.02 * torch.randn(LENGTH, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, characters, bias=False)

    def forward(self, text):  # returns the scores of the next character: [batch, length, characters]
        later = nn.Transformer.generate_square_subsequent_mask(text.shape[1])
        return self.head(self.layers(self.tokens(text) + self.places[: text.shape[1]], mask=later, is_causal=True))


def loss_of(model, text, starts):
    """Return the mean cross-entropy of the next character in nats."""
    rows = text[starts[:, None] + torch.arange(LENGTH + 1)]
    return functional.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())


def main(path, out, steps=1000, rewind=100, batch=32, **options):
    """Train all runs; return their results."""
    characters = Path(path).read_text("utf-8")
    numbers = {each: number for number, each in enumerate(sorted(set(characters)))}
    train, test = torch.tensor([numbers[each] for each in characters]).tensor_split([len(characters) * 9 // 10])
    places = torch.arange(0, len(test) - LENGTH - 1, LENGTH)[:200]
    options = {"rounds": 3, "rate": 0.6, "inputs": torch.zeros(2, LENGTH, dtype=torch.int64), **options}
    for run in tombola.rounds(lambda: Gpt(len(numbers)), out=out, metric="loss", rewind=f"step-{rewind}", **options):
        optimizer = torch.optim.AdamW(run.model.parameters(), lr=1e-3)
        for step in range(run.start_step + 1, steps + 1):
            optimizer.zero_grad()
            loss_of(run.model, train, torch.randint(len(train) - LENGTH, (batch,), generator=run.rng)).backward()
            optimizer.step()
            if f"step-{step}" in run.wanted_snapshots:
                run.snapshot(f"step-{step}")
        run.report(steps, loss=loss_of(run.model, test, places).detach())
    return tombola.Results.open(out)


if __name__ == "__main__":
    print(main(*sys.argv[1:]).frame().groupby(["arm", "level"])[["density", "final_test_loss"]].mean().to_string())
