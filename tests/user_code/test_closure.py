"""What counts of a user's project: everything that the named function can reach, and nothing else."""

from __future__ import annotations

import importlib
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tombola.user_code import closure_of


@pytest.fixture
def digest(tmp_path, monkeypatch):
    """Return a function that writes a project and gives the digest of what `nets:make` reaches."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        importlib.invalidate_caches()
        return closure_of("nets", "make").digest

    yield write
    for name in [*sys.modules]:
        if name.partition(".")[0] in ("nets", "helper", "pkg", "other"):
            del sys.modules[name]


UNRELATED = "\n\ndef unrelated(x, y=3):\n    return x * y\n\n\nclass Unrelated:\n    depth = 3\n\n\nUNRELATED = 3\n"

# name -> (files, file to edit, text in it, its replacement). After the edit the digest is another one.
COUNTS = {
    "a helper's function": (
        {"nets.py": "from helper import width\ndef make(): return width()", "helper.py": "def width(): return 3"},
        ("helper.py", "return 3", "return 4"),
    ),
    "a helper's constant": (
        {
            "nets.py": "import helper as h\ndef make(): return h.width()",
            "helper.py": "W = 3\ndef width(): return W",
        },
        ("helper.py", "W = 3", "W = 4"),
    ),
    "a constant through an import of an import": (
        {
            "nets.py": "from helper import W\ndef make(): return W",
            "helper.py": "from other import W",
            "other.py": "W=1",
        },
        ("other.py", "W=1", "W=2"),
    ),
    "a default argument": (
        {"nets.py": "W = 3\ndef make(width=W): return width"},
        ("nets.py", "W = 3", "W = 4"),
    ),
    "a decorator": (
        {"nets.py": "from helper import twice\n@twice\ndef make(): ...", "helper.py": "def twice(f): return f"},
        ("helper.py", "return f", "return lambda: f"),
    ),
    "a base class": (
        {"nets.py": "from helper import Base\nclass make(Base): ...", "helper.py": "class Base:\n    depth = 3"},
        ("helper.py", "depth = 3", "depth = 4"),
    ),
    "a method's helper": (
        {"nets.py": "def width(): return 3\nclass make:\n    def forward(self): return width()"},
        ("nets.py", "return 3", "return 4"),
    ),
    "a partial": (
        {"nets.py": "from functools import partial\ndef build(w): return w\nmake = partial(build, 3)"},
        ("nets.py", "build, 3", "build, 4"),
    ),
    "what a partial calls": (
        {"nets.py": "from functools import partial\ndef build(w): return w\nmake = partial(build, 3)"},
        ("nets.py", "return w", "return w + 1"),
    ),
    "an instance's class": (
        {"nets.py": "class Maker:\n    def __call__(self): return 3\nmake = Maker()"},
        ("nets.py", "return 3", "return 4"),
    ),
    "a lambda": (
        {"nets.py": "W = 3\nmake = lambda: W"},
        ("nets.py", "W = 3", "W = 4"),
    ),
    "a statement on import": (
        {"nets.py": "import helper\ndef make(): return 3", "helper.py": "import torch\ntorch.manual_seed(3)"},
        ("helper.py", "(3)", "(4)"),
    ),
    "a constant that a statement on import uses": (
        {"nets.py": "import helper\ndef make(): return 3", "helper.py": "W = 3\nprint(W)"},
        ("helper.py", "W = 3", "W = 4"),
    ),
    "a changed dictionary": (
        {"nets.py": "WIDTHS = {}\nWIDTHS['a'] = 3\ndef make(): return WIDTHS['a']"},
        ("nets.py", "= 3", "= 4"),
    ),
    "a registry": (
        {
            "nets.py": "import helper\nfrom other import KNOWN\ndef make(): return KNOWN['small']()",
            "helper.py": "from other import known\n@known\ndef small(): return 3",
            "other.py": "KNOWN = {}\ndef known(f):\n    KNOWN[f.__name__] = f\n    return f",
        },
        ("helper.py", "return 3", "return 4"),
    ),
    "a registry of subclasses": (
        {
            "nets.py": "from helper import Base\nclass Small(Base):\n    width = 3\ndef make(): return Base.known[0]",
            "helper.py": "class Base:\n    known = []\n    def __init_subclass__(cls): cls.known.append(cls)",
        },
        ("nets.py", "width = 3", "width = 4"),
    ),
    "subclasses": (
        {"nets.py": "class Base: ...\nclass Small(Base):\n    width = 3\ndef make(): return Base.__subclasses__()"},
        ("nets.py", "width = 3", "width = 4"),
    ),
    "an import inside the function": (
        {"nets.py": "def make():\n    from helper import f\n    return f()", "helper.py": "def f(): return 3"},
        ("helper.py", "return 3", "return 4"),
    ),
    "a module import inside the function": (
        {"nets.py": "def make():\n    import pkg.sub\n    return pkg.sub.f()", "pkg/sub.py": "def f(): return 3"},
        ("pkg/sub.py", "return 3", "return 4"),
    ),
    "a relative import": (
        {
            "nets.py": "from pkg import make",
            "pkg/__init__.py": "from .sub.net import make",
            "pkg/sub/__init__.py": "",
            "pkg/sub/net.py": "from ..wide import W\ndef make(): return W",
            "pkg/wide.py": "W = 3",
        },
        ("pkg/wide.py", "W = 3", "W = 4"),
    ),
    "a package's own import": (
        {"nets.py": "import pkg.sub\ndef make(): return 3", "pkg/__init__.py": "print(3)", "pkg/sub.py": ""},
        ("pkg/__init__.py", "3", "4"),
    ),
    "a submodule as an attribute": (
        {
            "nets.py": "import pkg\ndef make(): return pkg.sub.W",
            "pkg/__init__.py": "from . import sub",
            "pkg/sub.py": "W = 3",
        },
        ("pkg/sub.py", "W = 3", "W = 4"),
    ),
    "a cycle": (
        {
            "nets.py": "import helper\nW = 3\ndef make(): return helper.f()",
            "helper.py": "import nets\ndef f(): return nets.W",
        },
        ("nets.py", "W = 3", "W = 4"),
    ),
    "a star import": (
        {"nets.py": "from helper import *\ndef make(): return width()", "helper.py": "def width(): return 3"},
        ("helper.py", "return 3", "return 4"),
    ),
    "a name as a value": (
        {
            "nets.py": "import helper\ndef make(name='f'): return getattr(helper, name)()",
            "helper.py": "def f(): return 3",
        },
        ("helper.py", "return 3", "return 4"),
    ),
    "globals": (
        {"nets.py": "def small(): return 3\ndef make(): return globals()['small']()"},
        ("nets.py", "return 3", "return 4"),
    ),
    "exec": (
        {"nets.py": "import helper\ndef make(): exec('helper.f()')", "helper.py": "def f(): return 3"},
        ("helper.py", "return 3", "return 4"),
    ),
    "a module by its name": (
        {
            "nets.py": "import importlib\ndef make(): return importlib.import_module('helper').f()",
            "helper.py": "def f(): return 3",
        },
        ("helper.py", "return 3", "return 4"),
    ),
    "a module by a computed name": (
        {
            "nets.py": "from importlib import import_module\ndef make(n): return import_module(f'pkg.{n}').f()",
            "pkg/__init__.py": "",
            "pkg/deep.py": "def f(): return 3",
        },
        ("pkg/deep.py", "return 3", "return 4"),
    ),
    "any module": (
        {
            "nets.py": "from importlib import import_module\ndef make(n): return import_module(n).f()",
            "helper.py": "def f(): return 3",
        },
        ("helper.py", "return 3", "return 4"),
    ),
    "a module's __getattr__": (
        {
            "nets.py": "import helper\ndef make(): return helper.anything",
            "helper.py": "W = 3\ndef __getattr__(name): return W",
        },
        ("helper.py", "W = 3", "W = 4"),
    ),
    "a try": (
        {"nets.py": "try:\n    import no_such\nexcept ImportError:\n    W = 3\ndef make(): return W"},
        ("nets.py", "W = 3", "W = 4"),
    ),
    "a library under the same name": (
        {"nets.py": "from math import floor as whole\ndef make(): return whole(2.5)"},
        ("nets.py", "floor as", "ceil as"),
    ),
    "a global that a function sets": (
        {"nets.py": "def start():\n    global W\n    W = 3\nstart()\ndef make(): return W"},
        ("nets.py", "W = 3", "W = 4"),
    ),
    "a class attribute from a name": (
        {"nets.py": "W = 3\nclass make:\n    W = W"},
        ("nets.py", "W = 3", "W = 4"),
    ),
    "a class made on import that changes another": (
        {"nets.py": "import helper\ndef make(): return helper.W", "helper.py": "W = []\nclass A:\n    W.append(3)"},
        ("helper.py", "append(3)", "append(4)"),
    ),
    "an attribute of a module": (
        {
            "nets.py": "import other, helper\ndef make(): return helper.W",
            "helper.py": "W = 3",
            "other.py": """
            import helper
            helper.W = 5
        """,
        },
        ("other.py", "5", "6"),
    ),
}

# The same, of edits after which the digest is what it was.
DOES_NOT_COUNT = {
    "an unrelated function": (
        {
            "nets.py": "from helper import f\ndef make(): return f()" + UNRELATED,
            "helper.py": "def f(): ..." + UNRELATED,
        },
        ("helper.py", "x * y", "x / y"),
    ),
    "an unrelated constant": (
        {"nets.py": "import helper as h\ndef make(): return h.f()", "helper.py": "def f(): ...\nW = {'a': [3]}"},
        ("helper.py", "3", "4"),
    ),
    "an unrelated class of a library's": (
        {"nets.py": "def make(): ...\nfrom torch import nn\nclass Other(nn.Module):\n    act = nn.ReLU()\n    n = 3"},
        ("nets.py", "n = 3", "n = 4"),
    ),
    "an unrelated class of the user's": (
        {"nets.py": "class Base: ...\nclass make(Base): ...\nclass Other(Base):\n    n = 3"},
        ("nets.py", "n = 3", "n = 4"),
    ),
    "a decorated function": (
        {
            "nets.py": "import functools, torch\ndef make(): ...\n@functools.cache\ndef f(): return 3\n"
            "class A:\n    @property\n    @torch.no_grad()\n    def p(self): return 3\n"
            "    @p.setter\n    def p(self, x): ..."
        },
        ("nets.py", "return 3", "return 4"),
    ),
    "a module beside": (
        {"nets.py": "from helper import f\ndef make(): return f()", "helper.py": "def f(): ...", "other.py": "W = 3"},
        ("other.py", "3", "4"),
    ),
    "a module that only unrelated functions import": (
        {"nets.py": "def make(): ...\ndef g():\n    import helper", "helper.py": "print(3)"},
        ("helper.py", "3", "4"),
    ),
    "a docstring": (
        {
            "nets.py": "'''A'''\nimport helper\ndef make(): return helper.f()",
            "helper.py": "def f():\n    '''A'''\n    W = 3",
        },
        ("helper.py", "'''A'''", "'''B'''  # and this"),
    ),
    "a script": (
        {"nets.py": "def make(): ...\nif __name__ == '__main__':\n    print(3)"},
        ("nets.py", "3", "4"),
    ),
    "what types need": (
        {"nets.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import helper\ndef make(): ...",
         "helper.py": "print(3)"},
        ("helper.py", "3", "4"),
    ),
    "another import of a library": (
        {"nets.py": "import math\nimport os\ndef make(): return math.pi"},
        ("nets.py", "import os", "import json, re"),
    ),
    "a local of the same name": (
        {"nets.py": "W = 3\ndef make():\n    W = 5\n    return W"},
        ("nets.py", "W = 3", "W = 4"),
    ),
    "the module that a package's function hides": (
        {
            "nets.py": "from pkg import lenet as make",
            "pkg/__init__.py": "from .lenet import lenet\nfrom .vgg import vgg",
            "pkg/lenet.py": "def lenet(): ...\ndef other(): return 3",
            "pkg/vgg.py": "def vgg(): return 3",
        },
        ("pkg/lenet.py", "return 3", "return 4"),
    ),
    "another of a package's functions": (
        {
            "nets.py": "from pkg import lenet as make",
            "pkg/__init__.py": "from .lenet import lenet\nfrom .vgg import vgg",
            "pkg/lenet.py": "def lenet(): ...",
            "pkg/vgg.py": "def vgg(): return 3",
        },
        ("pkg/vgg.py", "return 3", "return 4"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("files", "edit"), COUNTS.values(), ids=COUNTS)
def test_what_can_be_reached_counts(digest, files, edit):
    file, old, new = edit
    before = digest(files)
    assert len(before) == 16
    assert digest({file: files[file].replace(old, new)}) != before


@pytest.mark.parametrize(("files", "edit"), DOES_NOT_COUNT.values(), ids=DOES_NOT_COUNT)
def test_what_cannot_be_reached_does_not(digest, files, edit):
    file, old, new = edit
    before = digest(files)
    edited = files[file].replace(old, new)
    assert edited != files[file]
    assert digest({file: edited}) == before


@pytest.mark.parametrize(("files", "edit"), COUNTS.values(), ids=COUNTS)
def test_an_unrelated_function_beside_does_not(digest, files, edit):
    """The goal of it all: editing a project does not do every run again."""
    before = digest(files)
    whole = {
        "a star import",
        "a name as a value",
        "globals",
        "exec",
        "a module by its name",
        "any module",
        "subclasses",
    }
    whole |= {"a module by a computed name", "a module's __getattr__", "a global that a function sets"}
    for file, text in files.items():
        after = digest({file: textwrap.dedent(text) + "\n\n\ndef appended(x):\n    '''New.'''\n    return x\n"})
        if not any(files is COUNTS[name][0] for name in whole):
            assert after == before


def test_compiled_modules_count_by_their_bytes(digest, tmp_path):
    """No text says what they reach."""
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    (tmp_path / f"helper{suffix}").write_bytes(b"one")
    before = digest({"nets.py": "import helper\ndef make(): return helper.f()"})
    (tmp_path / f"helper{suffix}").write_bytes(b"two")
    assert digest({}) != before


def test_a_file_that_is_no_python_counts_whole(digest):
    before = digest({"nets.py": "def make():\n    import helper", "helper.py": "def f(:"})
    assert digest({"helper.py": "def f(::"}) != before


def test_libraries_and_tombola_count_nothing():
    assert closure_of("numpy", "zeros").fragments == ()
    assert closure_of("tombola.networks.lenet", "lenet").fragments == ()


def test_nested_a_thousand_deep(digest):
    """As a generated file may be."""
    assert digest({"nets.py": f"def make(): return {'(' * 80}3{')' * 80}\nW = {'-' * 3000}3"})


# A project made at random: functions that call each other across modules in many ways. Whatever edit changes what
# `make()` returns must change the digest; an edit of a function that is never called by `make` must not.

MODULES = ("nets", "helper", "pkg.sub", "pkg.deep.net")
STYLES = ("from", "module", "alias", "inside", "constant", "default", "class")


@st.composite
def projects(draw):
    """Return for each function: its module, its number, and whom it calls in which style."""
    count = draw(st.integers(2, 7))
    homes = ["nets", *(draw(st.sampled_from(MODULES)) for _ in range(count - 1))]
    calls = [
        [(callee, draw(st.sampled_from(STYLES))) for callee in range(caller + 1, count) if draw(st.booleans())]
        for caller in range(count)
    ]
    return homes, calls, draw(st.integers(0, count - 1))


def sources(homes, calls, numbers):
    """Return the files of a project; function 0 is `make`."""
    texts = dict.fromkeys(MODULES, "")
    for caller in reversed(range(len(homes))):  # a callee comes before its caller in a file
        module, name, before, body = homes[caller], "make" if caller == 0 else f"f{caller}", "", ""
        terms, defaults = [f"C{caller}"], ""
        for callee, style in calls[caller]:
            home, local = homes[callee], homes[callee] == module
            if local:
                reference = f"f{callee}"
            elif style in ("module", "constant"):
                before += f"import {home}\n"
                reference = f"{home}.f{callee}"
            elif style == "alias":
                before += f"import {home} as m{callee}\n"
                reference = f"m{callee}.f{callee}"
            elif style == "inside":
                body += f"    from {home} import f{callee}\n"
                reference = f"f{callee}"
            else:
                before += f"from {home} import f{callee} as g{callee}\n"
                reference = f"g{callee}"
            if style == "default":
                defaults += f"d{callee}={reference}, "
                reference = f"d{callee}"
            if style == "class":
                before += f"class K{caller}_{callee}:\n    def go(self):\n        return {reference}()\n"
                reference = f"K{caller}_{callee}().go"
            terms.append(f"{reference}()")
        texts[module] += f"C{caller} = {numbers[caller]}\n{before}def {name}({defaults}):\n{body}"
        texts[module] += f"    return {' + '.join(terms)}\n"
    files = {f"{name.replace('.', '/')}.py": text for name, text in texts.items()}
    return files | {"pkg/__init__.py": "", "pkg/deep/__init__.py": ""}


def reached(calls):
    """Return the functions that `make` calls, directly or not."""
    found, waiting = {0}, [0]
    while waiting:
        for callee, _ in calls[waiting.pop()]:
            if callee not in found:
                found.add(callee)
                waiting.append(callee)
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(projects())
def test_a_project_at_random(tmp_path_factory, project):
    homes, calls, edited = project
    root = tmp_path_factory.mktemp("project")
    numbers = [10**number for number in range(len(homes))]

    def digest(numbers):
        for name, text in sources(homes, calls, numbers).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        return closure_of("nets", "make").digest

    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    try:
        before = digest(numbers)
        changed = digest([number + (place == edited) for place, number in enumerate(numbers)])
    finally:
        sys.path.remove(str(root))
        sys.path_importer_cache.pop(str(Path(root)), None)
    assert (changed != before) == (edited in reached(calls))
