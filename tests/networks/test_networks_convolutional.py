"""The convolutional networks: their weights against published counts, what they compute, what they refuse."""

import pytest
import torch
from torch.nn import functional

from tombola.errors import InputError
from tombola.networks import NETWORKS, NetworkSettings, examine, factory, initialised
from tombola.networks.resnet import Block

CIFAR = (3, 32, 32)
CONVOLUTIONAL = [name for name in NETWORKS if not name.startswith("lenet")]


def made(name, shape=CIFAR, classes=10, **arguments):
    return factory(NetworkSettings(name=name, arguments=arguments), shape, classes)


def sizes(name, **arguments):
    return examine(made(name, **arguments)(), CIFAR).sizes()


def test_resnet_20_has_the_weights_of_the_paper():
    """Frankle & Carbin 2019, Figure 2 and Appendix H: 270K in convolutions, 2,560 of them in shortcuts, 640 outside."""
    found = sizes("resnet-20")
    shortcuts = {name: size for name, size in found.items() if "shortcut" in name}
    assert shortcuts == {"stage2.0.shortcut.weight": 512, "stage3.0.shortcut.weight": 2_048}
    assert found["output.weight"] == 640
    assert sum(found.values()) == 267_696 + 2_560 + 640
    assert len(found) == 20 + 2


@pytest.mark.parametrize("depth", [32, 44, 56])
def test_a_deeper_resnet_has_as_many_layers_as_its_name_says(depth):
    found = sizes(f"resnet-{depth}")
    assert sum("shortcut" not in name for name in found) == depth
    # He et al. 2016, Table 6: 0.46M, 0.66M and 0.85M parameters.
    assert sum(found.values()) / 1e6 == pytest.approx({32: 0.46, 44: 0.66, 56: 0.85}[depth], abs=0.005)


def test_vgg_19_has_the_weights_of_the_paper():
    """20.0M in Frankle & Carbin 2019, Figure 2."""
    found = sizes("vgg-19")
    assert found.pop("output.weight") == 5_120
    assert sum(found.values()) == 20_018_880
    assert len(found) == 16
    widths = [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8
    assert [module.out_channels for module in made("vgg-19")() if hasattr(module, "out_channels")] == widths


# Parameters of the usual definitions for CIFAR-10, published in many places: 11,173,962 for ResNet-18; 9,231,114,
# 9,416,010 and 14,728,266 for VGG with biases in convolutions, which those before batch norm do without here.
@pytest.mark.parametrize(
    ("name", "parameters", "biases"),
    [
        ("resnet-18", 11_173_962, 0),
        ("vgg-11", 9_231_114, 2_752),
        ("vgg-13", 9_416_010, 2_944),
        ("vgg-16", 14_728_266, 4_224),
    ],
)
def test_the_usual_networks_have_the_usual_number_of_parameters(name, parameters, biases):
    assert sum(parameter.numel() for parameter in made(name)().parameters()) == parameters - biases


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_the_output_layer_is_called_output(name):
    assert examine(made(name)(), CIFAR).output == "output.weight"


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 16, 16), (2, 17, 23)])
@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_other_images_and_classes_are_taken(name, shape):
    arguments = {} if name.startswith("conv") else {"width": 4}
    module = made(name, shape, 7, **arguments)()
    assert module(torch.randn(3, *shape)).shape == (3, 7)
    assert examine(module, shape).classes == 7


def test_depth_and_width_are_arguments():
    coverage = examine(made("resnet-20", depth=8, width=4)(), CIFAR)
    assert [layer.shape[0] for layer in coverage.layers if layer.kind == "conv"] == [4, 4, 4, 8, 8, 8, 16, 16, 16]
    assert [layer.uses for layer in coverage.layers] == [1024] * 3 + [256] * 3 + [64] * 3 + [1]


def test_a_block_computes_what_it_says():
    block = Block(3, 6, stride=2).eval()
    for norm in (block.norm1, block.norm2, block.shortcut_norm):
        torch.nn.init.normal_(norm.running_mean)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
        torch.nn.init.normal_(norm.weight)
    x = torch.randn(2, 3, 8, 8)

    def normed(norm, y):
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        return (y - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]

    inner = normed(block.norm1, functional.conv2d(x, block.conv1.weight, stride=2, padding=1)).clamp(min=0)
    inner = normed(block.norm2, functional.conv2d(inner, block.conv2.weight, padding=1))
    around = normed(block.shortcut_norm, functional.conv2d(x[:, :, ::2, ::2], block.shortcut.weight))
    torch.testing.assert_close(block(x), (inner + around).clamp(min=0))


def test_a_block_that_keeps_the_shape_adds_its_input():
    block = Block(4, 4, stride=1)
    assert not any("shortcut" in name for name, _ in block.named_parameters())
    torch.nn.init.zeros_(block.norm2.weight)
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(block(x), x.clamp(min=0))


def test_dropout_is_on_the_hidden_fully_connected_layers_alone():
    """The paper's Figure 6."""
    module = made("conv-4", dropout=0.5)()
    names = [name for name, _ in module.named_children()]
    assert names[-7:] == ["fc1", "fc_relu1", "dropout1", "fc2", "fc_relu2", "dropout2", "output"]
    assert sum(isinstance(layer, torch.nn.Dropout) for layer in module) == 2


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_every_convolution_is_drawn_by_the_scheme(name):
    """Glorot: variance 2 / (fan in + fan out), a window's positions counted."""
    for layer in initialised(made(name), "glorot-normal", 1).modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.weight.numel() > 20_000:
            fan = layer.weight[0].numel() + layer.weight[:, 0].numel()
            assert layer.weight.var().item() == pytest.approx(2 / fan, rel=0.06)


@pytest.mark.parametrize(
    ("name", "smallest", "features"), [("conv-2", 6, 64), ("conv-4", 16, 128), ("conv-6", 36, 256)]
)
def test_without_padding_a_convolution_takes_two_off(name, smallest, features):
    def first_linear(size):
        return made(name, (3, size, size), padding="valid")().fc1.in_features

    assert first_linear(smallest) == features  # one pixel
    size = 40
    for _ in range(int(name[-1]) // 2):
        size = (size - 4) // 2
    assert first_linear(40) == features * size**2


def test_conv_4_without_padding_is_what_keras_builds_by_default():
    module = made("conv-4", padding="valid")()
    assert module.fc1.in_features == 5 * 5 * 128
    assert module(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "shape", "arguments", "message"),
    [
        ("vgg-19", (3, 8, 8), {}, "network 'vgg-19': images of 8x8 are too small: .* at least 16x16"),
        ("conv-6", (3, 32, 7), {}, "network 'conv-6': images of 32x7 are too small: .* at least 8x8"),
        ("conv-6", (3, 32, 32), {"padding": "valid"}, "images of 32x32 are too small: .* at least 36x36"),
        ("conv-2", (3, 32, 32), {"padding": "full"}, "padding='full' must be one of same, valid"),
        ("conv-2", (784,), {}, r"network 'conv-2': it takes images .*an example has shape \(784,\)"),
        ("resnet-20", (784,), {}, r"network 'resnet-20': it takes images"),
        ("resnet-18", (784,), {}, r"network 'resnet-18': it takes images"),
        ("resnet-20", CIFAR, {"depth": 18}, r"depth 18 is not 6n\+2; choose 8, 14, 20"),
        ("resnet-20", CIFAR, {"depth": 2}, r"depth 2 is not 6n\+2"),
        ("vgg-19", CIFAR, {"depth": 18}, "depth 18 is unknown; choose one of 11, 13, 16, 19"),
        ("resnet-20", CIFAR, {"deep": 20}, "can't be built with .*deep"),
    ],
)
def test_what_does_not_fit_is_said(name, shape, arguments, message):
    with pytest.raises(InputError, match=message):
        made(name, shape, **arguments)()
