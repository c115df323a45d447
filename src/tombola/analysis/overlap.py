"""How much the masks of different trials have in common, against what chance would give."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tombola.analysis.layers import ALL, sound_with_masks

if TYPE_CHECKING:
    from tombola.pruning import Mask
    from tombola.running.results import Results

COLUMNS = ["study", "arm", "level", "layer", "density", "trials", "pairs", "jaccard", "low", "high", "chance"]
FAR = 12  # standard deviations of the overlap, beyond which its probability is nothing


def mask_overlap(results: Results) -> pd.DataFrame:
    """Return, for each level >= 1 and layer, the Jaccard index of the masks of each two trials.

    The index is the number of weights kept by both over the number kept by either: 1 for equal masks. Of repeats of an
    arm the first is compared. Diverged runs, and levels with fewer than two trials, are omitted.

    Returns:
        `study`, `arm`, `level`; `layer`, a name or "all"; `density`; `trials` and `pairs` of them; `jaccard`, the mean
        over pairs, and the range over pairs, `low` to `high` (pairs share trials, so there is no interval); `chance`:
        the mean that masks would have which keep as many weights in each layer, at places drawn at random.
    """
    frame = sound_with_masks(results)
    frame = frame[(frame["level"] > 0) & (frame["repeat"] == 0)]
    rows = []
    for (study, arm, level), group in frame.groupby(["study", "arm", "level"], sort=False):
        if len(group) > 1:
            place = {"study": study, "arm": arm, "level": level, "trials": len(group)}
            masks = [results.store.mask(job) for job in group["job"]]
            rows += [place | row for row in overlaps(masks)]
    return pd.DataFrame(rows, columns=COLUMNS)


def overlaps(masks: list[Mask]) -> list[dict[str, Any]]:
    """Return the rows of `mask_overlap` for the masks of one level, without their place."""
    layers = [*masks[0], ALL]
    found: dict[str, list[tuple[float, float]]] = {
        layer: [] for layer in layers
    }  # (index, that of chance) of each pair
    for one, other in combinations(masks, 2):
        kept, also, both = one.counts(), other.counts(), (one & other).counts()
        sizes = {layer: keep.numel() for layer, keep in one.items()}
        for layer in one:
            found[layer].append(
                (_jaccard(both[layer], kept[layer] + also[layer]), chance(kept[layer], also[layer], sizes[layer]))
            )
        sums = [sum(counts.values()) for counts in (both, kept, also)]
        by_chance = chance_of_all(*(np.array([counts[layer] for layer in one]) for counts in (kept, also, sizes)))
        found[ALL].append((_jaccard(sums[0], sums[1] + sums[2]), by_chance))
    rows = []
    for layer, pairs in found.items():
        indices, chances = np.array(pairs).T
        density = np.mean([mask.density if layer == ALL else mask.densities()[layer] for mask in masks])
        rows.append(
            {
                "layer": layer,
                "density": float(density),
                "pairs": len(pairs),
                "jaccard": float(indices.mean()),
                "low": float(indices.min()),
                "high": float(indices.max()),
                "chance": float(chances.mean()),
            }
        )
    return rows


@lru_cache(maxsize=4096)  # arms of one level keep the same numbers
def chance(kept: int, also: int, size: int) -> float:
    """Return the expected Jaccard index of two masks that keep `kept` and `also` of `size` weights at random.

    It is exact: the number that both keep is hypergeometric.
    """
    if kept + also == 0:
        return 1.0
    mean = kept * also / size
    far = FAR * (math.sqrt(mean) + 1)  # the deviation is smaller than the root of the mean
    numbers = np.arange(max(0, kept + also - size, int(mean - far)), min(kept, also, int(mean + far)) + 1)
    shares = _hypergeometric(numbers, kept, also, size)
    return float((shares * numbers / (kept + also - numbers)).sum())


def _hypergeometric(numbers: np.ndarray, kept: int, also: int, size: int) -> np.ndarray:
    """Return the probability of each number of weights kept by both; the numbers are consecutive and hold nearly all.

    The ratio of two neighbours is a simple fraction, so products of ratios outwards from the middle lose no precision
    where factorials of millions would.
    """
    less = numbers[:-1].astype(float)
    ratios = (kept - less) * (also - less) / ((less + 1) * (size - kept - also + less + 1))
    middle = int(np.count_nonzero(ratios >= 1))  # the most likely number
    up, down = np.cumprod(ratios[middle:]), np.cumprod(1 / ratios[:middle][::-1])[::-1]
    weights = np.concatenate([down, [1.0], up])
    return np.asarray(weights / weights.sum())


def chance_of_all(kept: np.ndarray, also: np.ndarray, sizes: np.ndarray) -> float:
    """Return the expected Jaccard index of two masks over several layers, each with its own counts; int [layers] each.

    To second order in the variance of the number that both keep, which is a sum of independent hypergeometric ones.
    """
    total = int(kept.sum() + also.sum())
    if total == 0:
        return 1.0
    density, other = kept / sizes, also / sizes
    mean = float((sizes * density * other).sum())
    variance = float((sizes * density * other * (1 - density) * (1 - other) * sizes / np.maximum(sizes - 1, 1)).sum())
    return mean / (total - mean) + total * variance / (total - mean) ** 3


def _jaccard(both: int, sum_of_kept: int) -> float:
    return both / (sum_of_kept - both) if sum_of_kept else 1.0
