"""A user's data of which examples are read by number, in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from tombola.data.dataset import Arrays, Tokens, are_tokens, each_array
from tombola.data.forms import leaves
from tombola.data.functions import UNSAID, call, check_alike, digest_of, in_words, kinds, structured_like, whole_number
from tombola.errors import DataError
from tombola.seeds import Seeds

PROBES = 16  # examples of each part that identify the data


class Stream:
    """What a user's function returned, open for reading.

    Args:
        name: of the function, as `package.module:name`.
        arguments: of the function.

    Attributes:
        rows: "train" and "test", examples by number.
        sample: inputs and targets of the first training example, [1, ...]; targets as numbers.
        classes: number of classes, as the function says it.
        tokens: number of token ids, structured as the inputs, as the function says it.
        said: both, as far as the function says them.

    Raises:
        InputError: there is no such function, or it fails.
        DataError: what it returns can't be streamed.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any]):
        returned = call(name, arguments)
        self.name, self.said = name, returned.said
        self.rows = {which: form.rows() for which, form in returned.parts.items()}
        inputs, targets = self.rows["train"].take([0])
        others = self.rows["test"].take([0])
        check_alike(name, "inputs", inputs, others[0])
        check_alike(name, "targets", targets, others[1])
        self._kinds = kinds(inputs), kinds(targets)
        self._words = {"inputs": in_words(inputs), "targets": in_words(targets)}
        self.tokens = _tokens(name, returned.tokens, inputs)
        self.classes = _classes(name, returned.classes, targets)
        self.sample: tuple[Arrays, Arrays] = inputs, self._numbered("train", targets, [0])

    @cached_property
    def content(self) -> list[Any]:
        """What identifies the data without reading them all: each part's length, types and shapes, and a few examples.

        They are the first, the last, and others drawn at random. PyTorch reads them on one thread, as a process that
        reads ahead does: on several, sums may round otherwise.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self._probed()
        finally:
            torch.set_num_threads(threads)

    def _probed(self) -> list[Any]:
        found: list[Any] = []
        for which, rows in self.rows.items():
            drawn = torch.randint(len(rows), (PROBES - 2,), generator=Seeds(0, 0).generator("examples", which))
            inputs, targets = self.take(which, sorted({0, len(rows) - 1, *drawn.tolist()}))
            found += [len(rows), kinds(inputs), kinds(targets), digest_of(inputs, targets)]
        return found

    def take(self, which: str, numbers: Sequence[int]) -> tuple[Arrays, Arrays]:
        """Return inputs and targets of some examples of "train" or "test", raw, targets as numbers.

        Raises:
            DataError: one can't be read, or is not as it must be; the message names it.
        """
        inputs, targets = self.rows[which].take(numbers)
        for what, found, wanted in zip(("inputs", "targets"), (inputs, targets), self._kinds, strict=True):
            if kinds(found) != wanted:
                raise DataError(
                    f"{self.name}: {which}: {what} of items {min(numbers)} to {max(numbers)} are {in_words(found)}, "
                    f"those of item 0 of train {self._words[what]}; all must have one type and shape"
                )
        tokens = self.tokens
        limits = tuple(tokens.values()) if isinstance(tokens, dict) else tokens
        for array, limit in zip(leaves(inputs), limits if isinstance(limits, tuple) else (limits,), strict=False):
            if limit is not None:
                self._check_range(which, "token id", array, limit, numbers)
        return inputs, self._numbered(which, targets, numbers)

    def _numbered(self, which: str, targets: Arrays, numbers: Sequence[int]) -> Arrays:
        """Return int64, float32 or truth values, as for data in memory."""
        if not isinstance(targets, np.ndarray):
            return targets
        if targets.dtype.kind in "iu":
            if self.classes is not None:
                self._check_range(which, "class", targets, self.classes, numbers)
            return targets.astype(np.int64)
        return targets.astype(np.float32) if targets.dtype.kind == "f" else targets

    def _check_range(self, which: str, what: str, array: np.ndarray, limit: int, numbers: Sequence[int]) -> None:
        wrong = ((array < 0) | (array >= limit)).reshape(len(array), -1)
        if wrong.any():
            place = int(wrong.any(1).argmax())
            value = array.reshape(len(array), -1)[place][wrong[place]][0]
            field = "tokens" if what == "token id" else "classes"
            raise DataError(
                f"{self.name}: {which}: item {numbers[place]} has the {what} {value}, and the function says "
                f"{field}={limit}; numbers start from 0: correct {field} or the item"
            )


def _tokens(name: str, said: Any, inputs: Arrays) -> Tokens:
    least: Tokens = each_array(lambda array: 1 if are_tokens(array) else None, inputs)
    if said is UNSAID and any(are_tokens(array) for array in leaves(inputs)):
        raise DataError(
            f"{name}: inputs are token ids, and streamed data are not searched for the largest one; return "
            '{"train": ..., "test": ..., "tokens": the number of token ids}'
        )
    return structured_like(name, None if said is UNSAID else said, least)


def _classes(name: str, said: Any, targets: Arrays) -> int | None:
    if not isinstance(targets, np.ndarray) or targets.dtype.kind not in "iuUS":
        said = None if said is UNSAID else said
    elif targets.dtype.kind in "US":
        raise DataError(f"{name}: targets are texts, which only data in memory may be; return class numbers from 0")
    if said is UNSAID:
        raise DataError(
            f"{name}: targets are whole numbers, and streamed data are not searched for the largest one; return "
            '{"train": ..., "test": ..., "classes": the number of classes}, or "classes": None where they are none'
        )
    return None if said is None else whole_number(name, "classes", said)
