"""What a person should know before the work of a study starts, in one line each."""

from __future__ import annotations

import math
from collections import Counter

from tombola.data import float_inputs, is_one_shape
from tombola.formatting import counted
from tombola.running.kept_plan import what_changed
from tombola.running.options import RunOptions
from tombola.running.store import Store
from tombola.studies.plan import Plan
from tombola.studies.trial import epoch_length
from tombola.tasks import Classification
from tombola.tasks.metric import direction_of


def notes_on(plan: Plan, store: Store) -> tuple[str, ...]:
    """Return all notes on a plan; some are "" where they do not apply."""
    return (
        what_changed(store, plan),
        surplus_outputs(plan),
        unscaled_inputs(plan),
        never_pruned(plan),
        uncounted(plan),
        turned_round(plan),
        skipped_rounds(plan),
        never_settles(plan),
        *plan.notes,
    )


def surplus_outputs(plan: Plan) -> str:
    """Return in one line that the network has more outputs than there are classes; "" where it hasn't."""
    outputs, classes = plan.coverage.classes, plan.data.classes
    if (
        outputs is None
        or classes is None
        or outputs == classes
        or not isinstance(plan.study.task.make(), Classification)
    ):
        return ""
    returned = counted(outputs, "score")
    return f"note: the network returns {returned} per example, but {plan.study.data.source} has {classes} classes"


def unscaled_inputs(plan: Plan) -> str:
    """Return in one line that tombola does not normalise the numbers among several inputs; "" where it has none."""
    if plan.study.trainer is not None or plan.study.data.normalise == "none" or is_one_shape(plan.data.input_shape):
        return ""
    names = float_inputs(plan.data.input_dtype)
    if not names:
        return ""
    return (
        f"note: the network takes several inputs, so tombola does not normalise {', '.join(names)}; if their columns "
        f"differ in size, scale them in {plan.study.data.source}"
    )


def never_pruned(plan: Plan) -> str:
    """Return in one line that some matrix weights can't be pruned; "" where all can be."""
    if not (found := plan.coverage.never_pruned()):
        return ""
    unused = any(not each.multiply_adds for each in plan.coverage.skipped)
    remedy = "; remove layers that the network does not need" if unused else ""
    if unused and plan.study.trainer is not None:  # whose token ids, for one, tombola can't draw
        remedy += ", or give inputs that reach the others"
    return f"note: {found}{remedy}"


def uncounted(plan: Plan) -> str:
    """Return in one line that densities leave parameters out; "" where they count all matrices."""
    return f"note: {found}" if (found := plan.coverage.uncounted()) else ""


def turned_round(plan: Plan) -> str:
    """Return in one line that a trainer's metric counts as better in another direction than its name says; else ""."""
    trainer = plan.study.trainer
    if trainer is None or direction_of(trainer.metric) in (None, trainer.better):
        return ""
    return f"note: {trainer.metric} counts as better when {trainer.better}; if that is wrong, set trainer.better"


def skipped_rounds(plan: Plan) -> str:
    """Return in one line that a skipped round would be followed by the same training again; "" where it can't be."""
    if plan.study.pruning.criterion != "stability" or plan.study.noise == "level":
        return ""
    return (
        "note: stability skips a round in which the last evaluation was the best one, and with noise: trial the next "
        "levels repeat the same training; noise: level gives each level its own data order"
    )


def never_settles(plan: Plan) -> str:
    """Return in one line that the dense run is evaluated too seldom for a mask to settle; "" where it is not."""
    dense, recipe = next(iter(plan.work.values())), plan.study.training
    if not dense.observe.masks:
        return ""
    watched = [tracked.early_bird.window for tracked in dense.observe.masks]
    distances = math.ceil(plan.budget() / recipe.interval(epoch_length(plan.study, plan.data, recipe)))
    if not any(window > distances for window in watched):
        return ""
    return (
        f"note: pruning.early_bird.window={watched[0]}, but the dense run is evaluated "
        f"{counted(distances, 'time')} after its start: no mask can settle, so early-bird takes the mask of the final "
        "weights; lower training.evaluate_every"
    )


def lost_checkpoints(plan: Plan, store: Store, options: RunOptions) -> str:
    """Return in one line that checkpoints can't be continued, and how they could; "" where all can.

    Sums of another number of threads, another device or another PyTorch round differently, so a run that began with one
    and ended with the other could not be repeated to the last bit.
    """
    import torch

    now = {"threads": options.threads, "device": options.device, "torch": torch.__version__}
    lost: Counter[str] = Counter()
    for item in plan.work.values():
        made = store.checkpoint_made_with(item.id) or {}
        differing = [f"{key} {made[key]} instead of {now[key]}" for key in now if made.get(key, now[key]) != now[key]]
        if differing:
            lost[", ".join(differing)] += 1
    if not lost:
        return ""
    how = "; ".join(f"{count} made with {text}" for text, count in lost.items())
    return (
        f"checkpoints can't resume to the last bit: {how}. That work starts again; to resume it, use the earlier "
        "--workers and --device"
    )
