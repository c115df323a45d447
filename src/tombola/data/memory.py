"""Whether a data set fits into memory."""

from __future__ import annotations

import os

from tombola.errors import DataError

SHARE = 0.4  # of the machine's memory: training holds a second, normalised copy while it splits the data


def check_fits(where: str, size: int) -> None:
    """Refuse data that would fill the memory, before they are read.

    Args:
        where: the data's name, for the message.
        size: in bytes.

    Raises:
        DataError: they are more than SHARE of the machine's memory.
    """
    if not hasattr(os, "sysconf"):
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > SHARE * memory:
        raise DataError(
            f"{where} takes {size / 1e9:.1f} GB, but this machine has {memory / 1e9:.1f} GB of memory; tombola keeps "
            "training data in memory. Return fewer or smaller examples, or uint8 instead of float32"
        )
