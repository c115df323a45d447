"""The layers of a network under pruning: densities, dead units, live weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tombola.analysis.summary import diverged
from tombola.errors import InputError, nearest
from tombola.networks import factory, initialised
from tombola.pruning.live_paths import LivePaths, Untraceable, live_paths
from tombola.registry import NotWhileReading, reading

if TYPE_CHECKING:
    from tombola.pruning import Mask
    from tombola.running.results import Results

ROW = ["study", "arm", "trial", "repeat", "level"]
INPUT, ALL = "input", "all"  # beside the names of layers, such as "fc1.weight"
DEAD_COLUMNS = ["study", "arm", "trial", "level", "layer", "units", "dead", "remaining", "live", "size"]
DENSITIES = ["density", "effective_density"]


def with_masks(results: Results, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `results.frame()` whose run has a mask of the level on the study's network.

    The narrower network of `small-dense` has none. A run whose mask moves and that diverged never came to the level's
    density.

    Args:
        results: of the study.
        frame: its rows.
    """
    own = results.study.network

    def has_mask(job: str, status: str) -> bool:
        unmoved = status != "diverged" or "moving" not in results.store.facts(job)["spec"]
        return unmoved and results.network_of(job) == own

    kept = [has_mask(job, status) for job, status in zip(frame["job"], frame["status"], strict=True)]
    return frame[np.array(kept, dtype=bool)]


def sound_with_masks(results: Results) -> pd.DataFrame:
    """Return `with_masks` of the runs that did not diverge: averages over runs omit the others everywhere."""
    frame = results.frame()
    return with_masks(results, frame[~diverged(frame)])


def layer_densities(results: Results) -> pd.DataFrame:
    """Return a row per (arm, trial, repeat, level, layer) that is done, from stored counts: no weights are read.

    Diverged runs are left out.

    Returns:
        `study`, `arm`, `trial`, `repeat`, `level`, `layer`; `remaining` and `size`, in weights; `density`, from 0 to 1.
        Layers are in the order of the forward pass.
    """
    sizes = results.plan.coverage.sizes()
    rows = []
    for row in sound_with_masks(results).to_dict("records"):
        remaining = results.store.facts(row["job"])["remaining"]
        place = {key: row[key] for key in ROW}
        for layer, size in sizes.items():
            rows.append(
                place
                | {"layer": layer, "remaining": remaining[layer], "size": size, "density": remaining[layer] / size}
            )
    return pd.DataFrame(rows, columns=[*ROW, "layer", "remaining", "size", "density"])


def dead_units(
    results: Results, trial: int | None = 0, arms: Sequence[str] | None = None, trust: bool = False
) -> pd.DataFrame:
    """Return, for each level and layer, the units without a live path, and the weights that lie on one.

    A unit - an output of a linear layer, an output channel of a convolution - is dead when all its incoming or all its
    outgoing weights are gone, those from and to dead units included. A unit that only a bias drives counts as dead,
    because it is a constant. The function uses the first repeat of an arm.

    Arguments:
        results: of a study, finished or not; masks are read from its store.
        trial: the trial to look at; None for all.
        arms: the arms to look at; None for all.
        trust: import a network that is the study's own. Otherwise no code of theirs runs, and the table is empty.

    Returns:
        `study`, `arm`, `trial`, `level`; `layer`: "input", the names of the layers, and "all" layers together; `units`
        and how many of them are `dead` (of "input", pixels or features where the first layer is linear, channels where
        it is a convolution); `remaining` weights, how many of those are `live`, and the layer's `size`; `density` and
        `effective_density`, remaining and live of size. "input" has no weights: zeros, and NaN densities.
        If paths can't be followed through the forward pass, the table is empty, and `table.attrs["untraced"]` has the
        reason; else it is "".

    Raises:
        InputError: the study has no such arm or trial.
    """
    frame = with_masks(results, results.frame())
    known = list(dict.fromkeys(row.arm for row in results.plan.rows))
    for arm in arms or ():
        if arm not in known:
            raise InputError(f"the study has no arm {arm!r}{nearest(arm, known)}")
    if trial is not None and trial not in results.study.trial_numbers:
        raise InputError(f"the study has no trial {trial}: it has {results.study.trials_text}")
    wanted = (frame["repeat"] == 0) & frame["arm"].isin(known if arms is None else list(arms))
    if trial is not None:
        wanted &= frame["trial"] == trial

    data = results.plan.data
    rows: list[dict[str, Any]] = []
    untraced = ""
    try:
        with contextlib.nullcontext() if trust else reading():
            module = initialised(factory(results.study.network, data.input_shape, data.classes), "pytorch", 0)
    except NotWhileReading as error:
        wanted, untraced = wanted & False, str(error)
    try:
        for row in frame[wanted].to_dict("records"):
            mask = results.store.mask(row["job"])
            place = {key: row[key] for key in ("study", "arm", "trial", "level")}
            by_channel = results.plan.coverage.layers[0].kind == "conv"
            counts = _count(mask, live_paths(module, mask, data.input_shape), by_channel)
            rows += [place | each for each in counts]
    except Untraceable as error:
        rows, untraced = [], str(error)
    table = pd.DataFrame(rows, columns=[*DEAD_COLUMNS, *DENSITIES])
    table.attrs["untraced"] = untraced
    return table


def _count(mask: Mask, live: LivePaths, by_channel: bool) -> list[dict[str, Any]]:
    """Return the rows of one network, without its place."""
    inputs = live.inputs.flatten(1).any(1) if by_channel else live.inputs.flatten()
    rows: list[dict[str, Any]] = []
    for name, keep in live.mask.items():
        alive = keep.flatten(1).any(1)
        rows.append(
            {
                "layer": name,
                "units": len(alive),
                "dead": int((~alive).sum()),
                "remaining": int(mask[name].sum()),
                "live": int(keep.sum()),
                "size": keep.numel(),
            }
        )
    total = {key: sum(row[key] for row in rows) for key in ("units", "dead", "remaining", "live", "size")}
    first = {"layer": INPUT, "units": len(inputs), "dead": int((~inputs).sum()), "remaining": 0, "live": 0, "size": 0}
    rows = [first, *rows, {"layer": ALL, **total}]
    for row in rows:
        row["density"] = row["remaining"] / row["size"] if row["size"] else math.nan
        row["effective_density"] = row["live"] / row["size"] if row["size"] else math.nan
    return rows
