"""Networks: what is built, how it is initialised, and what `examine` finds in it."""

from functools import partial

import numpy as np
import pytest
import small_nets
import torch
from torch import nn

from tombola.errors import InputError
from tombola.networks import (
    NETWORKS,
    NetworkSettings,
    check_scores,
    equal_weights,
    examine,
    factory,
    fixed_weights,
    initialised,
)
from tombola.networks.initialise import CONSTRUCTOR
from tombola.networks.lenet import lenet

MNIST = (1, 28, 28)
SCHEMES = ["glorot-normal", "glorot-uniform", "kaiming-normal", "kaiming-uniform", "pytorch"]


def build(name, shape=(1, 8, 8), width=10, **arguments):
    return factory(NetworkSettings(name=name, arguments=arguments), shape, width)


# Lenet


def test_lenet_has_the_papers_weights_and_our_names():
    coverage = examine(lenet(MNIST, 10), MNIST)
    assert coverage.sizes() == {"fc1.weight": 235_200, "fc2.weight": 30_000, "output.weight": 1_000}
    assert sum(coverage.sizes().values()) == 266_200
    assert coverage.output == "output.weight"
    assert [(layer.kind, layer.uses) for layer in coverage.layers] == [("linear", 1)] * 3


def test_lenet_computes_what_it_says():
    module = lenet((2, 3), 4, hidden=[5])
    x = torch.randn(7, 2, 3)
    hidden = (x.reshape(7, 6) @ module.fc1.weight.T + module.fc1.bias).clamp(min=0)
    torch.testing.assert_close(module(x), hidden @ module.output.weight.T + module.output.bias)


def test_lenet_takes_any_number_of_hidden_layers():
    assert list(examine(lenet((6,), 3, hidden=[5, 4, 3]), (6,)).sizes().values()) == [30, 20, 12, 9]
    assert list(examine(lenet((6,), 3, hidden=[]), (6,)).sizes().values()) == [18]


# Initialisation


@pytest.mark.parametrize(
    ("scheme", "variance", "uniform"),
    [
        ("glorot-normal", 2 / (784 + 300), False),
        ("glorot-uniform", 2 / (784 + 300), True),
        ("kaiming-normal", 2 / 784, False),
        ("kaiming-uniform", 2 / 784, True),
        ("pytorch", 1 / (3 * 784), True),
    ],
)
def test_the_weights_have_the_variance_of_their_scheme(scheme, variance, uniform):
    """235,200 draws: the sample variance of a normal lies within 1.5 % (five standard deviations)."""
    weight = initialised(lambda: lenet(MNIST, 10), scheme, 1).fc1.weight.detach().double()
    assert weight.var().item() == pytest.approx(variance, rel=0.015)
    assert weight.mean().item() == pytest.approx(0, abs=5 * (variance / weight.numel()) ** 0.5)
    kurtosis = (weight**4).mean().item() / weight.var().item() ** 2
    assert kurtosis == pytest.approx(1.8 if uniform else 3.0, rel=0.03)


def test_a_convolutions_fan_counts_its_window():
    weight = initialised(lambda: nn.Conv2d(40, 60, 3), "glorot-normal", 1).weight
    assert weight.var().item() == pytest.approx(2 / (9 * 40 + 9 * 60), rel=0.05)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_biases_are_zero_unless_left_to_pytorch(scheme):
    module = initialised(partial(small_nets.conv_norm, (2, 6, 6), 4), scheme, 1)
    for layer in (module[0], module[5], module[8]):
        assert bool((layer.bias == 0).all()) == (scheme != "pytorch")
        assert bool((layer.weight != 0).all())
    assert bool((module[1].weight == 1).all())  # batch norm keeps what its constructor gave


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_seed_decides_and_nothing_else(scheme):
    class WithOwnParameter(small_nets.Dropping):
        """Parameters that no scheme covers must be reproducible too."""

        def __init__(self):
            super().__init__((6,), 3)
            self.own = nn.Parameter(torch.randn(4))
            self.embedding = nn.Embedding(3, 2)

    states = []
    for global_seed, seed in ((1, 5), (2, 5), (3, 6)):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        states.append(initialised(WithOwnParameter, scheme, seed).state_dict())
        assert torch.equal(torch.get_rng_state(), before)
    first, same, other = states
    assert all(torch.equal(first[name], same[name]) for name in first)
    for name in ("fc1.weight", "fc2.weight", "own", "embedding.weight"):
        assert not torch.equal(first[name], other[name])


def test_layers_are_not_drawn_alike():
    module = initialised(lambda: lenet((6,), 6, hidden=[6]), "glorot-normal", 1)
    assert not torch.equal(module.fc1.weight, module.output.weight)


def test_large_seeds_are_taken():
    """Ours have 63 bits."""
    initialised(lambda: nn.Linear(2, 2), "glorot-normal", 2**63 - 1)


def test_only_linear_and_convolution_layers_are_drawn():
    """Attention, recurrent layers and bare parameters keep what the constructor drew, by the seed."""

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.memory = nn.MultiheadAttention(4, 2), nn.LSTM(4, 3)
            self.matrix, self.fc = nn.Parameter(torch.randn(4, 4)), nn.Linear(4, 4)

    drawn, same, other = (dict(initialised(Mixed, "glorot-normal", seed).named_parameters()) for seed in (1, 1, 2))
    torch.manual_seed(1 ^ CONSTRUCTOR)
    constructed = dict(Mixed().named_parameters())
    for name, weight in drawn.items():
        assert torch.equal(weight, same[name])
        # Of attention, the output projection is a linear layer.
        assert torch.equal(weight, constructed[name]) == (
            name not in ("fc.weight", "attention.out_proj.weight", "fc.bias")
        )
        if weight.dim() > 1:
            assert not torch.equal(weight, other[name])


@pytest.mark.parametrize("how", ["weight_norm", "spectral_norm"])
def test_a_scheme_does_not_draw_a_weight_that_is_computed(how):
    """It would draw a copy, and nothing would change."""

    def make():
        return nn.Sequential(nn.Linear(4, 4), getattr(nn.utils.parametrizations, how)(nn.Linear(4, 4)))

    with pytest.raises(InputError, match=r"network\.init: glorot-normal can't draw the weight of layer '1'.*pytorch"):
        initialised(make, "glorot-normal", 1)
    assert initialised(make, "pytorch", 1)[0].weight.shape == (4, 4)


def pretrained():
    torch.manual_seed(5)
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    return module


def half_pretrained():
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    module[0].load_state_dict({"weight": torch.eye(4), "bias": torch.zeros(4)})
    return module


def pretrained_backbone():
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3), nn.Linear(3, 3))
    module[0].load_state_dict(pretrained()[0].state_dict())
    nn.init.zeros_(module[3].weight)
    return module


def test_pretrained_weights_have_no_second_initialisation():
    def fixed(build, scheme, names=("0.weight", "2.weight")):
        return fixed_weights(partial(initialised, build, scheme), names)

    assert fixed(pretrained, "pytorch") == ("0.weight", "2.weight")
    assert fixed(pretrained, "glorot-normal") == ()  # which throws them away
    # Zeros and identities are initialisations by design.
    assert fixed(pretrained_backbone, "pytorch", ("0.weight", "2.weight", "3.weight")) == ("0.weight",)
    assert fixed(half_pretrained, "pytorch") == ()
    assert fixed(lambda: lenet((4,), 3), "pytorch", ("fc1.weight", "fc2.weight", "output.weight")) == ()


def test_equal_weights_tell_which_parameters_another_seed_redraws():
    assert equal_weights(partial(initialised, half_pretrained, "pytorch"), 1, 2) == {"0.weight", "0.bias"}
    assert equal_weights(partial(initialised, half_pretrained, "pytorch"), 1, 1) == {
        "0.weight",
        "0.bias",
        "2.weight",
        "2.bias",
    }

    def from_elsewhere():
        module = nn.Linear(3, 3)
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(np.random.default_rng().normal(size=(3, 3))))
        return module

    assert equal_weights(partial(initialised, from_elsewhere, "pytorch"), 1, 1) == {"bias"}


def test_networks_of_ones_own_keep_the_weights_of_their_constructor():
    assert NetworkSettings(name="lenet-300-100").init == "glorot-normal"
    assert NetworkSettings(name="small_nets:mlp").init == "pytorch"
    assert NetworkSettings(name="small_nets:mlp", init=None).init == "pytorch"
    assert NetworkSettings(name="lenet-300-100", init=None).init == "glorot-normal"
    assert NetworkSettings(name="small_nets:mlp", init="glorot-normal").init == "glorot-normal"


def test_a_default_of_init_has_the_identity_of_what_it_does():
    """What was run under glorot-normal before is never taken for the constructor's weights."""

    def identity(**fields):
        return NetworkSettings(**fields).identity()

    assert identity(name="lenet-300-100") == identity(name="lenet-300-100", init="glorot-normal")
    assert identity(name="lenet-300-100") == {"name": "lenet-300-100"}
    assert identity(name="small_nets:mlp") == identity(name="small_nets:mlp", init="pytorch")
    assert identity(name="small_nets:mlp") == {"name": "small_nets:mlp", "init": "pytorch"}
    assert identity(name="small_nets:mlp", init="glorot-normal") == {"name": "small_nets:mlp"}
    settings = NetworkSettings(name="small_nets:mlp", init="glorot-normal")
    assert NetworkSettings.model_validate(settings.model_dump()) == settings


# Coverage of tombola's own networks and small ones


def test_the_output_layer_is_the_last_executed_not_the_last_defined():
    coverage = examine(small_nets.Backwards(), (5,))
    assert coverage.output == "head.weight"
    assert list(coverage.sizes()) == ["body.weight", "head.weight"]


@pytest.mark.parametrize("name", ["body", "body.weight"])
def test_the_output_layer_can_be_named(name):
    assert examine(small_nets.Backwards(), (5,), name).output == "body.weight"


def test_an_unknown_output_layer_is_refused():
    with pytest.raises(InputError, match=r"network\.output: .*no prunable layer 'haed'; did you mean 'head'"):
        examine(small_nets.Backwards(), (5,), "haed")


def test_a_shared_layer_is_one_layer_used_twice():
    coverage = examine(small_nets.Shared(), (5,))
    assert {layer.name: layer.uses for layer in coverage.layers} == {
        "entry.weight": 1,
        "twice.weight": 2,
        "exit.weight": 1,
    }
    assert coverage.output == "exit.weight"


def test_a_shared_layer_that_comes_last_is_the_output():
    """However early it was first used."""

    class FirstAndLast(nn.Module):
        def __init__(self):
            super().__init__()
            self.twice, self.between = nn.Linear(5, 5), nn.Linear(5, 5)

        def forward(self, x):
            return self.twice(torch.relu(self.between(torch.relu(self.twice(x)))))

    coverage = examine(FirstAndLast(), (5,))
    assert coverage.output == "twice.weight"
    assert list(coverage.sizes()) == ["between.weight", "twice.weight"]


def test_two_layers_that_hold_one_weight_are_pruned_as_one():
    """Counted twice, the density would be wrong; masked by a name that no parameter has, training fails."""
    module = small_nets.Tied()
    assert set(examine(module, (5,)).sizes()) <= {name for name, _ in module.named_parameters()}


def test_a_weight_that_is_computed_from_others_is_no_parameter():
    """Weight norm and the like: a mask on it would be one that nothing can keep."""
    module = small_nets.Backwards()
    nn.utils.parametrizations.weight_norm(module.body)
    try:
        found = examine(module, (5,)).sizes()
    except InputError as error:
        assert "body" in str(error)  # noqa: PT017
        return
    assert set(found) <= {name for name, _ in module.named_parameters()}


def test_uses_are_the_positions_of_a_convolution():
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 6, 3, stride=2, groups=2), nn.Flatten(), nn.Linear(24, 3)
    )
    layers = examine(module, (2, 6, 6)).layers
    assert [(layer.kind, layer.shape, layer.uses) for layer in layers] == [
        ("conv", (4, 2, 3, 3), 36),
        ("conv", (6, 2, 3, 3), 4),
        ("linear", (3, 24), 1),
    ]


def test_uses_of_a_linear_layer_count_tokens_and_patches():
    """Once for each token of a sequence, also where tokens were folded into the batch."""

    class Patches(nn.Module):
        def __init__(self):
            super().__init__()
            self.token, self.folded, self.exit = nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 3)

        def forward(self, x):
            x = self.token(x)
            return self.exit(self.folded(x.flatten(0, 1)).reshape(len(x), -1, 6).mean(1))

    assert [layer.uses for layer in examine(Patches(), (7, 4)).layers] == [7, 7, 1]


def test_layers_that_the_forward_pass_never_reaches_are_not_prunable():
    module = small_nets.Backwards()
    module.spare = nn.Linear(5, 5)
    assert "spare.weight" not in examine(module, (5,)).sizes()


def test_a_module_that_is_one_layer_has_a_name():
    assert examine(nn.Linear(5, 3), (5,)).sizes() == {"weight": 15}


@pytest.mark.parametrize("training", [True, False])
def test_examining_leaves_no_trace(training):
    module = small_nets.conv_norm((2, 6, 6), 4).train(training)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    examine(module, (2, 6, 6))
    assert module.training == module[1].training == training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not any(layer._forward_hooks for layer in module.modules())


def test_examining_a_module_that_fails_leaves_no_hooks():
    module = small_nets.conv_norm((2, 6, 6), 4)
    with pytest.raises(InputError):
        examine(module, (3, 6, 6))
    assert not any(layer._forward_hooks for layer in module.modules())
    assert module.training


class Returns(nn.Module):
    def __init__(self, result):
        super().__init__()
        self.fc, self.result = nn.Linear(5, 3), result

    def forward(self, x):
        return self.result(self.fc(x))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (lenet(MNIST, 10), r"can't be run on inputs of shape \(5,\).*\(the first layer expects another size"),
        (nn.Sequential(nn.Flatten(), nn.ReLU()), "no prunable layer"),
        (Returns(lambda y: y.sum()), r"one row of class scores per example; for 2 .*returned \(\)"),
        (Returns(lambda y: y.sum(1)), r"for 2 .*returned \(2,\)"),
        (Returns(lambda y: y[:1]), r"for 2 .*returned \(1, 3\)"),
        (Returns(lambda y: y[:, :, None]), r"for 2 .*returned \(2, 3, 1\)"),
        (Returns(lambda y: (y, y)), "for 2 .*returned tuple"),
        (Returns(lambda y: {"logits": y}), "for 2 .*returned dict"),
    ],
)
def test_networks_that_cannot_be_used_are_refused(module, message):
    with pytest.raises(InputError, match=message):
        check_scores(examine(module, (5,)))


def test_a_lazy_network_is_refused_or_works():
    """Its weights have no shape when a scheme wants to draw them; that must not be a bug's traceback."""
    try:
        module = initialised(build("small_nets:lazy"), "glorot-normal", 1)
    except InputError:
        return
    module(torch.zeros(2, 1, 8, 8))


# Factories


def test_a_factory_is_given_what_it_takes():
    assert build("lenet-300-100", MNIST, 7)().output.out_features == 7
    assert build("small_nets:mlp", (1, 4, 4), 3, hidden=[5])()[-1].weight.shape == (3, 5)
    assert build("small_nets:three_classes", (1, 4, 4), 10)()[1].out_features == 3
    assert build("small_nets:Backwards")().head.out_features == 3


def test_arguments_of_the_study_win():
    assert build("lenet-300-100", MNIST, 10, hidden=[5], classes=12)().output.out_features == 12


def test_each_call_builds_anew():
    make = build("small_nets:mlp")
    assert make()[1].weight is not make()[1].weight


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lenet-300", r"unknown network 'lenet-300'; did you mean 'lenet-300-100'.*package\.module:name"),
        ("quite-other", "unknown network 'quite-other'; known: .*lenet-300-100"),
        ("no_such_module:net", "module 'no_such_module' can't be imported"),
        ("small_nets:mpl", "'mpl' in 'small_nets' does not exist; did you mean 'mlp'"),
        ("small_nets:not_callable", "'not_callable' in 'small_nets' is not callable"),
    ],
)
def test_a_network_that_is_not_there(name, message):
    with pytest.raises(InputError, match=message):
        build(name)


def test_arguments_that_do_not_fit():
    with pytest.raises(InputError, match=r"'small_nets:mlp' can't be built with .*widths.*TypeError"):
        build("small_nets:mlp", widths=[3])()


def test_each_call_must_build_a_module_of_its_own():
    make = build("small_nets:shared")
    make()
    with pytest.raises(InputError, match=r"returned one module twice.*; build a new module in each call"):
        make()
    again = build("small_nets:mlp", input_shape=(5,), classes=3)
    assert len({id(module) for module in [again() for _ in range(3)]}) == 3


def test_what_comes_back_must_be_a_module():
    with pytest.raises(InputError, match=r"gave a Size, not a torch\.nn\.Module; return the module"):
        build("torch:Size")()


@pytest.mark.parametrize(
    ("name", "weights", "in_convolutions"),
    [("conv-2", 4_300_992, 38_592), ("conv-4", 2_425_024, 259_776), ("conv-6", 2_261_184, 1_144_512)],
)
def test_convolutional_networks_have_the_weights_of_the_paper(name, weights, in_convolutions):
    coverage = examine(NETWORKS[name]((3, 32, 32), 10), (3, 32, 32))
    assert sum(layer.size for layer in coverage.layers) == weights
    assert sum(layer.size for layer in coverage.layers if layer.kind == "conv") == in_convolutions
    assert coverage.output == "output.weight"
