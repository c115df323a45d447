"""Holding any parameter of any module, through loading, copying and changing it; what can't be held is refused."""

import copy
import gc
import io
import weakref

import pytest
import torch
from net_parts import PARTS, Attention, Calls, Recurrent, Tied
from optimizers import ByHand
from safetensors.torch import load_model, save_model
from test_holding import net, revived, sparse, train
from torch import nn
from torch.nn.utils import parametrizations, prune

from tombola.errors import InputError
from tombola.pruning import Mask, release


def muon_or_sgd(module):
    """Muon for matrices, the optimiser that brings most pruned weights back, and SGD for the other parameters."""
    matrices = [one for one in module.parameters() if one.dim() == 2 and one.requires_grad]
    others = [one for one in module.parameters() if one.dim() != 2 and one.requires_grad]
    kinds = [(torch.optim.Muon, matrices), (torch.optim.SGD, others)]
    return [kind(parameters, lr=0.05) for kind, parameters in kinds if parameters]


def fit(module, steps=3, optimizers=None):
    generator = torch.Generator().manual_seed(3)
    optimizers = muon_or_sgd(module) if optimizers is None else optimizers
    for _ in range(steps):
        module.zero_grad()
        module(torch.randn(5, 4, 8, generator=generator)).pow(2).mean().backward()
        for optimizer in optimizers:
            optimizer.step()


# Any parameter


@pytest.mark.parametrize("part", PARTS)
def test_weights_hold_wherever_they_stand(part):
    torch.manual_seed(0)
    module = part()
    mask = sparse(module)
    start = {name: module.get_parameter(name).detach().clone() for name in mask}
    mask.hold_(module)
    fit(module)
    assert revived(mask, module) == 0
    for name, keep in mask.items():
        assert bool((module.get_parameter(name).detach() != start[name])[keep].any()), name


@pytest.mark.parametrize("part", PARTS)
def test_weights_hold_where_pytorch_sees_no_step(part):
    """The weights of a layer that is never called are mended by the module that was held."""
    torch.manual_seed(0)
    module = part()
    mask = sparse(module)
    mask.hold_(module)
    fit(module, optimizers=[ByHand(module.parameters())])
    module(torch.randn(5, 4, 8))
    assert revived(mask, module) == 0


@pytest.mark.parametrize("names", [["embedding.weight"], ["decoder.weight"], ["embedding.weight", "decoder.weight"]])
def test_tied_weights_hold_under_each_name(names):
    module = Tied()
    keep = torch.rand(8, 6) < 0.7
    mask = Mask(dict.fromkeys(names, keep))
    hold = mask.hold_(module)
    fit(module)
    assert revived(mask, module) == 0
    assert Mask.held(module) == Mask({"embedding.weight": keep})
    copied = copy.deepcopy(module.decoder)
    fit(nn.Sequential(nn.Linear(8, 6), copied))
    assert revived(Mask({"weight": keep}), copied) == 0
    hold.release()
    assert not Mask.held(module)


def test_tied_weights_need_one_mask():
    mask = Mask({"embedding.weight": torch.eye(8, 6) > 0, "decoder.weight": torch.ones(8, 6) > 0})
    with pytest.raises(InputError, match=r"'embedding.weight' and 'decoder.weight' are one parameter"):
        mask.hold_(Tied())


def test_a_frozen_weight_holds_and_still_does_when_it_is_unfrozen():
    module = net()
    module[0].requires_grad_(False)
    mask = sparse(module)
    mask.hold_(module)
    module[0].requires_grad_(True)
    module(torch.randn(2, 12)).sum().backward()
    assert bool((module[0].weight.grad[~mask["0.weight"]] == 0.0).all())  # in the first backward pass too
    module.zero_grad()
    train(module, torch.optim.Muon([module[0].weight, module[2].weight], lr=0.1))
    assert revived(mask, module) == 0


def test_attention_holds_where_only_the_part_is_called():
    """nn.MultiheadAttention reads the weights of its `out_proj` without calling it."""
    module = nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2, batch_first=True), "head": nn.Linear(8, 2)})
    mask = sparse(module)
    mask.hold_(module)
    inputs = torch.randn(3, 4, 8)
    for name in mask:
        module.get_parameter(name).data.add_(1.0)
    module["head"](module["attention"](inputs, inputs, inputs)[0])
    assert revived(mask, module) == 0
    release(module)
    assert not any(part._forward_pre_hooks for part in module.modules())


def test_a_full_mask_costs_no_hook_on_the_gradient():
    module = net()
    Mask.full({"0.weight": (16, 12)}).hold_(module)
    assert not module[0].weight._backward_hooks
    assert Mask.held(module).is_full


# Loading and copying


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("part", PARTS)
def test_loading_does_not_revive(part, assign):
    module, dense = part(), part()
    mask = sparse(module)
    mask.hold_(module)
    module.load_state_dict(dense.state_dict(), assign=assign)
    assert revived(mask, module) == 0
    if part is Tied and assign:
        return  # PyTorch unties such weights here
    fit(module)
    assert revived(mask, module) == 0
    nn.ModuleList([module]).load_state_dict(nn.ModuleList([dense]).state_dict())  # through a parent
    assert revived(mask, module) == 0


def test_a_hold_is_released_after_parameters_were_replaced_by_loading():
    module = net()
    hold = sparse(module).hold_(module)
    module.load_state_dict(net().state_dict(), assign=True)
    hold.release()
    assert not Mask.held(module)


@pytest.mark.parametrize("part", PARTS)
def test_safetensors_and_plain_names(part, tmp_path):
    module = part()
    names = list(module.state_dict())
    mask = sparse(module)
    mask.hold_(module)
    assert list(module.state_dict()) == names
    save_model(module, str(tmp_path / "model.safetensors"))
    again = part()
    load_model(again, str(tmp_path / "model.safetensors"))
    assert revived(mask, again) == 0
    held = part()
    mask.hold_(held)
    save_model(part(), str(tmp_path / "dense.safetensors"))
    load_model(held, str(tmp_path / "dense.safetensors"))
    held(torch.randn(5, 4, 8))
    assert revived(mask, held) == 0


@pytest.mark.parametrize("part", PARTS)
def test_a_pickled_module_holds(part):
    module = part()
    mask = sparse(module)
    mask.hold_(module)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    fit(again)
    assert revived(mask, again) == 0
    assert Mask.held(again) == Mask.held(module)


@pytest.mark.parametrize("part", PARTS)
def test_copies_of_copies_and_of_parts_hold(part):
    module = part()
    mask = sparse(module)
    mask.hold_(module)
    copied = copy.deepcopy(nn.ModuleList([copy.deepcopy(module)]))[0]
    assert Mask.held(copied) == Mask.held(module)
    fit(copied)
    assert revived(mask, copied) == 0
    release(copied)
    assert not Mask.held(copied)
    assert Mask.held(module)  # the copy let go, not this
    fit(copied)
    assert revived(mask, copied) > 0


def test_a_copied_part_holds():
    module = nn.Sequential(Attention())
    sparse(module).hold_(module)
    part = copy.deepcopy(module[0].attention)
    Mask.held(part).apply_(part)
    assert Mask.held(part) == Mask.held(module[0].attention)


def test_a_held_module_is_freed_without_the_garbage_collector():
    module = nn.Sequential(Attention(), Recurrent())
    sparse(module).hold_(module)
    fit(module, steps=1)
    gone = weakref.ref(module[0].attention.in_proj_weight)
    gc.disable()
    try:
        del module
        assert gone() is None
    finally:
        gc.enable()


def test_release_leaves_nothing_behind():
    module = Attention()
    hooks = [len(one._forward_pre_hooks) + len(one._load_state_dict_post_hooks) for one in module.modules()]
    hold = sparse(module).hold_(module)
    hold.release()
    hold.release()
    assert [len(one._forward_pre_hooks) + len(one._load_state_dict_post_hooks) for one in module.modules()] == hooks
    assert not any(one._backward_hooks for one in module.parameters())


def test_another_mask_replaces_the_first():
    """Not both at once: the second alone holds, and the first handle lets go of nothing."""
    module = net()
    first, second = sparse(module, 1), sparse(module, 2)
    old = first.hold_(module)
    new = second.hold_(module)
    assert Mask.held(module) == second
    old.release()
    assert Mask.held(module) == second
    train(module, torch.optim.Muon([module[0].weight, module[2].weight], lr=0.1))
    assert revived(second, module) == 0
    assert revived(first, module) > 0
    new.release()
    assert not Mask.held(module)


def test_parts_may_be_held_one_after_another():
    module = net()
    mask = sparse(module)
    one, other = (Mask({name: mask[name]}) for name in ("0.weight", "2.weight"))
    hold = one.hold_(module)
    other.hold_(module)
    assert Mask.held(module) == Mask({name: mask[name] for name in ("0.weight", "2.weight")})
    hold.release()
    assert Mask.held(module) == other


# What can't be held


def old_state(optimizer):
    module = net()
    optimizer = optimizer(module.parameters())
    train(module, optimizer)
    return module, optimizer, sparse(module)


STATEFUL = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "muon": lambda p: torch.optim.Muon([one for one in p if one.dim() == 2], lr=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
}


@pytest.mark.parametrize("optimizer", STATEFUL)
def test_state_from_before_is_refused_before_the_next_step(optimizer):
    module, optimizer, mask = old_state(STATEFUL[optimizer])
    mask.hold_(module)
    with pytest.raises(InputError, match=r"has '\w+' of '0.weight' at \d+ pruned weights, from before hold_"):
        train(module, optimizer)
    assert revived(mask, module) == 0


@pytest.mark.parametrize("optimizer", STATEFUL)
def test_state_from_before_is_refused_at_once_or_cleared(optimizer):
    module, optimizer, mask = old_state(STATEFUL[optimizer])
    with pytest.raises(InputError, match="from before hold_"):
        mask.hold_(module, optimizer)
    assert not Mask.held(module)
    mask.hold_(module, optimizer, reset_state=True)
    train(module, optimizer, after=lambda: check(mask, module))


def check(mask, module):
    assert revived(mask, module) == 0


def test_state_from_before_that_is_loaded_later_is_refused():
    module, optimizer, mask = old_state(STATEFUL["adamw"])
    mask.hold_(module)
    fresh = STATEFUL["adamw"](module.parameters())
    train(module, fresh)
    fresh.load_state_dict(optimizer.state_dict())
    with pytest.raises(InputError, match="from before hold_"):
        train(module, fresh)


def test_state_that_belongs_to_no_single_weight():
    from optimizers import Shampooish

    module, optimizer, mask = old_state(Shampooish)
    with pytest.raises(InputError, match=r"Shampooish has 'left' of '0.weight' of shape \(16, 16\)"):
        mask.hold_(module, optimizer)
    mask.hold_(module, optimizer, reset_state=True)
    assert not any("left" in optimizer.state.get(module.get_parameter(name), {}) for name in mask)
    train(module, optimizer, after=lambda: check(mask, module))


def test_an_optimiser_of_another_module_is_refused():
    module = net()
    with pytest.raises(InputError, match="SGD trains no masked weight of this module"):
        sparse(module).hold_(module, torch.optim.SGD(net().parameters(), lr=0.1))
    with pytest.raises(InputError, match="optimizer is a ByHand"):
        sparse(module).hold_(module, ByHand(module.parameters()))
    with pytest.raises(InputError, match="needs the optimiser"):
        sparse(module).hold_(module, reset_state=True)


def test_revived_weights_that_no_hook_saw_are_an_error():
    """Methods other than forward, and steps other than PyTorch's: what came back was used once and is then refused."""
    module = nn.Linear(8, 6)
    mask = sparse(module)
    hold = mask.hold_(module)
    optimizer = ByHand(module.parameters())
    inputs = torch.randn(3, 8)

    def step():
        optimizer.zero_grad()
        nn.functional.linear(inputs, module.weight, module.bias).pow(2).sum().backward()
        optimizer.step()

    step()
    with pytest.raises(InputError, match=r"pruned weights of 'weight' changed.*call `apply\(\)`"):
        step()
    hold.apply()
    for _ in range(3):
        step()
        hold.apply()
        assert revived(mask, module) == 0


def test_a_replaced_parameter_is_refused():
    module = net()
    sparse(module).hold_(module)
    module[2].weight = nn.Parameter(torch.ones(8, 16))
    with pytest.raises(InputError, match=r"'2.weight' was replaced by another object after hold_: release"):
        module(torch.randn(2, 12))
    release(module)
    module(torch.randn(2, 12))


def test_a_replaced_module_is_refused():
    module = net()
    sparse(module).hold_(module)
    module[2] = nn.Linear(16, 8, bias=False)
    with pytest.raises(InputError, match=r"'2' was replaced by another module after hold_: release"):
        module(torch.randn(2, 12))


def test_functional_call_with_other_tensors_is_refused():
    module = net()
    sparse(module).hold_(module)
    weights = {name: weight.detach().clone() for name, weight in module.named_parameters()}
    with pytest.raises(InputError, match="another object"):
        torch.func.functional_call(module, weights, torch.randn(2, 12))
    torch.func.functional_call(module, dict(module.named_parameters()), torch.randn(2, 12))


def test_a_changed_shape_is_refused():
    module = nn.Linear(4, 3)
    sparse(module).hold_(module)
    module.weight.data = torch.ones(3, 5)
    with pytest.raises(InputError, match=r"'weight' has shape \(3, 5\) now, but its mask has \(3, 4\)"):
        module(torch.randn(2, 5))


def weight_norm_of_old(module):
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(module)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (parametrizations.weight_norm, r"under a parametrization; first call .*remove_parametrizations"),
        (parametrizations.orthogonal, r"under a parametrization"),
        (weight_norm_of_old, r"remove_weight_norm"),
        (lambda module: prune.l1_unstructured(module, "weight", 0.5), r"torch.nn.utils.prune.remove"),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_a_computed_weight_is_refused(change, match, inside):
    layer = change(nn.Linear(4, 4))
    module, name = (nn.Sequential(layer), "0.weight") if inside else (layer, "weight")
    mask = Mask.full({name: (4, 4)})
    for prune_module in (mask.hold_, mask.apply_):
        with pytest.raises(InputError, match=match):
            prune_module(module)


def test_a_parametrization_after_holding_is_refused():
    module = nn.Sequential(nn.Linear(4, 4))
    sparse(module).hold_(module)
    parametrizations.weight_norm(module[0])
    with pytest.raises(InputError, match="another object"):
        module(torch.randn(2, 4))


def test_a_lazy_layer_is_refused_until_it_knows_its_shape():
    module = nn.LazyLinear(3)
    mask = Mask({"weight": torch.rand(3, 4) < 0.5})
    with pytest.raises(InputError, match="run one batch through the module first"):
        mask.hold_(module)
    module(torch.randn(2, 4))
    mask.hold_(module)
    assert revived(mask, module) == 0


def test_a_name_close_to_another_is_suggested():
    with pytest.raises(InputError, match=r"no parameter of that name; did you mean 'first.weight'"):
        Mask.full({"firts.weight": (6, 8)}).hold_(Calls())


def test_nothing_changes_where_a_mask_is_refused():
    module = net()
    before = copy.deepcopy(module.state_dict())
    mask = Mask({"0.weight": torch.zeros(16, 12) > 0, "2.weight": torch.zeros(3, 3) > 0})
    with pytest.raises(InputError):
        mask.hold_(module)
    assert all(torch.equal(module.state_dict()[name], before[name]) for name in before)
    assert not Mask.held(module)
