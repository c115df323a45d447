"""Networks: plain `nn.Module` factories, their initialisation and their coverage."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from pydantic import Field, ValidationInfo, model_validator
from torch import nn

from tombola.errors import InputError
from tombola.named import code_fingerprint, resolve
from tombola.networks.conv import conv_2, conv_4, conv_6
from tombola.networks.coverage import KINDS, Coverage, Kind, Layer, Unpruned, check_scores, examine
from tombola.networks.initialise import equal_weights, initialised, redraws
from tombola.networks.lenet import lenet
from tombola.networks.resnet import cifar_resnet, resnet_18
from tombola.networks.vgg import vgg
from tombola.section import Section

__all__ = [
    "KINDS",
    "NETWORKS",
    "STORED",
    "Coverage",
    "Kind",
    "Layer",
    "NetworkSettings",
    "Unpruned",
    "check_scores",
    "equal_weights",
    "examine",
    "factory",
    "initialised",
    "redraws",
]

STORED = {"stored": "without defaults"}  # the context in which such a file is validated

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "lenet-300-100": lenet,
    "conv-2": conv_2,
    "conv-4": conv_4,
    "conv-6": conv_6,
    **{f"resnet-{depth}": partial(cifar_resnet, depth=depth) for depth in (20, 32, 44, 56)},
    "resnet-18": resnet_18,
    **{f"vgg-{depth}": partial(vgg, depth=depth) for depth in (11, 13, 16, 19)},
}


class NetworkSettings(Section):
    """The `network` section of a study; a plain string is its name.

    Args:
        name: one of ours, or `package.module:factory` returning an `nn.Module` that maps a batch to class scores.
        arguments: passed to the factory. `input_shape` and `classes` are added where the factory takes them.
        init: how linear and convolution weights are drawn. "pytorch" leaves all weights as the constructor made them,
            and is the default for `package.module:factory`: its weights may be pretrained. The default for one of ours
            is "glorot-normal".
        output: name of the output layer, where the last layer of the forward pass is not it.
    """

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    init: Literal["glorot-normal", "glorot-uniform", "kaiming-normal", "kaiming-uniform", "pytorch"] = "glorot-normal"
    output: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _init_by_default(cls, value: Any, info: ValidationInfo) -> Any:
        """Fill in `init` where it is not given.

        Identity leaves out what equals the field's default, "glorot-normal". So this keeps the identities of our
        networks, and gives a user's own network without `init` that of "pytorch". A file that tombola wrote without
        defaults is read under the context `STORED`: there, no `init` means "glorot-normal".
        """
        if not isinstance(value, dict) or value.get("init") is not None or info.context == STORED:
            return value
        filled = {field: each for field, each in value.items() if field != "init"}
        return filled | {"init": "pytorch"} if ":" in str(value.get("name", "")) else filled

    def code(self) -> str:
        """Return a fingerprint of a user's own factory, "" for ours."""
        return code_fingerprint(self.name, NETWORKS, "network")


def factory(settings: NetworkSettings, input_shape: tuple[int, ...], classes: int) -> Callable[[], nn.Module]:
    """Return a function that builds the module that `settings` describes.

    Raises:
        InputError: there is no such network. The returned function raises it where arguments do not fit, or what
            comes back is no `nn.Module`.
    """
    function = resolve(settings.name, NETWORKS, "network")
    offered = {"input_shape": input_shape, "classes": classes}
    try:
        takes = inspect.signature(function).parameters
    except (TypeError, ValueError):
        takes = {}  # type: ignore[assignment]  # compiled: it tells nothing of its parameters
    arguments = {name: value for name, value in offered.items() if name in takes} | settings.arguments

    def build() -> nn.Module:
        try:
            module = function(**arguments)
        except InputError as error:
            raise InputError(f"network {settings.name!r}: {error}") from error
        except Exception as error:
            raise InputError(
                f"network {settings.name!r} can't be built with {arguments}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(module, nn.Module):
            raise InputError(f"network {settings.name!r} gave a {type(module).__name__}, not a torch.nn.Module")
        return module

    return build
