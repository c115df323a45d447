"""Tickets exported to C and to a PyTorch module."""

import copy
import pickle

import numpy as np
import pytest
import torch
import zoo
from small_tickets import random_ticket

from tombola.errors import InputError, StoreError
from tombola.export.c import export_c, ticket_sources
from tombola.export.c.build import Compiled, compiler, object_bytes
from tombola.export.sparse_torch import SparseModule, export_pytorch, load, sparse_module
from tombola.pruning.mask import Mask

needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C compiler")
FAST = ("-std=c99", "-O1", "-march=native")


def raw(count, ticket, seed=0):
    shape = (count, *ticket.origin["input_shape"])
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@needs_compiler
@pytest.mark.parametrize("inputs", ["normalised", "raw", "bytes"])
@pytest.mark.parametrize("network", ["lenet-300-100", "conv-2"])
@pytest.mark.parametrize("weights", ["trained", "start"])
def test_what_the_c_functions_take(network, inputs, weights):
    ticket = random_ticket(network)
    bytes_ = raw(37, ticket)
    normalised = ticket.normalise(bytes_)
    given = {"normalised": normalised.numpy(), "raw": bytes_ / np.float32(255), "bytes": bytes_.astype(np.float32)}
    compiled = Compiled(ticket_sources(ticket, "net", weights, inputs), (1, 6, 6), (4,), FAST)
    with torch.no_grad():
        expected = ticket.build(weights == "trained").eval()(normalised).numpy()
    found = compiled(given[inputs])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    one_by_one = np.concatenate([compiled(given[inputs][at : at + 1]) for at in range(37)])
    np.testing.assert_allclose(found, one_by_one, rtol=1e-4, atol=1e-5)


def test_the_normalisation_of_a_linear_network_costs_nothing():
    ticket = random_ticket()
    plain, scaled = ticket_sources(ticket), ticket_sources(ticket, inputs="bytes")
    assert plain.steps == scaled.steps
    assert plain.tables == scaled.tables


@needs_compiler
def test_small_layers_store_a_byte_for_an_index():
    ticket = random_ticket(density=0.05)
    code, work = object_bytes(ticket_sources(ticket, "net"), ("-std=c99", "-O2", "-DTOMBOLA_SINGLE"))
    assert code < 5.5 * ticket.mask.remaining + 4 * 404 + 4096
    assert work < 4 * (300 + 100 + 64)


@needs_compiler
def test_small_indices_of_large_layers():
    ticket = random_ticket(input_shape=(1, 28, 28), classes=10, density=0.8**15)
    small, fast = (ticket_sources(ticket, "net", favour=favour) for favour in ("size", "speed"))
    assert "net_window(" in small.code
    assert "net_window(" not in fast.code
    code, _ = object_bytes(small, ("-std=c99", "-O2", "-DTOMBOLA_SINGLE"))
    assert code + 4096 < object_bytes(fast, ("-std=c99", "-O2", "-DTOMBOLA_SINGLE"))[0]
    examples = ticket.normalise(raw(70, ticket))
    with torch.no_grad():
        expected = ticket.build(True).eval()(examples).numpy()
    for flags in (FAST, ("-std=c99", "-O1", "-DTOMBOLA_PLAIN")):
        compiled = Compiled(small, (1, 28, 28), (10,), flags)
        np.testing.assert_allclose(compiled(examples.numpy()), expected, rtol=1e-4, atol=1e-5)
        one = np.concatenate([compiled(examples.numpy()[at : at + 1]) for at in range(5)])
        np.testing.assert_allclose(one, expected[:5], rtol=1e-4, atol=1e-5)


@needs_compiler
def test_a_caller_keeps_the_memory_that_it_uses():
    ones, sources = np.ones((1, 1, 6, 6), np.float32), ticket_sources(random_ticket())
    call = Compiled(sources, (1, 6, 6), (4,), FAST).caller(ones.copy(), np.empty((1, 4), np.float32))
    compiled, _, result, _ = call.keeps
    call()
    np.testing.assert_array_equal(result, compiled(ones))


def test_files_of_c(tmp_path):
    ticket = random_ticket()
    export_c(ticket, tmp_path / "my-net.c")
    code, header = ((tmp_path / f"my-net.{end}").read_text() for end in ("c", "h"))
    assert '#include "my-net.h"' in code
    assert "void my_net_run(const float *in, float *out);" in header
    assert f"{ticket.mask.remaining:,} of {ticket.mask.total:,} weights" in header
    export_c(ticket, tmp_path / "12.c")
    assert "void net_12_run(" in (tmp_path / "12.h").read_text()
    export_c(ticket, tmp_path / "a.c", name="other")
    assert "void other_run(" in (tmp_path / "a.h").read_text()


@needs_compiler
@pytest.mark.parametrize("inputs", ["normalised", "raw", "bytes"])
def test_c_that_computes_something_else_is_not_written(inputs, tmp_path, monkeypatch):
    """The C of other weights stands for a fault of the exporter."""
    ticket = random_ticket()
    sources = ticket_sources(ticket, "net", "start", inputs)
    monkeypatch.setattr("tombola.export.c.ticket_sources", lambda *arguments: sources)
    export_c(ticket, tmp_path / "start.c", "start", inputs)
    with pytest.raises(InputError, match=r"the C code does not match PyTorch: the largest difference is .* nothing"):
        export_c(ticket, tmp_path / "trained.c", "trained", inputs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["start.c", "start.h"]


def test_c_that_does_not_compile_is_not_written_unless_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "false")
    with pytest.raises(InputError, match=r"false fails on the exported C: .*CC=none to write the C without running it"):
        export_c(random_ticket(), tmp_path / "net.c")
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("CC", "none")
    export_c(random_ticket(), tmp_path / "net.c")
    assert (tmp_path / "net.c").is_file()


@pytest.mark.parametrize("name", ["net.h", "net.H"])
def test_the_name_of_a_header_is_no_path_of_c(name, tmp_path):
    with pytest.raises(InputError, match=r"is the name of the header: give the path of the C file, net.c"):
        random_ticket().export("c", tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_nothing_half_written(tmp_path):
    (tmp_path / "net.c").mkdir()  # the second file can't be written
    with pytest.raises(StoreError, match="an existing folder with free space"):
        export_c(random_ticket(), tmp_path / "net.c")
    assert [path.name for path in tmp_path.iterdir()] == ["net.c"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": "best"}, "weights 'best': choose trained or start"),
        ({"favour": "small"}, "favour 'small': choose size or speed"),
        ({"inputs": "byte"}, "inputs 'byte'; did you mean 'bytes'"),
    ],
)
def test_options_of_c_that_are_none(options, words, tmp_path):
    with pytest.raises(InputError, match=words):
        export_c(random_ticket(), tmp_path / "net.c", **options)
    assert not list(tmp_path.iterdir())


def both_backends():
    return [False, pytest.param(True, marks=needs_compiler)]


@pytest.mark.parametrize("compiled", both_backends())
@pytest.mark.parametrize("network", ["lenet-300-100", "conv-2"])
def test_a_module_saved_and_loaded(network, compiled, tmp_path):
    ticket = random_ticket(network)
    for weights in ("trained", "start"):
        export_pytorch(ticket, tmp_path / "ticket", weights)
        module = load(tmp_path / "ticket", compiled)
        assert module.backend == ("c" if compiled else "numba")
        assert (module.reason == "") == compiled
        examples = torch.randn(7, 1, 6, 6)
        with torch.no_grad():
            expected = ticket.build(weights == "trained").eval()(examples)
        torch.testing.assert_close(module(examples), expected, rtol=1e-4, atol=1e-5)
        state = {name.removeprefix("network."): tensor for name, tensor in module.state_dict().items()}
        assert state.keys() == ticket.trained.keys()
        for name, tensor in (ticket.trained if weights == "trained" else ticket.weights).items():
            assert torch.equal(state[name], tensor)
    held = sum(each.numel() for each in ticket.trained.values()) - ticket.mask.total + ticket.mask.remaining
    assert (tmp_path / "ticket").stat().st_size < 4 * held + ticket.mask.total / 8 + 6000


def test_a_module_without_a_compiler_says_so(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    module = sparse_module(random_ticket())
    assert module.backend == "numba"
    assert "found no C compiler" in repr(module)


def test_a_module_of_what_c_can_not_hold():
    layers = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Softplus(), torch.nn.Linear(5, 2))
    keep = {"0.weight": torch.rand(5, 6) < 0.4}
    module = SparseModule(copy.deepcopy(layers), Mask(keep), (6,))
    assert module.backend == "numba"
    if compiler() is not None:
        assert "layer '1'" in module.reason
    examples = torch.randn(3, 6)
    Mask(keep).apply_(layers)
    with torch.no_grad():
        torch.testing.assert_close(module(examples), layers(examples))


@needs_compiler
def test_a_module_trains_on_and_never_computes_with_old_weights():
    ticket = random_ticket("conv-2")
    module, examples = sparse_module(ticket), torch.randn(9, 1, 6, 6)
    before = module(examples)
    assert not before.requires_grad
    module.train().requires_grad_(True)
    optimizer = torch.optim.SGD(module.parameters(), 0.5, weight_decay=0.1)
    torch.nn.functional.cross_entropy(module(examples), torch.arange(9) % 4).backward()
    optimizer.step()
    module.eval().requires_grad_(False)
    after = module(examples)
    assert (after - before).abs().max() > 1e-3
    dense = ticket.build()
    dense.load_state_dict({name.removeprefix("network."): each for name, each in module.state_dict().items()})
    with torch.no_grad():
        torch.testing.assert_close(after, dense.eval()(examples), rtol=1e-4, atol=1e-5)
    for name, keep in ticket.mask.items():
        assert not dense.state_dict()[name][~keep].any()


@needs_compiler
def test_a_module_in_evaluation_gives_gradients_where_asked():
    module = sparse_module(random_ticket())
    inputs = torch.randn(3, 1, 6, 6, requires_grad=True)
    module(inputs).sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.any()


@needs_compiler
def test_a_module_copied_moved_and_given_other_weights(tmp_path):
    ticket, other = random_ticket(), random_ticket(seed=1)
    module, examples = sparse_module(ticket), torch.randn(3, 1, 6, 6)
    expected = module(examples)
    torch.testing.assert_close(copy.deepcopy(module)(examples), expected)
    with pytest.raises(TypeError, match="can't be pickled"):
        pickle.dumps(module)
    state = {f"network.{name}": ticket.mask.apply({name: each})[name] for name, each in other.trained.items()}
    module.load_state_dict(state)
    assert (module(examples) - expected).abs().max() > 1e-3
    module = sparse_module(ticket).double()
    assert module.backend == "numba"
    assert "moved or converted" in module.reason


@pytest.mark.parametrize("name", ["branch", "two-inputs", "embedding"])
def test_a_module_of_a_forward_pass_that_no_graph_can_hold(name):
    ticket = zoo.ticket_of(name)
    module, dense = sparse_module(ticket), ticket.build(True).eval()
    assert module.backend == "numba"
    assert module.reason
    examples = zoo.examples_of(name, 3)
    torch.testing.assert_close(module(examples), zoo.outputs(dense, examples))
    if compiler() is not None:
        with pytest.raises(InputError):
            sparse_module(ticket, compiled=True)


def test_a_file_of_a_users_network_needs_trust(tmp_path):
    path = zoo.ticket_of("mlp").export("pytorch", tmp_path / "ticket")
    with pytest.raises(InputError, match="trust=True"):
        load(path, False)
    examples = zoo.examples_of("mlp", 2)
    expected = zoo.outputs(zoo.ticket_of("mlp").build(True).eval(), examples)
    torch.testing.assert_close(load(path, False, trust=True)(examples), expected)


def test_inputs_that_do_not_fit():
    module = sparse_module(random_ticket())
    with pytest.raises(InputError, match="computes on the CPU"):
        module(torch.empty(2, 1, 6, 6, device="meta"))
    if module.backend == "c":
        with pytest.raises(InputError, match=r"takes \(N, 1, 6, 6\)"):
            module(torch.zeros(2, 36))


def test_files_that_are_no_modules(tmp_path):
    path = tmp_path / "ticket"
    with pytest.raises(InputError, match="is not a file"):
        load(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="can't be read"):
        load(path)
    random_ticket().save(path)
    with pytest.raises(InputError, match="is not a sparse module"):
        load(path)
    export_pytorch(random_ticket(), path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="checksum"):
        load(path)
