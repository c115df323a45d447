"""Functions that a study names, and the fingerprint of a user's own code."""

import importlib
import sys
import textwrap

import numpy
import pytest

from tombola.errors import InputError
from tombola.registry import IMPORTING, code_fingerprint, names, reading, resolve, user_folders, user_path

OURS = {"one": len, "other": sorted}


@pytest.fixture
def user_code(tmp_path, monkeypatch):
    """Return a function that writes a user's module and gives the fingerprint of its function `make`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(text, name="make"):
        (tmp_path / "users_own.py").write_text(textwrap.dedent(text))
        sys.modules.pop("users_own", None)
        importlib.invalidate_caches()
        return code_fingerprint(f"users_own:{name}", OURS, "network")

    yield write
    sys.modules.pop("users_own", None)


PLAIN = """
def make(x):
    if x:
        return x + 1
    return [x, 2]
"""


def test_ours_have_no_fingerprint():
    """Their version is tombola's."""
    assert code_fingerprint("one", OURS, "network") == ""


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace("x + 1", "x + 2"),
        PLAIN.replace("[x, 2]", "[x, 2, 3]"),
        PLAIN.replace("    return [x, 2]", "        return [x, 2]"),
        PLAIN + "\nprint('imported')\n",
        PLAIN.replace("def make(x)", "def make(x=0)"),
        PLAIN.replace("x + 1", "'x  + 1'"),
    ],
    ids=["number", "element", "indentation", "elsewhere-in-the-file", "default", "string"],
)
def test_another_code_has_another_fingerprint(user_code, text):
    """Results of an earlier version of a user's network must not pass for results of the present one."""
    before = user_code(PLAIN)
    assert len(before) == 16
    assert user_code(text) != before


@pytest.mark.parametrize(
    "text",
    [
        "# a comment\n" + PLAIN,
        PLAIN.replace("x + 1", "x + 1  # and another"),
        PLAIN.replace("    return [x", "\n\n    # here\n    return [x"),
        PLAIN.replace("[x, 2]", "[\n        x,\n        2]"),
        PLAIN.replace("x + 1", "x  +  1"),
        "\n\n\n" + PLAIN + "\n\n",
        PLAIN.replace("    ", "  "),
        PLAIN.replace("    if x:\n", "    if x:\n# at the margin\n"),
    ],
    ids=["first-line", "end-of-line", "between", "line-breaks", "spaces", "blank-lines", "narrower", "margin"],
)
def test_comments_and_layout_do_not_count(user_code, text):
    before = user_code(PLAIN)
    assert user_code(text) == before


def test_two_statements_are_not_one(user_code):
    """`x` and then `-1` is another program than `x - 1`, although the words are the same."""
    split = user_code("def make(x):\n    y = x\n    -1\n    return y\n")
    assert user_code("def make(x):\n    y = x -1\n    return y\n") != split


def test_the_file_that_counts_is_the_users(user_code):
    """A partial, or an instance of a class of another module, is still made in the user's file."""
    text = "import functools\nmake = functools.partial(dict, depth={})\n"
    assert user_code(text.format(3)) != user_code(text.format(4))


def test_a_library_has_no_fingerprint():
    """Its version is the environment's business."""
    assert code_fingerprint("numpy:zeros", OURS, "network") == ""


def test_an_unchanged_file_keeps_its_fingerprint(user_code):
    assert user_code(PLAIN) == user_code(PLAIN)


# Resolving


def test_ours_come_by_name_and_a_users_by_module():
    assert resolve("one", OURS, "network") is len
    assert resolve("numpy:zeros", OURS, "network") is numpy.zeros


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("othr", r"unknown criterion 'othr'; did you mean 'other'\? .*package\.module:name"),
        ("xyz", "unknown criterion 'xyz'; known: one, other"),
        ("", "unknown criterion ''"),
        (
            "no_such_module_here:f",
            "module 'no_such_module_here' can't be imported .*; install it, or start tombola in its folder",
        ),
        ("numpy:zeroes", "'zeroes' in 'numpy' does not exist; did you mean 'zeros'"),
        ("numpy:pi", "'pi' in 'numpy' is not callable"),
        ("numpy:", "criterion 'numpy:': write package.module:name"),
        ("numpy:zeros.x", "criterion 'numpy:zeros.x': write package"),
        ("../evil:f", "write package.module:name"),
        (":dedent", "criterion ':dedent'"),
        (".relative:f", "criterion '.relative:f'"),
    ],
)
def test_what_is_not_there_is_said(name, message):
    with pytest.raises(InputError, match=message):
        resolve(name, OURS, "criterion")


def test_a_module_that_fails_to_import_is_said(user_code):
    with pytest.raises(InputError, match="importing 'users_own' failed: ZeroDivisionError"):
        user_code("1 / 0\n")
    with pytest.raises(InputError, match="SyntaxError"):
        user_code("def make(:\n")
    with pytest.raises(InputError, match=r"'users_own' can't be imported .*no_such_dependency"):
        user_code("import no_such_dependency\n")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("import sys\nsys.exit(3)", "importing 'users_own' failed: SystemExit: 3"),
        ("1 / 0", "importing 'users_own' failed: ZeroDivisionError"),
        ("import tombola\ntombola.run('demo', 'never')", "tombola.run was called during the import of 'users_own'"),
        ("DEPTH = 3", "'make' in 'users_own' does not exist$"),
        ("def mak(): ...\ndef _other(): ...", "does not exist; did you mean 'mak'"),
        ("def f(): ...\ndef _other(): ...", "does not exist; known: f$"),
    ],
)
def test_a_module_without_what_is_named(user_code, tmp_path, monkeypatch, text, match):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with pytest.raises(InputError, match=match):
            user_code(text)
    assert IMPORTING.get() == ""
    assert [path.name for path in tmp_path.iterdir()] == ["users_own.py"]


# What counts, and since when


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a function that writes files of a user's project, which lies last on the search path."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(**files):
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        importlib.invalidate_caches()

    with user_path(tmp_path):
        yield write
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_a_file_edited_since_it_was_imported_is_refused(project):
    """What runs in this process is the earlier text, in a new worker the later one."""
    project(own_nets="from own_helper import f\ndef make(): return f()\n", own_helper="def f(): return 3\n")
    before = code_fingerprint("own_nets:make", OURS, "network")
    project(own_helper="def f(): return 3\ndef other(): return 4\n")
    assert code_fingerprint("own_nets:make", OURS, "network") == before
    project(own_helper="def f(): return 12345\n")
    with pytest.raises(InputError, match=r"own_helper\.py has changed since its import; restart Python"):
        code_fingerprint("own_nets:make", OURS, "network")
    project(own_helper="def f():\n    # as it was\n    return 3\n")
    assert code_fingerprint("own_nets:make", OURS, "network") == before


def test_asking_again_reads_no_file_again(project, monkeypatch):
    """Planning asks once a job."""
    project(own_nets="def make(): ...\n")
    before = code_fingerprint("own_nets:make", OURS, "network")
    monkeypatch.setattr("tombola.registry.closure_as_imported", None)
    assert code_fingerprint("own_nets:make", OURS, "network") == before


# Where names lead


@pytest.mark.parametrize(
    "name",
    ["subprocess:getoutput", "os:system", "builtins:exec", "sys:exit", "shutil:rmtree", "os.path:join", "posix:system"],
)
def test_python_itself_is_not_the_users(name):
    with pytest.raises(InputError, match="is part of Python itself"):
        resolve(name, OURS, "network")


def test_nor_is_what_a_users_module_takes_from_it(project):
    project(own_nets="from subprocess import getoutput\nfrom collections import OrderedDict\n")
    for name in ("getoutput", "OrderedDict"):
        with pytest.raises(InputError, match=f"{name!r} belongs to Python's own module"):
            resolve(f"own_nets:{name}", OURS, "network")


def test_reading_imports_nothing(project, tmp_path):
    project(own_nets=f"open({str(tmp_path / 'RAN')!r}, 'w').close()\ndef make(): ...\n")
    for name in ("own_nets:make", "numpy:zeros", "subprocess:getoutput"):
        with reading("results/mine"), pytest.raises(InputError, match=r"reading results/mine runs no code"):
            resolve(name, OURS, "network")
        with reading(), pytest.raises(InputError, match="runs no code"):
            code_fingerprint(name, OURS, "network")
    with reading():
        assert resolve("one", OURS, "network") is len
    assert not (tmp_path / "RAN").exists()
    resolve("own_nets:make", OURS, "network")
    assert (tmp_path / "RAN").exists()


def test_the_users_folder_comes_last_and_only_for_a_name(project, tmp_path):
    """A pandas.py there is never taken for pandas."""
    project(own_nets="import pandas\nfrom own_helper import f as make\n", own_helper="def f(): ...\n", pandas="1 / 0\n")
    assert str(tmp_path) not in sys.path
    sys.modules.pop("no_such_module_either", None)
    with pytest.raises(InputError, match="can't be imported"):
        resolve("no_such_module_either:make", OURS, "network")
    assert str(tmp_path) not in sys.path
    resolve("own_nets:make", OURS, "network")
    assert sys.path[-1] == str(tmp_path)  # its functions may import more when they are called
    assert user_folders() == (str(tmp_path),)


def test_the_path_is_as_it_was_afterwards(tmp_path):
    (tmp_path / "own_nets_2.py").write_text("def make(): ...\n")
    path = list(sys.path)
    with user_path(tmp_path, tmp_path):
        resolve("own_nets_2:make", OURS, "network")
        assert sys.path == [*path, str(tmp_path)]
    assert sys.path == path
    assert user_folders() == ()
    del sys.modules["own_nets_2"]


def test_a_module_that_an_installed_one_hides_is_said(project):
    project(numpy="def make(): ...\n")
    with pytest.raises(InputError, match=r"numpy\.py is hidden by .*numpy.*; rename yours"):
        resolve("numpy:make", OURS, "network")


# Installed packages


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a function that installs a package with entry points into a folder of installed packages."""
    place = tmp_path / "site-packages"
    monkeypatch.syspath_prepend(str(place))

    def install(name, points, code="def make(): return 3\n"):
        (place / f"{name}-1.0.dist-info").mkdir(parents=True)
        (place / f"{name}-1.0.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        )
        (place / f"{name}-1.0.dist-info" / "entry_points.txt").write_text(textwrap.dedent(points))
        (place / f"{name}.py").write_text(code)
        importlib.invalidate_caches()

    yield install
    for name in [*sys.modules]:
        if name.startswith("outside_"):
            del sys.modules[name]


def test_a_package_adds_a_short_name(package, tmp_path):
    ran = tmp_path / "RAN"
    package(
        "outside_one",
        "[tombola.networks]\nhourglass = outside_one:make\none = outside_one:make\n"
        "[tombola.arms]\nother-arm = outside_one:make\n",
        f"open({str(ran)!r}, 'w').close()\ndef make(): return 3\n",
    )
    assert names(OURS, "network") == ["hourglass", "one", "other"]
    assert resolve("one", OURS, "network") is len  # ours can't be replaced
    with pytest.raises(InputError, match="unknown network 'hourglas'; did you mean 'hourglass'"):
        resolve("hourglas", OURS, "network")
    with reading(), pytest.raises(InputError, match="runs no code"):
        resolve("hourglass", OURS, "network")
    assert not ran.exists()  # nothing is imported before it is needed
    assert resolve("hourglass", OURS, "network")() == 3
    assert code_fingerprint("hourglass", OURS, "network") == ""
    with pytest.raises(InputError, match="unknown network 'other-arm'"):
        resolve("other-arm", OURS, "network")


def test_two_packages_of_one_short_name_are_said(package):
    package("outside_one", "[tombola.networks]\nhourglass = outside_one:make\n")
    package("outside_two", "[tombola.networks]\nhourglass = outside_two:make\n")
    with pytest.raises(InputError, match="'hourglass' comes from outside_one and outside_two; uninstall one"):
        resolve("hourglass", OURS, "network")


def test_a_package_whose_entry_point_leads_nowhere_is_said(package):
    package("outside_one", "[tombola.networks]\nhourglass = outside_one:gone\n")
    with pytest.raises(InputError, match="network 'hourglass': 'gone' in 'outside_one' does not exist"):
        resolve("hourglass", OURS, "network")
