"""Download published files: several mirrors, verified, one process at a time."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import pooch
import requests  # this and the next are what pooch transfers with, imported for their exceptions
import urllib3

from tombola.errors import DataError

RETRIES = 1  # of every mirror, after a first failure
TIMEOUTS = (10.0, 30.0)  # seconds: to connect, and between two pieces of an answer
MAX_BYTES = 512 * 1024**2  # of a file; the largest that is published has 170 million
MAX_SECONDS = 1500.0  # for a file; less than another process waits
GRACE, MIN_RATE = 60.0, 5_000.0  # after so many seconds, at least so many bytes a second on average
CHECK_EVERY = 1.0  # seconds
LOCK_TIMEOUT = 1800.0  # seconds that another process may take over its download
LOCK = ".download.lock"

_log = logging.getLogger(__name__)


def by_hand(files: Iterable[str], mirrors: Sequence[str], folder: Path, known_by: str) -> str:
    """Return the last resort, as the end of a message; `known_by` is what a data folder that has the files holds."""
    return (
        f"to do it by hand, fetch {', '.join(files)} from {' or '.join(mirrors)} and put them, still compressed, "
        f"into {folder}; or let --data or TOMBOLA_DATA name a folder that already holds {known_by}"
    )


def fetch(
    name: str, sums: Mapping[str, str], mirrors: Sequence[str], places: Sequence[Path], known_by: str
) -> dict[str, Path]:
    """Download files into the first of the places that can be written to.

    A file is written aside, verified, and only then moved into place, so that what lies there is whole. Several
    processes may call this at once: one downloads, the others wait and find the files there.

    Args:
        name: of the data set, for messages.
        sums: checksum of every file by its name, such as "sha256:..." or "md5:...".
        mirrors: addresses that a file's name is appended to, tried in turn.
        places: folders, the preferred one first; made where they don't exist.
        known_by: what a data folder that has the files already holds, for messages.

    Returns:
        the path of every file, by its name.

    Raises:
        DataError: no folder can be written to, no mirror gave a file, or the disk is full.
    """
    folder = _writable(name, places)
    try:
        with filelock.FileLock(folder / LOCK, timeout=LOCK_TIMEOUT, mode=0o666):
            return {file: _fetch_one(name, file, sums, mirrors, folder, known_by) for file in sums}
    except filelock.Timeout as error:
        raise DataError(
            f"{name}: another process has been downloading into {folder} for {LOCK_TIMEOUT / 60:.0f} minutes; "
            f"end it, or {by_hand(sums, mirrors, folder, known_by)}"
        ) from error
    except (OSError, NotImplementedError) as error:
        raise DataError(
            f"{name}: {folder} can't be written ({_reason(error)}); free space, or choose another data folder; "
            + by_hand(sums, mirrors, folder, known_by)
        ) from error


def _writable(name: str, places: Sequence[Path]) -> Path:
    """Return the first folder in which a file can be made, since permission bits alone don't tell."""
    faults = []
    for place in places:
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                return place
        except OSError as error:
            faults.append(f"{place} ({_reason(error)})")
    raise DataError(f"{name}: no folder to download to: {', '.join(faults)}; choose a writable data folder")


def _fetch_one(
    name: str, file: str, sums: Mapping[str, str], mirrors: Sequence[str], folder: Path, known_by: str
) -> Path:
    target = folder / file
    if target.exists():  # another process was faster
        return target
    faults = []
    for mirror in mirrors:
        _log.info("downloading %s%s to %s", mirror, file, folder)
        store = pooch.create(path=folder, base_url=mirror, registry={file: sums[file]}, retry_if_failed=RETRIES)
        try:
            with _quiet():
                store.fetch(file, downloader=_bounded)
        except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
            network = (requests.RequestException, ConnectionError, TimeoutError)
            if isinstance(error, OSError) and error.errno is not None and not isinstance(error, network):
                raise  # the disk's fault: another mirror won't help
            faults.append(f"{mirror}{file}: {_reason(error)}")
            continue
        _share(target)
        return target
    raise DataError(
        f"{name}: {file} can't be downloaded:\n  "
        + "\n  ".join(faults)
        + f"\n{by_hand(sums, mirrors, folder, known_by)}"
    )


class _NotBounded(ConnectionError):
    """A server that would send for ever."""


def _bounded(url: str, output_file: Any, _pooch: Any) -> None:
    """Transfer a file to `output_file`, a path or an open file, but no more than MAX_BYTES and not for ever.

    The transfer runs in a thread of its own, because a server that sends a byte from time to time keeps a read waiting
    without its timeout ever passing.
    """
    state = _Transfer()
    thread = threading.Thread(target=state.run, args=(url, output_file), daemon=True)
    began = time.monotonic()
    thread.start()
    while thread.is_alive():
        thread.join(CHECK_EVERY)
        taken = time.monotonic() - began
        if thread.is_alive() and (taken > MAX_SECONDS or (taken > GRACE and state.received < MIN_RATE * taken)):
            state.given_up = True
            raise _NotBounded(f"it sent {state.received:,} bytes in {taken:.0f} s; that is too slow")
    if state.error is not None:
        raise state.error


class _Transfer:
    """What a transfer has come to, seen from another thread."""

    def __init__(self) -> None:
        self.received = 0
        self.given_up = False
        self.error: BaseException | None = None

    def run(self, url: str, target: Any) -> None:
        """Copy what a server sends."""
        try:
            # Some servers would else decompress the file on its way, and its checksum would not be the published one.
            headers = {"Accept-Encoding": "identity"}
            with requests.get(url, timeout=TIMEOUTS, headers=headers, stream=True) as answer:
                answer.raise_for_status()
                if isinstance(target, str | os.PathLike):
                    with open(target, "wb") as file:
                        self._copy(answer, file)
                else:
                    self._copy(answer, target)
        except BaseException as error:
            self.error = error

    def _copy(self, answer: requests.Response, file: Any) -> None:
        for piece in answer.iter_content(chunk_size=1 << 14):
            self.received += len(piece)
            if self.received > MAX_BYTES:
                raise _NotBounded(f"it sent more than {MAX_BYTES:,} bytes, which no published file has")
            if self.given_up:
                return
            file.write(piece)


def _share(path: Path) -> None:
    """Let those who may read the folder read the file: it was written as a temporary file, for its owner alone."""
    try:
        path.chmod(path.parent.stat().st_mode & 0o666)
    except OSError:
        _log.info("the permissions of %s stay as they are", path)


def _reason(error: BaseException) -> str:
    """Return why a transfer failed in a few words: what the system or the server said, without the layers around."""
    if isinstance(error, _NotBounded):
        return str(error)
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {TIMEOUTS[0]:.0f} s"
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUTS[1]:.0f} s"
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return "the file it sent is not the published file: its checksum differs"
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        seen = seen.__cause__ or seen.__context__
    return str(error) or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep pooch from writing to standard error on its own account."""
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
