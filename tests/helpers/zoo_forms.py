"""Made-up networks of unusual forward passes: views, shared layers, several inputs, sequences."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from zoo_parts import Kind, Net, chain, conv, linear, net

IMAGE = (3, 6, 5)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))


def _branch(m: Net, x: Tensor) -> Tensor:
    return m.first(x) if x.sum() > 0 else m.second(x)


class Branching(nn.Module):
    """Takes one of two ways, as the example's numbers say."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) if x.sum() > 0 else self.other(x)


class Buffered(nn.Module):
    """Adds a constant and takes steps with the example's own numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.register_buffer("offset", torch.arange(8.0))
        self.register_buffer("order", torch.tensor([3, 1, 7, 0]))
        self.output = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.output((self.first(x) - self.offset)[:, self.order])


class Integers(nn.Module):
    """Scales by a table of bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 3)
        self.register_buffer("table", torch.tensor([3, -2, 1], dtype=torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) * self.table


class Complex(nn.Module):
    """Weights of complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 3, dtype=torch.complex64)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x.to(torch.complex64)).abs()


class SharedBias(nn.Module):
    """Two layers with one bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.third.bias = self.second.bias
        self.output = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, self.second, self.third):
            x = torch.relu(layer(x))
        return self.output(x)


class FixedBatch(nn.Module):
    """Takes batches of a multiple of three examples."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(x.reshape(3, -1, 6).flatten(0, 1))


class Encoder(nn.Module):
    """Attention written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(6, 6) for _ in range(3))
        self.output = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.softmax(self.query(x) @ self.key(x).transpose(1, 2) / 6**0.5, -1)
        return self.output((scores @ self.value(x)).mean(1))


VIEWS: dict[str, Kind] = {
    "mlp": chain((1, 4, 4), nn.Flatten, linear(16, 12), nn.ReLU, linear(12, 8), nn.ReLU, linear(8, 3)),
    "no-biases": chain((10,), linear(10, 12, bias=False), nn.ReLU, linear(12, 3, bias=False)),
    "view": net(IMAGE, lambda m, x: m.output(m.conv(x).view(len(x), -1)), conv=conv(3, 4), output=linear(120, 3)),
    "unflatten": chain((12,), linear(12, 24), lambda: nn.Unflatten(1, (2, 3, 4)), nn.ReLU, conv(2, 3)),
    "permute": net(
        IMAGE,
        lambda m, x: m.output(torch.tanh(m.conv(x)).permute(0, 2, 3, 1)).flatten(1),
        conv=conv(3, 4),
        output=linear(4, 2),
    ),
    "chunk-and-split": net(
        IMAGE,
        lambda m, x: m.last(torch.cat([m.conv(x).chunk(3, 1)[2], *m.conv(x).split([1, 4, 1], 1)[:2]], 1)),
        conv=conv(3, 6),
        last=conv(7, 2),
    ),
    "slices": net(IMAGE, lambda m, x: m.last(m.conv(x)[:, 1::2, ::2, -3:]), conv=conv(3, 6), last=conv(3, 2)),
    "last-step": net(
        (5, 6), lambda m, x: m.output(functional.relu(m.first(x))[:, -1]), first=linear(6, 8), output=linear(8, 3)
    ),
    "unbind-and-stack": net(
        (4, 6), lambda m, x: torch.stack([m.first(each) for each in x.unbind(1)], 1), first=linear(6, 3)
    ),
    "gather": chain((6,), Buffered),
    "expand": net(
        (6,),
        lambda m, x: m.output(m.first(x).unsqueeze(1).expand(-1, 3, -1).flatten(1)),
        first=linear(6, 4),
        output=linear(12, 3),
    ),
    "repeat": net((6,), lambda m, x: m.output(m.first(x).repeat(1, 2)), first=linear(6, 4), output=linear(8, 3)),
    "flip-and-roll": net(
        (6,), lambda m, x: m.output(m.first(x).flip(1).roll(1, 1)), first=linear(6, 4), output=linear(4, 3)
    ),
    "channels-last": net(
        IMAGE,
        lambda m, x: m.output(functional.relu(m.conv(x.contiguous(memory_format=torch.channels_last))).mean((2, 3))),
        conv=lambda: nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last),
        output=linear(5, 3),
    ),
    "scalar-output": net((6,), lambda m, x: m.output(x).squeeze(1), output=linear(6, 1)),
    "scalar-inputs": net((), lambda m, x: m.output(x.unsqueeze(1)), output=linear(1, 3)),
    "across-examples": net((6,), lambda m, x: m.output(x - x.mean(0)), output=linear(6, 3)),
    "fixed-batch": Kind(
        (6,),
        lambda: Net(lambda m, x: m.output(x.reshape(3, -1, 6).flatten(0, 1)), output=nn.Linear(6, 3)),
        counts=(3, 6),
    ),
    "number-of-examples": net((6,), lambda m, x: m.output(x) / len(x), output=linear(6, 3)),
    "squeezed": net((6,), lambda m, x: m.output(x.unsqueeze(2).squeeze()), output=linear(6, 3)),
    "one-number": net((6,), lambda m, x: m.output(x).sum(), output=linear(6, 3)),
}

FORMS: dict[str, Kind] = {
    "shared-layer": net(
        (6,),
        lambda m, x: m.output(torch.tanh(m.both(torch.tanh(m.both(x))))),
        both=linear(6, 6),
        output=linear(6, 3),
    ),
    "shared-convolution": net(
        IMAGE,
        lambda m, x: m.output(functional.relu(m.both(functional.relu(m.both(x)))).mean((2, 3))),
        both=conv(3, 3),
        output=linear(3, 3),
    ),
    "two-branches-of-one-layer": net(
        (6,), lambda m, x: m.output(torch.cat([m.both(x), m.both(-x)], 1)), both=linear(6, 4), output=linear(8, 3)
    ),
    "two-inputs": net(
        {"left": (4,), "right": (5,)},
        lambda m, x: m.output(torch.cat([m.one(x["left"]), m.other(x["right"])], 1)),
        one=linear(4, 5),
        other=linear(5, 4),
        output=linear(9, 3),
    ),
    "two-outputs": net((6,), lambda m, x: (m.first(x), m.second(x)), first=linear(6, 3), second=linear(6, 2)),
    "named-outputs": net((6,), lambda m, x: {"scores": m.first(x)}, first=linear(6, 3)),
    "constants-added": net(
        (6,),
        lambda m, x: 2 - m.output((m.first(x) + 0.5) * 3 / torch.arange(1.0, 9.0) - 1),
        first=linear(6, 8),
        output=linear(8, 3),
    ),
    "scaled-sum": net(
        (6,), lambda m, x: torch.add(m.first(x), m.second(x), alpha=0.5), first=linear(6, 3), second=linear(6, 3)
    ),
    "division": net((6,), lambda m, x: m.first(x) / (1 + m.second(x).abs()), first=linear(6, 3), second=linear(6, 3)),
    "functional-weights": net(
        (6,),
        lambda m, x: functional.linear(functional.relu(functional.linear(x, m.w, m.b)), m.v),
        w=lambda: parameter(8, 6),
        b=lambda: parameter(8),
        v=lambda: parameter(3, 8),
    ),
    "bare-matrix": net(
        (6,),
        lambda m, x: torch.tanh(x @ m.w) @ m.v + m.b,
        w=lambda: parameter(6, 8),
        v=lambda: parameter(8, 3),
        b=lambda: parameter(3),
    ),
    "computed-weight": net((6,), lambda m, x: functional.linear(x, m.w * m.w.abs()), w=lambda: parameter(3, 6)),
    "einsum": net((4, 6), lambda m, x: torch.einsum("bti,ij->btj", x, m.w), w=lambda: parameter(6, 3)),
    "weight-norm": net(
        (6,),
        lambda m, x: m.output(m.first(x)),
        first=lambda: parametrizations.weight_norm(nn.Linear(6, 8)),
        output=linear(8, 3),
    ),
    "orthogonal": net(
        (6,),
        lambda m, x: m.output(m.first(x)),
        first=lambda: parametrizations.orthogonal(nn.Linear(6, 6)),
        output=linear(6, 3),
    ),
    "dropout": chain((6,), linear(6, 8), nn.ReLU, nn.Dropout, linear(8, 3)),
    "dropout-of-channels": chain(IMAGE, conv(3, 4), partial(nn.Dropout2d, 0.3), nn.AlphaDropout, conv(4, 2)),
    "dropout-always": net(
        (6,), lambda m, x: m.output(functional.dropout(m.first(x), 0.5, True)), first=linear(6, 8), output=linear(8, 3)
    ),
    "in-place-sum": net(
        (6,), lambda m, x: m.output(m.first(x).add_(x).relu_()), first=linear(6, 6), output=linear(6, 3)
    ),
    "in-place-after-use": net(
        IMAGE, lambda m, x: (lambda y: torch.cat([functional.relu_(y), y], 1))(m.conv(x)), conv=conv(3, 4)
    ),
    "shared-bias": chain((6,), SharedBias),
    "tied-autoencoder": net(
        (6,),
        lambda m, x: functional.linear(torch.relu(m.first(x)), m.first.weight.t(), m.back),
        first=linear(6, 8),
        back=lambda: parameter(6),
    ),
    "weight-as-number": net(
        (6,),
        lambda m, x: m.output(torch.relu(m.first(x))) * m.output.weight.abs().sum(),
        first=linear(6, 8),
        output=linear(8, 3),
    ),
    "scalar-parameter": net(
        (6,),
        lambda m, x: m.first(x) * m.scale + m.shift,
        first=linear(6, 3),
        scale=lambda: nn.Parameter(torch.tensor(0.5)),
        shift=lambda: nn.Parameter(torch.tensor(1.0)),
    ),
    "small-integers": chain((6,), Integers),
    "unused-layer": net((6,), lambda m, x: m.first(x), first=linear(6, 3), unused=linear(5, 4)),
    "unused-branch": net((6,), lambda m, x: m.first(x) + 0 * m.second(x), first=linear(6, 3), second=linear(6, 3)),
    "identity": chain((6,), nn.Identity, linear(6, 5), nn.Identity, linear(5, 3)),
    "branch": net(
        (8,), lambda m, x: m.output(m.choice(m.first(x))), first=linear(8, 8), choice=Branching, output=linear(8, 3)
    ),
    "branch-of-the-network": net((8,), _branch, first=linear(8, 3), second=linear(8, 3)),
    "float64": net(
        (6,),
        lambda m, x: m.output(m.first(x.double())).float(),
        first=linear(6, 8, dtype=torch.float64),
        output=linear(8, 3, dtype=torch.float64),
    ),
    "float64-output": net(
        (6,), lambda m, x: m.output(m.first(x).double()), first=linear(6, 8), output=linear(8, 3, dtype=torch.float64)
    ),
    "bfloat16": net(
        (6,),
        lambda m, x: m.output(m.first(x.bfloat16())).float(),
        first=linear(6, 8, dtype=torch.bfloat16),
        output=linear(8, 3, dtype=torch.bfloat16),
    ),
}

SEQUENCES: dict[str, Kind] = {
    "complex-weights": chain((6,), Complex),
    "embedding": net(
        (5,), lambda m, x: m.output(m.table(x).mean(1)), 7, table=lambda: nn.Embedding(7, 6), output=linear(6, 3)
    ),
    "lstm": net(
        (5, 6),
        lambda m, x: m.output(m.memory(x)[0][:, -1]),
        memory=lambda: nn.LSTM(6, 5, batch_first=True),
        output=linear(5, 3),
    ),
    "gru": net(
        (5, 6),
        lambda m, x: m.output(m.memory(x)[0][:, -1]),
        memory=lambda: nn.GRU(6, 5, batch_first=True, bidirectional=True),
        output=linear(10, 3),
    ),
    "cell": net((6,), lambda m, x: m.output(m.cell(x)), cell=lambda: nn.GRUCell(6, 5), output=linear(5, 3)),
    "attention": net(
        (5, 6),
        lambda m, x: m.output(m.attention(x, x, x, need_weights=False)[0].mean(1)),
        attention=lambda: nn.MultiheadAttention(6, 2, batch_first=True),
        output=linear(6, 3),
    ),
    "attention-by-hand": chain((5, 6), Encoder),
    "transformer": net(
        (5, 6),
        lambda m, x: m.output(m.layer(x).mean(1)),
        layer=lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True),
        output=linear(6, 3),
    ),
    "mixer": net(
        (5, 6),
        lambda m, x: m.output((x + m.steps(m.channels(x).transpose(1, 2)).transpose(1, 2)).mean(1)),
        steps=linear(5, 5),
        channels=linear(6, 6),
        output=linear(6, 3),
    ),
}
