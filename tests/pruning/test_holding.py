"""Pruned weights stay at exactly 0.0 and kept weights move: every optimiser in every kind of loop."""

import copy
import io

import pytest
import torch
from optimizers import SAM, ByHand, Lion, Shampooish
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tombola.pruning import Mask

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "fused-sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "fused-adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1, fused=True),
    "foreach-adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1, foreach=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01, initial_accumulator_value=0.1),
    "muon": lambda p: torch.optim.Muon([one for one in p if one.dim() == 2], lr=0.1, weight_decay=0.1),
    "lion": Lion,
    "sam": SAM,
    "shampoo": Shampooish,
}


def net():
    return nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 8, bias=False), nn.Tanh(), nn.Linear(8, 4))


def sparse(module, seed=0):
    """Keep about 70 % of each parameter with two or more dimensions: so many that each unit has a way to the output."""
    generator = torch.Generator().manual_seed(seed)
    return Mask(
        {n: torch.rand(p.shape, generator=generator) < 0.7 for n, p in module.named_parameters() if p.dim() > 1}
    )


def revived(mask, module):
    parameters = dict(module.named_parameters(remove_duplicate=False))
    return sum(int((parameters[name].detach()[~keep] != 0.0).sum()) for name, keep in mask.items())


def watched(mask, module):
    """Check the weights in every forward too, after all that comes before it."""

    def check(module, inputs):
        assert revived(mask, module) == 0

    module.register_forward_pre_hook(check)
    return module


def batches(number, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(number):
        yield torch.randn(16, 12, generator=generator), torch.randint(4, (16,), generator=generator)


def train(module, optimizer, number=4, seed=1, parts=1, clip=None, scaler=None, after=lambda: None):
    """Train as anyone would: parts are micro-batches, `after` runs after each step."""
    for inputs, labels in batches(number, seed):

        def closure(inputs=inputs, labels=labels):
            optimizer.zero_grad()
            for x, y in zip(inputs.chunk(parts), labels.chunk(parts), strict=True):
                with torch.autocast("cpu", torch.bfloat16, enabled=scaler is not None):
                    loss = functional.cross_entropy(module(x), y) / parts
                (loss if scaler is None else scaler.scale(loss)).backward()
            if clip is not None:
                assert nn.utils.clip_grad_norm_(module.parameters(), clip) > clip
            return loss

        closure()
        if isinstance(optimizer, SAM):
            optimizer.step(closure)
        elif scaler is not None:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        after()


class Case:
    """A held net with an optimiser, made before or after the hold."""

    def __init__(self, optimizer, first="hold"):
        torch.manual_seed(0)
        self.module = net()
        self.mask = sparse(self.module)
        if first == "hold":
            self.mask.hold_(self.module)
        self.optimizer = OPTIMIZERS[optimizer](list(self.module.parameters()))
        if first == "optimizer":
            self.mask.hold_(self.module)
        self.start = copy.deepcopy(self.module.state_dict())
        watched(self.mask, self.module)

    def check(self, module=None):
        module = module or self.module
        assert revived(self.mask, module) == 0
        for name, keep in self.mask.items():
            moved = (module.get_parameter(name).detach() != self.start[name])[keep].float().mean()
            assert moved > 0.9, name  # Rprop may bring a weight back to where it was
            assert bool(module.get_parameter(name).isfinite().all())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("first", ["hold", "optimizer"])
def test_plain(optimizer, first):
    case = Case(optimizer, first)
    train(case.module, case.optimizer, after=case.check)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_accumulation(optimizer):
    case = Case(optimizer)
    train(case.module, case.optimizer, parts=4, after=case.check)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_clipping(optimizer):
    case = Case(optimizer)
    train(case.module, case.optimizer, clip=0.1, after=case.check)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_moving_average(optimizer):
    case = Case(optimizer)
    average = AveragedModel(case.module, multi_avg_fn=get_ema_multi_avg_fn(0.5))

    def after():
        average.update_parameters(case.module)
        case.check(average.module)
        average(torch.randn(2, 12))

    train(case.module, case.optimizer, after=after)
    case.check()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_mixed_precision(optimizer):
    case = Case(optimizer)
    train(case.module, case.optimizer, scaler=torch.amp.GradScaler("cpu", init_scale=64.0), after=case.check)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resumed(optimizer):
    """The same bits as without the break, and the resumed optimiser's state is not an old state."""
    whole, case = Case(optimizer), Case(optimizer)
    for one in (whole, case):
        train(one.module, one.optimizer, seed=1)
    file = io.BytesIO()
    inner = case.optimizer.base if optimizer == "sam" else case.optimizer
    torch.save((case.module.state_dict(), inner.state_dict()), file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    again = Case(optimizer)
    again.module.load_state_dict(weights)
    (again.optimizer.base if optimizer == "sam" else again.optimizer).load_state_dict(state)
    for one in (whole, again):
        train(one.module, one.optimizer, seed=2, after=one.check)
    for name, weight in whole.module.state_dict().items():
        assert torch.equal(weight, again.module.state_dict()[name]), name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_deepcopy(optimizer):
    case = Case(optimizer)
    train(case.module, case.optimizer, number=2)
    copied = copy.deepcopy(case.module)
    before = copy.deepcopy(case.module.state_dict())
    train(copied, OPTIMIZERS[optimizer](list(copied.parameters())), after=lambda: case.check(copied))
    for name, weight in case.module.state_dict().items():
        assert torch.equal(weight, before[name])  # the copy is a copy


def test_lbfgs():
    """It evaluates the loss several times within a step."""
    case = Case("sgd")
    optimizer = torch.optim.LBFGS(case.module.parameters(), lr=0.5, max_iter=5, line_search_fn="strong_wolfe")
    inputs, labels = next(batches(1))

    def closure():
        optimizer.zero_grad()
        loss = functional.cross_entropy(case.module(inputs), labels)
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
        case.check()


def test_sparse_adam_and_sparse_gradients():
    """Of an embedding: the gradient has only the rows of the batch."""
    table = nn.Embedding(9, 4, sparse=True)
    mask = sparse(table)
    start = table.weight.detach().clone()
    mask.hold_(table)
    optimizer = torch.optim.SparseAdam(table.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (table(torch.tensor([1, 1, 5])) * torch.arange(1.0, 5.0)).sum().backward()
        assert bool((table.weight.grad.to_dense()[~mask["weight"]] == 0.0).all())
        optimizer.step()
        assert revived(mask, table) == 0
    moved = (table.weight.detach() != start) & mask["weight"]
    assert torch.equal(moved[[1, 5]], mask["weight"][[1, 5]])


def test_a_step_that_pytorch_does_not_see_is_mended_before_the_next_forward():
    case = Case("sgd")
    train(case.module, ByHand(case.module.parameters()))
    assert revived(case.mask, case.module) > 0  # its last step: nobody called the module since
    case.module(torch.randn(2, 12))
    assert revived(case.mask, case.module) == 0


@pytest.mark.parametrize("change", ["add_", "copy_", "data"])
def test_a_change_in_place_is_mended_before_the_next_forward(change):
    case = Case("sgd")
    weight = case.module[2].weight
    if change == "data":
        weight.data = torch.ones_like(weight)
    else:
        with torch.no_grad():
            getattr(weight, change)(torch.ones(()))
    with torch.inference_mode():
        case.module(torch.randn(2, 12))
    assert revived(case.mask, case.module) == 0


def test_a_change_through_data_between_step_and_forward_is_mended():
    """Weight noise, clamping and evolution strategies change `.data`, which raises no version: no forward uses it."""
    case = Case("sgd")

    def spoil():
        for weight in case.module.parameters():
            weight.data.clamp_(min=0.01)

    train(case.module, case.optimizer, after=spoil)  # `watched` checks each forward
    assert revived(case.mask, case.module) > 0
    for change in ("add_", "mul_", "fill_", "copy_"):
        getattr(case.module[2].weight.data, change)(torch.ones(()))
        with torch.no_grad():
            case.module(torch.randn(2, 12))
        assert revived(case.mask, case.module) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_trace_has_the_operations_of_the_network_only():
    module, plain = net(), net()
    mask = sparse(module)
    mask.hold_(module)
    module[2].weight.data.add_(1.0)
    inputs = torch.randn(2, 12)
    traced, expected = (torch.jit.trace(each, inputs).inlined_graph for each in (module, plain))
    assert [node.kind() for node in traced.nodes()] == [node.kind() for node in expected.nodes()]
    assert revived(mask, module) == 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "fused-adam", "muon", "lion"])
def test_bad_gradients_of_pruned_weights_do_no_harm(bad, optimizer):
    """0 * NaN is NaN: an optimiser would keep it in its state, and Muon would spread it over the matrix."""
    case = Case(optimizer)
    keep = case.mask["2.weight"]

    def spoil(gradient):
        return torch.where(keep, gradient, bad)

    case.module[2].weight._backward_hooks.clear()  # so that the bad gradient comes before the mask does
    held = [hook for hook in case.module[2]._forward_pre_hooks.values() if hasattr(hook, "weights")]
    case.module[2].weight.register_hook(spoil)
    held[0].weights["weight"]._gradient_hook = None
    held[0].weights["weight"]._attach()
    train(case.module, case.optimizer, clip=1e-3, after=case.check)


def test_gradients_of_before_are_cleared():
    module = net()
    module(torch.randn(3, 12)).sum().backward()
    mask = sparse(module)
    mask.hold_(module)
    for name, keep in mask.items():
        assert bool((module.get_parameter(name).grad[~keep] == 0.0).all())
        assert bool((module.get_parameter(name).grad[keep] != 0.0).any())


def test_gradients_that_share_memory_stay_apart():
    """Autograd may hand one tensor to two parameters: masking it in place would mask the other's too."""

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.v = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4, 4))

        def forward(self):
            return self.w.view(16) + self.v.view(16)

    module = Sum()
    Mask({"w": torch.zeros(4, 4, dtype=torch.bool)}).hold_(module)
    module().sum().backward()
    assert module.w.grad.tolist() == [[0.0] * 4] * 4
    assert module.v.grad.tolist() == [[1.0] * 4] * 4


def test_gradients_of_gradients_are_masked():
    module = nn.Linear(3, 2)
    mask = sparse(module)
    mask.hold_(module)
    (gradient,) = torch.autograd.grad(module(torch.randn(5, 3)).pow(2).sum(), module.weight, create_graph=True)
    assert bool((gradient[~mask["weight"]] == 0.0).all())
    gradient.pow(2).sum().backward()
    assert bool((module.weight.grad[~mask["weight"]] == 0.0).all())
    assert bool((module.weight.grad[mask["weight"]] != 0.0).all())


def test_two_graphs_can_wait_for_their_backward():
    """Pruning before a forward must not count as a change in place of what another graph saved."""
    case = Case("sgd")
    first, second = (case.module(torch.randn(2, 12)).sum() for _ in range(2))
    first.backward()
    third = case.module(torch.randn(2, 12)).sum()
    second.backward()
    third.backward()


def test_a_held_net_trains_as_one_whose_gradients_and_weights_are_multiplied_by_the_mask():
    """To the last bit, under an optimiser that treats each weight by itself."""
    case, plain = Case("adamw"), net()
    plain.load_state_dict(case.module.state_dict())
    for name, keep in case.mask.items():
        plain.get_parameter(name).register_hook(lambda gradient, keep=keep: gradient * keep)
    train(case.module, case.optimizer)
    train(plain, OPTIMIZERS["adamw"](plain.parameters()))
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, case.module.state_dict()[name])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.complex64])
def test_other_types(dtype):
    weight = nn.ParameterList([nn.Parameter(torch.ones(3, 4, dtype=dtype))])
    mask = sparse(weight)
    mask.hold_(weight)
    optimizer = torch.optim.SGD(weight.parameters(), lr=0.1, momentum=0.9)
    (weight[0] * torch.tensor(3.0, dtype=dtype)).abs().sum().backward()
    optimizer.step()
    assert revived(mask, weight) == 0
    assert bool((weight[0].detach() != 1)[mask["0"]].all())


def test_the_type_may_change_after_holding():
    case = Case("sgd")
    case.module.double()
    optimizer = OPTIMIZERS["adamw"](case.module.parameters())
    for inputs, labels in batches(3):
        optimizer.zero_grad()
        functional.cross_entropy(case.module(inputs.double()), labels).backward()
        optimizer.step()
        case.check()


def test_memory_layout_stays():
    module = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    mask = sparse(module)
    mask.hold_(module)
    module(torch.randn(2, 3, 5, 5)).sum().backward()
    assert module.weight.grad.stride() == module.weight.stride()
    assert bool((module.weight.grad[~mask["weight"]] == 0.0).all())
