"""Packed files: exact, small, and never silently wrong."""

from __future__ import annotations

import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from made_up_tickets import ticket_of
from torch import nn

import tombola
from tombola.errors import InputError
from tombola.export.packed import decode
from tombola.export.packed.decode import read, unpack
from tombola.export.packed.encode import of_shared, pack
from tombola.export.packed.finetune import Tuning, tuned
from tombola.export.packed.share import as_book, share
from tombola.export.packed.ticket import load_packed
from tombola.pruning.mask import Mask

NETWORKS = [
    ("lenet-300-100", {"input_shape": (1, 6, 6), "hidden": [12, 7]}),
    ("conv-2", {"input_shape": (3, 8, 8)}),
    ("resnet-20", {"input_shape": (3, 8, 8), "width": 4}),
]


def outputs(module: nn.Module, ticket: tombola.Ticket) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        return module.eval()(torch.randn(8, *ticket.origin["input_shape"], generator=generator))


@pytest.mark.parametrize(("name", "arguments"), NETWORKS)
def test_a_packed_network_is_the_network_with_its_shared_values(name, arguments, tmp_path):
    ticket = ticket_of(name, density=0.3, **arguments)
    path = ticket.export("packed", tmp_path / "x.tombola", bits=8, other_bits=8)
    network = load_packed(path, trust=":" in name)
    expected, found = outputs(ticket.build(trained=True), ticket), outputs(network, ticket)
    assert float((expected - found).abs().max()) < 0.05 * float(expected.abs().max())
    plain = read(path)
    for key, value in network.state_dict().items():
        assert np.array_equal(plain.tensors[key], value.numpy())
    for layer, keep in ticket.mask.items():
        assert not bool((torch.from_numpy(plain.masks[layer]) & ~keep).any())
        assert len(np.unique(plain.tensors[layer])) <= 2**8 + 1


def test_few_distinct_values_are_kept_exactly(tmp_path):
    ticket = ticket_of(hidden=[12, 7], density=0.5)
    weights = {key: value.sign() if value.dim() > 1 else value * 0 for key, value in ticket.trained.items()}
    ticket = tombola.Ticket(ticket.mask, weights, weights, ticket.normalisation, ticket.origin)
    network = load_packed(ticket.export("packed", tmp_path / "x.tombola", bits=1))
    built = ticket.build(trained=True)
    assert torch.equal(outputs(network, ticket), outputs(built, ticket))


@pytest.mark.parametrize("weights", ["trained", "start"])
def test_either_weights_can_be_packed(weights, tmp_path):
    ticket = ticket_of(hidden=[5], density=0.9)
    other = {key: value * 2 for key, value in ticket.weights.items()}
    ticket = tombola.Ticket(ticket.mask, other, ticket.trained, ticket.normalisation, ticket.origin)
    network = load_packed(ticket.export("packed", tmp_path / "x.tombola", bits=8, weights=weights))
    expected = outputs(ticket.build(trained=weights == "trained"), ticket)
    assert torch.allclose(outputs(network, ticket), expected, rtol=0.05, atol=0.05)


def test_the_decoder_needs_numpy_alone(tmp_path):
    ticket = ticket_of(hidden=[12, 7])
    path = ticket.export("packed", tmp_path / "x.tombola", bits=3)
    script = (
        "import sys\n"
        "class Only:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        top = name.partition('.')[0]\n"
        "        if top not in ('numpy', 'tombola') and top not in sys.stdlib_module_names:\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Only())\n"
        "from tombola.export.packed.decode import read\n"
        "packed = read(sys.argv[1])\n"
        "assert 'torch' not in sys.modules\n"
        "print(sum(float(abs(value).sum()) for value in packed.tensors.values()))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    total = sum(float(value.abs().sum()) for value in load_packed(path).state_dict().values())
    assert float(done.stdout) == pytest.approx(total, rel=1e-5)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    ticket = ticket_of(hidden=[6], density=0.3)
    return ticket.export("packed", tmp_path_factory.mktemp("packed") / "x.tombola", bits=2).read_bytes()


def test_every_flipped_byte_is_an_error(content):
    for place in range(len(content)):
        for change in (1, 0x80, 0xFF):
            damaged = bytearray(content)
            damaged[place] ^= change
            with pytest.raises(InputError):
                unpack(bytes(damaged))


def test_every_shortened_or_lengthened_file_is_an_error(content):
    for length in range(len(content)):
        with pytest.raises(InputError):
            unpack(content[:length])
    with pytest.raises(InputError, match="damaged"):
        unpack(content + b"\0")


def test_sizes_are_checked_before_memory_is_taken(content, monkeypatch):
    small = np.ones((2, 2), np.float32)
    coded = of_shared("w", small, small > 0, share(small.reshape(-1), 1))
    huge = type(coded.entry)("w", "book", (2**40, 2**20), 1, True)
    blob = _with_header(huge)
    with pytest.raises(InputError, match=r"holds 1,152,921,504,606,846,976 values, more than"):
        unpack(blob)
    with pytest.raises(InputError, match="give read"):
        unpack(content, most=10)


def _with_header(entry: decode.Entry) -> bytes:
    """Return a file, checksum and all, that claims a tensor."""
    import hashlib
    import json

    from tombola.export.packed.encode import _line

    deflate = zlib.compressobj(9, zdict=decode.WORDS)
    text = json.dumps({"tensors": [_line(entry)], "about": {}}).encode()
    header = deflate.compress(text) + deflate.flush()
    rest = len(header).to_bytes(4, "little") + header + b"\0" * 64
    return decode.MAGIC + hashlib.sha256(rest).digest()[:8] + rest


@pytest.mark.parametrize(
    "line",
    [
        ["w", "book", [2, -2], 1, 1, 0, 1],
        ["w", "book", [2, 2], 257, 1, 0, 1],
        ["w", "book", [2, 2], 1, 1, 0, 0],
        ["w", "book", [2, 2], 1.5, 1, 0, 1],
        ["w", "other", [2, 2], 1, 1, 0, 1],
        ["w", "plain", [2, 2], "O"],
        ["w", "plain", [2, 2], "nothing"],
        ["w", "book", [1] * 9, 1, 1, 0, 1],
        ["w"],
        7,
    ],
)
def test_a_header_that_makes_no_sense_is_an_error(line, monkeypatch):
    import tombola.export.packed.encode as encode

    monkeypatch.setattr(encode, "_line", lambda entry: line)
    with pytest.raises(InputError, match="unreadable header"):
        unpack(_with_header(decode.Entry("w", "book", (2, 2), 1)))


def test_other_files_are_refused_by_name(tmp_path):
    (tmp_path / "x").write_bytes(b"something else")
    with pytest.raises(InputError, match="is not a packed file"):
        read(tmp_path / "x")
    with pytest.raises(InputError, match="can't read"):
        read(tmp_path / "nothing")
    with pytest.raises(InputError, match="has version 9"):
        unpack(decode.MAGIC[:-1] + b"\x09" + b"0" * 40)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"bits": 0}, "bits 0"),
        ({"other_bits": 9}, "bits 9"),
        ({"values": "means"}, "choose kmeans or grid"),
        ({"form": "seed"}, "choose values or recipe"),
        ({"weights": "best"}, "choose trained or start"),
        ({"bitz": 3}, "has no option 'bitz'; did you mean 'bits'"),
    ],
)
def test_options_out_of_range_are_refused(options, match, tmp_path):
    with pytest.raises(InputError, match=match):
        ticket_of(hidden=[5], density=0.5).export("packed", tmp_path / "x", **options)
    assert not list(tmp_path.iterdir())


def test_a_ticket_without_live_paths_is_refused(tmp_path):
    ticket = ticket_of(hidden=[5], density=0.5)
    mask = Mask({name: keep & False for name, keep in ticket.mask.items()})
    weights = mask.apply(ticket.trained)
    dead = tombola.Ticket(mask, weights, weights, ticket.normalisation, ticket.origin)
    for form in ("packed", "compact"):
        with pytest.raises(InputError, match="no path of kept weights"):
            dead.export(form, tmp_path / "x")


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(tombola.StoreError, match="name an existing folder with free space; tombola wrote nothing"):
        ticket_of(hidden=[5], density=0.5).export("packed", tmp_path / "no" / "x")


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    import errno
    import os

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "x").write_bytes(b"before")
    ticket = ticket_of(hidden=[5], density=0.5)
    monkeypatch.setattr(os, "fsync", full)
    for form in ("packed", "compact"):
        with pytest.raises(tombola.StoreError, match="No space left on device"):
            ticket.export(form, tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"before"


@pytest.mark.parametrize("method", ["kmeans", "grid"])
@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_shared_values_stand_for_all_values(method, bits):
    values = np.random.default_rng(0).standard_normal(500).astype(np.float32)
    shared = share(values, bits, method)
    assert 1 < shared.count <= 2**bits
    assert (np.diff(shared.values) > 0).all()
    found = shared.values[shared.nearest(values)]
    distances = np.abs(values[:, None] - shared.values[None])
    assert np.abs(values - found) == pytest.approx(distances.min(1))
    if method == "kmeans" and bits > 1:
        assert np.square(values - found).mean() < np.square(values - _grid(values, bits)).mean()


def _grid(values, bits):
    shared = share(values, bits, "grid")
    return shared.values[shared.nearest(values)]


def test_values_without_numbers_are_refused():
    with pytest.raises(InputError, match="not finite"):
        share(np.array([1, np.nan], np.float32), 4)
    assert as_book(np.zeros(3)).values.tolist() == [0.0]


def test_fine_tuning_lowers_the_loss_and_keeps_zeros_and_the_number_of_values(tmp_path):
    ticket = ticket_of(hidden=[16], density=0.5, classes=3)
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 1, 6, 6, generator=generator)
    targets = torch.randint(3, (600,), generator=generator)
    inputs = centres[targets] + 0.5 * torch.randn(600, 1, 6, 6, generator=generator)

    def loss(network):
        with torch.no_grad():
            return float(nn.functional.cross_entropy(network(inputs), targets))

    tuning = Tuning(iterations=150, lr=1e-2, book_lr=1e-2)
    before = load_packed(ticket.export("packed", tmp_path / "a", bits=2))
    again = ticket.export(
        "packed",
        tmp_path / "b",
        bits=2,
        finetune=(inputs, targets),
        tuning=tuning,
    )
    after = load_packed(again)
    assert loss(after) < 0.5 * loss(before)
    for name, keep in ticket.mask.items():
        weight = after.state_dict()[name]
        assert not bool(weight[~keep].any())
        assert len(weight[keep].unique()) <= 5
    same = ticket.export(
        "packed",
        tmp_path / "c",
        bits=2,
        finetune=(inputs, targets),
        tuning=tuning,
    )
    assert same.read_bytes() == again.read_bytes()


def test_fine_tuning_refuses_what_it_can_not_do(tmp_path):
    ticket = ticket_of(hidden=[5], density=0.5)
    few = torch.zeros(3, 1, 6, 6), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(InputError, match="do not fill a batch of 100"):
        ticket.export("packed", tmp_path / "x", finetune=few)
    with pytest.raises(InputError, match="stay evenly spaced"):
        ticket.export("packed", tmp_path / "x", values="grid", finetune=few)


def test_the_gradient_of_a_shared_value_is_the_sum_over_its_weights():
    """One step without momentum, against Han et al. 2016, Equation 3, by hand."""
    module = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, -1.0, 1.0, 0.0], [-1.0, 1.0, -1.0, -1.0]]))
    inputs, targets = torch.eye(4)[:2].repeat(50, 1), torch.tensor([0, 1]).repeat(50)
    keep = module.weight.detach() != 0
    shared = {"weight": as_book(np.array([-1.0, 1.0]))}
    result, symbols = tuned(
        module, {"weight": keep}, shared, (inputs, targets), Tuning(iterations=1, lr=0.0, book_lr=0.01)
    )["weight"]
    weight = module.weight.detach().clone().requires_grad_()
    nn.functional.cross_entropy(inputs @ weight.T, targets).backward()
    assert weight.grad is not None
    for number, sign in enumerate((-1.0, 1.0)):
        gradient = float(weight.grad[weight.detach() == sign].sum())
        step = -0.01 * np.sign(gradient)  # the first step of Adam
        assert result.values[number] == pytest.approx(sign + step, abs=2e-3)
    assert symbols.tolist() == (module.weight.detach()[keep] > 0).long().tolist()


def test_a_user_s_network_is_not_imported_without_trust(tmp_path):
    path = ticket_of("made_up_modules:tied", (4,), density=0.6).export("packed", tmp_path / "x", bits=3)
    with pytest.raises(InputError, match="'made_up_modules:tied', a function of a user's: give trust=True"):
        load_packed(path)


def test_the_walk_of_a_tied_weight_gives_both_names_the_same_values(tmp_path):
    ticket = ticket_of("made_up_modules:tied", (4,), density=0.6)
    network = load_packed(ticket.export("packed", tmp_path / "x", bits=3), trust=True)
    assert torch.equal(network.state_dict()["1.weight"], network.state_dict()["3.weight"])
    assert pack([], {"form": "values"})
