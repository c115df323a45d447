"""The forms that a part of a user's data may have, and how each becomes arrays: all of them, or examples by number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tombola.data.columns import ColumnOrder, columns_of, is_frame, is_map
from tombola.data.dataset import Arrays, looks_channels_last
from tombola.data.memory import check_fits
from tombola.errors import DataError

TARGETS = ("label", "labels", "target", "targets", "y")  # what the column is called if nothing says so
PALETTES = {"P": "RGB", "PA": "RGBA", "1": "L"}  # modes of Pillow without brightness -> one to convert to
CONVERT = "; convert it, such as by .astype('float32')"


class Form:
    """One part of a function's return value, to convert to arrays.

    Args:
        name: of the function.
        which: "train" or "test".
        part: what the function returned.
        target: the column of targets, None where the function does not name it.
        order: of columns, shared by train and test.
        channels_first: the function says that channels come second in its inputs [N, ...], whatever their shape.
    """

    def __init__(
        self,
        name: str,
        which: str,
        part: Any,
        target: str | None,
        order: ColumnOrder | None = None,
        channels_first: bool = False,
    ):
        self.where, self.part, self.target = f"{name}: {which}", part, target
        self._order, self._channels_first = order or ColumnOrder(), channels_first

    def read(self) -> tuple[Arrays, Arrays]:
        """Return inputs and targets."""
        part = self.part
        if isinstance(part, tuple | list) and len(part) == 2:
            inputs, targets = part
        elif is_map(part) and "inputs" in part:
            inputs, targets = self._named_pair(part)
        elif is_map(part) or is_frame(part):
            inputs, targets = self._from_columns(columns_of(part, self.where))
        elif hasattr(part, "column_names") and hasattr(part, "features"):
            as_numpy = part.with_format("numpy") if hasattr(part, "with_format") else part
            columns = as_numpy[:]
            inputs, targets = self._from_columns({key: columns[key] for key in part.column_names})
        elif hasattr(part, "__array__"):
            inputs, targets = part, None
        elif _by_number(part):
            inputs, targets = self._from_items()
        else:
            raise self._unreadable()
        return self.checked(inputs, targets)

    def checked(self, inputs: Any, targets: Any, numbers: Sequence[int] | None = None) -> tuple[Arrays, Arrays]:
        """Return inputs and targets as arrays of numbers.

        Args:
            inputs, targets: of all examples, or of those with these `numbers`.
            numbers: of the examples, for messages.

        Raises:
            DataError: they can't be trained on.
        """
        inputs, targets = self.matched(inputs, targets)
        inputs = each_of(lambda values: self._inputs(values, numbers), inputs)
        several = is_map(targets) or isinstance(targets, tuple)
        targets = each_of(lambda values: self._array(values, "targets", numbers), targets)
        if several and any(array.dtype.kind in "US" for array in leaves(targets)):
            raise DataError(f"{self.where}: one of several targets contains texts; convert it to class numbers from 0")
        self._check_lengths(inputs, targets)
        return inputs, targets

    def matched(self, inputs: Any, targets: Any, item: str = "") -> tuple[Any, Any]:
        """Return inputs and targets with their columns in the order of train; `item` names one in messages.

        Raises:
            DataError: columns have other names.
        """
        where = self.where + item
        return self._order.matched(inputs, where, "inputs"), self._order.matched(targets, where, "targets")

    def rows(self) -> Rows:
        """Return the examples by number; none is read yet but the first.

        Raises:
            DataError: the part's examples can't be read one by one.
        """
        part = self.part
        if isinstance(part, tuple | list) and len(part) == 2:
            return ArrayRows(self, part[0], part[1])
        if is_map(part) and "inputs" in part:
            return ArrayRows(self, *self._named_pair(part))
        if is_map(part) or is_frame(part):
            raise DataError(
                f"{self.where} is a {type(part).__name__}, whose columns lie in memory; remove data.stream, or "
                "return a map-style Dataset"
            )
        if hasattr(part, "__array__"):
            return ArrayRows(self, part, None)
        if not _by_number(part):
            raise self._unreadable()
        return ItemRows(self, part.with_format("numpy") if hasattr(part, "with_format") else part)

    def _named_pair(self, part: Mapping[Any, Any]) -> tuple[Any, Any]:
        """Return the inputs and targets of a map with the name "inputs"; no targets where it has only inputs."""
        others = [key for key in part if key != "inputs"]
        targets = [key for key in others if self._is_target(key)]
        if len(targets) > 1 or len(targets) < len(others):
            names = ", ".join(map(str, others))
            if not targets and self.target is not None:
                raise DataError(f"{self.where} has inputs, {names}, and no target {self.target!r}")
            raise DataError(
                f"{self.where} has inputs, {names}: beside inputs, a map may have only targets; put all "
                'that the network gets into inputs, such as {"inputs": {"a": a, "b": b}, "targets": y}'
            )
        return part["inputs"], part[targets[0]] if targets else None

    def _unreadable(self) -> DataError:
        kind = type(self.part).__name__
        if not hasattr(self.part, "__iter__"):
            return DataError(f"{self.where} is a {kind}; docs/studies.md lists the supported types")
        return DataError(
            f"{self.where} is a {kind}, which can be read only from its start, so training could not resume or seed "
            "its order; give it a length and items by number (a map-style Dataset), or return arrays"
        )

    def _from_columns(self, columns: dict[str, Any], item: str = "") -> tuple[Any, Any]:
        target = self.target
        if target is None:
            found = [column for column in TARGETS if column in columns]
            if len(found) != 1:
                raise DataError(
                    f"{self.where} has columns {', '.join(columns)}: name the column of targets: return "
                    '{"train": ..., "test": ..., "target": "name of the column"}'
                )
            (target,) = found
        if target not in columns:
            raise DataError(f"{self.where} has no column {target!r}; its columns are: {', '.join(columns)}")
        targets = columns.pop(target)
        if not columns:
            raise DataError(f"{self.where} has only the column {target!r}; add inputs")
        columns = self._order.ordered(columns, self.where + item, "columns")
        arrays = {column: self._array(values, f"column {column!r}") for column, values in columns.items()}
        if len(arrays) == 1 and (only := next(iter(arrays.values()))).ndim > 1:
            return only, targets
        if all(array.ndim == 1 for array in arrays.values()):  # a table: each column is a feature
            return _table(arrays.values()), targets
        return arrays, targets

    def _from_items(self) -> tuple[Any, Any]:
        size = len(self.part)
        if not size:
            raise DataError(f"{self.where} is empty")
        first = self.item(self.part, 0)
        check_fits(self.where, size * sum(array.nbytes for array in leaves(first)))
        items = [first, *(self.item(self.part, number) for number in range(1, size))]
        return self.stacked(items, range(size), first)

    def stacked(self, items: Sequence[Any], numbers: Sequence[int], first: Any) -> tuple[Any, Any]:
        """Return inputs and targets of some items, all of them shaped as item 0, which is `first`."""
        wanted = [array.shape for array in leaves(first)]
        for number, item in zip(numbers, items, strict=True):
            shapes = [array.shape for array in leaves(item)]
            if shapes != wanted:
                raise DataError(
                    f"{self.where}: item {number} has arrays of shape {shapes}, item 0 of {wanted}; all items need "
                    "one shape: crop, resize or pad them"
                )
        return _stacked([item[0] for item in items]), _stacked([item[1] for item in items])

    def item(self, part: Any, number: int) -> tuple[Any, Any]:
        """Return input and target of an item of `part`, as arrays."""
        try:
            item = part[int(number)]
        except Exception as error:
            raise DataError(f"{self.where}: item {number} can't be read: {type(error).__name__}: {error}") from error
        if is_map(item):
            self._check_pictures({key: item[key] for key in item if not self._is_target(key)}, f", item {number}")
            columns = {str(key): np.asarray(_numpy(item[key]))[None] for key in item}
            inputs, targets = self._from_columns(columns, f", item {number},")
            return each_of(lambda array: array[0], inputs), np.asarray(targets)[0]
        if not (isinstance(item, tuple | list) and len(item) == 2):
            raise DataError(f"{self.where}: item {number} is a {type(item).__name__}; it must be (input, target)")
        self._check_pictures(item[0], f", item {number}")
        inputs, target = (each_of(lambda value: np.asarray(_numpy(value)), values) for values in item)
        return self.matched(inputs, target, f", item {number},")

    def _is_target(self, column: Any) -> bool:
        return str(column) == self.target if self.target is not None else column in TARGETS

    def _check_pictures(self, values: Any, which: str) -> None:
        """Raise if an input is a picture of Pillow whose numbers say nothing of its colours."""
        for value in leaves(values):
            if hasattr(value, "getbands") and value.mode in PALETTES:
                raise DataError(
                    f"{self.where}{which} is a picture of mode {value.mode!r}, a palette or bits, not brightness; "
                    f"return picture.convert({PALETTES[value.mode]!r})"
                )

    def _inputs(self, values: Any, numbers: Sequence[int] | None = None) -> np.ndarray:
        if isinstance(values, list):
            self._check_pictures(tuple(values), "")
        array = self._array(values, "inputs", numbers)
        if array.dtype == bool:
            array = array.astype(np.float32)
        if array.dtype.kind in "USO":
            raise DataError(
                f"{self.where}: inputs contain texts; convert them to numbers, such as token ids of type int64"
            )
        if looks_channels_last(array.shape) and not self._channels_first:
            raise DataError(
                f"{self.where}: inputs have shape {array.shape}, which looks like channels last; return "
                'array.transpose(0, 3, 1, 2), or {"train": ..., "test": ..., "channels": "first"} if they come second'
            )
        return array[:, None] if array.ndim == 3 and array.dtype == np.uint8 else array

    def _array(self, values: Any, what: str, numbers: Sequence[int] | None = None) -> np.ndarray:
        try:
            array = np.asarray(_numpy(values))
        except (ValueError, TypeError) as error:
            raise DataError(f"{self.where}: {what} is not an array: {error}") from None
        if array.dtype == object and all(isinstance(value, str) for value in array.flat):
            array = array.astype(str)
        if array.dtype.kind not in "biufUS" or not array.ndim:
            raise DataError(
                f"{self.where}: {what} is an array of {array.dtype} of shape {array.shape}; it must contain numbers, "
                f"with one shape for all examples{CONVERT if array.dtype == object else ''}"
            )
        if what.startswith("column") and array.dtype.kind in "US":
            raise DataError(
                f"{self.where}: {what} contains texts; convert it to numbers (pandas.get_dummies), or remove it"
            )
        if array.dtype.kind == "f" and array.size:
            flat = np.isfinite(array.reshape(len(array), -1)).all(1)
            if not flat.all():
                first = int(flat.argmin())
                which = f"{int((~flat).sum()):,} of {len(array):,} examples, the first at number {first}"
                if numbers is not None:
                    which = f"item {numbers[first]}"
                raise DataError(
                    f"{self.where}: {what} holds NaN or infinity in {which}; replace those values, or remove the "
                    "examples"
                )
        return array

    def _check_lengths(self, inputs: Arrays, targets: Arrays) -> None:
        lengths = {len(array) for array in (*leaves(inputs), *leaves(targets))}
        if len(lengths) > 1 or 0 in lengths:
            raise DataError(
                f"{self.where} has arrays of {' and '.join(f'{length:,}' for length in sorted(lengths))} examples; "
                "each input needs one target, and at least one example must exist"
            )


class Rows(Protocol):
    """The examples of one part, read by number."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def take(self, numbers: Sequence[int]) -> tuple[Arrays, Arrays]:
        """Return inputs and targets of some examples, in that order.

        Raises:
            DataError: one can't be read, or is not as it must be; the message has its number.
        """
        ...


class ArrayRows:
    """Rows of arrays, of `numpy.load(path, mmap_mode="r")` for instance."""

    def __init__(self, form: Form, inputs: Any, targets: Any):
        self._form = form
        self._inputs, self._targets = (each_of(_by_rows, values) for values in form.matched(inputs, targets))
        lengths = {len(values) for values in (*leaves(inputs), *leaves(targets))}
        if len(lengths) > 1 or 0 in lengths:
            form.checked(inputs, targets)  # which says what is wrong
        (self._size,) = lengths

    def __len__(self) -> int:
        return self._size

    def take(self, numbers: Sequence[int]) -> tuple[Arrays, Arrays]:
        """Return inputs and targets of some examples."""
        rows, places = np.unique(np.asarray(numbers), return_inverse=True)  # files are read from front to back

        def taken(values: Any) -> Any:
            found = _numpy(values[rows])
            return found if len(rows) == len(places) and (places == np.arange(len(places))).all() else found[places]

        try:
            inputs, targets = each_of(taken, self._inputs), each_of(taken, self._targets)
        except Exception as error:
            raise DataError(
                f"{self._form.where}: items {rows[0]} to {rows[-1]} can't be read: {type(error).__name__}: {error}"
            ) from error
        return self._form.checked(inputs, targets, numbers)


class ItemRows:
    """Items of a map-style data set."""

    def __init__(self, form: Form, part: Any):
        self._form, self._part, self._size = form, part, len(part)
        if not self._size:
            raise DataError(f"{form.where} is empty")
        self._first = form.item(part, 0)

    def __len__(self) -> int:
        return self._size

    def take(self, numbers: Sequence[int]) -> tuple[Arrays, Arrays]:
        """Return inputs and targets of some examples."""
        items = [self._form.item(self._part, number) for number in numbers]
        return self._form.checked(*self._form.stacked(items, numbers, self._first), numbers)


def _table(columns: Iterable[np.ndarray]) -> np.ndarray:
    """Return columns as float32 [N, columns] where it holds their numbers, else as float64."""
    table = np.stack([column.astype(np.float64) for column in columns], 1)
    with np.errstate(over="ignore"):
        narrow = table.astype(np.float32)
    return narrow if (narrow == table).all() else table


def _by_rows(values: Any) -> Any:
    """Return values that an array of row numbers selects from; those of a file are not read."""
    labelled = hasattr(values, "iloc") or is_frame(values)
    return values if hasattr(values, "shape") and not labelled else np.asarray(_numpy(values))


def _by_number(part: Any) -> bool:
    return hasattr(part, "__len__") and hasattr(part, "__getitem__")


def _numpy(value: Any) -> Any:
    """Return what NumPy can read: of a tensor its values, of a picture [channels, height, width]."""
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    if hasattr(value, "getbands"):  # of Pillow
        picture = np.asarray(value)
        return picture.transpose(2, 0, 1) if picture.ndim == 3 else picture
    return value.to_numpy() if hasattr(value, "to_numpy") else value


def each_of(function: Callable[[Any], Any], values: Any) -> Any:
    """Return what a function makes of each value of a tuple or map, or of the single value; None stays None."""
    if values is None:
        return None
    if is_map(values):
        return {str(key): function(value) for key, value in values.items()}
    return tuple(map(function, values)) if isinstance(values, tuple) else function(values)


def leaves(arrays: Any) -> list[Any]:
    """Return all arrays of a structure, however deep; none of None."""
    if arrays is None:
        return []
    if isinstance(arrays, Mapping):
        arrays = tuple(arrays.values())
    if isinstance(arrays, tuple):
        return [leaf for each in arrays for leaf in leaves(each)]
    return [arrays]


def _stacked(items: list[Any]) -> Any:
    first = items[0]
    if first is None:
        return None
    if isinstance(first, dict):
        return {key: np.stack([item[key] for item in items]) for key in first}
    if isinstance(first, tuple):
        return tuple(np.stack(column) for column in zip(*items, strict=True))
    return np.stack(items)
