"""Networks: plain `nn.Module` factories, their initialisation and their coverage."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import nn
from torch.utils._pytree import tree_leaves

from tombola.data import Description, blank_inputs, is_one_shape, random_inputs
from tombola.errors import InputError
from tombola.networks.conv import conv_2, conv_4, conv_6
from tombola.networks.coverage import Coverage, Layer, Unpruned, check_scores, examine
from tombola.networks.initialise import (
    equal_weights,
    fixed_weights,
    initialised,
    without_second_initialisation,
)
from tombola.networks.lenet import lenet
from tombola.networks.one_batch import random_examples
from tombola.networks.owners import KINDS, Kind
from tombola.networks.resnet import cifar_resnet, resnet_18
from tombola.networks.vgg import vgg
from tombola.registry import code_fingerprint, named, resolve
from tombola.section import JsonSchema, Section, as_name, or_number
from tombola.tasks import Task

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
    "check_shapes",
    "equal_weights",
    "examine",
    "examined",
    "factory",
    "fixed_weights",
    "initialised",
    "network_for",
    "without_second_initialisation",
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
        name: one of tombola's, or `package.module:factory` returning an `nn.Module` that maps a batch to class scores.
        arguments: passed to the factory. `input_shape`, `classes` and `tokens` are added where the factory takes them:
            shape of an example, how many numbers the task needs for each example or position, and the number of token
            ids.
        init: how linear and convolution weights are drawn. "pytorch" leaves all weights as the constructor made them,
            and is the default for `package.module:factory`: its weights may be pretrained. The default for one of
            tombola's
            is "glorot-normal".
        output: name of the output layer, where the last layer of the forward pass is not it.
        embeddings: makes embedding tables prunable too.
    """

    name: str = Field(json_schema_extra=named(NETWORKS, "network"))
    arguments: dict[str, Any] = Field(default_factory=dict)
    init: Literal["glorot-normal", "glorot-uniform", "kaiming-normal", "kaiming-uniform", "pytorch"] = "glorot-normal"
    output: str | None = Field(default=None, json_schema_extra=or_number)
    embeddings: bool = False

    @field_validator("output", mode="before")
    @classmethod
    def _output(cls, value: Any) -> Any:
        return as_name(value)

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

    @classmethod
    def written_forms(cls, fields: JsonSchema) -> list[JsonSchema]:
        """Accept a plain string for the name."""
        return [fields["properties"]["name"], fields]

    def code(self) -> str:
        """Return a fingerprint of a user's own factory, "" for ours."""
        return code_fingerprint(self.name, NETWORKS, "network")

    def fingerprint(self, module: nn.Module) -> str:
        """Return `code`, then a hash of the shapes of a module of this factory; "" for our factories.

        The shapes may follow from what the code does not show, such as a file that it reads.
        """
        if not (code := self.code()):
            return ""
        shapes = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
        return f"{code}.{hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:16]}"

    def is_code(self, fingerprint: str) -> bool:
        """Return whether a fingerprint is of the code as it is now."""
        return fingerprint.partition(".")[0] == self.code()


def network_for(settings: NetworkSettings, data: Description, task: Task) -> Callable[[], nn.Module]:
    """Return a function that builds the module for a task on a data set; errors are those of `factory`."""
    return factory(settings, data.input_shape, task.outputs(data), data.tokens)


def examined(build: Callable[[], nn.Module], data: Description, settings: NetworkSettings) -> Coverage:
    """Return the coverage of a network on inputs of a data set's shape and type; errors are those of `examine`."""
    module = initialised(build, "pytorch", 0)
    if is_one_shape(data.input_shape) and data.input_dtype == "float32":
        return examine(module, data.input_shape, settings.output, settings.embeddings)
    blank = blank_inputs(data)
    random = random_inputs(data, random_examples(tree_leaves(blank)), torch.Generator().manual_seed(0))
    return examine(module, blank, settings.output, settings.embeddings, random)


def factory(
    settings: NetworkSettings, input_shape: Any, classes: int | None, tokens: Any = None
) -> Callable[[], nn.Module]:
    """Return a function that builds the module that `settings` describes.

    Args:
        settings: the `network` section of a study.
        input_shape, classes, tokens: offered to the factory; None is not.

    Raises:
        InputError: the network does not exist. The returned function raises it where arguments do not fit, or what
            comes back is no `nn.Module`, or the module of the call before.
    """
    function = resolve(settings.name, NETWORKS, "network")
    known = {"input_shape": input_shape, "classes": classes, "tokens": tokens}
    offered = {name: value for name, value in known.items() if value is not None}
    try:
        takes = inspect.signature(function).parameters
    except (TypeError, ValueError):
        takes = {}  # type: ignore[assignment]  # compiled: it tells nothing of its parameters
    arguments = {name: value for name, value in offered.items() if name in takes} | settings.arguments
    earlier: list[weakref.ref[nn.Module]] = []  # the module of the call before

    def build() -> nn.Module:
        try:
            if function in NETWORKS.values():
                _check_size(partial(function, **arguments))
            module = function(**arguments)
        except InputError as error:
            raise InputError(f"network {settings.name!r}: {error}") from error
        except Exception as error:
            raise InputError(
                f"network {settings.name!r} can't be built with {arguments}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(module, nn.Module):
            raise InputError(
                f"network {settings.name!r} gave a {type(module).__name__}, not a torch.nn.Module; return the module "
                "from the function"
            )
        if earlier and earlier.pop()() is module:
            raise InputError(
                f"network {settings.name!r} returned one module twice, so a run would start from weights that another "
                "run has trained; build a new module in each call"
            )
        earlier.append(weakref.ref(module))
        return module

    return build


def check_shapes(name: str, build: Callable[[], nn.Module], tensors: Mapping[str, torch.Size]) -> None:
    """Refuse tensors of other shapes than those of a network of ours, before memory is taken for it.

    Args:
        name: of the network; one of a user's is built whole, and refuses them by itself.
        build: makes it.
        tensors: shapes by name, as in its state_dict.

    Raises:
        InputError: one is missing or differs.
    """
    if name not in NETWORKS:
        return
    with torch.device("meta"):
        needed = {key: tensor.shape for key, tensor in build().state_dict().items()}
    for key, shape in needed.items():
        if key not in tensors or tensors[key] != shape:
            raise InputError(f"size mismatch for {key}, which has {tuple(shape)} now")


def _check_size(build: Callable[[], nn.Module]) -> None:
    """Refuse a network of ours whose weights would fill the memory, before memory is taken.

    Raises:
        InputError: they are more than the machine has.
    """
    with torch.device("meta"):
        size = sum(tensor.numel() * tensor.element_size() for tensor in build().state_dict().values())
    if hasattr(os, "sysconf") and size > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        raise InputError(f"its weights take {size / 1e9:,.0f} GB, more memory than this machine has; make it smaller")
