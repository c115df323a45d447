"""Data functions as users write them, good ones and bad ones; all hold the same three clusters."""

import itertools

import numpy as np
import torch

CALLS = itertools.count()
CENTRES = np.random.default_rng(0).normal(size=(3, 6)) * 3


def clusters(examples, seed):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, examples)
    return (CENTRES[labels] + generator.normal(size=(examples, 6))).astype(np.float32), labels


def arrays(train=90, test=30):
    return clusters(train, 1), clusters(test, 2)


def tensors():
    return tuple(tuple(map(torch.from_numpy, part)) for part in arrays())


class Rows(torch.utils.data.Dataset):
    """A map-style data set."""

    def __init__(self, part):
        self.part = part

    def __len__(self):
        return len(self.part[0])

    def __getitem__(self, row):
        return torch.from_numpy(self.part[0][row]), int(self.part[1][row])


class Columns:
    """As much of a Hugging Face data set as tombola needs."""

    def __init__(self, part):
        self.columns = {"vector": part[0], "label": part[1]}
        self.column_names, self.features = list(self.columns), {}

    def with_format(self, kind):
        assert kind == "numpy"
        return self

    def __len__(self):
        return len(self.columns["label"])

    def __getitem__(self, rows):
        return {name: column[rows] for name, column in self.columns.items()}


def map_style():
    train, test = arrays()
    return {"train": Rows(train), "test": Rows(test)}


def hugging_face():
    train, test = arrays()
    return {"train": Columns(train), "test": Columns(test)}


def frames(target="kind", named=True, said=None):
    import pandas as pd

    made = []
    for inputs, labels in arrays():
        frame = pd.DataFrame(inputs, columns=list("abcdef"))
        made.append(frame.assign(**{target: [f"kind {label}" for label in labels] if named else labels}))
    return {"train": made[0], "test": made[1], "target": said or target}


def growing():
    return clusters(90 + next(CALLS), 1), clusters(30, 2)


def unseeded():
    return clusters(90, None), clusters(30, 2)


def with_nan():
    train, test = arrays()
    train[0][7, 2] = np.nan
    return train, test


def real_targets():
    return tuple((inputs, inputs[:, 0]) for inputs, _ in arrays())


def uneven():
    (inputs, labels), test = arrays()
    return (inputs[:-1], labels), test


def ragged():
    return [(np.zeros(3 + row), 0) for row in range(4)], Rows(arrays()[1])


def stream():
    return iter(range(9)), iter(range(9))


def channels_last():
    return tuple((np.zeros((12, 8, 8, 3), np.uint8), np.arange(12) % 2) for _ in range(2))


def not_in_parts():
    """Return the inputs and the targets, without a test part."""
    return clusters(90, 1)


def of_objects():
    """Return inputs as pandas holds columns of mixed types."""
    return tuple((inputs.astype(object), targets) for inputs, targets in arrays())


def nothing():
    return None


def failing():
    raise RuntimeError("no disk")


def last_rows(inputs, targets, generator):
    """The last ten examples."""
    return np.arange(len(inputs) - 10, len(inputs))


def first_class(inputs, targets, generator):
    return targets == 0


def too_many(inputs, targets, generator):
    return np.arange(len(inputs))


def varying(inputs, targets, generator):
    return np.arange(1 + int(torch.randint(50, (), generator=generator)))


def repeating(inputs, targets, generator):
    return np.array([3, 7, 7, 8, 9, 7])
