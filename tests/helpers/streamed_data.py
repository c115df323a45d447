"""Data functions for streaming, good ones and bad ones; examples are read by number."""

import itertools
import os
import signal
import time

import numpy as np
import torch
from own_data import Columns, Rows, arrays, clusters

CALLS = itertools.count()


def said(train, test, **more):
    return {"train": train, "test": test, "classes": 3} | more


def map_style(train=90, test=30):
    return said(*map(Rows, arrays(train, test)))


def pairs(train=90, test=30):
    return said(*arrays(train, test))


def hugging_face():
    return said(*map(Columns, arrays()))


def images(pixel="float32"):
    """Pictures [3, 8, 8] with one of two colours."""

    def part(size, seed):
        generator = np.random.default_rng(seed)
        labels = generator.integers(0, 3, size)
        values = generator.integers(0, 200, (size, 3, 8, 8)) + 50 * (labels == 1)[:, None, None, None]
        return values.astype(pixel), labels

    return said(Rows(part(90, 1)), Rows(part(30, 2)))


class Named(Rows):
    """Each item is ({"one": ..., "two": ...}, target)."""

    def __getitem__(self, row):
        vector, label = super().__getitem__(row)
        return {"one": vector[:3], "two": vector[3:]}, label


def two_inputs():
    return said(*map(Named, arrays()))


class Texts(torch.utils.data.Dataset):
    """Sequences of ten token ids, without targets."""

    def __init__(self, size, seed, largest=12):
        self.ids = torch.randint(largest + 1, (size, 10), generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, row):
        return self.ids[row], None


def texts(tokens=13, largest=12):
    said = {} if tokens is None else {"tokens": tokens}
    return {"train": Texts(60, 1, largest), "test": Texts(20, 2, largest)} | said


class Awkward(Rows):
    """An item in the middle of the training set is not as the others, or does something."""

    def __init__(self, part, odd, what):
        super().__init__(part)
        self.odd, self.what = odd, what

    def __getitem__(self, row):
        item = super().__getitem__(row)
        return self.what(item) if row == self.odd else item


def _raise(item):
    raise ValueError("file is cut short")


def _kill(item):
    if torch.utils.data.get_worker_info() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


AWKWARD = {
    "raises": _raise,
    "kills": _kill,
    "nan": lambda item: (item[0] * float("nan"), item[1]),
    "class": lambda item: (item[0], 7),
    "shape": lambda item: (item[0][:4], item[1]),
    "dtype": lambda item: (item[0].double(), item[1]),
}


def awkward(what, odd=47):
    train, test = arrays()
    return said(Awkward(train, odd, AWKWARD[what]), Rows(test))


class Shaky(Rows):
    """As with a random transform."""

    def __getitem__(self, row):
        vector, label = super().__getitem__(row)
        return vector + torch.rand(6), label


def shaky():
    return said(*map(Shaky, arrays()))


def growing():
    return said(Rows(clusters(90 + next(CALLS), 1)), Rows(clusters(30, 2)))


def unsaid():
    return {name: part for name, part in map_style().items() if name != "classes"}


def iterable():
    return said(iter(range(9)), iter(range(9)))


def columns():
    return said(*({"a": inputs[:, 0], "label": labels} for inputs, labels in arrays()))


class Slow(Rows):
    """Leaves its process's number where the test looks for it."""

    def __getitem__(self, row):
        folder = os.environ.get("TOMBOLA_TEST_READERS")
        if folder:
            open(os.path.join(folder, str(os.getpid())), "w").close()
        time.sleep(0.002)
        return super().__getitem__(row)


def slow():
    return said(*map(Slow, arrays()))


class Pair(torch.nn.Module):
    """Two vectors of three features to class scores."""

    def __init__(self, classes):
        super().__init__()
        self.first, self.second = torch.nn.Linear(3, 8), torch.nn.Linear(3, 8)
        self.output = torch.nn.Linear(8, classes)

    def forward(self, one, two):
        return self.output(torch.relu(self.first(one) + self.second(two)))


def by_gradient(snapshots):
    """A criterion that looks at the next batch."""
    gradients = snapshots.gradients()
    return {name: (weight * gradients[name]).abs() for name, weight in snapshots.final.items()}


class Labels(Rows):
    """Three labels each; the last training example has an impossible one."""

    def __getitem__(self, row):
        vector, label = super().__getitem__(row)
        labels = torch.nn.functional.one_hot(torch.tensor(label), 3).float()
        return vector, labels * 3 if row == 60 else labels


def labels():
    return dict(zip(("train", "test"), map(Labels, arrays()), strict=True))


def labelling(input_shape, classes):
    return torch.nn.Linear(6, classes)
