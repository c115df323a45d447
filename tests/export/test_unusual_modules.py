"""Tickets of modules that share memory, have other types, or are a script's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from tombola.cli import cli
from tombola.errors import InputError
from tombola.export.artefacts import compact_artefact, dense, packed_artefact, pytorch_artefact
from tombola.export.packed.decode import read
from tombola.export.packed.finetune import Tuning
from tombola.export.packed.ticket import largest_difference, load_packed
from tombola.pruning.mask import Mask
from tombola.running.ticket import Ticket


def ticket_of(make, shape, density=0.5, name="__main__:make", masked=None, draw=lambda module: None):
    """Return a ticket of any module."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = make()
        draw(module)
        weights = {key: each for key, each in module.named_parameters() if each.dim() > 1}
        mask = Mask(
            {key: torch.rand(each.shape) < density for key, each in weights.items() if key in (masked or weights)}
        )
    mask.apply_(module)
    start, trained = ({key: each.clone() for key, each in module.state_dict().items()} for _ in range(2))
    origin = {"study": "s", "arm": "ticket", "trial": 0, "level": 1, "network": {"name": name}, "classes": None}
    origin |= {"repeat": 0, "rewind": 0, "job": "", "seed": 0, "draw": 0, "input_shape": list(shape)}
    return Ticket(mask, start, trained, {"mean": [], "std": []}, origin).trusted(make)


def difference(one, other, shape):
    """Return the largest difference of two modules, relative to the largest output."""
    examples = torch.randn(32, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = one.eval()(examples), other.eval()(examples)
    return float((expected - found).abs().max() / expected.abs().max())


class Transposed(nn.Module):
    """An autoencoder whose two hidden layers are one square weight and its transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.encode = nn.Linear(16, 16)
        self.decode = nn.Linear(16, 16)
        self.decode.weight = nn.Parameter(self.encode.weight.t())
        self.last = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.decode(torch.relu(self.encode(self.first(x)))))


class Views(nn.Module):
    """One memory in three layouts: a weight, a part of it and the whole in another shape."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(8, 8)
        self.part = nn.Linear(8, 4)
        self.part.weight = nn.Parameter(self.one.weight[2:6])
        self.other = nn.Parameter(self.one.weight.view(16, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.part(torch.relu(self.one(x))) @ self.other.t()


@pytest.mark.parametrize(
    ("make", "masked"),
    [
        (Transposed, ["encode.weight"]),
        (Transposed, ["encode.weight", "decode.weight"]),
        (Views, ["one.weight"]),
        (Views, None),
    ],
)
@pytest.mark.parametrize("bits", [2, 8])
def test_views_of_one_memory_keep_their_places_and_values(make, masked, bits, tmp_path):
    ticket = ticket_of(make, (8,), masked=masked)
    path = ticket.export("packed", tmp_path / "x", bits=bits, other_bits=8)
    built, packed = ticket.build(trained=True), load_packed(path, factory=make)
    for name, tensor in read(path).tensors.items():
        assert np.array_equal(tensor != 0, built.state_dict()[name].numpy() != 0), name
    if make is Transposed:
        tensors = read(path).tensors
        assert np.array_equal(tensors["encode.weight"].T, tensors["decode.weight"])
    assert bits < 8 or difference(built, packed, (8,)) < 0.03


def test_views_of_one_memory_are_not_fine_tuned(tmp_path):
    examples = torch.randn(200, 8), torch.randint(8, (200,))
    with pytest.raises(InputError, match=r"'encode.weight', 'decode.weight' share memory, which finetune would part"):
        ticket_of(Transposed, (8,)).export("packed", tmp_path / "x", finetune=examples, tuning=Tuning(iterations=1))


class Aliased(nn.Module):
    """The same layers under two names, and a batch norm, which counts batches."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 10)
        self.layers = nn.ModuleList([self.first, self.last])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[1](torch.relu(self.norm(self.layers[0](x))))


def test_layers_of_two_names_count_once(tmp_path):
    ticket = ticket_of(Aliased, (64,), density=0.1, name=f"{__name__}:Aliased").trusted()
    module, whole = ticket.build(trained=True), dense(ticket)
    floats = [each for each in (*module.parameters(), *module.buffers()) if each.is_floating_point()]
    count, pruned = sum(each.numel() for each in floats), ticket.mask.total - ticket.mask.remaining
    assert (whole.parameters, whole.bytes) == (count, 4 * count + 8)
    torch.save(module.state_dict(), tmp_path / "x")
    assert 0 < (tmp_path / "x").stat().st_size - whole.bytes < 8000
    assert pytorch_artefact(ticket).parameters == count - pruned
    assert packed_artefact(ticket).parameters <= count - pruned
    assert compact_artefact(ticket).parameters <= count


def test_the_command_compares_with_what_torch_would_save(tmp_path):
    ticket = ticket_of(Aliased, (64,), name=f"{__name__}:Aliased")
    ticket.save(tmp_path / "ticket")
    arguments = ["export", str(tmp_path / "ticket"), "--to", "packed", "--out", str(tmp_path / "x"), "--trust"]
    said = CliRunner().invoke(cli, arguments, catch_exceptions=False).output
    assert f"the dense network's tensors have {dense(ticket).bytes:,} (" in said


def small():
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 10))


def test_a_packed_file_of_a_script_s_function_is_read_with_a_factory(tmp_path):
    ticket = ticket_of(small, (12,))
    path = ticket.export("packed", tmp_path / "x", bits=8)
    assert difference(ticket.build(trained=True), load_packed(path, factory=small), (12,)) < 0.05
    with pytest.raises(InputError, match=r"a function of a script or notebook.*pass `factory`"):
        load_packed(path, trust=True)
    with pytest.raises(InputError, match="give trust=True to import and call it, or `factory`"):
        load_packed(of_another_module(ticket, tmp_path))


def test_forms_of_a_script_s_function_are_measured():
    ticket = ticket_of(small, (12,))
    for make in (packed_artefact, pytorch_artefact):
        assert make(ticket).run(np.zeros((3, 12), np.float32)).shape == (3, 10)


def of_another_module(ticket, folder):
    """Return a file whose network another module is said to have."""
    origin = ticket.origin | {"network": {"name": "elsewhere:small"}}
    other = Ticket(ticket.mask, ticket.weights, ticket.trained, ticket.normalisation, origin).trusted(small)
    return other.export("packed", folder / "other")


def test_a_recipe_of_a_script_s_function_is_read_with_a_factory(tmp_path):
    from tombola.export.packed.recipe import drawn

    ticket = ticket_of(small, (12,))
    weights = drawn(ticket.origin, {"seed": 0, "draw": 0}, ticket.mask, small)
    ticket = Ticket(ticket.mask, weights, weights, ticket.normalisation, ticket.origin).trusted(small)
    path = ticket.export("packed", tmp_path / "x", form="recipe")
    assert difference(ticket.build(), load_packed(path, factory=small), (12,)) == 0


@pytest.mark.parametrize("kind", [torch.float64, torch.float16])
def test_masked_weights_of_another_type_are_not_packed(kind, tmp_path):
    ticket = ticket_of(lambda: small().to(kind), (12,))
    with pytest.raises(InputError, match=rf"layer '0' uses 'weight' of type {str(kind)[6:]}: convert the network"):
        ticket.export("packed", tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["compact", "c"])
def test_networks_of_another_type_are_refused_by_it(form, tmp_path):
    ticket = ticket_of(lambda: small().double(), (12,))
    with pytest.raises(InputError, match=r"weights of type float64 and fails on inputs of type float32.*convert it"):
        ticket.export(form, tmp_path / "x")


@pytest.mark.parametrize("form", ["compact", "c"])
def test_networks_of_tokens_are_refused_by_them(form, tmp_path):
    ticket = ticket_of(lambda: nn.Sequential(nn.Embedding(50, 8), nn.Flatten(), nn.Linear(40, 3)), (5,))
    with pytest.raises(InputError, match=r"layer '0' takes tokens, but this format.*choose packed or pytorch"):
        ticket.export(form, tmp_path / "x")


class Causal(nn.Module):
    """Attention whose mask is a buffer with infinities."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("causal", torch.triu(torch.full((5, 5), float("-inf")), 1))
        self.query, self.output = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x)
        return self.output((query @ query.transpose(1, 2) + self.causal).softmax(-1) @ x)


def test_a_buffer_with_infinities_is_packed_as_it_is(tmp_path):
    ticket = ticket_of(Causal, (5, 8))
    path = ticket.export("packed", tmp_path / "x", bits=8, other_bits=8)
    packed = load_packed(path, factory=Causal)
    assert torch.equal(packed.state_dict()["causal"], Causal().causal)
    assert difference(ticket.build(trained=True), packed, (5, 8)) < 0.05


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_weight_that_is_not_finite_is_named(value, tmp_path):
    def spoil(module):
        with torch.no_grad():
            module[2].bias[3] = value

    with pytest.raises(InputError, match=r"'2.bias' has numbers that are not finite: export a level"):
        ticket_of(small, (12,), draw=spoil).export("packed", tmp_path / "x")


def test_what_shared_values_of_batch_norm_lose_is_said(tmp_path):
    def spread(module):
        with torch.no_grad():
            module[0].weight.mul_(torch.logspace(-3, 1, 512)[:, None])
            module[1].running_var.copy_(module[0].weight.square().sum(1))
            module[1].running_mean.copy_(module[0].bias)

    ticket = ticket_of(normed, (3,), density=2, name=f"{__name__}:normed", draw=spread)
    ticket.save(tmp_path / "ticket")
    arguments = ["export", str(tmp_path / "ticket"), "--to", "packed", "bits=8", "other_bits=8", "--trust"]
    said = CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path / "x")], catch_exceptions=False).output
    share = largest_difference(ticket, tmp_path / "x")
    assert share is not None
    assert share > 0.1
    assert f"its outputs differ from the ticket's by up to {share:.1%} of the largest, on random inputs" in said


def normed():
    return nn.Sequential(nn.Linear(3, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 10))
