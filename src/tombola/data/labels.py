"""What is wrong with whole-number targets as the classes of a classification."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from tombola.data.dataset import Arrays

SHOWN = 5  # gaps in a message
SAY = 'return {"train": ..., "test": ..., "classes": the number of classes}'


def label_fault(train: Arrays, test: Arrays, says_classes: bool) -> str:
    """Return why targets are not class numbers of which each has training examples, and what to do; "" if they are.

    A task decides whether that matters: whole numbers may also be counts to learn by regression.

    Args:
        train, test: raw targets. Only one whole number for each example is looked at.
        says_classes: whether the user's function says the number of classes, and so that some may have no example.
    """
    if not isinstance(train, np.ndarray) or train.dtype.kind not in "iu" or train.ndim != 1:
        return ""
    present = np.unique(train)
    for which, lowest in (("train", int(present[0])), ("test", int(test.min()))):
        if lowest < 0:
            return f"{which} has the label {lowest}; number the classes from 0, and remove examples without a label"
    if says_classes:
        return ""
    if only := sorted(set(np.unique(test).tolist()) - set(present.tolist())):
        return f"test has the class {only[0]}, which train lacks; remove those examples, or {SAY}"
    if gaps := _gaps(present):
        return f"no training example has the class {gaps}; number the classes from 0 without gaps, or {SAY}"
    return ""


def _gaps(present: np.ndarray) -> str:
    """Return in words which numbers below the largest are missing; "" for none."""
    found = np.concatenate([[-1], present.astype(np.int64)])
    ends = [(int(low) + 1, int(high) - 1) for low, high in pairwise(found) if high - low > 1]
    words = [str(first) if first == last else f"{first} to {last}" for first, last in ends[:SHOWN]]
    return ", ".join(words) + (f" and others up to {ends[-1][1]}" if len(ends) > SHOWN else "")
