"""What every fuzz target shares: how many cases, random damage to bytes and texts, and what no case may do.

A case may end in a `TombolaError`, which is a message to the user, or go through. It may not end in any other
exception, take more than 5 seconds or 500 MB, write a file, start a process, or connect to anything. What hangs or
fills the memory is stopped before the machine suffers, and fails too.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tombola.errors import TombolaError

SECONDS, KILOBYTES = 5.0, 500 * 1024
ROOM = 4 * 1024**3  # bytes of addresses that a case may take before the system refuses more
PAGE = os.sysconf("SC_PAGE_SIZE")
NO_ROOM = ("allocate memory", "MemoryError", "Unable to allocate")  # in the message of one that met that end
QUICK = 40  # cases of a target in `make test`; `make fuzz` sets FUZZ_CASES

CHEAP, DEAR = 10, 4  # cases of a target that takes little time, for each one of the others; others for each dear one


def _settings(cases: int) -> settings:
    return settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize="FUZZ_CASES" not in os.environ,  # `make test` tries the same cases each time
        suppress_health_check=list(HealthCheck),
    )


_asked = int(os.environ.get("FUZZ_CASES", "0"))
cases = _settings(_asked or QUICK)
many_cases = _settings(CHEAP * _asked or QUICK)
few_cases = _settings(-(-_asked // DEAR) or QUICK // 2)

FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "os.remove")
FORBIDDEN += ("os.rename", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.truncate", "shutil.rmtree", "pty.spawn")
_watching: list[str] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching is None:
        return
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or event in FORBIDDEN:
        _watching.append(f"{event} {arguments[:2]!r}")


sys.addaudithook(_watch)


@contextmanager
def harmless() -> Iterator[None]:
    """Check that what runs within is quick and small, ends well or in a message, and leaves the machine alone."""
    global _watching
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outer, collects, done = _watching, gc.isenabled(), list[str]()
    gc.disable()  # or garbage of earlier tests is freed in here, and what its finalizers delete counts as this case's
    _watching = done
    said = "fine"
    try:
        with _stopped_in_time():
            yield
    except TombolaError as error:
        said = str(error)
    finally:
        _watching = outer
        if collects:
            gc.enable()
    assert 0 < len(said.strip()) < 20_000, "a message can be read"
    assert not any(words in said for words in NO_ROOM), said
    assert not done, f"it did what a file or text may not make it do: {done}"
    assert time.process_time() - began < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < KILOBYTES


@contextmanager
def _stopped_in_time() -> Iterator[None]:
    """Stop what computes for twice its time, and refuse it memory beyond `ROOM`."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
    limits = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, 2 * SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise AssertionError("it does not end")


EXTREMES = [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"\xff" * 8]


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Return a file with a few changes: bits flipped, pieces cut, moved, doubled, or numbers set to extremes."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        if not content:
            break
        place = draw(st.integers(0, len(content) - 1))
        kind = draw(st.sampled_from(["flip", "cut", "end", "insert", "number", "double"]))
        size = draw(st.integers(1, 16))
        if kind == "flip":
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del content[place : place + size]
        elif kind == "end":
            del content[place:]
        elif kind == "insert":
            content[place:place] = draw(st.binary(min_size=1, max_size=16))
        elif kind == "number":
            number = draw(st.sampled_from(EXTREMES))
            content[place : place + len(number)] = number
        else:
            content[place:place] = content[place : place + size]
    return bytes(content)


WORDS = ("[", "]", "{", "}", ":", ": ", ", ", "- ", "\n", "\n  ", "&a ", "*a", "<<: *a", "!!int ", "!x ", "? ", "| ")
WORDS += ("> ", "'", '"', "#", "%YAML 1.1\n", "---\n", "...\n", "null", "~", "true", "no", "1e400", "-1", "0", ".nan")
WORDS += (".inf", "0x1f", "1_0", "9" * 30, "-0.0", "2001-99-99", "1:30:00", "\t", "\0", "\x85", "\ufeff", "\U0001f3b2")
WORDS += ("a" * 300, "../../x", "/dev/zero", "subprocess:getoutput", "os:system", "~nobody", "extends: demo\n", "name")
WORDS += ("trials", "ticket", "pruning", "rewind")


@st.composite
def damaged_text(draw: st.DrawFn, whole: str) -> str:
    """Return a text with words of YAML and of studies put in, cut, or put in the place of others."""
    text = whole
    for _ in range(draw(st.integers(1, 5))):
        place = draw(st.integers(0, len(text)))
        size = draw(st.sampled_from([0, 0, 1, 3, 10, 40]))
        new = draw(st.one_of(st.sampled_from(WORDS), st.text(max_size=6), st.just("")))
        text = text[:place] + new + text[place + size :]
    return text


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(["ticket", "1 epoch", "npz", "magnitude", "output", "reinit", "copies", "a:b", "x" * 500]),
        st.sampled_from([0, 1, -1, 2, 0.5, 10**9, 2**63, 10**400, float("inf"), 1e-320]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
    max_leaves=8,
)

sizes = st.lists(st.integers(-1, 2**40), max_size=5)


def changed(whole: dict[str, Any], fields: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Return a map in which one field has another value."""
    return st.tuples(st.sampled_from(fields), json_values).map(lambda pair: whole | {pair[0]: pair[1]})


def change(data: st.DataObject, content: Any) -> None:
    """Put something else somewhere into a JSON value."""
    place: Any = content
    for _ in range(data.draw(st.integers(1, 5))):
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or data.draw(st.booleans()):
            place[key] = data.draw(json_values)
            break
        place = place[key]
