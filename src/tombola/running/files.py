"""Files that are either whole or not there, and that are noticed when they are altered."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import Tensor

from tombola.errors import InputError, StoreError
from tombola.paths import read_text, regular_file
from tombola.tensor_files import Damaged, pack_tensors, unpack_tensors

try:
    import fcntl
except ImportError:  # no POSIX system
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "AGAIN",
    "SUMS",
    "Damaged",
    "check_sums",
    "clean_leftovers",
    "is_leftover",
    "is_locked",
    "locked_file",
    "pack_tensors",
    "read_json_checked",
    "remove",
    "under",
    "unpack_tensors",
    "write_json",
    "write_json_checked",
    "write_sums",
    "write_whole",
    "writing",
]


# Names of what is written aside, before one rename puts it into place. `Store.clean` knows what else may be left.
TEMPORARY = (".*.tmp", ".probe.*")
MAX_SUMS = 64 * 1024  # bytes of a list of checksums
MAX_JSON = 256 * 1024**2  # bytes of a checked JSON file
_CHECKED = re.compile(r'\{"sha256": "([0-9a-f]{64})", "content":\n(.*)\n\}\n', re.DOTALL)

SUMS = "SHA256SUMS"  # in the format of `sha256sum`, so that a person can check too


AGAIN = "free space or choose another --out, then run the same command again: finished work is kept"


@contextmanager
def writing(path: Path, remedy: str = AGAIN) -> Iterator[None]:
    """Turn a failed write into an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"can't write {path}: {error.strerror or error}; {remedy}") from error


def write_whole(path: Path, content: bytes, remedy: str = AGAIN) -> None:
    """Write a file aside, make sure that it is on the disk, and move it into place.

    Raises:
        StoreError: it can't be written, or is a folder or a device; `remedy` is the end of the message.
    """
    if path.exists() and not path.is_file():
        raise StoreError(f"can't write {path}: it is not a regular file; {remedy}")
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    with writing(path, remedy):
        try:
            with aside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise


def write_json(path: Path, content: Any) -> None:
    """Write JSON; floats are exact, and NaN is written as NaN."""
    write_whole(path, json.dumps(content, indent=1).encode())


def write_json_checked(path: Path, content: Any) -> None:
    """Write JSON with a checksum of it inside: `{"sha256": ..., "content": ...}`.

    Raises:
        StoreError: it can't be written.
    """
    text = json.dumps(content, indent=1)
    digest = hashlib.sha256(text.encode()).hexdigest()
    write_whole(path, f'{{"sha256": "{digest}", "content":\n{text}\n}}\n'.encode())


def read_json_checked(path: Path, limit: int = MAX_JSON) -> Any:
    """Read what `write_json_checked` wrote, to the last bit.

    Raises:
        FileNotFoundError: the file does not exist.
        Damaged: it is truncated, altered, too large, or was written by something else.
    """
    try:
        if regular_file(path).st_size > limit:
            raise Damaged(f"{path} has more than {limit:,} bytes")
        found = _CHECKED.fullmatch(path.read_text("utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError, InputError) as error:
        raise Damaged(f"{path} can't be read ({error})") from error
    if found is None or hashlib.sha256(found[2].encode()).hexdigest() != found[1]:
        raise Damaged(f"{path} is not what was written: its checksum differs")
    try:
        return json.loads(found[2])
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path} is not JSON ({error})") from error


def is_leftover(path: Path) -> bool:
    """Return whether a file or folder is a temporary one of tombola's, that only a killed process leaves behind."""
    return any(fnmatchcase(path.name, pattern) for pattern in TEMPORARY)


def clean_leftovers(folder: Path, older_than: float = 3600.0) -> list[Path]:
    """Delete temporary files and folders right in `folder` that nobody has touched for a while; return what went.

    Args:
        folder: looked through without its subfolders.
        older_than: seconds since the last change. A process that is at work changes its own all the time.
    """
    gone: list[Path] = []
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            with suppress(OSError):
                if not is_leftover(path) or time.time() - path.lstat().st_mtime < older_than:
                    continue
                remove(path)
                gone.append(path)
    return gone


def remove(path: Path) -> None:
    """Delete a file or a whole folder; of a link, the link. What can't be deleted stays: it does no harm."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def is_locked(path: Path) -> bool:
    """Return whether some process holds a lock on a file. Nothing is written, and links are not followed.

    Where the system or the file system has no such locks, every existing file counts as locked.
    """
    if fcntl is None:
        return path.exists()
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:  # another process holds it, or nobody can tell
        return True
    finally:
        os.close(file)


@contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Make a file that is locked from the moment on at which it is there, and delete it at the end.

    Raises:
        StoreError: it can't be written.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    with writing(path):
        file = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with writing(path):
            if fcntl is not None:
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.replace(aside, path)  # the lock goes with it
        yield
    finally:
        os.close(file)
        remove(path)
        remove(aside)


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names start with "prefix/", without it."""
    return {name.removeprefix(f"{prefix}/"): value for name, value in tensors.items() if name.startswith(f"{prefix}/")}


def write_sums(folder: Path, names: Sequence[str]) -> None:
    """Write the checksums of these files of a folder into it."""
    lines = [f"{_file_digest(folder / name)}  {name}\n" for name in names]
    write_whole(folder / SUMS, "".join(lines).encode())


def check_sums(folder: Path) -> set[str]:
    """Check every file of a folder against its checksums, and return their names.

    Raises:
        Damaged: a file is missing, altered, or was never noted.
    """
    try:
        noted = dict(line.split("  ", 1)[::-1] for line in read_text(folder / SUMS, MAX_SUMS).splitlines())
        for name, digest in noted.items():
            if _file_digest(folder / name) != digest:
                raise Damaged(f"{folder / name} is not what was written: its checksum differs")
        return set(noted)
    except (OSError, UnicodeDecodeError, InputError) as error:
        raise Damaged(f"{folder} can't be read ({error})") from error
    except ValueError as error:
        raise Damaged(f"{folder / SUMS} is not a list of checksums") from error


def _file_digest(path: Path) -> str:
    regular_file(path)  # a link to a device would have no end
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
