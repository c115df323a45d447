"""Masks of other tools, the mask's own file, and its table."""

import json
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from net_parts import Attention, Tied
from safetensors.torch import save_file
from test_holding import net, sparse, train
from torch.nn.utils import prune

from tombola.errors import InputError, StoreError
from tombola.pruning import Mask, weights_from_openlth

MASKS = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=12).filter(
        lambda name: name != "__metadata__"
    ),
    st.lists(st.integers(0, 5), max_size=3),
    max_size=4,
)


def drawn(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Mask({name: torch.rand(shape, generator=generator) < 0.5 for name, shape in shapes.items()})


# torch.nn.utils.prune


def pruned_net():
    module = net()
    prune.l1_unstructured(module[0], "weight", 0.3)
    prune.random_unstructured(module[0], "bias", 0.5)
    prune.ln_structured(module[2], "weight", 0.5, n=2, dim=0)
    prune.random_unstructured(module[2], "weight", 0.2)  # on top of the first
    return module


def test_the_mask_of_a_pruned_module_is_where_its_weights_are_not_zero():
    module = pruned_net()
    mask = Mask.from_prune(module)
    assert sorted(mask) == ["0.bias", "0.weight", "2.weight"]
    assert torch.equal(mask["0.weight"], module[0].weight != 0)
    assert torch.equal(mask["2.weight"], module[2].weight != 0)
    assert torch.equal(mask["0.bias"], module[0].bias != 0)
    assert Mask.from_prune(module.state_dict()) == mask


@pytest.mark.parametrize("part", [net, Attention, Tied])
def test_pruning_by_pytorch_and_back(part):
    module = part()
    mask = sparse(module)
    mask.to_prune_(module)
    again = Mask.from_prune(module)
    for name, keep in mask.items():
        assert torch.equal(again[name], keep)
    inputs = torch.randn(2, 12) if part is net else torch.randn(2, 4, 8)
    module(inputs).sum().backward()
    for name in mask:
        path, _, local = name.rpartition(".")
        owner = module.get_submodule(path)
        assert torch.equal(getattr(owner, local) != 0, mask[name])
        prune.remove(owner, local)
    assert Mask.from_weights(module.state_dict(), mask) == mask


def test_a_tied_weight_is_pruned_under_both_names():
    module = Tied()
    mask = sparse(module)
    mask.to_prune_(module)
    module(torch.randn(2, 4, 8))
    assert torch.equal(module.decoder.weight, module.embedding.weight)
    assert torch.equal(module.decoder.weight != 0, mask["embedding.weight"])


def test_a_tied_weight_is_pruned_in_a_state_dict_and_counted_once():
    module = Tied()
    mask = sparse(module)
    pruned = mask.apply(module.state_dict())
    assert torch.equal(pruned["decoder.weight"], pruned["embedding.weight"])
    module.load_state_dict(pruned)
    assert torch.equal(module.decoder.weight != 0, mask["embedding.weight"])
    assert Mask.from_weights(module.state_dict()).total == sum(
        each.numel() for each in module.parameters() if each.dim() > 1
    )


def test_a_state_dict_goes_to_pytorch_pruning_and_back():
    module = net()
    mask, weights = sparse(module), module.state_dict()
    state = mask.to_prune_state(weights)
    target = net()
    mask.to_prune_(target)
    assert state.keys() == target.state_dict().keys()
    target.load_state_dict(state)
    target(torch.randn(2, 12))  # PyTorch multiplies by the mask in the forward
    assert torch.equal(target[0].weight, module[0].weight * mask["0.weight"])
    assert Mask.from_prune(state) == mask
    state["0.weight_orig"].zero_()
    assert bool((weights["0.weight"] != 0).any())  # a copy


def test_pruning_by_pytorch_trains_to_the_same_weights():
    """The two ways of holding a mask agree where PyTorch's holds: SGD without weight decay."""
    held, pruned = net(), net()
    pruned.load_state_dict(held.state_dict())
    mask = sparse(held)
    mask.hold_(held)
    mask.to_prune_(pruned)
    for module in (held, pruned):
        train(module, torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9))
    pruned(torch.randn(2, 12))  # PyTorch multiplies by the mask in the forward
    for name, keep in mask.items():
        number = int(name.split(".")[0])
        torch.testing.assert_close(pruned[number].weight, held[number].weight)
        assert torch.equal(pruned[number].weight != 0, keep)


def test_what_pytorch_pruning_can_not_take():
    module = net()
    with pytest.raises(InputError, match="did not prune this module"):
        Mask.from_prune(module)
    mask = sparse(module)
    hold = mask.hold_(module)
    with pytest.raises(InputError, match=r"a mask holds this module.*release"):
        mask.to_prune_(module)
    hold.release()
    mask.to_prune_(module)
    with pytest.raises(InputError, match=r"torch.nn.utils.prune.remove"):
        mask.to_prune_(module)


def test_bad_masks_of_pytorch_pruning_are_refused():
    state = pruned_net().state_dict()
    with pytest.raises(InputError, match=r"the mask of '0.weight' has shape \(2, 2\), but the weights have \(16, 12\)"):
        Mask.from_prune(state | {"0.weight_mask": torch.ones(2, 2)})
    with pytest.raises(InputError, match=r"'0.weight' has 0.5 among its values"):
        Mask.from_prune(state | {"0.weight_mask": torch.full((16, 12), 0.5)})
    with pytest.raises(InputError, match=r"the mask of 'w' has shape \(3,\), but the weights have \(4,\)"):
        drawn({"w": [3]}).to_prune_state({"w": torch.ones(4)})
    with pytest.raises(InputError, match="the weights have no 'w'"):
        drawn({"w": [3]}).to_prune_state({"v": torch.ones(3)})


# Plain weights


def test_zeros_are_a_mask():
    weights = {
        "fc.weight": torch.tensor([[0.0, -0.0], [torch.nan, 1e-45]]),
        "fc.bias": torch.zeros(2),
        "norm.count": torch.zeros(2, 2, dtype=torch.int64),
    }
    assert Mask.from_weights(weights) == Mask({"fc.weight": torch.tensor([[False, False], [True, True]])})
    assert list(Mask.from_weights(weights, ["fc.bias"])) == ["fc.bias"]
    with pytest.raises(InputError, match=r"the weights have no 'fc.wieght'; did you mean 'fc.weight'"):
        Mask.from_weights(weights, ["fc.wieght"])
    assert Mask.from_weights(weights | {"_extra_state": object()}) == Mask.from_weights(weights)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (torch.nn.Linear(2, 2), r"a Linear has no tensors by name; give a module's state_dict\(\)"),
        ("model.pth", "a str has no tensors by name"),
        ({}, "the weights have no matrix"),
        ({"fc.bias": torch.zeros(2)}, "the weights have no matrix"),
    ],
)
def test_sources_without_weights_are_refused(source, message):
    with pytest.raises(InputError, match=message):
        Mask.from_weights(source)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_a_mask_of_a_wrapped_module_says_what_to_remove(prefix):
    weights = {prefix + name: tensor for name, tensor in net().state_dict().items()}
    with pytest.raises(InputError, match=rf"it is of a wrapped module .*; remove '{prefix}' from the names"):
        Mask.from_weights(weights).hold_(net())


# OpenLTH


def test_openlth_reads_and_writes(tmp_path):
    mask = drawn({"fc_layers.0.weight": [3, 4], "fc.weight": [2, 3]})
    mask.to_openlth(tmp_path / "level_1" / "main")
    folder = tmp_path / "level_1" / "main"
    stored = torch.load(folder / "mask.pth", weights_only=True)
    assert all(tensor.dtype == torch.int32 and set(tensor.unique().tolist()) <= {0, 1} for tensor in stored.values())
    assert json.loads((folder / "sparsity_report.json").read_text()) == {"total": 18.0, "unpruned": mask.remaining}
    assert Mask.from_openlth(folder) == Mask.from_openlth(str(folder / "mask.pth")) == mask
    assert list(Mask.from_openlth(folder)) == list(mask)


def test_openlth_models(tmp_path):
    weights = net().state_dict()
    drawn({"0.weight": [16, 12]}).to_openlth(tmp_path / "own", weights)
    for path in (tmp_path / "own", tmp_path / "own" / "model.pth"):
        found = weights_from_openlth(path)
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[name], weights[name]) for name in weights)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for step, value in (("ep2_it0", 1.0), ("ep10_it5", 2.0), ("ep10_it0", 3.0)):
        state = {"model.fc.weight": torch.full((2, 2), value), "mask_fc___weight": torch.ones(2, 2)}
        torch.save(state, theirs / f"model_{step}.pth")
    torch.save({"fc.weight": torch.zeros(1)}, theirs / "model_epX_it0.pth")
    assert {name: tensor[0, 0].item() for name, tensor in weights_from_openlth(theirs).items()} == {"fc.weight": 2.0}
    with pytest.raises(InputError, match=r"model\.pth does not exist: give OpenLTH's model\.pth, or its folder"):
        weights_from_openlth(tmp_path)
    torch.save({"w": Hostile()}, tmp_path / "model.pth")
    with pytest.raises(InputError, match="can't be read as OpenLTH's model"):
        weights_from_openlth(tmp_path)


@pytest.mark.parametrize("dtype", [torch.int32, torch.float32, torch.uint8, torch.bool])
def test_openlth_masks_of_any_type(tmp_path, dtype):
    keep = drawn({"w": [4, 4]})
    torch.save({"w": keep["w"].to(dtype)}, tmp_path / "mask.pth")
    assert Mask.from_openlth(tmp_path) == keep


class Hostile:
    def __reduce__(self):
        return os.system, ("echo this was run > RAN",)


def test_openlth_files_that_are_no_masks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"w": torch.randn(3)}, "model_ep1_it0.pth")
    torch.save([1, 2], "list.pth")
    torch.save({}, "nothing.pth")
    torch.save({"w": Hostile()}, "hostile.pth")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "text.pth").write_text("nothing of the kind")
    for name, match in (
        ("model_ep1_it0.pth", r"'w' of .* has .* among its values.*from_weights"),
        ("list.pth", "no dict of tensors"),
        ("hostile.pth", "can't be read as OpenLTH's mask: it is damaged, or has more than tensors.*save its tensors"),
        ("nothing.pth", "contains no dict of tensors"),
        ("empty.pth", "can't be read"),
        ("text.pth", "can't be read"),
        ("none.pth", "none.pth does not exist"),
        (".", r"mask.pth does not exist"),
    ):
        with pytest.raises(InputError, match=match):
            Mask.from_openlth(name)
    assert not (tmp_path / "RAN").exists()
    with pytest.raises(StoreError, match="can't write"):
        drawn({"w": [2]}).to_openlth(tmp_path / "text.pth")


# The mask's own file


@settings(deadline=None, max_examples=60)
@given(MASKS, st.integers(0, 2**32 - 1))
def test_saving_loses_nothing(tmp_path_factory, shapes, seed):
    mask = drawn(shapes, seed)
    path = tmp_path_factory.mktemp("mask") / "mask.safetensors"
    mask.save(path)
    assert Mask.load(path) == mask
    assert list(Mask.load(path)) == list(mask)


def test_a_flipped_bit_never_loads_as_another_mask(tmp_path):
    mask = drawn({"c.weight": [4, 3, 3], "f": [7]})
    path = tmp_path / "mask.safetensors"
    mask.save(path)
    content = path.read_bytes()
    refused = 0
    bits = range(0, 8 * len(content), 7)  # so that each of the eight places of a byte has its turn
    for bit in bits:
        altered = bytearray(content)
        altered[bit // 8] ^= 1 << bit % 8
        path.write_bytes(altered)
        try:
            assert Mask.load(path) == mask
        except InputError:
            refused += 1
    assert refused > 0.9 * len(bits)


@pytest.mark.parametrize("part", [0, 1, 8, 100, -1])
def test_a_cut_file_is_refused(tmp_path, part):
    path = tmp_path / "mask.safetensors"
    drawn({"w": [4, 3]}).save(path)
    path.write_bytes(path.read_bytes()[:part])
    with pytest.raises(InputError, match=r"can't be read"):
        Mask.load(path)


def test_a_file_of_version_0_1_needs_a_word(tmp_path):
    mask = drawn({"w": [4, 3], "a": [5]})
    path = tmp_path / "old.safetensors"
    save_file(mask.pack(), str(path), metadata={"shapes": json.dumps(mask.shapes())})
    with pytest.raises(InputError, match=r"has no checksum.*Mask.load\(path, unchecked=True\)"):
        Mask.load(path)
    old = Mask.load(path, unchecked=True)
    assert old == mask
    assert list(old) == list(mask)
    old.save(path)
    assert Mask.load(path) == mask


@pytest.mark.parametrize(
    "shapes",
    [
        {"w": [10**12, 10**12]},
        {"w": [-4, -3]},
        {"w": ["4", 3]},
        {"w": [4.0, 3]},
        {"w": [True, 12]},
        {"w": 12},
        {"w": None},
        {"v": [4, 3]},
        {},
        [],
        "w",
        None,
    ],
)
def test_shapes_that_do_not_fit_the_bits_are_refused(tmp_path, shapes):
    """A stranger's file may have a right checksum and still be wrong; nothing large is made of it."""
    from tombola.tensor_files import pack_tensors

    path = tmp_path / "mask.safetensors"
    bits = drawn({"w": [4, 3]}).pack()
    path.write_bytes(pack_tensors(bits, {"mask": shapes}))
    with pytest.raises(InputError):
        Mask.load(path)
    save_file(bits, str(path), metadata={"shapes": json.dumps(shapes)})
    with pytest.raises(InputError):
        Mask.load(path, unchecked=True)


def test_a_mask_that_can_not_be_written(tmp_path):
    with pytest.raises(StoreError, match="can't write"):
        drawn({"w": [2]}).save(tmp_path / "none" / "mask.safetensors")


# The table


def test_the_table_of_a_notebook():
    mask = Mask({"<b>.weight": torch.eye(2, 4) > 0, "empty": torch.ones(0, 3) > 0})
    html = mask._repr_html_()
    assert "&lt;b&gt;.weight" in html
    assert "<td>2 &times; 4</td><td>2 of 8</td><td>25.00%</td>" in html
    assert "<th>2 of 8</th><th>25.00%</th>" in html
    assert "<td>0 of 0</td><td>-</td>" in html
