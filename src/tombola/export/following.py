"""Follows a module's forward pass by `torch.export`, and tells in which layer that fails."""

from __future__ import annotations

import contextlib
import io
import logging
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from tombola.errors import InputError
from tombola.formatting import plain


def followed(module: nn.Module, inputs: Tensor, any_batch: bool = False) -> torch.export.ExportedProgram:
    """Return the operators that a module calls on examples.

    Args:
        module: in evaluation mode.
        inputs: examples [N, ...].
        any_batch: keep the number of examples open.

    Raises:
        InputError: its forward pass can't be followed; the message names the layer in which that fails.
    """
    shapes: Any = torch.export.ShapesCollection() if any_batch else None
    if any_batch:
        shapes[inputs] = {0: torch.export.Dim("batch")}
    _require_float32(module, inputs)
    try:
        with quietly():
            return torch.export.export(module, (inputs,), strict=False, dynamic_shapes=shapes)
    except Exception as error:  # whatever a forward pass does that can't be followed
        layer = layer_of_error(error, module)
        if inputs.is_floating_point() and isinstance(module.get_submodule(layer), nn.Embedding | nn.EmbeddingBag):
            raise InputError(
                f"layer {layer!r} takes tokens, but this format supports only inputs of type float32: choose packed or "
                "pytorch"
            ) from error
        raise InputError(
            f"{f'the forward pass of layer {layer!r}' if layer else 'the forward pass of the network'} can't be traced "
            f"on examples of shape {tuple(inputs.shape[1:])} ({type(error).__name__}: {plain(str(error), 200)}); let "
            "it depend only on the shape of its one input, and read the number of examples as x.shape[0], not len(x)"
        ) from error


def _require_float32(module: nn.Module, inputs: Tensor) -> None:
    """Refuse a network that fails on float32 inputs because its weights are of another type.

    One that converts its inputs passes: a tracer then follows the conversion.
    """
    kinds = {str(each.dtype).removeprefix("torch.") for each in module.parameters() if each.is_floating_point()}
    if inputs.dtype != torch.float32 or kinds <= {"float32"}:
        return
    try:
        with torch.no_grad(), quietly():
            module(inputs)
    except Exception as error:  # whatever a forward pass raises
        others = " and ".join(sorted(kinds - {"float32"}))
        raise InputError(
            f"the network has weights of type {others} and fails on inputs of type float32 ({plain(str(error), 200)}): "
            "convert it to float32 first"
        ) from error


def layer_of_error(error: BaseException, module: nn.Module) -> str:
    """Return the name of the module's layer in whose forward pass an error arose; "" for the module itself."""
    names = {id(each): name for name, each in module.named_modules()}
    callers = (frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__))
    return next((names[id(each)] for each in reversed(list(callers)) if id(each) in names), "")


def operator_of_error(error: BaseException | None) -> fx.Node | None:
    """Return the operator that an exporter of PyTorch's worked on when an error, or its cause, arose."""
    while error is not None:
        nodes = [frame.f_locals.get("node") for frame, _ in traceback.walk_tb(error.__traceback__)]
        if found := [each for each in nodes if isinstance(each, fx.Node)]:
            return found[-1]
        error = error.__cause__
    return None


def layer_of(node: fx.Node) -> str:
    """Return the qualified name of the module that called an operator, "" for the network itself."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


@contextlib.contextmanager
def quietly(level: int = logging.WARNING) -> Iterator[None]:
    """Keep what other packages say off the screen; what goes wrong is raised.

    Args:
        level: log messages up to this one are dropped.
    """
    disabled, said = logging.root.manager.disable, io.StringIO()
    logging.disable(level)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
