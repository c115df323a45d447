"""A `SparseModule` answers by its C only while the network is what the C was made of."""

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from small_tickets import random_ticket
from torch import nn

from tombola.errors import InputError
from tombola.export import sparse_torch
from tombola.export.c import sources_of
from tombola.export.c.build import compiler
from tombola.export.graph_trace import trace
from tombola.export.sparse_torch import SparseModule, load
from tombola.pruning.mask import Mask

needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C compiler")
lets_jit_be = pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")


class Network(nn.Module):
    """A body and a head; its layers stay dense, so that they are PyTorch's own."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(9, 4)

    def forward(self, x):
        return self.head(self.body(x))


@pytest.fixture(scope="module")
def compiled():
    """One module, to be copied: each copy has its own weights and the same C."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        keep = {"body.0.weight": torch.rand(9, 6) < 0.9, "head.weight": torch.rand(4, 9) < 0.9}
        return SparseModule(Network(), Mask(keep), (6,))


@pytest.fixture
def module(compiled):
    return copy.deepcopy(compiled)


@pytest.fixture
def examples():
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


def replace_head(module):
    module.network.head = nn.Linear(9, 3).requires_grad_(False)


def replace_parameter(module):
    module.network.head.weight = nn.Parameter(torch.randn(4, 9), requires_grad=False)


def drop_bias(module):
    module.network.head.bias = None


def change_weight(module):
    module.network.head.weight.mul_(2)


def change_data_there_and_back(module):
    weight = module.network.head.weight
    for _ in range(4):  # memory of the first value may be given to a later one
        weight.data = weight.data * 2


def change_statistics(module):
    module.network.body[1].running_mean.add_(1)


def add_hook(module):
    module.network.head.register_forward_hook(lambda layer, inputs, outputs: outputs * 2)


def add_hook_before(module):
    module.network.body.register_forward_pre_hook(lambda layer, inputs: (inputs[0] * 2,))


def compute_weight(module):
    nn.utils.parametrize.register_parametrization(module.network.head, "weight", nn.Identity())
    module.network.head.parametrizations.weight.original.mul_(2)


CHANGES = [
    replace_head,
    replace_parameter,
    drop_bias,
    change_weight,
    change_data_there_and_back,
    change_statistics,
    add_hook,
    add_hook_before,
    compute_weight,
]


@needs_compiler
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_network_answers_itself(change, module, examples):
    before = module(examples)
    assert module.backend == "c"
    with torch.no_grad():
        change(module)
        expected = module.network(examples)
        assert expected.shape != before.shape or not torch.allclose(expected, before)
        assert torch.equal(module(examples), expected)
    assert module.backend != "c"
    assert "no longer what the C code was made of" in module.reason
    copied = copy.deepcopy(module).requires_grad_(True)
    torch.testing.assert_close(copied(examples), expected)
    copied(examples).sum().backward()


@needs_compiler
def test_modes_of_single_layers_count(module, examples):
    expected = module(examples)
    with torch.no_grad():
        module.network.body[3].train()  # dropout alone, to see how outputs vary
        assert not torch.equal(module(examples), module(examples))
        module.network.train()
        assert not torch.equal(module(examples), module(examples))
        module.network.eval()
        module.network.body[1].reset_running_stats()
    module.eval()
    assert module.backend != "c"  # the statistics have changed
    assert not torch.equal(module(examples), expected)


@needs_compiler
def test_a_hook_of_every_network_is_called(module, examples):
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda layer, inputs, outputs: seen.append(layer))
    try:
        module(examples)
    finally:
        handle.remove()
    assert module.network.head in seen
    assert module.backend == "c"  # the network is as it was again


@needs_compiler
def test_weights_of_one_call(module, examples):
    before = module(examples)
    doubled = {name: 2 * each for name, each in module.named_parameters()}
    found = torch.func.functional_call(module, doubled, (examples,))
    assert not torch.allclose(found, before)
    expected = {name.removeprefix("network."): each for name, each in doubled.items()}
    assert torch.equal(found, torch.func.functional_call(module.network, expected, (examples,)))
    assert torch.equal(module(examples), before)


@needs_compiler
@lets_jit_be
def test_transforms_see_the_network(module, examples):
    along = torch.ones_like(examples)
    network = module.network
    for found, expected in zip(
        torch.func.jvp(module, (examples,), (along,)), torch.func.jvp(network, (examples,), (along,)), strict=True
    ):
        assert torch.equal(found, expected)
    assert torch.equal(torch.func.jacfwd(module)(examples), torch.func.jacfwd(network)(examples))
    assert torch.equal(torch.func.jacrev(module)(examples), torch.func.jacrev(network)(examples))
    many = torch.randn(3, 5, 6)
    assert torch.equal(torch.func.vmap(module)(many), torch.func.vmap(network)(many))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(examples, along)
        assert torch.autograd.forward_ad.unpack_dual(module(dual)).tangent is not None
    assert module.backend == "c"


@needs_compiler
@lets_jit_be
def test_a_trace_records_the_network(module, examples):
    with torch.no_grad():
        traced = torch.jit.trace(module, examples)
    others = torch.randn(5, 6)
    torch.testing.assert_close(traced(others), module(others))


@needs_compiler
def test_a_copy_has_c_of_its_own_weights(module, examples):
    copied = copy.deepcopy(module)
    assert copied.backend == "c"
    assert torch.equal(copied(examples), module(examples))
    copied.requires_grad_(True)
    optimizer = torch.optim.SGD(copied.parameters(), 0.01)
    for _ in range(12):  # versions grow, past any that the first module had
        copied(examples).square().sum().backward()
        optimizer.step()
        with torch.no_grad():
            assert torch.equal(copied(examples), copied.network(examples))
    stale = copy.deepcopy(copied.requires_grad_(False))
    assert stale.backend != "c"
    assert torch.equal(stale(examples), copied(examples))
    assert module.backend == "c"


def test_a_copy_trains_live_weights_alone(module, examples):
    module.requires_grad_(True)
    module(examples).square().sum().backward()
    dead = module.network.head.weight == 0
    assert dead.any()
    assert not module.network.head.weight.grad[dead].any()
    assert module.network.head.weight.grad.any()


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2])
def test_several_threads_call_one_module(threads):
    keep = {"0.weight": torch.rand(300, 64) < 0.8, "2.weight": torch.rand(10, 300) < 0.8}
    module = SparseModule(nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 10)), Mask(keep), (64,))
    module.threads = threads
    batches = [torch.randn(200, 64) for _ in range(3)]
    expected = [module(each) for each in batches]

    def same(number):
        return all(torch.equal(module(batches[number]), expected[number]) for _ in range(30))

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(same, range(3)))


@needs_compiler
def test_c_that_computes_something_else_is_refused(monkeypatch):
    """The C of another network stands for a fault of the exporter."""
    sources = sources_of(trace(nn.Linear(6, 4), (6,)), "sparse")
    monkeypatch.setattr(sparse_torch, "sources_of", lambda *arguments: sources)
    keep = {"weight": torch.ones(4, 6, dtype=torch.bool)}
    module = SparseModule(nn.Linear(6, 4), Mask(keep), (6,))
    assert module.backend != "c"
    assert "the compiled C does not match PyTorch: the largest difference is" in module.reason
    with pytest.raises(InputError, match="the compiled C does not match PyTorch"):
        SparseModule(nn.Linear(6, 4), Mask(keep), (6,), compiled=True)


def test_a_file_of_a_scripts_own_network(tmp_path):
    ticket = random_ticket()
    network = ticket.origin["network"] | {"name": "__main__:make"}
    theirs = replace(ticket, origin=ticket.origin | {"network": network}).trusted(ticket.build)
    path = theirs.export("pytorch", tmp_path / "ticket")
    with pytest.raises(InputError, match="pass `factory`"):
        load(path, False, trust=True)
    examples = torch.randn(3, 1, 6, 6)
    with torch.no_grad():
        expected = ticket.build(True).eval()(examples)
    torch.testing.assert_close(load(path, False, factory=ticket.build)(examples), expected)
