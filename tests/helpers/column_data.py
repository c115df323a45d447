"""Data functions whose columns, labels or structures differ between train and test."""

import numpy as np
import torch
from own_data import Columns, arrays

NAMES = list("abcdef")


def _tables(order, renamed):
    """Return both parts as maps of columns; those of test in another order, or under other names."""
    made = []
    for (inputs, labels), names in zip(arrays(), (NAMES, NAMES[::order]), strict=True):
        columns = dict(zip(NAMES, inputs.T, strict=True))
        made.append({name: columns[name] for name in names} | {"kind": labels})
    if renamed:
        made[1] = {{"a": "alpha"}.get(name, name): values for name, values in made[1].items()}
    return made


class Items(torch.utils.data.Dataset):
    """Each item is a map of numbers."""

    def __init__(self, table):
        self.table = table

    def __len__(self):
        return len(self.table["kind"])

    def __getitem__(self, row):
        return {name: values[row] for name, values in self.table.items()}


def _frame(table):
    import pandas as pd

    return pd.DataFrame(table)


class HuggingFace(Columns):
    """A data set of these columns."""

    def __init__(self, table):
        self.columns, self.column_names, self.features = table, list(table), {}

    def __len__(self):
        return len(self.columns["kind"])


def _pair(table):
    frame = _frame(table)
    return frame.drop(columns="kind"), frame["kind"]


FORMS = {"map": dict, "frame": _frame, "pair": _pair, "items": Items, "hugging_face": HuggingFace}


def table(form="map", order=1, renamed=False, target="kind"):
    train, test = map(FORMS[form], _tables(order, renamed))
    return {"train": train, "test": test, "classes": 3, "target": target}


def named_inputs(order=1):
    """Two inputs by name, of different numbers of token ids."""

    def part(seed, names):
        generator = np.random.default_rng(seed)
        drawn = {"few": generator.integers(0, 3, (20, 4)), "many": generator.integers(0, 30, (20, 4))}
        return {name: drawn[name] for name in names}, generator.integers(0, 2, 20)

    train, test = part(1, ["few", "many"]), part(2, ["few", "many"][::order])
    return {"train": train, "test": test, "classes": 2, "tokens": {"few": 3, "many": 30}}


def twice():
    import pandas as pd

    return tuple(pd.DataFrame(np.zeros((9, 3)), columns=["a", "a", "y"]) for _ in range(2))


def labels(train=(0, 10, 20), test=(0, 10, 20), classes=None):
    parts = [(np.random.default_rng(0).normal(size=(30, 6)), np.resize(each, 30)) for each in (train, test)]
    return dict(zip(("train", "test"), parts, strict=True)) | ({} if classes is None else {"classes": classes})


def other_structure():
    return (np.zeros((9, 5)), np.arange(9) % 2), ({"x": np.zeros((9, 5))}, np.arange(9) % 2)


def other_type():
    return (np.zeros((9, 5)), np.arange(9) % 2), (np.zeros(9, int), np.arange(9) % 2)


def impossible_labels():
    """Three labels for each example, none of which is 0 or 1."""
    return tuple((inputs, np.full((len(inputs), 3), 0.7, np.float32)) for inputs, _ in arrays())
