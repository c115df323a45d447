"""Runs jobs that are interrupted again and again, and go on from their checkpoints."""

from dataclasses import replace

from small_studies import MEANS

from tombola.running import execute
from tombola.running.store import Store
from tombola.studies import make_plan
from tombola.training.loop import Interrupted


def run_interrupted(study, folder, monkeypatch, every=3):
    """Run all jobs of a study, each interrupted at every `every`th look at the wish to stop; return plan and store."""
    looks = 0

    def stop(_watch):
        nonlocal looks
        looks += 1
        if looks % every == 0:
            raise Interrupted

    monkeypatch.setattr(execute.Watch, "__call__", stop)
    plan, store = make_plan(study), Store(folder)
    store.create()
    stopped = 0
    for job in plan.jobs.values():
        while execute.run_jobs([job.model_dump_json()], str(folder), replace(MEANS, checkpoint_every=0.0)) == [
            "stopped"
        ]:
            stopped += 1
            assert store.load_checkpoint(job.id) is not None
            assert stopped < 500
    assert stopped > len(plan.jobs)
    return plan, store
