"""The fingerprint of a function at hand: other code or other values give another one, the same script the same."""

import importlib
import os
import subprocess
import sys
import textwrap
import threading

import numpy
import pytest
import torch

from tombola.errors import InputError
from tombola.user_code.callables import LARGE, reached_by

IMPORTS = """
import argparse, collections, copy, dataclasses, enum, functools, logging, os, pathlib, random, types
import numpy, torch
import torch.nn.functional as F
from torch import nn
"""


def fingerprint_of(function):
    return reached_by(function).digest


@pytest.fixture
def script(tmp_path):
    """Return a function that runs a script and gives what its function `make` reaches."""
    numbers = iter(range(1000))

    def run(text, **names):
        path = tmp_path / f"script{next(numbers)}.py"
        path.write_text(IMPORTS + textwrap.dedent(text))
        space = {"__name__": "__main__", **names}
        exec(compile(path.read_text(), str(path), "exec"), space)
        return reached_by(space["make"])

    return run


# (a script, what one of its texts is, and what it becomes)
CHANGES = {
    "namespace": ("args = argparse.Namespace(p=0.1)\ndef make(): return nn.Dropout(args.p)", "0.1", "0.9"),
    "namespace-whole": ("args = argparse.Namespace(p=0.1)\ndef make(): return build(args)\nbuild = len", "0.1", "0.9"),
    "namespace-nested": (
        "args = types.SimpleNamespace(net=types.SimpleNamespace(p=0.1))\ndef make(): return nn.Dropout(args.net.p)",
        "0.1",
        "0.9",
    ),
    "dataclass": (
        "@dataclasses.dataclass\nclass C:\n    p: float = 0.5\nc = C(0.1)\nmake = lambda: nn.Dropout(c.p)",
        "0.1",
        "0.9",
    ),
    "property": (
        "class C:\n    def __init__(self, p): self.q = p\n    p = property(lambda self: self.q)\n"
        "c = C(0.1)\nmake = lambda: nn.Dropout(c.p)",
        "0.1",
        "0.9",
    ),
    "callable-object": (
        "class M:\n    def __init__(self, p): self.p = p\n    def __call__(self): return nn.Dropout(self.p)\n"
        "make = M(0.1)",
        "0.1",
        "0.9",
    ),
    "code-of-a-callable-object": ("class M:\n    def __call__(self): return nn.ReLU()\nmake = M()", "ReLU", "Tanh"),
    "bound-method": (
        "class M:\n    def __init__(self, p): self.p = p\n    def m(self): return nn.Dropout(self.p)\nmake = M(0.1).m",
        "0.1",
        "0.9",
    ),
    "method-of-a-method": (
        "class M:\n    def __init__(self, p): self.p = p\n    def q(self): return self.p\n"
        "    def m(self): return nn.Dropout(self.q())\nmake = M(0.1).m",
        "0.1",
        "0.9",
    ),
    "classes-in-a-dict": (
        "class A(nn.ReLU): pass\nclass B(nn.Tanh): pass\nall = (A, B)\nM = {'a': A}\ndef make(): return all, M['a']()",
        "'a': A",
        "'a': B",
    ),
    "functions-in-a-dict": ("M = {'a': F.relu}\ndef make(): return M['a']", "F.relu", "F.gelu"),
    "built-in-functions": ("M = {'a': torch.relu}\ndef make(): return M['a']", "torch.relu", "torch.tanh"),
    "partial-of-a-class": (
        "class A: x = 1\nclass B: x = 1\ndef f(kind): return kind()\nmake = functools.partial(f, kind=A)",
        "kind=A",
        "kind=B",
    ),
    "name-for-a-class": (
        "class A: pass\nclass B: pass\nboth = [A, B]\nNet = A\ndef make(): return both, Net()",
        "Net = A",
        "Net = B",
    ),
    "default": ("width = 3\ndef make(w=width): return nn.Linear(w, 1)", "width = 3", "width = 4"),
    "class-of-a-notebook": ("class Net:\n    act = 'relu'\ndef make(): return Net()", "'relu'", "'tanh'"),
    "calls-of-a-notebook": ("class Net:\n    def f(self): return nn.ReLU()\ndef make(): return Net()", "ReLU", "Tanh"),
    "static-method": (
        "p = 0.1\nclass Net:\n    @staticmethod\n    def f(): return p\ndef make(): return Net()",
        "p = 0.1",
        "p = 0.9",
    ),
    "decorated": (
        "def d(f):\n    @functools.wraps(f)\n    def g(): return f(), 1\n    return g\n@d\ndef make(): return 2",
        "(), 1",
        "(), 3",
    ),
    "decorated-by-a-library": ("@torch.no_grad()\ndef make(): return nn.ReLU()", "ReLU", "Tanh"),
    "cached": ("@functools.lru_cache\ndef f(): return nn.ReLU()\ndef make(): return f()", "ReLU", "Tanh"),
    "tensor": ("w = torch.tensor([1.0, 2.0])\ndef make(): return w", "2.0", "3.0"),
    "array": ("w = numpy.array([1.0, 2.0])\ndef make(): return w", "2.0", "3.0"),
    "module-at-hand": ("base = nn.Dropout(0.1)\ndef make(): return copy.deepcopy(base)", "0.1", "0.9"),
    "long-list": ("w = list(range(9000)) + [1]\ndef make(): return w", "[1]", "[2]"),
    "set": ("w = {'a', 'b'}\ndef make(): return w", "'b'", "'c'"),
    "enum": ("class E(enum.Enum):\n    A = 1\n    B = 2\nw = E.A\ndef make(): return w", "w = E.A", "w = E.B"),
    "path": ("w = pathlib.Path('a')\ndef make(): return w", "'a'", "'b'"),
    "named-tuple": ("w = collections.namedtuple('W', 'a')(1)\ndef make(): return w.a", "(1)", "(2)"),
}


@pytest.mark.parametrize(("text", "old", "new"), CHANGES.values(), ids=CHANGES)
def test_another_value_or_code_has_another_fingerprint(script, text, old, new):
    assert old in text
    one, other = script(text), script(text.replace(old, new))
    assert one == script(text)  # other objects at other addresses
    assert one.digest != other.digest
    assert not one.untracked


def test_only_the_attributes_that_the_code_reads_count(script):
    """More rounds, another output folder or a time stamp train nothing again."""
    text = "args = argparse.Namespace(p=0.1, rounds=3)\ndef make(): return nn.Dropout(args.p)"
    assert script(text) == script(text.replace("rounds=3", "rounds=5"))
    text = """
        class Experiment:
            def __init__(self, started): self.p, self.started = 0.1, started
            def build(self):
                self.last = nn.Dropout(self.p)
                return self.last
        make = Experiment(3).build
        """
    assert script(text) == script(text.replace("Experiment(3)", "Experiment(5)"))
    called = text.replace("build", "__call__").replace(".__call__\n", "\n")
    assert script(called) == script(called.replace("Experiment(3)", "Experiment(5)"))
    assert script(called) != script(called.replace("0.1", "0.2"))


def test_what_gives_no_other_model_does_not_count(script):
    text = """
        rng, other, device, log = random.Random(), torch.Generator(), torch.device("cpu"), logging.getLogger("x")
        def make(): return rng, other, device, log
        """
    assert script(text) == script(text.replace('"cpu"', '"cuda"'))
    assert not script(text).untracked


def test_what_cannot_be_followed_is_named(script, tmp_path):
    with (tmp_path / "open").open("w") as file:
        holder = {"lock": threading.Lock(), "number": 3}
        found = script("def make(): return file, holder, environ", file=file, holder=holder, environ=os.environ)
    assert found.untracked == ("file", "holder['lock']", "environ")
    large = script("def make(): return large", large=torch.zeros(LARGE // 4 + 1))
    assert large.untracked == ("large",)
    assert script("from os import environ\ndef make(): return environ['ACT']").untracked == ("environ",)


def test_cycles_and_deep_values_end(script):
    chain = []
    for _ in range(500):
        chain = [chain, {1}]
    loop = [{1}]
    loop.append(loop)
    found = script("def make(): return chain, loop", chain=chain, loop=loop)
    assert found.untracked


HASHED = """
class A: pass
class B: pass
names, kinds = {"relu", "tanh", "gelu", "silu"}, {A, B, F.relu, "x"}
cfg = argparse.Namespace(names=names, f=torch.tanh)
def make():
    assert "relu" in {"relu", "tanh", "gelu"}
    return names, kinds, cfg, object
print(reached_by(make).digest)
"""


@pytest.mark.slow
def test_an_unchanged_script_has_one_fingerprint_in_all_processes(tmp_path):
    path = tmp_path / "script.py"
    path.write_text("from tombola.user_code.callables import reached_by\n" + IMPORTS + HASHED)
    found = {
        subprocess.run(
            [sys.executable, path],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1


# Modules of the user's


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """Return a function that writes the module `own_nets`, and the module."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = tmp_path / "own_nets.py"

    def write(text):
        path.write_text(textwrap.dedent(text))

    def load():
        importlib.invalidate_caches()
        sys.modules.pop("own_nets", None)
        return importlib.import_module("own_nets")

    write(NETS)
    yield write, load
    sys.modules.pop("own_nets", None)


NETS = """
from torch import nn

WIDTH = 3

class Net(nn.Module):
    act = nn.ReLU

def make():
    return Net()

def unused():
    return 1
"""
USES = {
    "attribute": "import own_nets\nmake = lambda: own_nets.Net()",
    "imported-inside": "def make():\n    from own_nets import Net\n    return Net()",
    "module-imported-inside": "def make():\n    import own_nets\n    return own_nets.Net()",
    "whole": "import own_nets\nmake = lambda: getattr(own_nets, 'Net')()",
    "in-a-dict": "import own_nets\nM = {'a': own_nets.Net}\nmake = lambda: M['a']()",
    "partial": "import own_nets\nmake = functools.partial(own_nets.make)",
}


@pytest.mark.parametrize("text", USES.values(), ids=USES)
def test_a_module_counts_as_far_as_it_is_used(script, nets, text):
    write, load = nets
    load()
    before = script(text)
    write(NETS.replace("ReLU", "Tanh"))
    load()
    assert script(text).digest != before.digest
    write(NETS.replace("return 1", "return 2"))
    load()
    whole = "getattr" in text or "import own_nets\n    return" in text
    assert (script(text) == before) is not whole


def test_a_value_that_was_set_in_a_module_counts(script, nets):
    _, load = nets
    text = "import own_nets\nown_nets.WIDTH = {}\nmake = lambda: own_nets.WIDTH"
    load()
    assert script(text.format(5)) != script(text.format(6))


def test_a_number_that_a_script_sets_in_the_module_of_its_factory_counts(script, nets):
    write, load = nets
    write(NETS.replace("return Net()", "return Net(), WIDTH"))
    text = "import own_nets\n{}\nmake = own_nets.make"
    plain, same, other, unused = (
        (load(), script(text.format(line)))[1]
        for line in ("", "own_nets.WIDTH = 3", "own_nets.WIDTH = 4", "own_nets.DEPTH = 4")
    )
    assert plain == same == unused != other


def test_a_file_that_changed_since_its_import_is_refused(nets):
    """What runs is the earlier code: its results must not be stored as those of the present one."""
    write, load = nets
    module = load()
    before = fingerprint_of(module.make)
    write(NETS.replace("ReLU", "Tanh"))
    with pytest.raises(InputError, match=r"make_model: .*own_nets\.py has changed since its import; restart Python"):
        fingerprint_of(module.make)
    importlib.reload(module)
    assert fingerprint_of(module.make) != before


def test_a_file_that_changed_before_it_was_first_asked_for_is_refused(nets):
    write, load = nets
    make = load().make
    write(NETS.replace("return Net()", "return Net(), 1"))
    with pytest.raises(InputError, match="has changed since its import"):
        fingerprint_of(make)
    importlib.reload(sys.modules["own_nets"])
    with pytest.raises(InputError, match="has changed since its import"):
        fingerprint_of(make)  # imported by name, so it is the earlier one


def test_a_module_that_has_an_earlier_function_of_a_reloaded_one_is_refused(nets, tmp_path):
    write, load = nets
    load()
    (tmp_path / "own_script.py").write_text("from own_nets import make as inner\ndef make():\n    return inner()\n")
    importlib.invalidate_caches()
    outer = importlib.import_module("own_script")
    try:
        before = fingerprint_of(outer.make)
        write(NETS.replace("return Net()", "return Net(), 1"))
        importlib.reload(sys.modules["own_nets"])
        with pytest.raises(InputError, match=r"own_nets\.py has changed since its import"):
            fingerprint_of(outer.make)
        importlib.reload(outer)
        assert fingerprint_of(outer.make) != before
    finally:
        del sys.modules["own_script"]


def test_numbers_of_numpy_are_numbers(script):
    assert script("def make(): return w", w=numpy.float64(0.1)) != script("def make(): return w", w=numpy.float64(0.2))
