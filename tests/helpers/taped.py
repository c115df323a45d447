"""A CUDA graph without a GPU: a tape of a step's operations, which runs them again on the same tensors."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# What waits for the GPU or brings numbers from the host: a capture refuses these.
REFUSED = ("aten._local_scalar_dense.", "aten.nonzero.", "aten.lift_fresh.", "aten.masked_select.")


class Tape(TorchDispatchMode):
    """Records operations as they run. As in a graph, a repetition runs no Python and writes into the same memory."""

    def __init__(self):
        super().__init__()
        self._played = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if str(function).startswith(REFUSED):
            raise RuntimeError(f"operation not permitted when stream is capturing: {function}")
        made = function(*args, **(kwargs or {}))
        self._played.append((function, args, kwargs or {}, made))
        return made

    def replay(self):
        with torch.no_grad():
            for function, args, kwargs, made in self._played:
                again = function(*args, **kwargs)
                for old, new in zip(tree_leaves(made), tree_leaves(again), strict=True):
                    if isinstance(old, torch.Tensor) and old is not new:
                        old.detach().copy_(new)


class TapeRecorder:
    """Records steps on tapes."""

    def __init__(self):
        self.plain = self.replayed = 0

    def plainly(self, step):
        self.plain += 1
        step()

    def recorded(self, step):
        tape = Tape()
        with tape:
            step()  # unlike a capture, this also makes the step
        first = True

        def again():
            nonlocal first
            if not first:
                tape.replay()
            first = False
            self.replayed += 1

        return again
