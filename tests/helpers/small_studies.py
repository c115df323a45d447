"""A study of a few seconds on the embedded digits, and its work executed one after the other in this process."""

from tombola.running.execute import execute
from tombola.running.options import RunOptions
from tombola.running.store import Store
from tombola.studies import load_study, make_plan

OPTIONS = RunOptions(engine="dense")


def small_study(**overrides):
    """Return the demo, cut down; `overrides` are fields, dotted with two underscores."""
    settings = {
        "trials": 1,
        "network": "small_nets:mlp",
        "training": {"iterations": 12, "evaluate_every": 5, "lr": 0.01},
        "pruning": {"rounds": 2},
        "arms": ["ticket"],
    }
    settings |= {field.replace("__", "."): value for field, value in overrides.items()}
    return load_study("demo", settings)


def run_one(item, folder):
    """Execute one item; return what became of it."""
    (outcome,) = execute([item.as_json()], str(folder), OPTIONS)
    return outcome


def run_study(folder, **overrides):
    """Execute all work of such a study; return its plan and the store."""
    plan, store = make_plan(small_study(**overrides)), Store(folder)
    store.create()
    for item in plan.work.values():
        assert run_one(item, folder) in ("done", "diverged")
    return plan, store


def find(plan, arm, level, trial=0, repeat=0):
    """Return the item of a row."""
    (row,) = [r for r in plan.rows if (r.arm, r.level, r.trial, r.repeat) == (arm, level, trial, repeat)]
    return plan.work[row.job]


def search_of(plan, item):
    """Return the spec of the search that finds an item's mask."""
    return plan.work[item.spec.mask.search].spec


def run_with_needs(plan, item, folder):
    """Execute an item and before it all that it needs; return what became of it."""
    for need in item.needs:
        run_with_needs(plan, plan.work[need], folder)
    return run_one(item, folder)


def interpolations(plan):
    """Return the interpolations of a plan."""
    return [item for item in plan.work.values() if item.kind == "interpolation"]
