"""The plan that a results folder was last run with, kept beside its results.

With it the tables can be read where the user's own network, criterion or data file is no longer at hand, or has been
edited since: what was run is known, and need not be computed again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tombola.data import Description
from tombola.errors import InputError, StoreError
from tombola.formatting import counted
from tombola.networks import STORED, Coverage
from tombola.registry import NotWhileReading, reading
from tombola.running.files import Damaged, read_json_checked, write_json_checked, write_whole
from tombola.running.store import Store
from tombola.studies.connectivity import Pair
from tombola.studies.loading import STUDY_FILE, dump_study
from tombola.studies.plan import Plan, Row, make_plan
from tombola.studies.study import Study
from tombola.tasks import CLASSIFICATION, Measures
from tombola.work import Item, Observations, OpaqueSpec, opaque_item_from_json

PLAN_FILE = "plan.json"
FIRST_EDITION = b'{"study":'  # what such a file begins with
_IDENTITY = re.compile("[0-9a-f]{8,64}")
_DATA, _ROWS, _PAIRS = TypeAdapter(Description), TypeAdapter(tuple[Row, ...]), TypeAdapter(tuple[Pair, ...])
_COVERAGE, _MEASURES = TypeAdapter(Coverage), TypeAdapter(Measures)


def keep_plan(root: Path, plan: Plan) -> None:
    """Write `study.yaml` and `plan.json`.

    Raises:
        StoreError: they can't be written.
    """
    write_whole(root / STUDY_FILE, dump_study(plan.study).encode())
    content = {
        "study": plan.study.model_dump(mode="json"),
        "data": _DATA.dump_python(plan.data, mode="json"),
        "coverage": _COVERAGE.dump_python(plan.coverage, mode="json"),
        "remaining": plan.remaining,
        "work": [item.as_json() | {"needs": item.needs} for item in plan.work.values()],
        "rows": _ROWS.dump_python(plan.rows, mode="json"),
        "pairs": _PAIRS.dump_python(plan.pairs, mode="json"),
        "measures": _MEASURES.dump_python(plan.measures, mode="json"),
    }
    write_json_checked(root / PLAN_FILE, content)


def kept_plan(root: Path) -> Plan | None:
    """Return the plan that a results folder was last run with; None for none.

    Raises:
        Damaged: the file is not what was written.
    """
    path = root / PLAN_FILE
    if not path.exists():
        return None
    try:
        if is_of_first_edition(path):
            return _complete(plan_of_first_edition(json.loads(path.read_text("utf-8"))))
        content = read_json_checked(path)
        items = [opaque_item_from_json(values) for values in content["work"]]
        _check_identities(items)
        plan = Plan(
            study=Study.model_validate(content["study"], context=STORED),
            data=_DATA.validate_python(content["data"]),
            coverage=_COVERAGE.validate_python(content["coverage"]),
            remaining=tuple(content["remaining"]),
            work={item.id: item for item in items},
            rows=_ROWS.validate_python(content["rows"]),
            pairs=_PAIRS.validate_python(content["pairs"]),
            measures=_MEASURES.validate_python(content["measures"]),
        )
        return _complete(plan)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, StoreError) as error:
        if isinstance(error, Damaged):
            raise
        fault = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise Damaged(
            f"{root / PLAN_FILE} can't be read by this version of tombola ({fault}); run the study again"
        ) from error


def plan_to_read(folder: Path, study: Study, root: Path | None = None) -> Plan:
    """Return the kept plan of a results folder; planned again where it is lost or of another study.

    Args:
        folder: the results folder.
        study: what its study file says now.
        root: folder of data sets.

    Raises:
        InputError: planning would import what the study names, or the study can't be planned.
    """
    why = f"{folder / PLAN_FILE} does not exist"
    try:
        plan = kept_plan(folder)
    except Damaged as error:
        plan, why = None, str(error)
    if plan is not None:
        if plan.study == study:
            return plan
        why = f"{folder / STUDY_FILE} was edited after its last run"
    try:
        with reading(str(folder)):
            return make_plan(study, root)
    except NotWhileReading as error:
        raise NotWhileReading(
            f"{why}; planning again would import {error.named}, and reading a folder runs no code: "
            f"run `tombola run {folder}`, but only if you trust the author of the study"
        ) from error


def _complete(plan: Plan) -> Plan:
    """Return a plan that has all the work that it names.

    Raises:
        ValueError: the plan was not written by tombola.
    """
    named = {row.job for row in plan.rows} | {pair.line for pair in plan.pairs}
    named |= {need for item in plan.work.values() for need in item.needs}
    if missing := sorted(named - plan.work.keys()):
        raise ValueError(f"it names the work {missing[0]!r}, but does not contain it")
    return plan


def _check_identities(items: Sequence[Item]) -> None:
    """Refuse identities that are none, or not those of their work: they name files, and say what a result is of.

    Raises:
        ValueError: the plan was not written by tombola.
    """
    for item in items:
        opaque = isinstance(item.spec, OpaqueSpec)
        if not _IDENTITY.fullmatch(item.id) or not (opaque or item.id == item.spec.id):
            raise ValueError(f"{item.id!r} is not the identity of {item.label!r}")


def is_of_first_edition(path: Path) -> bool:
    """Return whether version 0.1 wrote a kept plan: it had no checksum."""
    with path.open("rb") as file:
        return file.read(len(FIRST_EDITION)) == FIRST_EDITION


def plan_of_first_edition(content: dict[str, Any]) -> Plan:
    """Return the plan that version 0.1 kept, for reading its tables: its results are named by identities of then."""
    study = Study.model_validate(content["study"], context=STORED)
    pairs = _PAIRS.validate_python(content.get("pairs", ()))
    rows = _ROWS.validate_python(content["rows"])
    items, data = {}, _DATA.validate_python(content["data"])
    for kind, works in (("run", content["jobs"]), ("interpolation", content.get("lines", {}))):
        for identity, job in works.items():
            observe = Observations(snapshots=job.get("keep", ()), masks=job.get("watch", ()))
            spec = OpaqueSpec(of_kind=kind, content=job, before=_needs_of_first_edition(job))
            items[identity] = Item(spec=spec, label=job.get("label", ""), observe=observe, id=identity)
    _check_identities(list(items.values()))
    return Plan(
        study=study,
        data=data,
        coverage=_COVERAGE.validate_python(content["anatomy"]),
        remaining=tuple(content["remaining"]),
        work=items,
        rows=rows,
        pairs=pairs,
        measures=CLASSIFICATION.measures(data),
    )


def _needs_of_first_edition(job: dict[str, Any]) -> tuple[str, ...]:
    prune = (job.get("mask") or {}).get("prune", {})
    limit = prune.get("limit") or {}
    found = [job.get("one"), job.get("other"), job.get("origin", {}).get("job"), prune.get("job"), limit.get("dense")]
    return tuple(dict.fromkeys(each for each in found if each))


def require_folder_of_loop(store: Store, study: Study) -> None:
    """Check that a results folder is new, or that the same loop made it: its tables would replace those of another.

    A loop is known by its name and its model. Whatever else changes, `what_changed` tells.

    Raises:
        InputError: the folder holds another loop, or another study.
    """
    try:
        before = kept_plan(store.root)
    except Damaged:
        return
    if before is None or _loop_of(before.study) == _loop_of(study):
        return
    raise InputError(
        f"{store.root} holds {_loop_of(before.study)}, and this is {_loop_of(study)}; set out to another folder"
    )


def _loop_of(study: Study) -> str:
    kind = "the loop" if study.trainer is not None and study.trainer.is_loop else "the study"
    return f"{kind} {study.name!r} of {study.network.name}"


def what_changed(store: Store, plan: Plan) -> str:
    """Return in one line what is new in `plan` against the one that the folder was last run with; "" for nothing."""
    try:
        before = kept_plan(store.root)
    except Damaged:
        return ""
    if before is None:
        return ""
    if fields := _different(before.study, plan.study):
        return (
            f"settings have changed since the last run of {store.root} ({', '.join(fields)}): a run writes "
            "study.yaml and the tables with the new settings; results of the earlier settings stay in the folder jobs/"
        )
    gone = (before.work.keys() - plan.work.keys()) & store.finished()
    if not gone:
        return ""
    return (
        f"{_cause(before, plan)} has changed since the last run of {store.root}; the folder jobs/ keeps "
        f"{counted(len(gone), 'result')} of the earlier version, unused"
    )


def _different(before: Study, after: Study) -> list[str]:
    """Return the names of the fields that differ, those of a section one by one.

    Where a data file lies does not count: it is known by its content. Nor does how many processes read.
    """
    old, new = before.model_dump(), after.model_dump()
    found: list[str] = []
    for name in new:
        if isinstance(old[name], dict) and isinstance(new[name], dict):
            found += [f"{name}.{field}" for field in new[name] if old[name].get(field) != new[name][field]]
        elif old[name] != new[name]:
            found.append(name)
    return [name for name in found if name not in ("data.path", "data.stream_workers")]


def _cause(before: Plan, after: Plan) -> str:
    """Return why two plans of equal settings hold different work."""
    if any(isinstance(item.spec, OpaqueSpec) for item in before.work.values()):
        return "tombola's own numerics (version 0.1 wrote this folder)"
    old, new = (
        {name: code for item in plan.work.values() for name, code in item.spec.codes().items()}
        for plan in (before, after)
    )
    study = after.study
    readable = {
        "network": f"network {study.network.name!r} (its code or its shapes)",
        "data": f"the data of {study.data.path or study.data.source}",
        "task": f"the code of task {study.task.name!r}",
    }
    changed = [readable.get(name, name) for name in new if name in old and old[name] != new[name]]
    return " and ".join(changed) or "the code of an arm, or tombola itself,"
