"""Running jobs: what must not happen between a plan and its results."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_studies import OPTIONS, find, run_study, small_study

import tombola
from tombola.errors import InputError
from tombola.formatting import counted
from tombola.running import training
from tombola.running.execute import execute
from tombola.running.options import RunOptions
from tombola.running.results import Results
from tombola.running.store import Store
from tombola.studies import make_plan
from tombola.training.engines.stacked import StackedEngine
from tombola.training.loop import COLUMNS, Record


@pytest.mark.parametrize("engine", ["auto", "dense", "sparse", "stacked"])
def test_a_tied_weight_is_sparse_under_each_of_its_names(tmp_path, engine, monkeypatch):
    """A state_dict lists it twice; masked under one name alone, it would train dense and be called sparse."""
    monkeypatch.setattr("small_studies.OPTIONS", RunOptions(engine=engine, stack=4 if engine == "stacked" else 1))
    plan, store = run_study(tmp_path, network="small_nets:TiedWithSwitch", pruning__rate=0.6)
    result = store.load(find(plan, "ticket", 2).id)
    keep = result.mask["a.weight"]
    assert keep.float().mean() < 0.2
    for moment in ("start", "best", "final"):
        for name in ("a.weight", "b.weight"):
            assert bool((result.snapshots[moment][name][~keep] == 0.0).all())
    ticket = Results(plan, store).ticket(trial=0, level=2)
    assert bool((ticket.build(trained=True, trust=True).b.weight[~keep] == 0.0).all())


@pytest.mark.parametrize("embeddings", [False, True])
def test_attention_bare_matrices_and_embeddings_on_request_are_pruned(tmp_path, embeddings):
    network = {"name": "small_nets:Tokens", "embeddings": embeddings}
    plan, store = run_study(tmp_path, network=network, pruning__rate=0.5, pruning__output_rate=0.5)
    sizes = {"attention.in_proj_weight": 192, "attention.out_proj.weight": 64, "matrix": 80}
    if embeddings:
        sizes = {"table.weight": 17 * 8} | sizes
    assert plan.coverage.sizes() == sizes
    for level in (0, 1, 2):
        result = store.load(find(plan, "ticket", level).id)
        assert result.mask.counts() == {name: size // 2**level for name, size in sizes.items()}
        for name, keep in result.mask.items():
            assert bool((result.snapshots["final"][name][~keep] == 0).all())
            assert bool((result.snapshots["final"][name][keep] != 0).any())


def test_a_dense_run_that_diverges_before_the_rewind_point_ends_the_study(tmp_path):
    """There is no snapshot to rewind to; waiting for it would train the dense network for ever."""
    study = small_study(rewind=10, training__lr=1e30, training__iterations=20)
    results = tombola.run(study, tmp_path, workers=0, quiet=True, figures=False)
    assert list(results.frame().status) == ["diverged"]
    assert results.missing() == 0


def test_an_archive_that_changes_in_a_session_is_read_again(tmp_path, monkeypatch):
    """As in a notebook: the same path, other data, the same process."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 3, 400)
    noise = generator.normal(size=(400, 6)).astype(np.float32)
    accuracies = []
    for inputs in (noise, noise + 4 * np.eye(3, 6, dtype=np.float32)[targets]):
        np.savez("my.npz", x_train=inputs, y_train=targets, x_test=inputs, y_test=targets)
        study = tombola.Study.load(
            "demo",
            name="mine",
            data={"source": "npz", "path": "my.npz", "validation": 100},
            training={"iterations": 60, "lr": 0.01},
            pruning={"rounds": 0},
            trials=1,
            network={"name": "lenet-300-100", "arguments": {"hidden": [8]}},
        )
        results = tombola.run(study, "out", workers=0, quiet=True, figures=False)
        accuracies.append(results.frame().final_test_accuracy.iloc[0])
    assert accuracies[0] < 0.6
    assert accuracies[1] > 0.95


def test_a_network_that_is_edited_in_a_session_is_refused(tmp_path, monkeypatch):
    """What runs is what was imported, whatever its file says by now; its hash would name the other."""
    (tmp_path / "edited_net.py").write_text(
        "from small_nets import mlp\ndef make():\n    return mlp((64,), 10, (9,))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    study = small_study(network="edited_net:make")
    make_plan(study)
    (tmp_path / "edited_net.py").write_text(
        "from small_nets import mlp\ndef make():\n    return mlp((64,), 10, (7,))\n"
    )
    with pytest.raises(InputError, match="has changed since its import; restart Python"):
        make_plan(study)


def test_random_masks_of_different_levels_and_repeats_are_independent(tmp_path):
    """Nested ones would bend a whole curve by one unlucky draw."""
    plan, store = run_study(
        tmp_path, arms=[{"random-mask": {"per_trial": 2}}], pruning__rate=0.5, network="lenet-300-100"
    )
    masks = [
        store.load(find(plan, "random-mask", level, repeat=r).id).mask["fc1.weight"]
        for level, r in ((1, 0), (2, 0), (1, 1))
    ]
    for other in masks[1:]:
        both = (masks[0] & other).sum().item()
        chance = masks[0].sum().item() * other.float().mean().item()
        assert both == pytest.approx(chance, abs=5 * math.sqrt(chance))


def test_a_checkpoint_of_another_mask_is_not_taken_up(tmp_path):
    """Its parent may have been repeated, with other last bits: weights at newly pruned places would live on."""
    plan, store = run_study(tmp_path)
    job = find(plan, "ticket", 1)
    result = store.load(job.id)
    facts = {"name": "dense", "threads": 1, "device": "cpu", "torch": torch.__version__}
    weights = {f"weights/{name}": tensor + 1 for name, tensor in result.snapshots["final"].items()}
    record = Record(history={column: [0.0] for column in COLUMNS}, snapshots={"start": {}})
    for digest, taken in ((training._digest(result.mask), True), ("another", False)):
        about = {"engine": facts, "mask": digest, "iteration": 5}
        store.save_checkpoint(job.id, about, weights, record)
        replica = training._begin_run(job, store, OPTIONS)
        assert (replica.start.iteration == 5) is taken


def test_when_memory_runs_out_a_stack_is_halved_and_nothing_of_it_is_kept(tmp_path, monkeypatch):
    alive = []

    class Greedy(StackedEngine):
        def __init__(self, build, starts, *rest):
            super().__init__(build, starts, *rest)
            alive.append(self.replicas)
            if sum(alive) > 2:
                raise torch.OutOfMemoryError("made up")

        def __del__(self):
            alive.remove(self.replicas)

    monkeypatch.setattr(training, "choose_engine", lambda *_: Greedy)
    study = small_study(trials=4, pruning__rounds=0)
    plan, store = make_plan(study), Store(tmp_path)
    store.create()
    items = [item.as_json() for item in plan.work.values()]
    outcomes = execute(items, str(tmp_path), RunOptions(engine="stacked", stack=4))
    assert outcomes == ["done"] * 4


def test_a_criterion_that_gives_nonsense_is_the_users_mistake(tmp_path, monkeypatch):
    (tmp_path / "nonsense.py").write_text(
        "def score(snapshots):\n    return {n: w / 0 * 0 for n, w in snapshots.final.items()}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"criterion 'nonsense:score': scores of .* contain NaN"):
        run_study(tmp_path / "out", pruning__criterion="nonsense:score")


def test_a_result_says_what_machine_it_was_made_on(tmp_path):
    import os
    import platform

    plan, store = run_study(tmp_path, pruning__rounds=0)
    said = store.facts(find(plan, "ticket", 0).id)["versions"]["machine"]
    assert platform.machine() in said
    assert counted(os.cpu_count(), "core") in said


def test_rounding_to_tf32_is_for_the_time_of_the_work_and_results_say_so(tmp_path, monkeypatch):
    seen = []
    train = training._train_engine
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    monkeypatch.setattr(training, "_train_engine", lambda *all: seen.append(matmul.allow_tf32) or train(*all))
    plan, store = make_plan(small_study(pruning__rounds=0)), Store(tmp_path)
    store.create()
    (item,) = plan.work.values()
    assert execute([item.as_json()], str(tmp_path), RunOptions(engine="dense", tf32=True)) == ["done"]
    assert (seen, store.facts(item.id)["engine"]["tf32"]) == ([True], True)
    assert (matmul.allow_tf32, cudnn.allow_tf32) == before
