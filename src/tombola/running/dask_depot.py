"""A depot that workers reach through Dask's own connections: queues of the scheduler carry requests and answers.

The parcels lie on the command's machine, in a hidden folder of the results folder.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distributed import Queue, get_client

from tombola.errors import StoreError
from tombola.running.depots import FolderDepot

PIECE = 8 << 20  # bytes of a parcel in one message: the scheduler does nothing else while it passes on a message
PATIENCE = 10.0  # seconds until a request is made again
TRIES = 3
GIVEN_UP = 2 * TRIES * PATIENCE  # seconds without a piece after which the rest of a parcel is no longer expected
Request = tuple[str, int, str, tuple[Any, ...]]  # queue for the answer, number, what to do, arguments


class DaskDepot:
    """The side of a worker.

    Args:
        name: of the queue that takes requests.
    """

    def __init__(self, name: str):
        self._client = get_client()
        self._requests = Queue(name, client=self._client)
        self._own = f"{name}-{uuid.uuid4().hex}"
        self._answers = Queue(self._own, client=self._client)
        self._numbers = itertools.count()

    def put(self, name: str, content: bytes) -> None:
        """Keep a parcel."""
        stamp = uuid.uuid4().hex
        for begin in range(0, len(content), PIECE):
            self._ask("add", stamp, begin, content[begin : begin + PIECE])
        self._ask("put", stamp, name, len(content))

    def get(self, name: str) -> bytes:
        """Return a parcel."""
        pieces: list[bytes] = []
        while not pieces or len(pieces[-1]) == PIECE:
            pieces.append(self._ask("get", name, len(pieces) * PIECE))
        return b"".join(pieces)

    def names(self, folder: str) -> list[str]:
        """Return the names of a folder's parcels."""
        return list(self._ask("names", folder))

    def has(self, name: str) -> bool:
        """Return whether there is such a parcel."""
        return bool(self._ask("has", name))

    def delete(self, name: str) -> None:
        """Delete a parcel or a folder of parcels."""
        self._ask("delete", name)

    def close(self) -> None:
        """End the queues of this worker."""
        for queue in (self._answers, self._requests):
            with contextlib.suppress(Exception):  # the scheduler may have gone
                queue.close()

    def _ask(self, what: str, *arguments: Any) -> Any:
        """Make a request until it is answered; to repeat one does no harm.

        Raises:
            StoreError: it is not answered, or can't be met.
        """
        number, until = next(self._numbers), 0.0
        for _ in range(TRIES):
            try:
                self._requests.put((self._own, number, what, arguments), timeout=PATIENCE)
                until = time.monotonic() + PATIENCE
                while (left := until - time.monotonic()) > 0:
                    answered, good, content = self._answers.get(timeout=left)
                    if answered == number and good:
                        return content
                    if answered == number:
                        raise StoreError(content)
            except TimeoutError:
                continue
            except (OSError, RuntimeError, KeyError) as error:  # the scheduler has gone
                raise StoreError(f"the command's machine can't be reached ({error})") from error
        raise StoreError(f"the command does not answer within {TRIES * PATIENCE:.0f} seconds")


class DaskCounter(FolderDepot):
    """The side of the command: a folder of its machine, and a thread that serves workers.

    Args:
        client: of Dask's scheduler.
        name: of the queue that takes requests.
        root: the folder.
    """

    def __init__(self, client: Any, name: str, root: Path):
        super().__init__(root)
        self._client = client
        self._added: dict[str, tuple[float, bytearray]] = {}  # parcels that still come, and when their last piece did
        self._requests = Queue(name, client=client)
        self._thread = threading.Thread(target=self._serve, name="depot", daemon=True)
        self._thread.start()
        self._does: dict[str, Callable[..., Any]] = {
            "add": self._add,
            "put": self._put,
            "get": self._get,
            "names": self.names,
            "has": self.has,
            "delete": self.delete,
        }

    def close(self) -> None:
        """Serve no longer, and delete the folder if nothing lies there."""
        with contextlib.suppress(Exception):  # the scheduler may have gone
            self._requests.put(None, timeout=PATIENCE)
            self._thread.join(PATIENCE)
            self._requests.close()
        super().close()

    def _serve(self) -> None:
        with contextlib.suppress(Exception):  # the scheduler has gone; calls under way end with an error too
            while (request := self._requests.get()) is not None:
                queue, number, what, arguments = request
                try:
                    answer = (number, True, self._does[what](*arguments))
                except (StoreError, KeyError, ValueError, TypeError) as error:
                    answer = (number, False, str(error))
                self._client.sync(self._client.scheduler.queue_put, data=answer, name=queue, timeout=PATIENCE)

    def _add(self, stamp: str, begin: int, piece: bytes) -> None:
        now = time.monotonic()
        for other in [other for other, (last, _) in self._added.items() if now - last > GIVEN_UP]:
            del self._added[other]  # its worker died
        _, whole = self._added.get(stamp, (now, bytearray()))
        whole[begin : begin + len(piece)] = piece
        self._added[stamp] = now, whole

    def _put(self, stamp: str, name: str, size: int) -> None:
        if stamp in self._added or not self.has(name):  # not asked again
            content = bytes(self._added.pop(stamp, (0.0, b""))[1])
            if len(content) != size:
                raise StoreError(f"a part of the parcel {name} is missing")
            self.put(name, content)

    def _get(self, name: str, begin: int) -> bytes:
        with self._reached(name) as path, path.open("rb") as file:
            file.seek(begin)
            return file.read(PIECE)
