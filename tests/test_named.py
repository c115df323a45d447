"""Functions that a study names, and the fingerprint of a user's own code."""

import importlib
import sys
import textwrap

import pytest

from tombola.errors import InputError
from tombola.named import IMPORTING, code_fingerprint, resolve

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
        PLAIN + "\nDEPTH = 3\n",
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


def test_what_has_no_source_has_no_fingerprint():
    assert code_fingerprint("builtins:dict", OURS, "network") == ""


def test_an_unchanged_file_keeps_its_fingerprint(user_code):
    assert user_code(PLAIN) == user_code(PLAIN)


# Resolving


def test_ours_come_by_name_and_a_users_by_module():
    assert resolve("one", OURS, "network") is len
    assert resolve("textwrap:dedent", OURS, "network") is textwrap.dedent


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("othr", r"unknown criterion 'othr'; did you mean 'other'\? .*package\.module:name"),
        ("xyz", "unknown criterion 'xyz'; known: one, other"),
        ("", "unknown criterion ''"),
        ("no_such_module_here:f", "module 'no_such_module_here' can't be imported .*in the folder you are in"),
        ("textwrap:dedant", "'dedant' in 'textwrap' is not there; did you mean 'dedent'"),
        ("sys:maxsize", "'maxsize' in 'sys' is not callable"),
        ("textwrap:", "criterion 'textwrap:'"),
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
        ("import tombola\ntombola.run('demo', 'never')", "tombola.run is called while 'users_own' is being imported"),
        ("DEPTH = 3", "'make' in 'users_own' is not there$"),
        ("def mak(): ...\ndef _other(): ...", "is not there; did you mean 'mak'"),
        ("def f(): ...\ndef _other(): ...", "is not there; known: f$"),
    ],
)
def test_a_module_without_what_is_named(user_code, tmp_path, monkeypatch, text, match):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with pytest.raises(InputError, match=match):
            user_code(text)
    assert IMPORTING.get() == ""
    assert [path.name for path in tmp_path.iterdir()] == ["users_own.py"]
