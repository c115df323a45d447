"""Puts sparse layers instead of dense ones, and says why others stay dense."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from tombola.pruning.mask import Mask
from tombola.training.engines.example_last import (
    ExampleLastBatchNorm2d,
    ExampleLastMaxPool2d,
    UsualDropout,
    Window,
    pools_plainly,
    window_of,
)
from tombola.training.engines.mlp_trace import graph_of, has_hooks
from tombola.training.engines.sparse_conv import SparseConv2d, why_not_conv
from tombola.training.engines.sparse_layer import SparseLayer
from tombola.training.engines.sparse_linear import SparseLinear

PAYS_BELOW: Mapping[type[nn.Module], float] = {nn.Linear: 0.3, nn.Conv2d: 0.75}
"""Density of a layer below which a sparse one pays, by the kind of layer.

Linear: measured on one thread of an AVX-512 processor, forward, backward and Adam against a masked `nn.Linear`, layers
from 784x300 to 16384x256, 60 to 2048 examples: 0.9 to 1.25 times as fast at a density of 0.5, 1.7 to 2.5 times at 0.25,
3.5 to 5 times at 0.1, 5 to 11 times at 0.036. Very small layers (300x100) gain less: 1.2 times at 0.25, 1.5 at 0.036.

Convolution: see `docs/performance.md`; a sparse one is as fast as a dense one in float32 even where all weights live.
"""


def why_dense(module: nn.Module, mask: Mask, below: Mapping[type[nn.Module], float] = PAYS_BELOW) -> dict[str, str]:
    """Return for each layer that could be sparse, by name, why it stays dense; "" if it becomes sparse.

    Layers with hooks, with shared or frozen parameters, of a subclass, or of another type than float32 stay dense: a
    sparse layer might not do what they do. Convolutions are judged together where they are sparse on the whole: a
    dense one between sparse ones would cost a change of the images' layout in memory before and after it.

    Args:
        module: the network, its layers still dense.
        mask: which weights live; what it does not name is dense.
        below: density below which a layer becomes sparse, by its kind.
    """
    uses, layers = uses_of(module), dict(module.named_modules())
    reasons = {}
    for weight in mask:
        name, _, last = weight.rpartition(".")
        if name not in layers or last != "weight" or type(layers[name]) not in below:
            reasons[weight] = f"{type(layers.get(name, module)).__name__} is neither nn.Linear nor nn.Conv2d"
    candidates = {name: layer for name, layer in layers.items() if type(layer) in below}
    reasons |= {name: why_not_layer(layer, uses) for name, layer in candidates.items()}
    able = [name for name in candidates if not reasons[name]]
    counts = {name: _counts(layers[name], mask.get(f"{name}.weight")) for name in able}
    images = [counts[name] for name in able if isinstance(layers[name], nn.Conv2d)]
    live, size = (sum(each) for each in zip(*images, strict=True)) if images else (0, 0)
    together = live < below.get(nn.Conv2d, 0.0) * size
    for name in able:
        limit, density = below[type(layers[name])], counts[name][0] / max(1, counts[name][1])
        if density >= limit and not (together and isinstance(layers[name], nn.Conv2d)):
            reasons[name] = f"{density:.0%} of its weights remain; a sparse layer is faster only below {limit:.0%}"
    return reasons


def _counts(layer: nn.Module, keep: Tensor | None) -> tuple[int, int]:
    """Return how many weights of a layer live, and how many it has."""
    size = layer.get_parameter("weight").numel()
    return (size if keep is None else int(keep.sum())), size


def uses_of(module: nn.Module) -> dict[int, int]:
    """Return in how many places each parameter of a module stands, by its `id`."""
    uses: dict[int, int] = {}
    for _, parameter in module.named_parameters(remove_duplicate=False):
        uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    return uses


def why_not_layer(layer: nn.Module, uses: Mapping[int, int]) -> str:
    """Return what keeps this layer from ever being sparse, "" if nothing.

    Args:
        layer: of a module.
        uses: what `uses_of` says of the module.
    """
    own = list(layer.parameters())
    if has_hooks(layer):
        return "it has hooks"
    if any(uses[id(each)] > 1 for each in own):
        return "it shares a parameter with another layer"
    if any(not each.requires_grad for each in own):
        return "a parameter of it is frozen"
    if any(each.dtype != torch.float32 for each in own):
        return f"it is {own[0].dtype}, not float32"
    return why_not_conv(layer) if isinstance(layer, nn.Conv2d) else ""


def sparsify(
    module: nn.Module, mask: Mask, below: Mapping[type[nn.Module], float] = PAYS_BELOW
) -> dict[str, SparseLayer]:
    """Put a sparse layer instead of each that `why_dense` finds nothing against; return them by name.

    Where convolutions are replaced, so are the layers between them, by such as keep the examples last in memory, and
    a ReLU and a pooling that follow a convolution become part of it. The names and shapes in the module's state_dict
    are as before.
    """
    replaced: dict[str, SparseLayer] = {}
    for name, reason in why_dense(module, mask, below).items():
        if reason:
            continue
        layer = module.get_submodule(name)
        weight = layer.get_parameter("weight")
        keep = mask.get(f"{name}.weight", torch.ones(weight.shape, dtype=torch.bool))
        sparse: SparseLayer
        if isinstance(layer, nn.Conv2d):
            sparse = SparseConv2d(layer, keep)
        else:
            assert isinstance(layer, nn.Linear)
            sparse = SparseLinear(layer.weight, layer.bias, keep)
        _put(module, name, sparse.train(layer.training))
        replaced[name] = sparse
    if any(isinstance(layer, SparseConv2d) for layer in replaced.values()):
        for layer in list(module.modules()):
            # The class alone differs: parameters, buffers and settings stay what they are.
            if type(layer) is nn.BatchNorm2d and not has_hooks(layer):
                layer.__class__ = ExampleLastBatchNorm2d
            elif type(layer) is nn.MaxPool2d and not has_hooks(layer) and pools_plainly(layer):
                layer.__class__ = ExampleLastMaxPool2d
            elif type(layer) is nn.Dropout:
                layer.__class__ = UsualDropout
        _fuse(module)
    return replaced


def _put(module: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, layer)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = isinstance(m, (SparseLayer, ExampleLastBatchNorm2d, ExampleLastMaxPool2d, UsualDropout))
        return own or super().is_leaf_module(m, module_qualified_name)


def _fuse(module: nn.Module) -> None:
    """Make a ReLU part of the convolution or batch norm, and a pooling of the convolution, whose result only they use.

    Nothing is fused where `torch.fx` can't follow the forward pass, where training takes another way than evaluation,
    or where a layer that holds others has hooks, which the fused forward pass would not call.
    """
    if any(has_hooks(each) for name, each in module.named_modules() if name and list(each.children())):
        return
    graphs = [graph_of(module, training, _Tracer()) for training in (True, False)]
    if graphs[0] is None or graphs[1] is None or str(graphs[0]) != str(graphs[1]):
        return
    graph, modules = graphs[0], dict(module.named_modules())
    called = [modules[node.target] for node in graph.nodes if node.op == "call_module"]
    fused = False
    for node in list(graph.nodes):
        layer = modules.get(node.target) if node.op == "call_module" else None
        if not isinstance(layer, (SparseConv2d, ExampleLastBatchNorm2d)) or called.count(layer) > 1:
            continue
        after = _only_user(node)
        if after is not None and _is_relu(after, modules):
            layer.rectifies = fused = True
            _skip(graph, node, after)
            after = _only_user(node)
        if not isinstance(layer, SparseConv2d):
            continue
        window = None if after is None else _window(after, modules)
        if after is not None and window is not None and window[:2] == window[2:]:
            layer.window, fused = window, True
            _skip(graph, node, after)
    if fused:
        graph.lint()
        # The module stays what it is: the new forward pass uses the same layers.
        module.forward = fx.GraphModule(module, graph).forward


def _only_user(node: fx.Node) -> fx.Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].args[:1] == (node,) else None


def _skip(graph: fx.Graph, node: fx.Node, after: fx.Node) -> None:
    after.replace_all_uses_with(node)
    graph.erase_node(after)


def _is_relu(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    if node.op == "call_module":
        layer = modules[str(node.target)]
        return type(layer) is nn.ReLU and not has_hooks(layer)
    functions = (functional.relu, torch.relu, torch.relu_, functional.relu_)
    called = node.op == "call_function" and node.target in functions
    method = node.op == "call_method" and node.target in ("relu", "relu_")
    return (called or method) and len(node.args) == 1 and node.kwargs.keys() <= {"inplace"}


def _window(node: fx.Node, modules: Mapping[str, nn.Module]) -> Window | None:
    """Return the window of a plain max pooling, None if the node is anything else."""
    if node.op == "call_module":
        layer = modules[str(node.target)]
        return window_of(layer) if isinstance(layer, ExampleLastMaxPool2d) else None
    if node.op != "call_function" or node.target not in (functional.max_pool2d, torch.max_pool2d):
        return None
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    given: dict[str, Any] = dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
    if "kernel_size" not in given or any(isinstance(value, fx.Node) for value in given.values()):
        return None
    layer = nn.MaxPool2d(**{name: value for name, value in given.items() if value is not None and value != []})
    return window_of(layer) if pools_plainly(layer) else None
