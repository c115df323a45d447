"""A step that reads and writes the same tensors each time: on a GPU one CUDA graph, elsewhere a plain call.

A small training step is some sixty kernels, and starting them from Python takes several times as long as computing
them. A graph starts them all at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Protocol

import torch

Step = Callable[[], None]
PLAIN_STEPS = 3  # before a capture: they allocate and choose what PyTorch does only once
ON_CPU = "CUDA graphs need a GPU"


class Recorder(Protocol):
    """Records a step: `Graphs` on a GPU, something else in tests."""

    def plainly(self, step: Step) -> None:
        """Make a step that is not recorded, as a recorded one would be made."""
        ...

    def recorded(self, step: Step) -> Step:
        """Return a function that repeats a step, without having made it.

        Raises:
            RuntimeError: the step can't be recorded.
        """
        ...


class Graphs:
    """Records steps as CUDA graphs, on one stream of a GPU.

    Steps before the capture run on the stream of the capture. Autograd remembers the stream of an earlier step, and
    another one would break the capture.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def plainly(self, step: Step) -> None:
        """Make a step on the stream of the capture."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True", UserWarning)
            step()
        current.wait_stream(self._stream)

    def recorded(self, step: Step) -> Step:
        """Return a function that replays a step."""
        graph = torch.cuda.CUDAGraph()
        # Other threads of this process may use the GPU meanwhile.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            step()
        return graph.replay


def recorder_of(device: torch.device) -> Recorder | None:
    """Return what records steps on a device; None on the CPU."""
    return Graphs(device) if device.type == "cuda" else None


class Repeated:
    """Makes one step again and again: a few plain ones first, then the recorded one.

    It holds on to no step: whoever has it would live as long as its own step.

    Args:
        recorder: records the step; None makes plain steps only.

    Attributes:
        why_plain: why the step is not recorded; "" where it is, or will be.
    """

    def __init__(self, recorder: Recorder | None):
        self._recorder = recorder
        self._plain_steps = 0
        self._again: Step | None = None
        self.why_plain = ON_CPU if recorder is None else ""

    @property
    def is_recorded(self) -> bool:
        """Whether the next call repeats a recording."""
        return self._again is not None

    def __call__(self, step: Step, tidy: Step) -> None:
        """Make one step.

        Args:
            step: the same each time. It reads and writes the same tensors, and never asks for a tensor's value.
            tidy: called after a recording has failed; removes what it left.

        Raises:
            torch.OutOfMemoryError: memory does not suffice, also for a recording.
        """
        if self._again is None and self._recorder is not None:
            if self._plain_steps < PLAIN_STEPS:
                self._recorder.plainly(step)
                self._plain_steps += 1
                return
            self._again = self._record(self._recorder, step, tidy)
        (self._again or step)()

    def _record(self, recorder: Recorder, step: Step, tidy: Step) -> Step | None:
        """Return the recorded step, None where it can't be recorded."""
        try:
            return recorder.recorded(step)
        except RuntimeError as error:
            tidy()
            if out_of_memory(error):
                raise torch.OutOfMemoryError(str(error)) from error
            self.why_plain = f"a training step can't be captured as a CUDA graph: {first_line(error)}"
            self._recorder = None
            return None


def out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error is, or hides, one of too little memory: ending a capture raises another one over it."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
