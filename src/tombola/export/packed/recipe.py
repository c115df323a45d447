"""A ticket as seed and mask: for those whose starting weights can be drawn again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tombola.data import shape_from_json
from tombola.errors import InputError
from tombola.networks import NetworkSettings, factory, initialised
from tombola.pruning.mask import Mask
from tombola.seeds import Seeds

if TYPE_CHECKING:
    from tombola.running.ticket import Ticket


def recipe_of(ticket: Ticket) -> dict[str, Any]:
    """Return how to draw a ticket's starting weights: "seed", "draw" and the "digest" of what must come.

    Raises:
        InputError: they are not an initialisation that a seed gives.
    """
    origin = ticket.origin
    if origin.get("rewind", 0):
        raise InputError(
            f"the ticket starts from iteration {origin['rewind']} of a run, and no seed gives these weights; export "
            "the values instead: form=values"
        )
    if "seed" not in origin:
        raise InputError(
            "the ticket does not contain its study's seed: take the ticket from the results again, or export the "
            "values: form=values"
        )
    recipe = {"seed": origin["seed"], "draw": origin.get("draw", 0), "digest": digest(ticket.weights)}
    if digest(drawn(origin, recipe, ticket.mask, ticket._factory)) != recipe["digest"]:
        raise InputError(
            "the ticket's starting weights differ from the initialisation of its seed (they come from another arm or "
            "other code); export the values instead: form=values"
        )
    return recipe


def drawn(
    origin: Mapping[str, Any],
    recipe: Mapping[str, Any],
    mask: Mask,
    build: Callable[[], nn.Module] | None = None,
) -> dict[str, Tensor]:
    """Return the starting weights that a recipe gives under a mask.

    Args:
        origin: of the ticket.
        recipe: as `recipe_of` returns it.
        mask: of the ticket.
        build: makes the untrained network; by default the function that `origin` names.
    """
    network = NetworkSettings.model_validate(origin["network"])
    build = build or named_by(origin, network)
    seed = Seeds(recipe["seed"], origin["trial"]).value("init", recipe["draw"])
    module = initialised(build, network.init, seed)
    mask.apply_(module)  # in the module: a tied weight has several names outside
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def named_by(origin: Mapping[str, Any], network: NetworkSettings) -> Callable[[], nn.Module]:
    """Return the function that a ticket's origin names."""
    shape, tokens = (shape_from_json(origin.get(name)) for name in ("input_shape", "tokens"))
    return factory(network, shape, origin["classes"], tokens)


def digest(weights: Mapping[str, Tensor]) -> str:
    """Return a checksum of a state_dict: 16 hexadecimal digits."""
    found = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return found.hexdigest()[:16]
