"""Small data sets for the golden numbers: made from integers, so every machine makes the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

TRAIN, TEST, VALIDATION = 240, 60, 40
CLASSES = 10

# Name of a data set -> shape of one example. "features" are float32 vectors, the others uint8 images.
SHAPES: dict[str, tuple[int, ...]] = {
    "gray-8": (1, 8, 8),
    "gray-28": (1, 28, 28),
    "color-8": (3, 8, 8),
    "color-16": (3, 16, 16),
    "features": (24,),
}


def data_section(name: str, folder: Path) -> dict[str, Any]:
    """Return the `data` section of a study on the data set `name`; write its .npz file into `folder` if needed."""
    if name == "digits":
        return {"source": "digits", "validation": 200}
    path = folder / f"{name}.npz"
    if not path.exists():
        np.savez(path, **_arrays(SHAPES[name]))
    section = {"source": "npz", "path": str(path), "validation": VALIDATION}
    # Frozen before feature vectors were normalised by feature: one mean over all columns.
    return section | ({"normalise": "channel"} if name == "features" else {})


def _arrays(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return noisy copies of one random centre per class.

    RandomState, because NumPy keeps its stream unchanged; `randint`, because it needs no mathematical function.
    """
    generator = np.random.RandomState(20_190_506)
    centres = generator.randint(0, 256, (CLASSES, *shape))
    arrays = {}
    for part, examples in (("train", TRAIN), ("test", TEST)):
        targets = np.arange(examples) % CLASSES
        noise = generator.randint(0, 256, (examples, *shape))
        mixed = (2 * centres[targets] + 3 * noise) // 5
        arrays[f"x_{part}"] = mixed.astype(np.uint8) if len(shape) == 3 else ((mixed - 128) / 64).astype(np.float32)
        arrays[f"y_{part}"] = targets
    return arrays
