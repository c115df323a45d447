"""The exported C computes what PyTorch does, for every kind of node, sparse or not."""

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from export_networks import Separable, Series, randomised
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tombola.errors import InputError
from tombola.export.c import sources_of
from tombola.export.c.build import Compiled, compiler
from tombola.export.c.fold import fold
from tombola.export.c.lower import lower
from tombola.export.c.memory import place
from tombola.export.graph import Unsupported
from tombola.export.graph_trace import trace
from tombola.networks import NetworkSettings, factory

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler")

FAST = ("-std=c99", "-O1", "-march=native")
PLAIN = ("-std=c99", "-O1", "-DTOMBOLA_PLAIN")


class Calls(nn.Module):
    """A forward pass given as a function of the example."""

    def __init__(self, function, *layers):
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x):
        return self.function(x, *self.layers)


def outputs_of(module, examples, flags=FAST):
    """Return what the exported C gives, and what PyTorch gives."""
    shape = tuple(examples.shape[1:])
    with torch.no_grad():
        expected = module.eval()(examples)
    compiled = Compiled(sources_of(trace(module, shape), "net"), shape, tuple(expected.shape[1:]), flags)
    compiled._memory.numbers[:] = 1e3  # what an earlier example left behind must not matter
    compiled(examples.numpy())
    return compiled(examples.numpy()), expected.numpy()


def assert_same(module, examples, flags=FAST):
    found, expected = outputs_of(module, examples, flags)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(expected).max()))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("flags", [FAST, PLAIN])
@pytest.mark.parametrize("density", [0.03, 0.3, 1.0])
@pytest.mark.parametrize("name", ["lenet-300-100", "conv-2", "resnet-20"])
def test_our_networks(name, density, flags):
    shape = (3, 8, 8)
    module = randomised(factory(NetworkSettings(name=name), shape, 10)(), density)
    with torch.no_grad():
        module.output.weight.normal_(0, 0.1)  # a path to the outputs
    assert_same(module, draw(3, *shape), flags)


@pytest.mark.parametrize("flags", [FAST, PLAIN])
@pytest.mark.parametrize("density", [0.3, 1.0])
@pytest.mark.parametrize(("network", "shape"), [(Separable, (3, 29, 33)), (Series, (4, 40))])
def test_networks_that_no_example_uses(network, shape, density, flags):
    assert_same(randomised(network(), density), draw(3, *shape), flags)


@st.composite
def convolutions(draw_):
    """A convolution of one or two axes and the size of its input."""
    axes = draw_(st.sampled_from([1, 2]))
    groups = draw_(st.sampled_from([1, 1, 2, 3]))
    inputs = groups * draw_(st.integers(1, 3))
    outputs = groups * draw_(st.integers(1, 4))
    kernel, stride, dilation, padding, size = [], [], [], [], []
    for _ in range(axes):
        kernel.append(draw_(st.integers(1, 4)))
        stride.append(draw_(st.integers(1, 3)))
        dilation.append(draw_(st.integers(1, 2)))
        padding.append(draw_(st.integers(0, 4)))
        least = max(1, dilation[-1] * (kernel[-1] - 1) + 1 - 2 * padding[-1])
        size.append(draw_(st.integers(least, least + 18)))
    kind = (nn.Conv1d, nn.Conv2d)[axes - 1]
    layer = kind(
        inputs, outputs, tuple(kernel), tuple(stride), tuple(padding), tuple(dilation), groups, draw_(st.booleans())
    )
    return layer, (inputs, *size)


@given(convolutions(), st.floats(0.2, 1.0), st.booleans())
@settings(max_examples=12, deadline=None)
def test_any_convolution(case, density, wide):
    layer, shape = case
    with torch.no_grad():
        layer.weight.copy_(draw(*layer.weight.shape) * (draw(*layer.weight.shape, seed=1) < 2 * density - 1))
        layer.weight.view(-1)[0] = 1.0
    follow = nn.Identity() if wide else nn.ReLU()
    assert_same(nn.Sequential(layer, follow), draw(2, *shape))


OPERATORS = {
    "max pool": lambda x: functional.max_pool2d(x, 3, 2, 1),
    "max pool that rounds up": lambda x: functional.max_pool2d(x, 2, 2, ceil_mode=True),
    "max pool 2x2": lambda x: functional.max_pool2d(x, 2),
    "dilated max pool": lambda x: functional.max_pool2d(x, (2, 3), 1, dilation=2),
    "average pool": lambda x: functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    "average pool without padding": lambda x: functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "average pool with a divisor": lambda x: functional.avg_pool2d(x, 3, 2, 1, divisor_override=5),
    "adaptive average": lambda x: functional.adaptive_avg_pool2d(x, (3, 5)),
    "adaptive maximum": lambda x: functional.adaptive_max_pool2d(x, (3, 5)),
    "pad": lambda x: functional.pad(x, (1, 2, 0, 3), value=0.5),
    "constants": lambda x: 2 - (x - torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)) / 3,
    "constants at places": lambda x: x * torch.arange(11.0) + torch.arange(9.0).view(9, 1),
    "slices and concatenation": lambda x: torch.cat([x[:, 1:], x[:, :1] * 2, x[:, ::2]], 1)[..., 1:9:3],
    "permutation": lambda x: x.permute(0, 3, 1, 2).reshape(len(x), 33, 9) + 1,
    "sum over rows": lambda x: x.mean(-1) + x.mean((1, 3), keepdim=True).squeeze(3),
    "broadcast product": lambda x: x * x.mean((2, 3), keepdim=True) - x.mean(3, keepdim=True),
    "softmax": lambda x: torch.softmax(x, 1),
    "log softmax": lambda x: functional.log_softmax(x.flatten(1), 1),
    "twice": lambda x: functional.relu(x) + x,
}
ACTIVATIONS = {
    "relu": functional.relu,
    "relu6": lambda x: functional.relu6(x * 6),
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.3),
    "elu": lambda x: functional.elu(x, 0.7),
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "sigmoid": torch.sigmoid,
    "hardsigmoid": lambda x: functional.hardsigmoid(x * 4),
    "tanh": torch.tanh,
    "silu": functional.silu,
    "hardswish": lambda x: functional.hardswish(x * 4),
    "hardtanh": lambda x: x.clamp(-0.3, 0.8),
    "clamp": lambda x: x.clamp(max=0.1),
}


@pytest.mark.parametrize("name", [*OPERATORS, *ACTIVATIONS])
def test_operators(name):
    """Alone, and after a convolution with a dead channel, whose result is used twice or once."""
    function = (OPERATORS | ACTIVATIONS)[name]
    conv = nn.Conv2d(3, 3, 3, padding=1)
    conv.weight.data[1] = 0.0
    examples = draw(2, 3, 9, 11)

    def forward(x, conv):
        once, twice = conv(x), conv(x * 2)
        return torch.cat([function(each).flatten(1) for each in (x, once, twice)] + [twice.flatten(1)], 1)

    assert_same(Calls(forward, conv), examples)


def test_linear_layers_on_several_axes_and_constants_through_them():
    first, second, third = nn.Linear(6, 9), nn.Linear(9, 7), nn.Linear(7 * 5, 4)
    for layer in (first, second):
        layer.weight.data[::2] = 0.0  # units that are constant

    def forward(x, first, second, third):
        return third(torch.tanh(second(functional.relu(first(x)))).flatten(1))

    assert_same(Calls(forward, first, second, third), draw(3, 5, 6))


def test_channels_that_no_weight_reads_are_not_copied():
    layer = nn.Conv1d(2, 1, 1, bias=False)
    layer.weight.data[:] = torch.tensor([[[1.0], [0.0]]])
    assert_same(layer, draw(2, 2, 2))


def test_many_inputs_are_split_into_blocks():
    layer = nn.Linear(20_000, 30)
    layer.weight.data *= draw(30, 20_000) > 2
    assert_same(layer, draw(2, 20_000))
    layer.weight.data[0] = 1.0  # one output that is dense beside others that are not
    assert_same(layer, draw(2, 20_000))


def test_a_plane_larger_than_sixteen_bits():
    assert_same(nn.Conv2d(2, 2, 3, padding=1), draw(1, 2, 270, 260))
    assert_same(nn.Conv1d(1, 2, 3, padding=40_000, dilation=40_000), draw(1, 1, 70_000))


def test_residual_sums_of_every_order():
    first, second, third = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))

    def forward(x, first, second, third):
        x = functional.relu(first(x))
        y = functional.relu(second(x) + x)  # the convolution adds its own input
        z = third(y) + second(y)  # two convolutions: one adds the other
        return functional.gelu(y + third(z)) + z  # z is used again

    assert_same(Calls(forward, first, second, third), draw(2, 4, 7, 10))


def test_norms_before_and_after_layers():
    def forward(x, norm, conv, after):
        return after(conv(norm(x)))

    norm, conv, after = nn.BatchNorm2d(3), nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5)
    module = randomised(Calls(forward, norm, conv, after), 0.6)
    assert_same(module, draw(2, 3, 8, 8))
    for layer in (nn.Linear(6, 5), nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))):
        assert_same(randomised(layer, 0.7), draw(3, 6))


def test_not_a_number_stays_visible():
    module = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 3))
    examples = draw(1, 1, 8, 8)
    examples[0, 0, 3, 3] = torch.nan
    found, expected = outputs_of(module, examples)
    assert np.isnan(expected).all()
    assert np.isnan(found).all()


def test_a_ticket_without_live_paths_is_refused():
    module = factory(NetworkSettings(name="lenet-300-100"), (1, 6, 6), 4)()
    module.fc2.weight.data.zero_()
    with pytest.raises(InputError, match="no path of kept weights leads from an input"):
        sources_of(trace(module, (1, 6, 6)))


def test_dead_units_and_channels_cost_nothing():
    module = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 3), nn.Flatten(), nn.Linear(2 * 4, 2))
    module[0].weight.data[4] = 0.0  # gives a constant
    module[2].weight.data[:, 1] = 0.0  # nobody reads it
    module[2].weight.data[:, 3] = 0.0
    program = lower(fold(trace(module, (2, 6, 6))))
    convs = [op for op in program.ops if type(op).__name__ == "Conv"]
    assert [len(op.bias) for op in convs] == [3, 2]  # without padding the constant is folded too
    assert_same(module, draw(2, 2, 6, 6))


@pytest.mark.parametrize(
    ("layer", "shape", "words"),
    [
        (nn.Conv3d(1, 2, 2), (1, 4, 4, 4), "layer '0' uses a convolution over three axes"),
        (nn.AvgPool3d(2), (1, 4, 4, 4), "layer '0' uses a pooling over three axes"),
        (nn.ConstantPad3d(1, 0.0), (1, 4, 4, 4), "layer '0' uses padding of channels"),
    ],
)
def test_what_c_can_not_hold(layer, shape, words):
    with pytest.raises(Unsupported, match=words):
        sources_of(trace(nn.Sequential(layer), shape))


@pytest.mark.parametrize("name", ["1net", "a-b", "", "a b", 'x"', "é"])
def test_names_must_be_identifiers(name):
    with pytest.raises(InputError, match="not a C identifier"):
        sources_of(trace(nn.Linear(2, 2), (2,)), name)


class Windows(nn.Module):
    """Each frame beside its neighbours: a linear layer reads most numbers up to three times."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4 * 8 * 3, 32), nn.Linear(32, 5)

    def forward(self, x):
        windows = torch.cat([x[:, :-2], x[:, 1:-1], x[:, 2:]], -1)
        return self.last(functional.relu(self.first(windows.flatten(1))))


@pytest.mark.parametrize("density", [0.1, 0.6, 1.0])
def test_numbers_that_a_linear_layer_reads_twice(density):
    assert_same(randomised(Windows(), density), draw(9, 6, 8))


@pytest.mark.parametrize("count", [3, 100])
def test_the_example_beside_itself(count):
    layer = nn.Linear(3 * count, 20)
    assert_same(Calls(lambda x, layer: layer(torch.cat([x, x * 2, x], 1)), layer), draw(5, count))
    layer.weight.data[:, 2 * count :] = -layer.weight.data[:, :count]  # what is added up is nothing
    assert_same(Calls(lambda x, layer: layer(torch.cat([x, x * 2, x], 1)), layer), draw(5, count))


def test_a_row_wider_than_an_index_reaches():
    layer = nn.Linear(2**16, 1)
    assert_same(layer, draw(2, 2**16))
    layer = nn.Linear(2 * 40_000, 1)  # more weights than numbers
    assert_same(Calls(lambda x, layer: layer(torch.cat([x, x], 1)), layer), draw(2, 40_000))


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: y * x.mean((2, 3)).view(len(x), 2, 4, 1, 1),
        lambda x, y: y * x.mean((1, 2, 3)).view(len(x), 1, 1, 1, 1),
        lambda x, y: y * y.mean((2, 3, 4), keepdim=True),
        lambda x, y: y + x[:, :4].unsqueeze(1),
        lambda x, y: y.mean((3, 4)) - x.mean((2, 3)).view(len(x), 2, 4)[:, :, :1],
        lambda x, y: y.view(len(x), 2, 2, 2, 5, 6) * y.view(len(x), 2, 2, 2, 5, 6).mean((2, 5), keepdim=True),
    ],
)
def test_groups_of_channels_that_are_broadcast(function):
    def forward(x, conv):
        x = conv(x)
        return function(x, x.view(len(x), 2, 4, 5, 6)).flatten(1)

    assert_same(Calls(forward, nn.Conv2d(3, 8, 3, padding=1)), draw(2, 3, 5, 6))


def test_memory_is_used_again_and_nothing_overlaps():
    module = factory(NetworkSettings(name="resnet-20"), (3, 32, 32), 10)()
    program = lower(fold(trace(module, (3, 32, 32))))
    _, work = place(program)
    assert work < sum(buffer.size for buffer in program.buffers) / 3


WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-O2")
MAIN = """
#include "net.h"
#include <stdio.h>
#include <stdlib.h>
int main(void)
{
    static float in[3 * NET_INPUTS], out[3 * NET_OUTPUTS];
    if (fread(in, sizeof *in, 3 * NET_INPUTS, stdin) != 3 * NET_INPUTS) return 2;
    net_run_batch(in, out, 3);
    net_run(in + NET_INPUTS, out + NET_OUTPUTS);
    for (int i = 0; i < 3 * NET_OUTPUTS; i++) printf("%.9g\\n", out[i]);
    return 0;
}
""".replace("NET_INPUTS", "net_INPUTS").replace("NET_OUTPUTS", "net_OUTPUTS")


def as_program(module, examples, folder, *flags):
    """Return what a C program that calls the exported network prints."""
    shape = tuple(examples.shape[1:])
    sources = sources_of(trace(module, shape), "net", "two\nlines")
    (folder / "net.c").write_text(sources.code)
    (folder / "net.h").write_text(sources.header)
    (folder / "main.c").write_text(MAIN)
    names = [str(folder / name) for name in ("net.c", "main.c")]
    subprocess.run([compiler(), *WARNINGS, *flags, *names, "-o", str(folder / "main"), "-lm"], check=True)
    done = subprocess.run([str(folder / "main")], input=examples.numpy().tobytes(), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return np.array(done.stdout.split(), np.float32)


def sparse_linear():
    """Return a network whose first layer is stored with windows."""
    first = nn.Linear(800, 64)
    first.weight.data *= draw(64, 800) > 1
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(64, 5))


CASES = [
    (sparse_linear, (1, 20, 40)),
    (lambda: factory(NetworkSettings(name="lenet-300-100"), (1, 9, 9), 10)(), (1, 9, 9)),
    (Separable, (3, 17, 19)),
    (Series, (4, 40)),
]


@pytest.mark.parametrize("flags", [("-march=native",), ("-DTOMBOLA_PLAIN",), ()])
@pytest.mark.parametrize(("network", "shape"), CASES)
def test_no_warnings_and_clean_under_the_sanitizers(network, shape, flags, tmp_path):
    module, examples = randomised(network(), 0.5), draw(3, *shape)
    sanitized = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    found = as_program(module, examples, tmp_path, *flags, *sanitized)
    with torch.no_grad():
        np.testing.assert_allclose(found, module(examples).numpy().reshape(-1), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_the_header_is_for_cpp_too(tmp_path):
    sources = sources_of(trace(nn.Linear(3, 2), (3,)), "net")
    (tmp_path / "net.h").write_text(sources.header)
    (tmp_path / "main.cpp").write_text('#include "net.h"\nint main() { return net_INPUTS - 3; }\n')
    subprocess.run(["c++", "-Wall", "-Werror", "-c", str(tmp_path / "main.cpp"), "-o", str(tmp_path / "o")], check=True)


def test_threads_give_the_same(monkeypatch):
    module, examples = randomised(Separable(), 0.5), draw(7, 3, 12, 12)
    compiled = Compiled(sources_of(trace(module, (3, 12, 12)), "net"), (3, 12, 12), (5,), FAST)
    one = compiled(examples.numpy())
    np.testing.assert_array_equal(one, compiled(examples.numpy(), threads=3))
    result = np.empty((1, 5), np.float32)
    first = np.ascontiguousarray(examples[:1].numpy())
    compiled.caller(first, result)()
    np.testing.assert_array_equal(result, one[:1])
    with pytest.raises(InputError, match=r"the network takes \(N, 3, 12, 12\)"):
        compiled(examples.numpy()[:, :1])


@pytest.mark.parametrize("threads", [1, 2])
def test_callers_in_several_threads_do_not_disturb_each_other(threads):
    module = nn.Sequential(nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 10))
    compiled = Compiled(sources_of(trace(module, (64,)), "net"), (64,), (10,), FAST)
    batches = [draw(200, 64, seed=seed).numpy() for seed in range(3)]
    expected = [compiled(each, threads) for each in batches]

    def same(number):
        return all(np.array_equal(compiled(batches[number], threads), expected[number]) for _ in range(20))

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(same, range(3)))


def test_without_a_compiler_one_sentence_says_so(monkeypatch):
    sources = sources_of(trace(nn.Linear(3, 2), (3,)), "net")
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(InputError, match=r"needs a C compiler, and \$CC names 'no-such-compiler', which was not found"):
        Compiled(sources, (3,), (2,))
    monkeypatch.setenv("CC", "false")
    with pytest.raises(InputError, match="fails on the exported C"):
        Compiled(sources, (3,), (2,))
