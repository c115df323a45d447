"""Which axes of a weight are inputs and outputs, against layouts that PyTorch documents and products by hand."""

from __future__ import annotations

import pytest
import torch
from layout_nets import Conv1D
from test_coverage import FORMS, Around, Bare, encoder, lstm
from torch import Tensor, nn

from tombola.networks import examine, initialised
from tombola.networks.axes import PLAIN, Axes
from tombola.networks.initialise import layer_axes

BACK = Axes(outputs=(1,), inputs=(0,))  # [inputs, outputs]


class Taken(nn.Module):
    """One weight, and what is done with it."""

    def __init__(self, shape, takes):
        super().__init__()
        self.weight, self.takes = nn.Parameter(torch.randn(shape)), takes

    def forward(self, x: Tensor) -> Tensor:
        return self.takes(x, self.weight)


def axes_of(module: nn.Module, shape: tuple[int, ...]) -> list[Axes | None]:
    return [layer.axes for layer in examine(module, shape).layers]


def image(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, nn.Flatten())


@pytest.mark.parametrize("form", FORMS)
def test_a_product_tells_inputs_from_outputs_whatever_the_view(form):
    """Of the forms, two take [outputs, inputs]; two are reshaped from three axes."""
    wanted = dict.fromkeys(FORMS, BACK) | {"linear": PLAIN, "convolved": PLAIN}
    wanted |= {"reshaped": Axes(outputs=(2,), inputs=(0, 1)), "permuted": Axes(outputs=(1,), inputs=(0, 2))}
    assert axes_of(Bare([form]), (6,)) == [wanted[form], PLAIN]


CASES = {
    "Linear": (nn.Linear(8, 24), (8,), [PLAIN]),
    "one output": (nn.Linear(8, 1), (8,), [PLAIN]),
    "one input": (nn.Linear(1, 8), (1,), [PLAIN]),
    "Conv2d": (image(nn.Conv2d(4, 8, 3)), (4, 5, 5), [PLAIN]),
    "Conv2d, groups": (image(nn.Conv2d(4, 8, 3, groups=2)), (4, 5, 5), [PLAIN]),
    "depthwise": (image(nn.Conv2d(4, 4, 3, groups=4)), (4, 5, 5), [PLAIN]),
    "Conv1D": (Conv1D(24, 8), (3, 8), [BACK]),
    "ConvTranspose1d": (image(nn.ConvTranspose1d(4, 6, 2)), (4, 5), [BACK]),
    "ConvTranspose2d": (image(nn.ConvTranspose2d(4, 6, 3)), (4, 5, 5), [BACK]),
    "ConvTranspose2d of one channel": (image(nn.ConvTranspose2d(1, 6, 3)), (1, 5, 5), [BACK]),
    "ConvTranspose2d to one channel": (image(nn.ConvTranspose2d(6, 1, 3)), (6, 5, 5), [BACK]),
    "ConvTranspose2d, groups": (
        image(nn.ConvTranspose2d(4, 6, 3, groups=2)),
        (4, 5, 5),
        [Axes(outputs=(1,), inputs=(0,), groups=2)],
    ),
    "x @ W": (Taken((8, 24), lambda x, w: x @ w), (8,), [BACK]),
    "x @ W of a sequence": (Taken((8, 24), lambda x, w: x @ w), (3, 8), [BACK]),
    "x @ W.T": (Taken((24, 8), lambda x, w: x @ w.T), (8,), [PLAIN]),
    "W @ x": (Taken((24, 8), lambda x, w: w @ x[:, :, None]), (8,), [PLAIN]),
    "Bilinear": (
        Taken((3, 4, 5), lambda x, w: nn.functional.bilinear(x, x[:, :1].repeat(1, 5), w)),
        (4,),
        [Axes(inputs=(1, 2))],
    ),
    "LSTM": (lstm(), (5, 20), [PLAIN] * 3),
    "LSTM with projection": (
        Around(nn.LSTM(6, 5, proj_size=3, batch_first=True), 3, lambda result: result[0][:, -1]),
        (7, 6),
        [PLAIN] * 4,
    ),
    "MultiheadAttention": (encoder(), (5, 16), [PLAIN] * 9),
    "queries, keys and values apart": (
        Taken((24, 8), lambda x, w: torch.cat([x @ each.T for each in w.chunk(3)], 1)),
        (8,),
        [PLAIN],
    ),
    "heads": (Taken((2, 5, 7), lambda x, w: torch.einsum("bi,hio->bho", x, w)), (5,), [Axes(outputs=(0, 2))]),
    "heads of their own": (
        Taken((2, 5, 7), lambda x, w: torch.einsum("bhi,hio->bho", x, w)),
        (2, 5),
        [Axes(outputs=(0, 2))],
    ),
    "heads together": (
        Taken((2, 5, 7), lambda x, w: torch.einsum("bhi,hio->bo", x, w)),
        (2, 5),
        [Axes(outputs=(2,), inputs=(0, 1))],
    ),
    "one of several matrices": (Taken((2, 5, 7), lambda x, w: x @ w[1]), (5,), [Axes(outputs=(0, 2))]),
    "inputs one by one": (
        Taken((8, 24), lambda x, w: sum(x[:, each : each + 1] @ w[each : each + 1] for each in range(8))),
        (8,),
        [BACK],
    ),
    "outputs one by one": (
        Taken((24, 8), lambda x, w: torch.cat([x @ w[each : each + 1].T for each in range(24)], 1)),
        (8,),
        [PLAIN],
    ),
    "inputs one by one, to a single output": (
        Taken((8, 1), lambda x, w: sum(x[:, each : each + 1] @ w[each : each + 1] for each in range(8))),
        (8,),
        [None],
    ),
    "unfolded": (
        Taken((6, 4, 3, 3), lambda x, w: w.view(6, -1) @ nn.functional.unfold(x, 3)),
        (4, 5, 5),
        [Axes(inputs=(1, 2, 3))],
    ),
    "stacked": (Taken((8, 24), lambda x, w: torch.einsum("bi,kio->bko", x, torch.stack([w, w]))), (8,), [BACK]),
    "both ways": (Taken((8, 24), lambda x, w: x @ w @ w.T), (8,), [None]),
    "an axis split between inputs and outputs": (
        Taken((10, 7), lambda x, w: torch.einsum("bi,hio->bho", x, w.view(2, 5, 7))),
        (5,),
        [None],
    ),
    "gathered": (
        Taken((8, 24), lambda x, w: x @ w.gather(0, torch.arange(8)[:, None].expand(8, 24))),
        (8,),
        [None],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_layouts(case):
    module, shape, wanted = CASES[case]
    assert axes_of(module, shape) == wanted


def test_an_embedding_that_is_only_looked_up_has_no_inputs():
    module = Around(nn.Embedding(9, 4), 4, lambda result: result.mean(1))
    (table, head) = examine(module, torch.zeros(2, 3, dtype=torch.long), embeddings=True).layers
    assert (table.axes, head.axes) == (None, PLAIN)


def test_a_weight_is_arranged_by_its_axes():
    """A unit of a grouped transposed convolution belongs to its group: 2 inputs each, 3 outputs in each of 2 groups."""
    weight = torch.randn(4, 3, 2, 2)
    arranged = Axes(outputs=(1,), inputs=(0,), groups=2).arranged(weight)
    assert arranged.shape == (6, 2, 4)
    for group in range(2):
        for unit in range(3):
            expected = weight[2 * group : 2 * group + 2, unit].flatten(1)
            assert torch.equal(arranged[3 * group + unit], expected)
    assert torch.equal(PLAIN.arranged(weight), weight.flatten(2))
    assert torch.equal(BACK.arranged(weight), weight.transpose(0, 1).flatten(2))


@pytest.mark.parametrize("case", [case for case, (_, _, wanted) in CASES.items() if len(wanted) == 1 and wanted[0]])
def test_an_output_unit_decides_its_own_outputs_alone(case):
    """With one row of [outputs, inputs, window] at 0, one channel at most of the result changes: that of the unit."""
    module, shape, wanted = CASES[case]
    inputs = torch.randn(2, *shape)
    before = module(inputs)
    weight = next(each for each in module.parameters() if each.dim() > 1)
    rows = wanted[0].places(weight.shape).flatten(1)
    most = before[0].numel() / len(rows)
    if case == "one of several matrices":
        rows, most = rows[7:], 1  # the first of two matrices takes no part
    for row in rows:
        kept = weight.detach().clone()
        with torch.no_grad():
            weight.view(-1)[row] = 0
            changed = int((module(inputs) != before).any(0).sum())
            weight.copy_(kept)
        assert 0 < changed <= most


@pytest.mark.parametrize("case", ["Linear", "Conv2d, groups", "Conv1D", "ConvTranspose1d", "ConvTranspose2d, groups"])
def test_the_axes_of_a_layer_by_its_kind_are_those_of_its_product(case):
    module, _, wanted = CASES[case]
    assert [found for layer in module.modules() if (found := layer_axes(layer))] == wanted


FANS = {  # in, out
    "Conv1D": (lambda: Conv1D(120, 400), 400, 120),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(60, 40, 3), 60 * 9, 40 * 9),
    "ConvTranspose2d, groups": (lambda: nn.ConvTranspose2d(160, 20, 4, groups=4), 40 * 16, 20 * 16),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(200, 80, 2), 400, 160),
}


@pytest.mark.parametrize("scheme", ["glorot-normal", "glorot-uniform", "kaiming-normal", "kaiming-uniform"])
@pytest.mark.parametrize("case", FANS)
def test_layers_of_another_layout_are_drawn_by_their_own_fans(case, scheme):
    build, inputs, outputs = FANS[case]
    layer, same, other = (initialised(build, scheme, seed) for seed in (1, 1, 2))
    variance = 2 / inputs if "kaiming" in scheme else 2 / (inputs + outputs)
    assert layer.weight.var().item() == pytest.approx(variance, rel=0.06)
    assert (layer.bias == 0).all()
    assert torch.equal(layer.weight, same.weight)
    assert not torch.equal(layer.weight, other.weight)


@pytest.mark.parametrize("scheme", ["glorot-uniform", "kaiming-normal"])
def test_a_transposed_layer_is_drawn_as_its_transpose_is(scheme):
    """The same numbers of the generator, in another order."""
    turned = initialised(lambda: Conv1D(24, 8), scheme, 3).weight
    assert torch.equal(turned.T, initialised(lambda: nn.Linear(8, 24), scheme, 3).weight)
    turned = initialised(lambda: nn.ConvTranspose2d(4, 6, 3), scheme, 3).weight
    assert torch.equal(turned.transpose(0, 1), initialised(lambda: nn.Conv2d(4, 6, 3), scheme, 3).weight)


def test_coverage_says_which_layers_a_scheme_draws():
    module = Around(nn.LSTM(6, 5, batch_first=True), 5, lambda result: result[0][:, -1])
    assert [layer.drawn for layer in examine(module, (7, 6)).layers] == [False, False, True]
    assert all(layer.drawn for layer in examine(image(nn.ConvTranspose2d(4, 6, 3)), (4, 5, 5)).layers)
    (bare,) = examine(Taken((8, 24), lambda x, w: x @ w), (8,)).layers
    assert not bare.drawn
