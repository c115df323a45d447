"""What sparse layers have in common: one vector of live numbers, and the state_dict of the dense layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tombola.training.engines.mlp_wiring import Slots


class SparseLayer(nn.Module):
    """A layer on the CPU in float32 whose one parameter, `live`, is a vector: live weights and biases.

    To the outside it has `weight` and `bias`: in the state_dict, and as read-only attributes that gradients flow
    through, for modules that use a layer's weight directly. A subclass sets `slots` and `live` when it is made.
    """

    slots: dict[str, Slots]
    live: nn.Parameter

    def pack(self, tensors: dict[str, Tensor]) -> Tensor:
        """Return the live numbers of tensors in the shape of weight and bias."""
        values = np.zeros(sum(len(slots.places) for slots in self.slots.values()), np.float32)
        for name, slots in self.slots.items():
            flat = tensors[name].detach().cpu().contiguous().numpy().reshape(-1)
            values[slots.places] = flat[slots.positions]
        return torch.from_numpy(values)

    def unpack(self, live: Tensor) -> dict[str, Tensor]:
        """Return tensors in the shape of "weight" and "bias" from live numbers; the others are 0.0."""
        values = live.detach().numpy()
        tensors = {}
        for name, slots in self.slots.items():
            flat = np.zeros(int(np.prod(slots.shape)), np.float32)
            flat[slots.positions] = values[slots.places]
            tensors[name] = torch.from_numpy(flat.reshape(slots.shape))
        return tensors

    @property
    def weight(self) -> Tensor:
        return self._dense("weight")

    @property
    def bias(self) -> Tensor | None:
        return self._dense("bias") if "bias" in self.slots else None

    def _dense(self, name: str) -> Tensor:
        slots = self.slots[name]
        zeros = torch.zeros(int(np.prod(slots.shape)))
        positions, places = torch.from_numpy(slots.positions), torch.from_numpy(slots.places)
        return zeros.index_put((positions,), self.live[places]).view(slots.shape)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination |= {prefix + name: tensor for name, tensor in self.unpack(self.live).items()}

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        names = {name: prefix + name for name in self.slots}
        missing = [name for name in names.values() if name not in state_dict]
        missing_keys += missing
        if not missing:
            with torch.no_grad():
                self.live.copy_(self.pack({name: state_dict[key] for name, key in names.items()}))
