"""Which pixels a network still looks at, over trials."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tombola.analysis.layers import sound_with_masks
from tombola.errors import InputError, nearest
from tombola.networks import factory, initialised
from tombola.pruning.live_paths import Untraceable, live_paths
from tombola.registry import NotWhileReading, reading

if TYPE_CHECKING:
    from tombola.running.results import Results

COLUMNS = ["study", "arm", "level", "density", "row", "column", "trials", "share"]


def live_pixels(results: Results, arm: str = "ticket", trust: bool = False) -> pd.DataFrame:
    """Return, for each level and pixel, the share of trials in which the network still looks at the pixel.

    It does where a path of kept weights leads from the pixel to an output, in any of its channels. Only a linear first
    layer loses pixels. Of repeats of an arm the first is taken. Diverged runs are left out.

    Args:
        results: of a study on images, finished or not; masks are read from its store.
        arm: whose masks.
        trust: import a network that is the study's own. Otherwise no code of theirs runs, and the table is empty.

    Returns:
        `study`, `arm`, `level`; `density` of the network; `row` and `column` of the pixel, from 0 at the top left;
        `trials`; `share` of them, from 0 to 1. Empty where examples are not images, where the first layer is a
        convolution, and where paths can't be followed through the forward pass.

    Raises:
        InputError: the study has no such arm.
    """
    known = list(dict.fromkeys(row.arm for row in results.plan.rows))
    if arm not in known:
        raise InputError(f"the study has no arm {arm!r}{nearest(arm, known)}")
    data, found = results.plan.data, [pd.DataFrame(columns=COLUMNS)]
    is_image = isinstance(data.input_shape, tuple) and len(data.input_shape) == 3
    if not is_image or results.plan.coverage.layers[0].kind == "conv":
        return found[0]
    frame = sound_with_masks(results)
    frame = frame[(frame["arm"] == arm) & (frame["repeat"] == 0)]
    try:
        with contextlib.nullcontext() if trust else reading():
            module = initialised(factory(results.study.network, data.input_shape, data.classes), "pytorch", 0)
        for (study, level), group in frame.groupby(["study", "level"], sort=True):
            masks = [results.store.mask(job) for job in group["job"]]
            lives = [live_paths(module, mask, data.input_shape).inputs.any(0).numpy() for mask in masks]
            place = {"study": study, "arm": arm, "level": level, "density": group["density"].mean()}
            found.append(_rows(np.mean(lives, axis=0), place | {"trials": len(lives)}))
    except (NotWhileReading, Untraceable):
        return found[0]
    return pd.concat(found[1:], ignore_index=True) if len(found) > 1 else found[0]


def _rows(share: np.ndarray, place: dict[str, Any]) -> pd.DataFrame:
    """Return a row for each pixel; `share` is of shape [height, width]."""
    row, column = np.indices(share.shape)
    table = pd.DataFrame({"row": row.ravel(), "column": column.ravel(), "share": share.ravel()})
    return table.assign(**place)[COLUMNS]
