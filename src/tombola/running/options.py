"""Run options: how work is executed. None of them decides an outcome beyond rounding."""

from __future__ import annotations

from dataclasses import dataclass

PROGRESS_EVERY = 0.5  # seconds between two notes of how far a piece of work is


@dataclass(frozen=True)
class RunOptions:
    """How a worker executes work.

    Args:
        root: folder of data sets.
        device: of the training, such as "cpu" or "cuda".
        engine: forces one; "auto" chooses.
        threads: that PyTorch uses in each worker.
        stack: the most runs that are trained together, where the engine can do that.
        checkpoint_every: seconds between checkpoints.
        stop_file: all workers stop when this file is deleted.
        energy: measure what each run takes.
        tf32: let a GPU round products of float32 to TF32.
        lease: seconds without a sign of life after which another process may take over what a worker does.
        note_every: seconds between two notes of how far a piece of work is.
    """

    root: str | None = None
    device: str = "cpu"
    engine: str = "auto"
    threads: int = 1
    stack: int = 1
    checkpoint_every: float = 30.0
    stop_file: str | None = None
    energy: bool = False
    tf32: bool = False
    lease: float = 60.0
    note_every: float = PROGRESS_EVERY


def note_every(workers: int) -> float:
    """Return the seconds between two notes of one worker: many workers together write as many as 25 do."""
    return max(PROGRESS_EVERY, workers / 50)
