"""The plan that a results folder was last run with, kept beside its results.

With it the tables can be read where the user's own network, criterion or data file is no longer at hand, or has been
edited since: what was run is known, and need not be worked out again.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from tombola.networks import STORED
from tombola.running.files import write_whole
from tombola.running.store import Store
from tombola.studies.loading import STUDY_FILE, dump_study
from tombola.studies.plan import Plan
from tombola.studies.study import Study

PLAN_FILE = "plan.json"
_PLAN = TypeAdapter(Plan)


def keep_plan(root: Path, plan: Plan) -> None:
    """Write `study.yaml` and `plan.json`.

    Raises:
        StoreError: they can't be written.
    """
    write_whole(root / STUDY_FILE, dump_study(plan.study).encode())
    write_whole(root / PLAN_FILE, _PLAN.dump_json(plan, exclude_defaults=True))


def kept_plan(root: Path) -> Plan | None:
    """Return the plan that a results folder was last run with; None where there is none that can be read."""
    try:
        return _PLAN.validate_json((root / PLAN_FILE).read_bytes(), context=STORED)
    except (OSError, ValidationError):  # never run, or by another version of tombola
        return None


def what_changed(store: Store, plan: Plan) -> str:
    """Return in one line what is new in `plan` against the one that the folder was last run with; "" for nothing."""
    before = kept_plan(store.root)
    if before is None:
        return ""
    if fields := _different(before.study, plan.study):
        return (
            f"settings have changed since {store.root} was last run ({', '.join(fields)}): its study.yaml and tables "
            "now follow the new ones; results of the earlier ones stay in its jobs folder"
        )
    gone = (before.work.keys() - plan.work.keys()) & store.finished()
    if not gone:
        return ""
    return (
        f"{_cause(before, plan)} has changed since {store.root} was last run; finished jobs of the earlier version, "
        f"which count no longer: {len(gone)}"
    )


def _different(before: Study, after: Study) -> list[str]:
    """Return the names of the fields that differ, those of a section one by one.

    Where a data file lies does not count: it is known by its content.
    """
    old, new = before.model_dump(), after.model_dump()
    found: list[str] = []
    for name in new:
        if isinstance(old[name], dict) and isinstance(new[name], dict):
            found += [f"{name}.{field}" for field in new[name] if old[name].get(field) != new[name][field]]
        elif old[name] != new[name]:
            found.append(name)
    return [name for name in found if name != "data.path"]


def _cause(before: Plan, after: Plan) -> str:
    """Return why two plans of equal settings have other jobs."""
    network, path = f"the code of network {after.study.network.name!r}", f"the data file {after.study.data.path}"

    def codes(plan: Plan) -> dict[str, str]:
        """What may change -> its fingerprint; methods at initialisation are criteria too, under their own names."""
        found: dict[str, str] = {}
        for job in plan.jobs.values():
            found |= {network: job.network_code, path: job.data_code}
            if job.mask:
                found[f"the code of criterion {job.mask.prune.criterion!r}"] = job.mask.prune.code
        return found

    old, new = codes(before), codes(after)
    changed = [name for name in new if name in old and old[name] != new[name]]
    return " and ".join(changed) or "the code of an arm, or tombola itself,"
