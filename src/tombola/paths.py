"""Paths that a study, an option or a ticket names: checked before the file system sees them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from tombola.errors import InputError

MAX_NAME = 255  # bytes of a file's name, on every common file system
MAX_PATH = 4096  # bytes of a path, on Linux
PSEUDO = ("/proc/", "/sys/")
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


def local_path(text: str | Path, what: str) -> Path:
    """Return a path with `~` replaced by the home folder.

    Args:
        text: as the user wrote it.
        what: the field or option, for the message.

    Raises:
        InputError: no file system takes it: it is empty, holds a NUL, is too long, or names an unknown user.
    """
    name = str(text)
    shown = repr(name if len(name) <= 60 else name[:57] + "...")
    if not name:
        raise InputError(f"{what} is empty; give a path")
    if "\0" in name:
        raise InputError(f"{what}={shown}: a path can't contain the character NUL")
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:
        raise InputError(f"{what}={shown}: a path can't contain half of a character pair") from None
    longest = max(len(part) for part in encoded.split(b"/"))
    if longest > MAX_NAME:
        raise InputError(f"{what}={shown}: a name in it has {longest:,} bytes; a file system allows {MAX_NAME}")
    if len(encoded) >= MAX_PATH:
        raise InputError(f"{what}={shown}: it has {len(encoded):,} bytes; a file system allows {MAX_PATH - 1:,}")
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise InputError(
            f"{what}={shown}: the user {name.split('/')[0][1:]!r} does not exist; give the whole path"
        ) from None


def regular_file(path: Path) -> os.stat_result:
    """Return a file's size and times, once it is known to be a file whose reading comes to an end.

    Raises:
        OSError: it does not exist, or can't be reached.
        InputError: it is a device, a pipe, or a file of /proc or /sys.
    """
    try:
        found = path.stat()
    except ValueError as error:  # a NUL
        raise InputError(f"{str(path)!r} is not a path: {error}") from error
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if os.path.realpath(path).startswith(PSEUDO):  # /proc/kmsg is a regular file whose reading waits for ever
        raise InputError(f"{path} belongs to the kernel; give a regular file")
    if kind != stat.S_IFREG:
        raise InputError(f"{path} is {KINDS.get(kind, 'no file')}; give a regular file")
    return found


def read_text(path: Path, limit: int) -> str:
    """Return a text file of UTF-8.

    Raises:
        InputError: it can't be read, is not text or not a regular file, or is larger than `limit` bytes.
    """
    try:
        size = regular_file(path).st_size
        if size > limit:
            raise InputError(f"{path} has {size:,} bytes; the limit is {limit:,}")
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from error
