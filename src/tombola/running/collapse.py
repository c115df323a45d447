"""Layer collapse: a mask that leaves nothing of a layer, or no way through the network, whatever is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from tombola.pruning.live_paths import Untraceable, live_paths
from tombola.pruning.mask import Mask

REMEDIES = "lower pruning.rounds, set pruning.minimum, or choose another arm"


def collapse(module: nn.Module, mask: Mask, input_shape: Any) -> dict[str, Any]:
    """Return remarks on a mask: "collapsed", the layers without a weight; "no_path": True; nothing where all is well.

    Where a forward pass can't be followed, nothing is said of paths.

    Args:
        module: any of the network's; its weights do not matter.
        mask: what is kept of it.
        input_shape: of one example.
    """
    remarks: dict[str, Any] = {}
    if emptied := [name for name, count in mask.counts().items() if not count]:
        remarks["collapsed"] = emptied
    try:
        if not live_paths(module, mask, input_shape).mask.remaining:
            remarks["no_path"] = True
    except Untraceable:
        pass
    return remarks


def said(remarks: Mapping[str, Any]) -> str:
    """Return in words what `collapse` found; "" where all is well."""
    layers = [name.removesuffix(".weight") for name in remarks.get("collapsed", ())]
    parts = [f"the mask empties layer {', '.join(layers)}"] if layers else []
    if remarks.get("no_path"):
        parts.append("no path leads from an input to the output")
    return ", and ".join(parts)
