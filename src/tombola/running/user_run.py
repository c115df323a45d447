"""The `run` object of a user's own trainer: a model under a mask, and methods that report to tombola."""

from __future__ import annotations

import hashlib
import random
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tombola.errors import InputError
from tombola.formatting import counted
from tombola.pruning import Mask
from tombola.pruning.held_weight import Owner, held_weight
from tombola.pruning.holding import hold
from tombola.running.files import Damaged, pack_tensors, unpack_tensors, write_whole, writing
from tombola.running.initial_state import state_under_mask
from tombola.running.reported import Reported
from tombola.running.store import CHECKPOINTS, Store
from tombola.studies.own import Make
from tombola.studies.rewind import SNAPSHOT
from tombola.training.engine import Weights
from tombola.training.loop import Interrupted, Record
from tombola.work import Item, Observations, OwnRun

SNAPSHOTS, REPORTS, DIGEST = "snapshots", "reports.jsonl", "mask.sha256"
IN_PLACE = "train the parameters of run.model in place, or copy weights with run.model.load_state_dict(...)"
SEED_LIMIT = 2**31  # numpy's global generator takes no larger seed


def _nothing() -> None:
    pass


class UserRun:
    """One training of a user's own loop or trainer.

    Train `model`, call `report` with the deciding metric, and leave the rest to tombola. Pruned weights stay exactly
    0.0, whatever trains the model.

    Attributes:
        seed: the seed for data order and dropout; equal for all arms and levels of a trial.
        arm, level, trial, repeat: the run's place. A run that several arms share trains once, under the first arm's
            name; the dense run has the arm "dense". The training must not depend on the arm.
        start: the snapshot that the weights come from: "start", "step-500" or "final".
        start_step: the number in that name, 500; 0 without one. Training continues there.
        device: the device to train on; the model lies on it.
        mask: the kept weights.
        rng: a torch.Generator on the CPU, seeded with `seed`.
    """

    def __init__(self, item: Item, store: Store, make: Make, device: str = "cpu"):
        spec = item.spec
        assert isinstance(spec, OwnRun)
        self._item, self._spec, self._store = item, spec, store
        self.beat: Callable[[], None] = _nothing  # called at each report and snapshot
        self.seed = spec.seeds.value("order") % SEED_LIMIT
        self.arm, self.level, self.trial, self.repeat = item.arm, spec.level, spec.trial, item.repeat
        self.start = spec.initial.snapshot
        named = SNAPSHOT.fullmatch(self.start)
        self.start_step = int(named[1]) if named else 0
        self.device = torch.device(device)
        self.rng = torch.Generator().manual_seed(self.seed)
        self._closed = False
        self._make(make)
        self._part = store.part(item.id)
        self._resumed = self._resume()
        self._reported = Reported(self._reports(), spec.primary, item.label, self._resumed, self.start_step)
        self._snapshots = self._saved_snapshots() if self._resumed else {}
        self._begun = time.perf_counter() - self._reported.seconds

    def _make(self, make: Make) -> None:
        """Build the model, set its weights and hold its mask."""
        self._model = make(0)
        self._mask, self._start, self._remarks = self._initial(make)
        self._model.load_state_dict(self._start)
        self._model.to(self.device).train()
        self._parameters = dict(self._model.named_parameters())
        owner = Owner(
            f"run {self.label}: ",
            "during the run",
            IN_PLACE,
            "make a new optimiser in each run, or load the state that this run saved",
        )
        self._hold = hold(self.mask, self._model, owner=owner)

    def _initial(self, make: Make) -> tuple[Mask, Weights, dict[str, Any]]:
        """Return the mask, the weights under it, and remarks on the mask."""
        spec = self._spec

        def drawn(seed: int) -> Weights:
            return make(seed).state_dict()

        def full() -> Mask:
            return Mask.full(spec.prunable)

        return state_under_mask(spec, self._store, self._model, drawn, full, spec.input_shape)

    def _reports(self) -> Path | None:
        """Return the file of the reports; None where another process writes it."""
        return self._part / REPORTS

    def _resume(self) -> bool:
        """Return whether the trainer may resume from its checkpoint; delete checkpoints of another mask."""
        digest = hashlib.sha256(b"".join(bits.numpy().tobytes() for bits in self.mask.pack().values())).hexdigest()
        try:
            same = (self._part / DIGEST).read_text() == digest and any((self._part / CHECKPOINTS).iterdir())
        except (OSError, UnicodeDecodeError):
            same = False
        with writing(self._part):
            if not same:
                for name in (CHECKPOINTS, SNAPSHOTS):
                    shutil.rmtree(self._part / name, ignore_errors=True)
            self._part.mkdir(parents=True, exist_ok=True)
            (self._part / DIGEST).write_text(digest)
        return same

    def _saved_snapshots(self) -> dict[str, Weights]:
        found = {}
        for path in sorted((self._part / SNAPSHOTS).glob("*.safetensors")):
            try:
                found[path.stem] = unpack_tensors(path)[0]
            except Damaged:
                path.unlink()  # the trainer takes it again, or is told that it is missing
        return found

    def __repr__(self) -> str:
        return f"Run({self.label}, {self.mask!r})"

    @property
    def label(self) -> str:
        """The run's readable name."""
        return self._item.label

    @property
    def mask(self) -> Mask:
        """The kept weights."""
        return self._mask

    @property
    def dense(self) -> bool:
        """Whether nothing is pruned."""
        return self.level == 0

    @property
    def wanted_snapshots(self) -> tuple[str, ...]:
        """The snapshots that this run must take, because other runs start from them."""
        return self._item.observe.named

    @property
    def density(self) -> float:
        """Share of kept weights among the prunable ones, 0 to 1."""
        return self.mask.density

    @property
    def model(self) -> nn.Module:
        """The module to train."""
        return self._model

    @model.setter
    def model(self, other: Any) -> None:
        raise InputError(
            f"run {self.label}: run.model was replaced by a {type(other).__name__}; train run.model itself, or copy "
            "weights into it with run.model.load_state_dict(...)"
        )

    @property
    def checkpoint_dir(self) -> Path:
        """A folder for the trainer's own checkpoints. It survives a kill. Tombola deletes it after it stores the
        run."""
        self._require_open("checkpoint_dir was used")
        folder = self._part / CHECKPOINTS
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def report(self, step: int | None = None, **metrics: Any) -> None:
        """Report metrics.

        >>> run.report(step=100, val_loss=0.31, accuracy=0.91)              # doctest: +SKIP

        Args:
            step: training steps (or epochs) so far; None adds to the last report. A trainer that resumes from
                `checkpoint_dir` must give it.
            **metrics: numbers by name. A name that begins with `val_` or `train_` belongs to that part of the data; any
                other name belongs to the test examples. Report the deciding metric at least once.

        Raises:
            InputError: the run has ended, a name, value or step can't be used, or pruned weights are not 0.0 where a
                metric of other than training examples is reported: an unpruned network may have it.
            Interrupted: a stop was requested, or another machine has taken the run over; do not catch it.
            StoreError: the same of a loop's run that another machine has taken over.
        """
        self._require_open(f"{next(iter(metrics), 'a metric')} was reported")
        self._require_pruned(metrics)
        self._reported.note(step, metrics, self._seconds())
        self.beat()

    def _require_pruned(self, metrics: Iterable[str]) -> None:
        """Refuse a metric that may be of an unpruned network: its forward did not prune the weights.

        A loss of the training examples may be from before the change of the weights.
        """
        evaluated = [name for name in metrics if not name.startswith("train_")]
        if evaluated and (revived := self._hold.revived()):
            name, count = next(iter(revived.items()))
            raise InputError(
                f"run {self.label}: {evaluated[0]} was reported, but {counted(count, 'pruned weight')} of {name!r} "
                "changed before; after the last change, call run.mask.apply_(run.model), then evaluate"
            )

    def snapshot(self, name: str) -> None:
        """Store the current weights under a name such as "step-500", for `rewind`.

        Raises:
            InputError: the run has ended, or the name has another form.
        """
        self._require_open(f"snapshot {name!r} was taken")
        self._require_buffers()
        if not isinstance(name, str) or not SNAPSHOT.fullmatch(name):
            raise InputError(f"run {self.label}: a snapshot can't be called {name!r}; use a name such as step-500")
        self._hold.apply()
        self._keep(name, self._weights())
        self.beat()

    def _keep(self, name: str, weights: Weights) -> None:
        path = self._part / SNAPSHOTS / f"{name}.safetensors"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, pack_tensors(weights, None))
        self._snapshots[name] = weights

    def close(self) -> None:
        """End the run: it accepts no report or snapshot after that."""
        self._closed = True

    def seed_all(self) -> None:
        """Seed the global generators of torch, numpy and random with `seed`."""
        torch.manual_seed(self.seed)
        np.random.seed(self.seed)  # a user's code may draw from it
        random.seed(self.seed)

    def progress(self) -> dict[str, Any]:
        """Return the progress of the run for display; empty before the first report."""
        step = self._reported.last_step
        if not step:
            return {}
        budget = self._budget()
        return {self._item.id: {"label": self.label, "iteration": step, "budget": max(step, budget) if budget else 0}}

    def _budget(self) -> int:
        """Return the last step of the run whose weights or mask this run has; 0 where it has those of none.

        The trainer does not say where it will stop, and runs of one study mostly stop at one step.
        """
        for source in self._item.needs:
            try:
                facts = self._store.facts(source)
                if "history" not in facts:  # a mask search
                    facts = self._store.facts(facts["spec"].get("run") or "")
                return int(facts["history"]["iteration"][-1])
            except Damaged:
                continue
        return 0

    def _seconds(self) -> float:
        return time.perf_counter() - self._begun

    def _taken_over(self) -> Exception:
        """Return what to raise where another process has taken the run over: the scheduler does the rest."""
        return Interrupted()

    def _require_open(self, what: str) -> None:
        if self._store.leases.is_lost(self._item.id):
            raise self._taken_over()
        if self._closed:
            raise InputError(
                f"run {self.label} has ended, but {what} after that; use the current run of the loop or the scheduler"
            )

    def _weights(self) -> Weights:
        return {name: tensor.detach().cpu().clone() for name, tensor in self._model.state_dict().items()}

    def result(self) -> tuple[Item, Mask, Record, dict[str, Any]]:
        """End the run, and return the content for the store.

        Returns:
            The item with all snapshots that were taken, the mask, the record and the facts.

        Raises:
            InputError: the metric was never reported, or the code trained another module.
        """
        self._require_open("it was ended again")
        self._reported.require_metric()
        if missing := [name for name in self._item.observe.named if name not in self._snapshots]:
            raise InputError(
                f"run {self.label} ended without the snapshot {missing[0]!r} of rewind; call "
                f"run.snapshot({missing[0]!r}) at that step"
            )
        final = self._final()
        seconds = self._seconds()
        self.close()
        reported = self._reported
        history = reported.history()
        diverged = reported.diverged
        infinite = [name for name, tensor in final.items() if _is_infinite(tensor, self._start.get(name))]
        if diverged is None and infinite:
            diverged = int(history["iteration"][-1]), f"weight {infinite[0]!r}"
        early_stop, better = reported.early_stop()
        remarks = dict(self._remarks) | ({"better_without_metric": better} if better else {})
        if diverged is not None:
            remarks["not_finite"] = diverged[1]
        names = ("train_loss", f"train_{self._spec.metric}")
        train = tuple(history[name][-1] if name in history else float("nan") for name in names)
        record = Record(
            history, {"start": self._start, **self._snapshots, "final": final}, seconds, diverged and diverged[0], train
        )
        facts = {
            "early_stop": early_stop,
            "iterations": max(0, int(history["iteration"][-1]) - self.start_step),
            "zeros": sum(int((final[name] == 0).sum()) for name in self.mask),
            "remarks": remarks,
            "normalisation": {"mean": [], "std": []},
        }
        observe = self._item.observe.with_(Observations(named=tuple(self._snapshots)))
        return replace(self._item, observe=observe), self.mask, record, facts

    def _require_buffers(self) -> None:
        """Refuse entries of the state_dict that the factory does not build: later runs could not load them."""
        if changed := sorted(self._model.state_dict().keys() ^ self._start.keys()):
            raise InputError(
                f"run {self.label}: {changed[0]!r} was added to run.model or removed from it, so other runs could not "
                "load its weights; build all parameters and buffers where the model is made"
            )

    def _final(self) -> Weights:
        """Return the trained weights under the mask, after checking that they are those of the model of this run.

        Raises:
            InputError: parameters were replaced, none changed, or another mask holds them.
        """
        remedy = IN_PLACE
        now = dict(self._model.named_parameters())
        if now.keys() != self._parameters.keys():
            name = sorted(now.keys() ^ self._parameters.keys())[0]
            raise InputError(
                f"run {self.label}: run.model must keep its parameters, but {name!r} was added or removed; {remedy}"
            )
        if replaced := [name for name in self.mask if held_weight(now[name]) is None]:
            raise InputError(
                f"run {self.label}: {replaced[0]!r} of run.model was replaced by another parameter, which has no "
                f"mask; {remedy}"
            )
        self._require_buffers()
        self._hold.apply()
        final = self._weights()
        if any(bool(final[name][~keep].any()) for name, keep in self.mask.items()):
            raise InputError(f"run {self.label}: another mask than run.mask holds run.model; {remedy}")
        if all(torch.equal(final[name], self._start[name]) for name in self._parameters):
            raise InputError(
                f"run {self.label}: no weight of run.model changed, so the code trained another module or none; "
                f"{remedy}"
            )
        return final


def _is_infinite(end: Tensor, start: Tensor | None) -> bool:
    """Return whether training made a value infinite or NaN. A buffer may start with -inf, to mask attention."""
    broken = ~end.isfinite()
    if start is not None and start.shape == end.shape:
        broken &= (end != start) & ~(end.isnan() & start.isnan())
    return bool(broken.any())
