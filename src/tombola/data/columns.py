"""Columns of frames and of maps: those of all parts and items are matched by name, in the order of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tombola.errors import DataError
from tombola.formatting import first_of

SHOWN = 5  # names in a message


def is_map(value: Any) -> bool:
    """Return whether a value is a map of names to others."""
    return isinstance(value, Mapping)


def is_frame(value: Any) -> bool:
    """Return whether a value is a frame of named columns, of pandas or polars."""
    return hasattr(value, "columns") and hasattr(value, "to_numpy")


def columns_of(frame: Any, where: str) -> dict[str, Any]:
    """Return the columns of a frame or a map by name.

    Raises:
        DataError: two columns have one name.
    """
    keys = list(frame.columns if is_frame(frame) else frame)
    names = [str(key) for key in keys]
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise DataError(f"{where} has two columns with the name {twice[0]!r}; rename or remove one of them")
    return {name: frame[key] for name, key in zip(names, keys, strict=True)}


class ColumnOrder:
    """The order of columns: that of the first frame, map or item that is read, which is one of training."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, tuple[str, ...]]] = {}  # structure -> where it was first seen, its names

    def ordered(self, columns: dict[str, Any], where: str, what: str) -> dict[str, Any]:
        """Return columns in the order of the first ones.

        Args:
            columns: by name.
            where: part or item that has them, for messages.
            what: names the structure, which a data set may have several of.

        Raises:
            DataError: their names differ from those of the first.
        """
        first, names = self._first.setdefault(what, (where, tuple(columns)))
        missing, extra = _only(names, columns), _only(columns, names)
        if missing or extra:
            faults = [f"lacks {_listed(missing)}"] if missing else []
            faults += [f"also has {_listed(extra)}"] if extra else []
            raise DataError(
                f"{where}: {what} must have the names that {first} has, but {where} {' and '.join(faults)}; "
                "rename, add or remove columns"
            )
        return {name: columns[name] for name in names}

    def matched(self, values: Any, where: str, what: str) -> Any:
        """Return a structure of values with its maps and frames in the order of the first.

        Raises:
            DataError: names differ.
        """
        if is_frame(values):
            ordered = self.ordered(columns_of(values, where), where, f"columns of {what}")
            keys = {str(key): key for key in values.columns}
            return values[[keys[name] for name in ordered]]
        if is_map(values):
            found = self.ordered({str(key): values[key] for key in values}, where, what)
            return {name: self.matched(each, where, f"{what} {name!r}") for name, each in found.items()}
        if isinstance(values, tuple):
            return tuple(self.matched(each, where, f"{what} {place}") for place, each in enumerate(values))
        return values


def _only(names: Any, others: Any) -> list[str]:
    return [name for name in names if name not in others]


def _listed(names: Sequence[str]) -> str:
    return first_of([repr(name) for name in names], SHOWN)
