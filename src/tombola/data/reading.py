"""Reads streamed examples through a `torch.utils.data.DataLoader`, in this process or ahead in others.

Processes that read are started as loky's are: they import neither the caller's main module nor inherit what its process
holds open. Each calls the user's function itself, so the data set need not be picklable, and none is copied. Batches
come back by value: no shared memory, of which containers often have little.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from loky.backend.context import LokyContext
from loky.backend.process import LokyProcess
from torch.utils.data import DataLoader

from tombola.data.dataset import Arrays
from tombola.data.normalising import Scaling
from tombola.data.streams import Stream
from tombola.errors import DataError, TombolaError
from tombola.registry import add_user_folders, user_folders

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
LOOK = 0.5  # seconds between two looks of a process that reads whether its parent lives


@dataclass(frozen=True, eq=False)
class Wanted:
    """Examples that are read together.

    Args:
        which: "train" or "test".
        numbers: int64 [N], in the user's data set.
        scaling: what makes raw inputs those that a network sees; None: they stay raw.
    """

    which: str
    numbers: np.ndarray
    scaling: Scaling | None = None


@dataclass(frozen=True)
class Failure:
    """Why examples could not be read; an exception would come back with a traceback for its message."""

    message: str


class Fetcher:
    """The data set of a `DataLoader`: reads and normalises examples, wherever it has been sent.

    Args:
        name, arguments: of the user's function.
        stream: the function's data; opened again in each process that reads.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], stream: Stream | None = None):
        self.name, self.arguments = name, arguments
        self.folders, self._stream = user_folders(), stream
        self._content: list[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        content = self._content if self._stream is None else self._stream.content
        return {**vars(self), "_stream": None, "_content": content}

    def __getitems__(self, wanted: Wanted) -> tuple[Arrays, Arrays] | Failure:
        """Return inputs and targets [N, ...] of examples, or why they can't be read."""
        try:
            return self.take(wanted)
        except TombolaError as error:
            return Failure(str(error))

    def take(self, wanted: Wanted) -> tuple[Arrays, Arrays]:
        """Return inputs and targets [N, ...] of examples.

        Raises:
            DataError: one can't be read, or is not as it must be.
        """
        if self._stream is None:
            add_user_folders(self.folders)
            stream = Stream(self.name, self.arguments)
            if self._content is not None and stream.content != self._content:
                raise DataError(
                    f"{self.name} returned other data in a process that reads ahead; it must return the same data in "
                    "each process, to the last bit: sort what it makes of sets and folders"
                )
            self._stream = stream
        inputs, targets = self._stream.take(wanted.which, wanted.numbers.tolist())
        if wanted.scaling is None:
            return inputs, targets
        scaled = wanted.scaling.apply(inputs)
        numbers = f"{wanted.numbers.min()} to {wanted.numbers.max()}"
        wanted.scaling.check(scaled, f"{self.name}: {wanted.which}", f"items {numbers}")
        return scaled, targets


class Queue:
    """The batch sampler of a `DataLoader`: what is to be read next; notes what has been asked for."""

    def __init__(self) -> None:
        self.asked: deque[Wanted] = deque()
        self._wanted: Iterator[Wanted] = iter(())

    def replace(self, wanted: Iterable[Wanted]) -> None:
        """Forget what was to be read, for something else."""
        self._wanted = iter(wanted)
        self.asked.clear()

    def __iter__(self) -> Iterator[Wanted]:
        for each in self._wanted:
            self.asked.append(each)
            yield each


class Reader:
    """Reads the examples of a user's function; its processes start when they are first needed.

    Args:
        fetcher: what to read.
        workers: processes that read ahead; 0: this process reads.
    """

    def __init__(self, fetcher: Fetcher, workers: int):
        self.fetcher, self.workers = fetcher, workers
        self._queue = Queue()
        self._loader: DataLoader[Any] | None = None
        self._iterator: Any = None
        self._turn: object = None

    def read(self, wanted: Iterable[Wanted]) -> Reading:
        """Return an iterator over examples; it ends what another one was reading."""
        self._turn = object()
        self._queue.replace(wanted)
        return Reading(self, self._turn)

    def has_turn(self, turn: object) -> bool:
        """Return whether no other reading has begun since."""
        return turn is self._turn

    def next(self) -> tuple[Arrays, Arrays]:
        """Return the next examples that were asked for.

        Raises:
            StopIteration: there are no more.
            DataError: one can't be read, or a process that read was killed.
        """
        try:
            if self._iterator is None:
                self._iterator = self._begin()
            found = next(self._iterator)
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):  # PyTorch's words for a process that has ended
                raise
            where = self._where()
            self.close()
            raise DataError(
                f"{where}: a process that read examples ended ({str(error).splitlines()[0]}); is there enough memory? "
                "data.stream_workers=0 reads in the run itself"
            ) from None
        self._queue.asked.popleft()
        if isinstance(found, Failure):
            raise DataError(found.message)
        return found

    def again(self) -> None:
        """Begin with what `read` was last given; existing processes stay."""
        self._iterator = None

    def close(self) -> None:
        """End the processes that read."""
        iterator = None if self._loader is None else self._loader._iterator
        self._turn = self._iterator = self._loader = None
        self._queue.replace(())
        if iterator is not None:
            iterator._shutdown_workers()  # type: ignore[attr-defined]  # not when the last reference happens to go
            for process in getattr(iterator, "_workers", ()):  # one may wait for a disk that does not answer
                with contextlib.suppress(ProcessLookupError):
                    if process.is_alive():
                        os.kill(process.pid, signal.SIGKILL)

    def _where(self) -> str:
        """Return which examples a process was reading when it died, as far as that can be known."""
        asked = self._queue.asked
        if not asked:
            return self.fetcher.name
        return f"{self.fetcher.name}: {asked[0].which}: item {asked[0].numbers[0]} or one that was read with it"

    def _begin(self) -> Iterator[Any]:
        if self._loader is None:
            start = partial(_start_reader, os.getpid())
            self._loader = DataLoader(
                self.fetcher,  # type: ignore[arg-type]
                batch_sampler=self._queue,  # type: ignore[arg-type]
                num_workers=self.workers,
                collate_fn=_as_it_is,
                worker_init_fn=start if self.workers else None,
                multiprocessing_context=_Context() if self.workers else None,
                persistent_workers=self.workers > 0,
                generator=torch.Generator(),  # PyTorch draws a seed: not from the global generator
            )
        # PyTorch tells of a dead process in the midst of anything; here it is enough to hear of it in `next`.
        main = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGCHLD) if main and hasattr(signal, "SIGCHLD") else None
        with _signals_held_back():
            iterator = iter(self._loader)
        if handler is not None:
            signal.signal(signal.SIGCHLD, handler)
        return iterator


class Reading:
    """An iterator over examples; `is_current` once another one has begun is False."""

    def __init__(self, reader: Reader, turn: object):
        self._reader, self._turn = reader, turn
        reader.again()

    @property
    def is_current(self) -> bool:
        """Whether no other reading has begun since."""
        return self._reader.has_turn(self._turn)

    def __iter__(self) -> Reading:
        return self

    def __next__(self) -> tuple[Arrays, Arrays]:
        if not self.is_current:
            raise RuntimeError("another reading has begun")
        return self._reader.next()


def _as_it_is(found: Any) -> Any:
    return found


class _Process(LokyProcess):
    """A process that looks for no modules in the current folder, as `python -P`."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options, env={"PYTHONSAFEPATH": "1"})


class _Context(LokyContext):
    Process = _Process


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """Start processes that hear neither Ctrl-C nor SIGTERM, not even while Python starts: a run that stops needs them.

    They inherit that the signals are held back. Here they come through afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_reader(parent: int, _number: int) -> None:
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, args=(parent,), daemon=True).start()
    atexit.register(os._exit, 0)  # it holds nothing that is worth the second that PyTorch takes to leave


def _leave_with_parent(parent: int) -> None:
    """End this process when its parent was killed, also while it reads an example."""
    while os.getppid() == parent:
        time.sleep(LOOK)
    os._exit(1)
