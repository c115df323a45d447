"""Modules whose weights stand in unusual places, at the top level so that another process can unpickle them."""

import torch
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    """`in_proj_weight` has no layer of its own, and `out_proj.weight` is read without a call of `out_proj`."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)[0]


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 6, num_layers=2, batch_first=True)

    def forward(self, x):
        return self.lstm(x)[0]


class Bare(nn.Module):
    """Parameters without a layer, one of them in a list."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(8, 5))
        self.more = nn.ParameterList([nn.Parameter(torch.randn(5, 4))])

    def forward(self, x):
        return torch.einsum("bti,ij,jk->btk", x, self.w, self.more[0])


class Tied(nn.Module):
    """The decoder's weight is the embedding's."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(8, 6)
        self.decoder = nn.Linear(6, 8, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, x):
        return self.decoder(self.embedding(x.argmax(-1)))


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(8, 4, 3, padding=1)
        self.up = nn.ConvTranspose1d(4, 3, 2, stride=2)

    def forward(self, x):
        return self.up(torch.tanh(self.conv(x.transpose(1, 2))))


class Calls(nn.Module):
    """The second layer's weight is used without a call of the layer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        return functional.linear(self.first(x), self.second.weight)


PARTS = [Attention, Recurrent, Bare, Tied, Conv, Calls]
