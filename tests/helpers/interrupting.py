"""Runs jobs that are interrupted again and again, and go on from their checkpoints."""

from dataclasses import replace

from small_studies import OPTIONS

from tombola.running.execute import execute
from tombola.running.heartbeat import Heartbeat
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

    monkeypatch.setattr(Heartbeat, "__call__", stop)
    plan, store = make_plan(study), Store(folder)
    store.create()
    stopped = 0
    for item in plan.work.values():
        while execute([item.as_json()], str(folder), replace(OPTIONS, checkpoint_every=0.0)) == ["stopped"]:
            stopped += 1
            assert store.load_checkpoint(item.id) is not None
            assert stopped < 500
    assert stopped > len(plan.work)
    return plan, store
