"""Data sets: sources, splits, and the inputs of training."""

from tombola.data.balanced import balanced
from tombola.data.dataset import Arrays, Description, Shape, first_array, float_inputs, is_one_shape, shape_from_json
from tombola.data.held import Dataset
from tombola.data.parts import (
    Examples,
    Part,
    Splits,
    Tensors,
    blank_inputs,
    each_tensor,
    first_tensor,
    random_inputs,
    random_tensors,
)
from tombola.data.settings import DataSettings
from tombola.data.sources import (
    SOURCES,
    describe,
    fingerprint,
    forget_copies,
    load,
    look_again,
)
from tombola.data.splitting import AnyDataset, rows_of, split

__all__ = [
    "SOURCES",
    "AnyDataset",
    "Arrays",
    "DataSettings",
    "Dataset",
    "Description",
    "Examples",
    "Part",
    "Shape",
    "Splits",
    "Tensors",
    "balanced",
    "blank_inputs",
    "describe",
    "each_tensor",
    "fingerprint",
    "first_array",
    "first_tensor",
    "float_inputs",
    "forget_copies",
    "is_one_shape",
    "load",
    "look_again",
    "random_inputs",
    "random_tensors",
    "rows_of",
    "shape_from_json",
    "split",
]
