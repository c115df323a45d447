"""The store: the only state. A piece of work is done when its folder is there, whole.

<results folder>/
    study.yaml                      the study that was run last
    plan.json                       its plan
    jobs/<label>-<id>/              finished work: result.json, SHA256SUMS, and what its kind has besides
    jobs/.<id>.part/                work under way: checkpoint.safetensors, progress.json, checkpoints/
    jobs/.locks/<id>, .leases/<id>/ held by the process that executes it: see `tombola.running.leases`
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tombola.errors import InputError, shown
from tombola.paths import read_text
from tombola.pruning.mask import Mask
from tombola.running.files import (
    MAX_JSON,
    SUMS,
    Damaged,
    check_sums,
    clean_leftovers,
    is_locked,
    locked_file,
    pack_tensors,
    remove,
    under,
    unpack_tensors,
    write_json,
    write_sums,
    write_whole,
    writing,
)
from tombola.running.first_edition import upgraded
from tombola.running.lease import machine
from tombola.running.leases import LEASE, Leases
from tombola.running.parcels import unpack
from tombola.running.stored import check_facts
from tombola.training.engine import Weights
from tombola.training.loop import Record
from tombola.work import KINDS, RESULT, WEIGHTS, Item, Observations, identity_of

CHECKPOINT = "checkpoint.safetensors"
PROGRESS = "progress.json"
COARSE = 2.5  # seconds: file systems tell times of changes to 2 seconds or better
CHECKPOINTS = "checkpoints"  # the folder that a user's own trainer writes into


@dataclass(frozen=True)
class Result:
    """What a finished training left.

    Args:
        job: its identity.
        mask: which weights lived.
        snapshots: "start", "best", "final", and "iteration-<k>" where one was asked for: whole state_dicts.
        history: a list for each column of `tombola.training.loop.COLUMNS`.
        facts: everything else: verdict, seconds, engine, threads, versions, normalisation, ...
    """

    job: str
    mask: Mask
    snapshots: dict[str, Weights]
    history: dict[str, list[float]]
    facts: dict[str, Any]


class Store:
    """Results of work under one results folder.

    A result that lies in a neighbouring results folder is copied instead of being computed again.

    Args:
        root: the folder.
        lease: seconds after which others may take over what this process holds, if it shows no sign of life.
    """

    def __init__(self, root: str | Path, lease: float = LEASE):
        self.root = Path(root)
        self.jobs = self.root / "jobs"
        self.leases = Leases(self.jobs, lease)
        self._found: dict[str, Path] = {}  # identity -> folder, as of the last look
        self._checked: dict[Path, list[tuple[str, int, int]]] = {}  # folder -> its files when their sums were right
        self._digests: dict[Path, tuple[Any, str | None]] = {}  # folder -> its entry in `_checked` then, its digest
        self._neighbours: list[Store] | None = None
        self._absent: dict[str, str] = {}  # identity -> the claim under which no result was there
        self._change: int | None = None  # see `_look`, as for the next two
        self._seen, self._listed = 0.0, False

    def create(self) -> None:
        """Make the folders.

        Raises:
            InputError: they can't be made or written to.
        """
        try:
            (self.jobs / ".locks").mkdir(parents=True, exist_ok=True)
            probe = self.jobs / f".probe.{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise InputError(
                f"the results folder {self.root} can't be written ({error.strerror or error}); choose another folder "
                "(--out, or out= in Python)"
            ) from error

    def folder(self, work_id: str) -> Path | None:
        """Return the folder of a finished work item, unverified, or None."""
        found, claim = self._found.get(work_id), self.leases.holding(work_id)
        if found is not None and found.is_dir():
            return found
        if claim is None or self._absent.get(work_id) != claim:  # while this process holds it, nobody else stores it
            self._look()
        found = self._found.get(work_id)
        if found is None and claim is not None:
            self._absent[work_id] = claim
        return found

    def see(self, item: Item) -> None:
        """Look whether an item has just got its result: one question instead of a list of all results."""
        if (self.jobs / item.folder).is_dir():
            self._found[item.id] = self.jobs / item.folder

    def _look(self) -> None:
        """List the results, unless the folder has not changed since they were listed.

        Times of changes are coarse: a list tells all of them once it is younger than the last one by `COARSE`.
        """
        with contextlib.suppress(OSError):  # no such folder yet, or none of ours
            now, change = time.monotonic(), _change_of(self.jobs)
            if change is None or change != self._change:
                self._change, self._seen, self._listed = change, now, False
            if self._listed:
                return
            before = self._found
            names = [entry.name for entry in os.scandir(self.jobs) if not entry.name.startswith(".")]
            found = {name: name.rpartition("-")[2] for name in names}
            self._found = {
                key: known if (known := before.get(key)) and known.name == name else self.jobs / name
                for name, key in found.items()
            }
            self._listed = now - self._seen > COARSE

    def finished(self) -> set[str]:
        """Return the identities of all finished work items, unverified, of any study."""
        self._look()
        return set(self._found)

    def has(self, item: Item, damaged: list[str] | None = None) -> bool:
        """Return whether an item is done: its result is there, whole, with all that was to be observed.

        It must have been made from the results that are there now. A run that is trained again, because something more
        is to be observed, may come out otherwise on a GPU or in a user's own loop: then its old masks are not its own.

        A damaged result is described in `damaged`, and counts as not there.
        """
        if self.folder(item.id) is None:
            return False
        try:
            facts = self.facts(item.id)
            observed = _observed(facts)
        except Damaged as error:
            if damaged is not None:
                damaged.append(str(error))
            return False
        whole = facts["diverged_at"] is not None or observed.with_(item.observe) == observed
        return whole and all(self._digest(need) in (None, made) for need, made in facts.get("made_from", {}).items())

    def _digest(self, work_id: str) -> str | None:
        """Return what tells a result from others of its identity; None without one, as before version 0.2."""
        try:
            folder = self._whole(work_id)
            files, digest = self._digests.get(folder, (None, None))
            if files is not self._checked[folder]:
                digest = self._read(folder).get("digest")
                self._digests[folder] = self._checked[folder], digest
        except Damaged:
            return None
        return digest

    def observed(self, work_id: str) -> Observations:
        """Return what was observed while a finished piece of work was executed.

        Raises:
            Damaged: its result is missing or damaged.
        """
        return _observed(self.facts(work_id))

    def with_observations(self, item: Item) -> Item:
        """Return an item that also observes what its result, which lacks something, already holds.

        Others have asked for that.
        """
        if self.folder(item.id) is None:
            return item
        try:
            return replace(item, observe=self.observed(item.id).with_(item.observe))
        except Damaged:
            return item

    def elsewhere(self, item: Item) -> Path | None:
        """Return the folder of an item's result, whole, in a neighbouring results folder, or None."""
        if self._neighbours is None:
            folders = sorted(self.root.absolute().parent.glob("*/jobs"))
            self._neighbours = [Store(folder.parent) for folder in folders if folder != self.jobs.absolute()]
            for neighbour in self._neighbours:
                neighbour._look()
        for neighbour in self._neighbours:
            if item.id in neighbour._found and neighbour.has(item):
                return neighbour.folder(item.id)
        return None

    def adopt(self, item: Item) -> bool:
        """Copy an item's result from a neighbouring results folder, if one has it; return whether it did."""
        source = self.elsewhere(item)
        if source is None:
            return False
        aside = self.jobs / f".{item.id}.{uuid.uuid4().hex[:8]}.adopted"
        with self.claim(item.id) as mine:
            if not mine or self.has(item):
                return False
            with writing(self.jobs):
                aside.mkdir()
                for name in (*sorted(check_sums(source)), SUMS):  # nothing that no checksum lists
                    shutil.copyfile(source / name, aside / name)
                self._move_into_place(aside, item)
        return True

    def receive(self, item: Item, parcel: bytes) -> None:
        """Put an item's result that another machine has made into place, once it is known to be whole.

        Raises:
            Damaged: it is not what was sent, or not the item's.
            StoreError: it can't be written.
        """
        aside = self.jobs / f".{item.id}.{uuid.uuid4().hex[:8]}.adopted"
        try:
            with writing(self.jobs):
                unpack(parcel, aside / item.folder)
            self._check(aside / item.folder)
            with writing(self.jobs):
                self._move_into_place(aside / item.folder, item)
        finally:
            remove(aside)
        if self.leases.may_write(item.id):
            remove(self.part(item.id))

    def load(self, work_id: str) -> Result:
        """Return a finished work item's result.

        Raises:
            Damaged: it is missing, or not what was written.
        """
        facts = self.facts(work_id)
        tensors, about = unpack_tensors(self._found[work_id] / WEIGHTS)
        mask = _mask(tensors, about)
        snapshots = {name: _unpack(tensors, name, mask) for name in about["snapshots"]}
        return Result(work_id, mask, snapshots, facts.pop("history"), facts)

    def facts(self, work_id: str) -> dict[str, Any]:
        """Return what `result.json` of a finished work item says, history included, without reading its weights.

        Raises:
            Damaged: it is missing, or not what was written.
        """
        return self._read(self._whole(work_id))

    def mask(self, work_id: str) -> Mask:
        """Return a finished work item's mask, without reading its weights.

        Raises:
            Damaged: it is missing, or not what was written.
        """
        return _mask(*unpack_tensors(self._whole(work_id) / WEIGHTS, "mask/"))

    def tensors(self, work_id: str, prefix: str) -> dict[str, Tensor]:
        """Return what else a finished work item's result holds under "prefix/", without reading its weights.

        Raises:
            Damaged: it is missing, or not what was written.
        """
        return under(prefix, unpack_tensors(self._whole(work_id) / WEIGHTS, f"{prefix}/")[0])

    def outcome(self, work_id: str) -> str:
        """Return what a finished work item came to: "done", or "diverged" where a loss was not finite.

        Raises:
            Damaged: it is missing, or not what was written.
        """
        return "done" if self.facts(work_id)["diverged_at"] is None else "diverged"

    def save(
        self, item: Item, facts: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None, about: Any = None
    ) -> None:
        """Write a result aside, and move it into place as a whole.

        Args:
            item: whose result it is.
            facts: JSON values; "seconds" is what it took.
            tensors: found again by `tensors`; None writes no file of tensors.
            about: JSON values kept with the tensors.

        Raises:
            StoreError: it can't be written.
        """
        part = self._emptied_part(item)
        files = [RESULT]
        if tensors is not None:
            write_whole(part / WEIGHTS, pack_tensors(tensors, about))
            files.append(WEIGHTS)
        common = {
            "id": item.id,
            "kind": item.kind,
            "settings": item.spec.settings(),
            "spec": item.spec.model_dump(mode="json"),
            "label": item.label,
            "observed": item.observe.model_dump(mode="json"),
            "digest": None if tensors is None else _digest_of(tensors),
            "made_from": {need: digest for need in item.needs if (digest := self._digest(need)) is not None},
        }
        write_json(part / RESULT, {"diverged_at": None, **facts, **common})
        write_sums(part, files)
        with writing(self.jobs):
            self._move_into_place(part, item)
            (self.jobs / item.folder / CHECKPOINT).unlink(missing_ok=True)
            shutil.rmtree(self.jobs / item.folder / CHECKPOINTS, ignore_errors=True)

    def save_mask(self, item: Item, mask: Mask, facts: Mapping[str, Any]) -> None:
        """Write the result of a mask search, as `save` does.

        Raises:
            StoreError: it can't be written.
        """
        bits = {f"mask/{name}": bits for name, bits in mask.pack().items()}
        self.save(item, facts, bits, {"mask": mask.shapes(), "snapshots": []})

    def save_training(
        self,
        item: Item,
        mask: Mask,
        record: Record,
        facts: Mapping[str, Any],
        more: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write the result of a training, as `save` does.

        Args:
            item: whose result it is.
            mask: which weights lived.
            record: what happened.
            facts: what else a reader should know.
            more: tensors that `tensors` finds again.

        Raises:
            StoreError: it can't be written.
        """
        tensors = {f"mask/{name}": bits for name, bits in mask.pack().items()} | dict(more or {})
        for name, weights in record.snapshots.items():
            tensors |= _pack(weights, name, mask)
        result = {
            **facts,
            "remaining": mask.counts(),
            "diverged_at": record.diverged_at,
            "seconds": record.seconds,
            "train": record.train,
            "snapshots": list(record.snapshots),
            "history": record.history,
        }
        self.save(item, result, tensors, {"mask": mask.shapes(), "snapshots": list(record.snapshots)})

    def _emptied_part(self, item: Item) -> Path:
        """Return the folder of a work item under way, with nothing in it but a checkpoint."""
        part = self.part(item.id)
        with writing(part):
            part.mkdir(parents=True, exist_ok=True)
            for leftover in part.iterdir():
                if leftover.is_dir() and leftover.name != CHECKPOINTS:
                    shutil.rmtree(leftover)
                elif not leftover.is_dir() and leftover.name != CHECKPOINT:
                    leftover.unlink()
        return part

    def part(self, work_id: str) -> Path:
        """Return the folder of a work item under way."""
        return self.leases.part(work_id)

    def save_checkpoint(
        self, work_id: str, engine: Mapping[str, Any], tensors: Mapping[str, Tensor], record: Record
    ) -> None:
        """Write what is needed to continue from here; `engine` is compared when it is loaded.

        Nothing is written of an item that another process has taken over.
        """
        if not self.leases.may_write(work_id):
            return
        part = self.part(work_id)
        with writing(part):
            part.mkdir(parents=True, exist_ok=True)
        everything = dict(tensors)
        for name, weights in record.snapshots.items():
            everything |= {f"snapshot/{name}/{key}": value for key, value in weights.items()}
        about = {"engine": dict(engine), "record": {**asdict(record), "snapshots": list(record.snapshots)}}
        write_whole(part / CHECKPOINT, pack_tensors(everything, about))

    def load_checkpoint(self, work_id: str) -> tuple[dict[str, Any], dict[str, Tensor], Record] | None:
        """Return (engine, tensors, record) of the last checkpoint, or None if there is none that is whole."""
        path = self.part(work_id) / CHECKPOINT
        if not path.exists():
            return None
        try:
            tensors, about = unpack_tensors(path)
        except Damaged:
            return None  # it is only a shortcut: the work item starts again
        try:
            record = about["record"]
            snapshots = {name: under(f"snapshot/{name}", tensors) for name in record.pop("snapshots")}
            record["train"] = tuple(record["train"]) if record["train"] else None
            tensors = {name: value for name, value in tensors.items() if not name.startswith("snapshot/")}
            return about["engine"], tensors, Record(**record, snapshots=snapshots)
        except (KeyError, TypeError, ValueError):
            return None  # of another version of tombola

    def checkpoint_made_with(self, work_id: str) -> dict[str, Any] | None:
        """Return what the last checkpoint was made with: engine, threads, device, PyTorch; None for none."""
        return self._about_checkpoint(work_id).get("engine")

    def _about_checkpoint(self, work_id: str) -> dict[str, Any]:
        """Return what `save_checkpoint` was given as `engine`; empty without a checkpoint that is whole."""
        path = self.part(work_id) / CHECKPOINT
        try:
            about = unpack_tensors(path, "no tensor of this name/")[1]["engine"] if path.exists() else {}
        except (Damaged, KeyError, TypeError):
            return {}
        return about if isinstance(about, dict) else {}

    def checkpoint_iteration(self, work_id: str) -> int | None:
        """Return the iteration of a work item's last checkpoint; None where it has none."""
        about = self._about_checkpoint(work_id)
        iteration = about.get("iteration")
        return iteration if isinstance(iteration, int) else None

    @contextmanager
    def claim(self, work_id: str, expired: str | None = None) -> Iterator[bool]:
        """Hold a work item, so that no other process trains it; yields False where another one holds it.

        Args:
            work_id: its identity.
            expired: mark of a lease that another observer has given up: see `Leases.expired`.
        """
        if not self.leases.claim(work_id, expired):
            yield False
            return
        try:
            yield True
        finally:
            self.leases.let_go(work_id, finished=not self.part(work_id).exists())

    def is_claimed(self, work_id: str) -> bool:
        """Return whether some process holds the work item now, as far as can be seen; nothing is written."""
        return self.leases.is_held(work_id)

    @contextmanager
    def running_file(self) -> Iterator[Path]:
        """Yield a new file that exists, and locked, while this process runs a study; workers stop when it goes.

        Raises:
            StoreError: it can't be written.
        """
        path = self.jobs / f".running.{_here()}.{uuid.uuid4().hex}"  # process numbers repeat in containers
        with locked_file(path):
            yield path

    def clean(self) -> None:
        """Delete what killed processes left, and what no living one can still need: nothing of any result."""
        for left in self.jobs.glob(".running.*"):
            if _is_of_here(left) and not is_locked(left):
                remove(left)
        self._look()
        for left in self.jobs.glob(".*.part"):  # of a worker that woke up after another had done its work
            if left.name[1:].partition(".")[0] in self._found and not {CHECKPOINT, CHECKPOINTS} & _names(left):
                self._remove_unless_claimed(left)
        for left in (*self.jobs.glob(".*.old"), *self.jobs.glob(".*.adopted")):
            self._remove_unless_claimed(left)
        for folder in (self.root, self.jobs):
            clean_leftovers(folder)

    def _remove_unless_claimed(self, left: Path) -> None:
        with self.claim(left.name[1:].partition(".")[0]) as mine:
            if mine:
                remove(left)

    def _move_into_place(self, aside: Path, item: Item) -> None:
        """Put a whole folder where the result belongs, instead of a damaged or poorer one.

        A worker that has lost the item to another one puts nothing there. Even if it finds out too late, no good result
        is replaced: a rename does not replace a folder with content, and what was to be replaced is looked at again.
        """
        old = self.folder(item.id)
        judged = None if old is None else old.lstat().st_ino
        if not self.leases.may_write(item.id):
            remove(aside)
            return
        trash = self.jobs / f".{item.id}.{uuid.uuid4().hex[:8]}.old"
        if old is not None and old.is_dir():
            os.replace(old, trash)  # no moment longer than a rename without a result
            if trash.lstat().st_ino != judged:  # another process has just stored it
                os.replace(trash, old)
                remove(aside)
                return
        elif old is not None:
            old.unlink()
        try:
            os.replace(aside, self.jobs / item.folder)
            self._found[item.id] = self.jobs / item.folder
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            remove(aside)  # another process was first
        if trash.exists():
            shutil.rmtree(trash)

    def _whole(self, work_id: str) -> Path:
        """Return the folder of a finished work item, verified; Damaged where it is missing, or not what was written."""
        folder = self.folder(work_id)
        if folder is None:
            raise Damaged(f"{self.jobs} has no result of run {work_id}")
        self._verify(folder)
        return folder

    def _verify(self, folder: Path) -> None:
        """Check a folder's checksums, unless its files are as they were when that was last done."""
        try:
            stats = [(entry.name, entry.stat()) for entry in sorted(os.scandir(folder), key=lambda e: e.name)]
        except OSError as error:
            raise Damaged(f"{folder} can't be read ({error})") from error
        files = [(name, stat.st_mtime_ns, stat.st_size) for name, stat in stats]
        if self._checked.get(folder) != files:
            self._check(folder)
            self._checked[folder] = files

    def _check(self, folder: Path) -> None:
        noted = check_sums(folder)
        if RESULT not in noted:
            raise Damaged(f"{folder / SUMS} does not list {RESULT}")
        facts = self._read(folder)
        kind = KINDS.get(facts["kind"])
        if missing := [name for name in (kind.files if kind else ()) if name not in noted]:
            raise Damaged(f"{folder / SUMS} does not list {missing[0]}")

    def _read(self, folder: Path) -> dict[str, Any]:
        """Return what a folder's `result.json` says; every result is read here.

        A result must be the one of the identity that its folder is named by: neither a renamed nor an edited folder may
        pass for another piece of work.

        Raises:
            Damaged: it can't be read, or belongs to another identity.
        """
        try:
            facts = upgraded(json.loads(read_text(folder / RESULT, MAX_JSON)))
            identity, settings = facts["id"], facts["settings"]
        except (InputError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Damaged(f"{folder / RESULT} can't be read ({error})") from error
        named = folder.name.rpartition("-")[2]
        if identity != named or (settings is not None and identity_of(settings) != identity):
            raise Damaged(f"{folder} contains the result of another work item ({shown(identity)}); delete the folder")
        try:
            check_facts(facts)
        except (ValueError, TypeError, RecursionError) as error:
            raise Damaged(f"{folder / RESULT} is not what tombola writes ({error}); delete the folder") from error
        return facts


def _change_of(folder: Path) -> int | None:
    """Return when a folder was last changed, in ns; None where the system does not open folders.

    Opening it lets a file server's client ask again.
    """
    try:
        file = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        return os.fstat(file).st_mtime_ns
    finally:
        os.close(file)


def _here() -> str:
    """Return what names of this machine's files contain."""
    return hashlib.sha256(machine().encode()).hexdigest()[:12]


def _is_of_here(running: Path) -> bool:
    """Return whether a process of this machine made a file of `Store.running_file`: locks tell nothing of others'."""
    place, dot, _ = running.name.removeprefix(".running.").partition(".")
    return not dot or place == _here()


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def _observed(facts: Mapping[str, Any]) -> Observations:
    # Results from before test_every existed have a test value at each evaluation.
    return Observations.model_validate({"test_every": 1, **facts["observed"]})


def _digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return a digest of a mask and of final weights; snapshots may be more or fewer."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        if name.startswith(("mask/", "final/")):
            found.update(name.encode())
            found.update(tensors[name].detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _mask(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Mask:
    shapes = {name: tuple(shape) for name, shape in about["mask"].items()}
    return Mask.unpack({name: tensors[f"mask/{name}"] for name in shapes}, shapes)


def _pack(weights: Weights, snapshot: str, mask: Mask) -> dict[str, Tensor]:
    """Return a snapshot's tensors for a file: of masked layers the live weights only.

    A layer in which others live too is whole: of a work item that finds its mask, what it started from and passed
    through.
    """

    def live(name: str, tensor: Tensor) -> bool:
        return name in mask and not bool(tensor[~mask[name]].any())

    return {
        f"{snapshot}/{name}": tensor[mask[name]] if live(name, tensor) else tensor for name, tensor in weights.items()
    }


def _unpack(tensors: Mapping[str, Tensor], snapshot: str, mask: Mask) -> Weights:
    weights = under(snapshot, tensors)
    for name, keep in mask.items():
        if name in weights and weights[name].shape != keep.shape:
            whole = weights[name].new_zeros(keep.shape)
            whole[keep] = weights[name]
            weights[name] = whole
    return weights
