"""A study of a few seconds on the embedded digits, and its jobs run one after the other in this process."""

from tombola.running.execute import Means, run_jobs
from tombola.running.store import Store
from tombola.studies import load_study, make_plan

MEANS = Means(engine="dense")


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


def run_one(job, folder):
    """Run one job; return what became of it."""
    (outcome,) = run_jobs([job.model_dump_json()], str(folder), MEANS)
    return outcome


def run_study(folder, **overrides):
    """Run all jobs of such a study; return its plan and the store."""
    plan, store = make_plan(small_study(**overrides)), Store(folder)
    store.create()
    for job in plan.jobs.values():
        assert run_one(job, folder) in ("done", "diverged")
    return plan, store


def find(plan, arm, level, trial=0, repeat=0):
    """Return the job of a row."""
    (row,) = [r for r in plan.rows if (r.arm, r.level, r.trial, r.repeat) == (arm, level, trial, repeat)]
    return plan.jobs[row.job]
