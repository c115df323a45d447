"""Reading results of version 0.1: tables stay readable, but no new run uses them."""

from __future__ import annotations

from typing import Any


def upgraded(facts: dict[str, Any]) -> dict[str, Any]:
    """Return what a `result.json` says in the words of today; one of today is returned as it is.

    A result of version 0.1 has no `settings`, so its identity can't be computed again.
    """
    if "settings" in facts:
        return facts
    if "line" in facts:
        return {**facts, "kind": "interpolation", "settings": None, "spec": facts["line"], "observed": {}}
    job = facts["job"]
    kind = "supermask" if job.get("popup") else "run"
    observed = {"snapshots": job.get("keep", []), "masks": job.get("watch", [])}
    return {**facts, "kind": kind, "settings": None, "spec": job, "observed": observed}
