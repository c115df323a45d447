"""A held mask where the module leaves plain Python: torch.compile, other processes, DistributedDataParallel."""

import copy
import shutil

import pytest
import torch
import torch.multiprocessing
from optimizers import ByHand
from test_holding import net, revived, sparse, train
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from tombola.errors import InputError
from tombola.pruning import Mask

INDUCTOR = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")]


def muon(module):
    return torch.optim.Muon([one for one in module.parameters() if one.dim() == 2], lr=0.1)


@pytest.fixture(autouse=True)
def _compile_anew():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's own compiler
@pytest.mark.parametrize(
    ("backend", "first"),
    [
        ("aot_eager", "hold"),
        ("aot_eager", "compile"),
        ("aot_eager", "wrapper"),
        pytest.param("inductor", "hold", marks=INDUCTOR),
    ],
)
def test_a_compiled_module_holds(backend, first):
    """One graph: the hooks do not break it. Held before, after, or through the wrapper."""
    torch.manual_seed(0)
    module, eager = net(), net()
    eager.load_state_dict(module.state_dict())
    mask = sparse(module)
    if first == "hold":
        mask.hold_(module)
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    if first == "compile":
        compiled(torch.randn(16, 12))
        mask.hold_(module)
    elif first == "wrapper":
        mask.hold_(compiled)
    mask.hold_(eager)
    train(compiled, muon(module), after=lambda: check(mask, module))
    train(eager, muon(eager))
    for name, weight in eager.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], weight, rtol=1e-3, atol=1e-4)
    copied = copy.deepcopy(module)
    train(copied, muon(copied), after=lambda: check(mask, copied))


def check(mask, module):
    assert revived(mask, module) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_module_whose_step_nobody_sees_is_refused():
    """The compiled forward does not mend the weights, so the next backward refuses them."""
    module = net()
    hold = sparse(module).hold_(module)
    compiled = torch.compile(module, backend="eager")
    with pytest.raises(InputError, match="pruned weights"):
        train(compiled, ByHand(module.parameters()))
    hold.apply()
    train(compiled, ByHand(module.parameters()), after=hold.apply)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("change", ["in place", "through data"])
def test_a_change_between_step_and_compiled_forward_is_refused(change):
    """The step's hook has pruned the weights, then something else changes them."""
    module = net()
    hold = sparse(module).hold_(module)
    compiled = torch.compile(module, backend="eager")

    def spoil():
        weight = module[2].weight
        (weight.data if change == "through data" else weight.detach()).add_(0.1)

    def spoil_and_mend():
        spoil()
        hold.apply()

    train(compiled, torch.optim.SGD(module.parameters(), lr=0.1), after=spoil_and_mend)
    with pytest.raises(InputError, match=r"pruned weights of '2.weight' changed.*call `apply\(\)`"):
        train(compiled, torch.optim.SGD(module.parameters(), lr=0.1), after=spoil)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_step_holds():
    module = net()
    mask = sparse(module)
    mask.hold_(module)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    optimizer.step = torch.compile(optimizer.step, backend="eager")
    train(module, optimizer, after=lambda: check(mask, module))


def _train_elsewhere(rank, module, mask):
    train(module, muon(module))
    assert revived(mask, module) == 0
    assert Mask.held(module) == mask


def test_a_module_sent_to_another_process_holds():
    module = net()
    mask = sparse(module)
    mask.hold_(module)
    torch.multiprocessing.spawn(_train_elsewhere, (module, mask), nprocs=1)


def _train_together(rank, address, folder):
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    try:
        for number, first in enumerate(("hold", "wrap")):
            torch.manual_seed(rank)
            module = net()
            mask = sparse(module)
            if first == "hold":
                mask.hold_(module)
            wrapped = DistributedDataParallel(module)
            if first == "wrap":
                with pytest.raises(InputError, match="rank 1 has a different mask from rank 0"):
                    sparse(module, seed=rank).hold_(wrapped)
                mask.hold_(wrapped)
            if rank == 1:  # one process's bad gradient of a pruned weight must not reach the other
                module[0].weight.register_hook(lambda gradient, keep=mask["0.weight"]: torch.where(keep, gradient, 7.0))
            train(wrapped, muon(module), seed=rank, after=lambda module=module, mask=mask: check(mask, module))
            torch.save(module.state_dict(), f"{folder}/{number}-{rank}")
    finally:
        distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not distributed.is_available() or not distributed.is_gloo_available(), reason="needs gloo")
def test_distributed_processes_hold_one_mask(tmp_path):
    """Held before and after wrapping; the processes' weights stay equal although their batches differ."""
    address = f"file://{tmp_path}/meeting"
    torch.multiprocessing.spawn(_train_together, (address, str(tmp_path)), nprocs=2)
    for number in range(2):
        one, other = (torch.load(tmp_path / f"{number}-{rank}", weights_only=True) for rank in range(2))
        for name in one:
            assert torch.equal(one[name], other[name])
            assert not torch.equal(one[name], nn.init.zeros_(one[name].clone()))
