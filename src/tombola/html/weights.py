"""The kept weights of one trial: their distribution, and the inputs that the first layer still uses."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from PIL import Image

from tombola.data import is_one_shape
from tombola.errors import InputError
from tombola.formatting import percent
from tombola.running.results import Results
from tombola.running.ticket import Ticket

BINS = 80
TAIL = 0.001  # share of the weights on each side that the outermost bins gather
COLUMNS = ("layer", "level", "density", "snapshot", "left", "right", "weights", "share")


@dataclass(frozen=True)
class Picture:
    """The mask of the first layer at one level, as a picture.

    Args:
        level: of the ticket.
        density: of the whole network, from 0 to 1.
        source: the PNG as a data URI.
        width, height: in cells.
        text: what it shows, as text with numbers.
    """

    level: int
    density: float
    source: str
    width: int
    height: int
    text: str


@dataclass(frozen=True)
class Pictures:
    """The pictures of a study, or the reason for their absence."""

    about: str
    pictures: tuple[Picture, ...] = ()


def tickets(results: Results, levels: Sequence[int], arm: str) -> dict[int, Ticket]:
    """Return the finished tickets of the first trial at `levels`."""
    found = {}
    for level in levels:
        try:
            found[level] = results.ticket(None, level, arm)
        except InputError:
            continue  # not done yet
    return found


def weight_histograms(found: dict[int, Ticket], densities: Mapping[int, float]) -> pd.DataFrame:
    """Return the distribution of the kept weights at the start and after training.

    Args:
        found: tickets by level.
        densities: of the whole network, by level.

    Returns:
        A row per (layer, level, snapshot, bin), with the columns COLUMNS: `snapshot` is "start" (what training started
        from) or "final"; a bin goes from `left` to `right` and holds `weights` weights, a `share` of those kept in the
        layer. All bins of a layer are the same at all levels; the outermost ones also hold what lies beyond them.
    """
    rows = []
    layers = next(iter(found.values())).mask.keys() if found else ()
    for layer in layers:
        kept = {
            (level, name): weights[layer][ticket.mask[layer]].numpy()
            for level, ticket in found.items()
            for name, weights in (("start", ticket.weights), ("final", ticket.trained))
        }
        everything = np.concatenate(list(kept.values()))
        everything = everything[np.isfinite(everything)]
        if not everything.size:
            continue
        reach = float(np.max(np.abs(np.quantile(everything, [TAIL, 1 - TAIL])))) or 1.0
        edges = np.linspace(-reach, reach, BINS + 1)
        for (level, name), weights in kept.items():
            counts, _ = np.histogram(np.clip(weights, -reach, reach), edges)
            share = counts / max(1, counts.sum())
            columns = zip(edges[:-1], edges[1:], counts, share, strict=True)
            rows += [(layer, level, densities[level], name, *map(float, bin_)) for bin_ in columns]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"weights": int})


def input_pictures(found: dict[int, Ticket], layer: str, input_shape: Any, densities: Mapping[int, float]) -> Pictures:
    """Return, for each ticket, a picture of the inputs that the first layer still uses.

    Where that layer is linear and the inputs are images: for each pixel, how many kept weights use it, over all
    channels and units. Where it is a convolution: for each place in each filter, how many weights are kept over all
    input channels; filters are tiles, row by row.

    Args:
        found: tickets by level.
        layer: the first layer's weight.
        input_shape: of one example; a tuple or dict of shapes where the network takes several inputs.
        densities: of the whole network, by level.
    """
    if not found:
        return Pictures("No ticket of the first trial is finished yet.")
    shape = next(iter(found.values())).mask[layer].shape
    name = layer.removesuffix(".weight")
    images = is_one_shape(input_shape) and len(input_shape) == 3
    if len(shape) == 2 and images and shape[1] == int(np.prod(input_shape)):
        about = f"The brightness of a pixel shows how many of its {shape[0]} weights in {name} are kept"
        if input_shape[0] > 1:
            about += f", over all {input_shape[0]} channels"
        pictures = [_of_pixels(level, densities[level], ticket, layer, input_shape) for level, ticket in found.items()]
    elif len(shape) > 2:
        about = (
            f"Each tile is one of the {shape[0]} filters of {name}. The brightness shows how many weights are kept at "
            "a place"
        )
        if shape[1] > 1:
            about += f", over its {shape[1]} input channels"
        pictures = [_of_filters(level, densities[level], ticket, layer) for level, ticket in found.items()]
    else:
        return Pictures("The inputs are not images, so this part shows no picture.")
    return Pictures(f"{about}, from none (darkest) to the highest number in the picture (brightest).", tuple(pictures))


def _of_pixels(level: int, density: float, ticket: Ticket, layer: str, input_shape: tuple[int, ...]) -> Picture:
    counts = ticket.mask[layer].sum(0).reshape(*input_shape).sum(0).numpy()
    text = f"{_range(counts)} weights per pixel, {int((counts == 0).sum())} of {counts.size} pixels unused"
    return _picture(level, density, counts, text)


def _of_filters(level: int, density: float, ticket: Ticket, layer: str) -> Picture:
    keep = ticket.mask[layer].sum(1)
    filters = keep.reshape(len(keep), -1, keep.shape[-1]).numpy()
    count, height, width = filters.shape
    unused = int((filters.sum((1, 2)) == 0).sum())
    across = math.ceil(math.sqrt(count))
    down = math.ceil(count / across)
    tiles = np.full((down * (height + 1) - 1, across * (width + 1) - 1), np.nan)
    for place, tile in enumerate(filters):
        top, left = place // across * (height + 1), place % across * (width + 1)
        tiles[top : top + height, left : left + width] = tile
    text = f"{_range(filters)} weights per place, {unused} of {count} filters unused"
    return _picture(level, density, tiles, text)


def _range(counts: np.ndarray) -> str:
    return f"{int(counts.min())} to {int(counts.max())}"


def _picture(level: int, density: float, counts: np.ndarray, text: str) -> Picture:
    height, width = counts.shape
    return Picture(level, density, _png(counts), width, height, f"{percent(density)} % of the weights: {text}")


def _png(counts: np.ndarray) -> str:
    """Return a picture in which NaN is transparent."""
    nothing = np.isnan(counts)
    shares = np.where(nothing, 0, counts) / max(1.0, np.nanmax(counts))
    bright = matplotlib.colormaps["viridis"](shares, bytes=True)
    bright[nothing] = 0
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(bright)).save(buffer, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
