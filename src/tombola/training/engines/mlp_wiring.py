"""Which numbers of an MLP are alive, and how the compiled loops reach them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tombola.training.engines.kernels import LINE, Wiring
from tombola.training.engines.mlp_trace import Mlp


@dataclass(frozen=True)
class Slots:
    """Where the live numbers of one parameter are.

    Args:
        shape: of the parameter.
        positions: int64 [live], in the flattened parameter.
        places: int64 [live], in the one vector of all live numbers.
    """

    shape: tuple[int, ...]
    positions: np.ndarray
    places: np.ndarray


class Layout:
    """The live numbers of an MLP, as one vector: weights in the order of the wiring, then biases, then idle ones.

    A neuron is *idle* if no live path leads from it to an output, and with it its bias and its incoming weights: they
    have no gradient, so no pass over the examples visits them. They are numbers of the network nevertheless, on which
    weight decay and momentum act as in any other.
    """

    def __init__(self, mlp: Mlp, mask: Mapping[str, Tensor]):
        keeps = [_keep(mask, layer.weight, (layer.outputs, layer.inputs)) for layer in mlp.layers]
        useful = [np.ones(mlp.layers[-1].outputs, dtype=bool)]
        for keep in reversed(keeps):
            useful.insert(0, keep[useful[0]].any(axis=0))
        lines, inputs = _lines(useful[0])
        numbers = [inputs]  # of the nodes of each layer
        end = LINE * len(lines)
        for alive in useful[1:]:
            numbers.append(end + np.cumsum(alive) - 1)
            end += int(alive.sum())

        sources, fans = [], []
        for keep, inputs, outputs in zip(keeps, numbers[:-1], useful[1:], strict=True):
            rows = keep[outputs]
            sources.append(inputs[np.nonzero(rows)[1]])
            fans.append(rows.sum(axis=1))
        starts = np.concatenate([[0], np.cumsum(np.concatenate(fans))])
        weights = int(starts[-1])

        self.slots: dict[str, Slots] = {}
        bias_places = []
        count = weights
        for layer, outputs in zip(mlp.layers, useful[1:], strict=True):
            used = int(outputs.sum())
            bias_places.append(np.arange(count, count + used) if layer.bias else np.full(used, -1))
            count += used if layer.bias else 0
        begin = 0
        for layer, keep, outputs, places in zip(mlp.layers, keeps, useful[1:], bias_places, strict=True):
            active = np.flatnonzero(keep & outputs[:, None])
            idle = np.flatnonzero(keep & ~outputs[:, None])
            self.slots[layer.weight] = _slots(keep.shape, active, begin + np.arange(len(active)), idle, count)
            begin, count = begin + len(active), count + len(idle)
            if layer.bias:
                active, idle = np.flatnonzero(outputs), np.flatnonzero(~outputs)
                self.slots[layer.bias] = _slots(outputs.shape, active, places, idle, count)
                count += len(idle)
        self.size = count
        self.wiring = Wiring(
            lines=lines,
            starts=starts.astype(np.int32),
            sources=np.concatenate(sources).astype(np.int32),
            biases=np.concatenate(bias_places).astype(np.int32),
            first=int(useful[1].sum()),
            outputs=mlp.layers[-1].outputs,
        )

    def collect(self, tensors: Mapping[str, Tensor]) -> np.ndarray:
        """Return the live numbers of `tensors`, one tensor for each parameter, as float32 [size]."""
        values = np.zeros(self.size, np.float32)
        for name, slots in self.slots.items():
            flat = tensors[name].detach().cpu().contiguous().numpy().reshape(-1)
            values[slots.places] = flat[slots.positions]
        return values

    def spread(self, values: np.ndarray) -> dict[str, Tensor]:
        """Return one tensor for each parameter, with the live numbers in their positions and 0.0 elsewhere."""
        tensors = {}
        for name, slots in self.slots.items():
            flat = np.zeros(int(np.prod(slots.shape)), np.float32)
            flat[slots.positions] = values[slots.places]
            tensors[name] = torch.from_numpy(flat.reshape(slots.shape))
        return tensors


def _keep(mask: Mapping[str, Tensor], name: str, shape: tuple[int, int]) -> np.ndarray:
    if name not in mask:
        return np.ones(shape, dtype=bool)
    if tuple(mask[name].shape) != shape:
        raise ValueError(f"mask of {name!r} has shape {tuple(mask[name].shape)}, the parameter {shape}")
    return mask[name].numpy()


def _lines(useful: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first features of the lines that hold useful inputs (`Wiring.lines`), and each input's node."""
    features = np.arange(len(useful))
    last = max(0, len(useful) - LINE)  # a line must not begin later, or it would reach beyond the example
    used = np.unique(features[useful] // LINE)
    lines = np.minimum(used * LINE, last)
    place = np.searchsorted(used, features // LINE)
    offset = features - np.minimum(features // LINE * LINE, last)
    return lines.astype(np.int32), place * LINE + offset


def _slots(shape: tuple[int, ...], active: np.ndarray, places: np.ndarray, idle: np.ndarray, begin: int) -> Slots:
    return Slots(shape, np.concatenate([active, idle]), np.concatenate([places, begin + np.arange(len(idle))]))
