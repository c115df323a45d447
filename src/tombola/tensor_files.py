"""Files of tensors with a checksum inside: an altered file is noticed when it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tombola.errors import StoreError


class Damaged(StoreError):
    """A file is not what was written; the message names it and says what is wrong."""


def pack_tensors(tensors: Mapping[str, Tensor], about: Any) -> bytes:
    """Return a safetensors file of `tensors` that carries a JSON value and a checksum of both."""
    text = json.dumps(about)
    copies = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    return save(copies, metadata={"about": text, "sha256": _digest(copies, text)})


def unpack_tensors(path: Path, prefix: str = "") -> tuple[dict[str, Tensor], Any]:
    """Read what `pack_tensors` made: the tensors whose names start with `prefix`, all by default.

    The checksum inside covers all tensors together, so a part is not compared with it.

    Raises:
        Damaged: the file is truncated or altered.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise Damaged(f"{path} can't be read ({error})") from error
    text = metadata.get("about", "")
    if not prefix and metadata.get("sha256") != _digest(tensors, text):
        raise Damaged(f"{path} is damaged: its checksum differs")
    try:
        return tensors, json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path} has no valid description ({error})") from error


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()
