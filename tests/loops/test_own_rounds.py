"""`tombola.rounds`: order, storage, masks, resuming, and what it refuses."""

import argparse
import itertools
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import own_trainer
import pytest
import small_nets
import torch
from torch import nn
from torch.nn import functional

import tombola
from tombola.data import DataSettings, load, split
from tombola.errors import InputError
from tombola.running.store import Store
from tombola.seeds import Seeds
from tombola.training.order import Order

QUIET = {"figures": False, "quiet": True}
SMALL = {"rounds": 2, "trials": 1, **QUIET}


def body(run, **options):
    own_trainer.train(run.model, run.seed, **options)
    run.report(20, accuracy=own_trainer.accuracy(run.model))


def loop(out, make=own_trainer.make, **options):
    """Run a whole loop; return what came, in order."""
    seen = []
    for run in tombola.rounds(make, out=out, **{**SMALL, **options}):
        seen.append((run.arm, run.level))
        body(run)
    return seen


def test_each_run_comes_once_after_those_that_it_needs(tmp_path):
    seen = loop(tmp_path, rate=0.5)
    assert seen[0] == ("dense", 0)
    assert sorted(seen[1:]) == sorted(itertools.product(("ticket", "reinit", "random-mask"), (1, 2)))
    assert seen.index(("ticket", 1)) < seen.index(("reinit", 2))
    assert loop(tmp_path, rate=0.5) == []  # all is stored
    frame = tombola.Results.open(tmp_path).frame()
    assert len(frame) == 9
    assert frame.final_test_accuracy.between(0, 1).all()
    assert set(frame.early_stop_iteration) == {20}
    assert (tmp_path / "results.csv").is_file()
    densities = frame[frame.arm == "ticket"].density.tolist()
    # The output layer's rate is half of the others': 128 and 48 weights.
    assert densities == pytest.approx([1, (64 + 36) / 176, (32 + 27) / 176])
    assert frame[frame.level == 2].sparsity.tolist() == pytest.approx([1 - 59 / 176] * 3)


def test_two_folders_with_trials_of_one_loop_join(tmp_path):
    settings = {"rounds": 1, "arms": ["ticket"]}
    loop(tmp_path / "whole", trials=2, **settings)
    for first in (0, 1):
        assert len(loop(tmp_path / str(first), first_trial=first, **settings)) == 2
    shutil.copytree(tmp_path / "1" / "jobs", tmp_path / "0" / "jobs", dirs_exist_ok=True)
    assert loop(tmp_path / "0", trials=2, **settings) == []
    columns = ["trial", "level", "job", "final_test_accuracy"]
    whole, joined = (tombola.Results.open(tmp_path / folder).frame()[columns] for folder in ("whole", "0"))
    assert whole.equals(joined)
    assert whole.trial.tolist() == [0, 0, 1, 1]


def test_a_changed_setting_of_the_factory_trains_again(tmp_path):
    """A factory reads command-line arguments: those that it reads count, the others do not."""
    args = argparse.Namespace(width=16, device="cpu")

    def make():
        return nn.Sequential(nn.Linear(8, 16), nn.Dropout(1 / args.width), nn.Linear(16, 3))

    def trained():
        for run in tombola.rounds(make, out=tmp_path, arms=["ticket"], **SMALL | {"rounds": 1}):
            body(run)
            yield run.level

    assert list(trained()) == [0, 1]
    args.device = "cuda"
    assert list(trained()) == []
    args.width = 32
    assert list(trained()) == [0, 1]


def test_pruned_weights_stay_zero_and_the_ticket_rewinds_to_the_dense_start(tmp_path):
    loop(tmp_path, arms=["ticket"])
    results = tombola.Results.open(tmp_path)
    dense, ticket = results.ticket(0, 0), results.ticket(0, 2)
    for name, keep in ticket.mask.items():
        assert not ticket.trained[name][~keep].any()
        assert torch.equal(ticket.weights[name], dense.weights[name] * keep)
    module = ticket.build(factory=own_trainer.make)
    assert torch.equal(module[1].weight, ticket.weights["1.weight"])


def test_the_masks_are_those_of_plain_pytorch(tmp_path):
    """The oracle: train by hand, sort magnitudes, multiply by the mask after each step."""
    masks = {}
    for run in tombola.rounds(own_trainer.make, out=tmp_path, arms=["ticket"], rate=0.5, **SMALL):
        if run.dense:
            start, seed = {name: each.clone() for name, each in run.model.state_dict().items()}, run.seed
        assert run.seed == seed
        masks[run.level] = run.mask
        body(run)
    model = own_trainer.make()
    keep = {"1.weight": torch.ones(16, 8, dtype=torch.bool), "3.weight": torch.ones(3, 16, dtype=torch.bool)}

    def prune(step):
        with torch.no_grad():
            for name, mask in keep.items():
                dict(model.named_parameters())[name].mul_(mask)

    for level in range(3):
        assert all(torch.equal(masks[level][name], keep[name]) for name in keep)
        model.load_state_dict(start)
        prune(0)
        own_trainer.train(model, seed, after=prune)
        for name, rate in (("1.weight", 0.5), ("3.weight", 0.25)):
            weight = dict(model.named_parameters())[name].detach().abs()
            alive = weight[keep[name]].sort().values
            threshold = alive[int(rate * len(alive))]
            keep[name] = keep[name] & (weight >= threshold)


def test_masks_equal_those_of_the_built_in_trainer(tmp_path):
    settings = {"source": "digits", "validation": 300}
    recipe = {"iterations": 30, "batch_size": 30, "lr": 0.05, "optimizer": "sgd", "evaluate_every": 30}
    study = tombola.Study.model_validate(
        {
            "name": "built-in",
            "network": {"name": "small_nets:mlp", "arguments": {"input_shape": [1, 8, 8], "classes": 10}},
            "data": settings,
            "training": recipe,
            "pruning": {"rate": 0.5, "rounds": 2},
            "arms": ["ticket"],
            "trials": 1,
        }
    )
    built_in = tombola.run(study, tmp_path / "built-in", workers=0, engine="dense", figures=False, quiet=True)
    splits = split(load(DataSettings(**settings)), 300, Seeds(0, 0))
    order = Order(len(splits.train), 30, Seeds(0, 0))

    def make():
        return small_nets.mlp(input_shape=(1, 8, 8), classes=10)

    found = {}
    for run in tombola.rounds(make, out=tmp_path / "loop", arms=["ticket"], rate=0.5, inputs=(1, 8, 8), **SMALL):
        optimizer = torch.optim.SGD(run.model.parameters(), lr=0.05)
        for batch in order.batches(0, 30):
            part = splits.train.select(batch)
            optimizer.zero_grad()
            functional.cross_entropy(run.model(part.inputs), part.targets).backward()
            optimizer.step()
        run.report(30, accuracy=0.5)
        found[run.level] = {name: each.clone() for name, each in run.model.state_dict().items()}
    for level in range(3):
        theirs, ours = built_in.ticket(0, level), tombola.Results.open(tmp_path / "loop").ticket(0, level)
        assert ours.mask == theirs.mask
        assert all(torch.equal(ours.weights[name], theirs.weights[name]) for name in ours.weights)
        assert all(torch.equal(found[level][name], theirs.trained[name]) for name in found[level])


def test_a_break_leaves_the_rest_for_the_next_call(tmp_path):
    first = []
    for run in tombola.rounds(own_trainer.make, out=tmp_path, arms=["ticket"], **SMALL):
        first.append(run.level)
        if run.level == 1:
            break
        body(run)
    assert first == [0, 1]
    assert loop(tmp_path, arms=["ticket"]) == [("ticket", 1), ("ticket", 2)]


def test_a_loop_continues_from_its_own_checkpoint(tmp_path):
    """Reports and snapshots from before the break count; what was reported after the checkpoint does not."""
    options = {"arms": ["ticket"], "rewind": "step-5", **SMALL}
    for run in tombola.rounds(own_trainer.make, out=tmp_path, **options):
        own_trainer.train(run.model, run.seed, steps=5)
        run.snapshot("step-5")
        own_trainer.train(run.model, run.seed, steps=10, first=5)
        run.report(8, val_loss=0.5)
        torch.save(run.model.state_dict(), run.checkpoint_dir / "model.pt")
        run.report(12, val_loss=0.1)
        break
    for run in tombola.rounds(own_trainer.make, out=tmp_path, **options):
        path = run.checkpoint_dir / "model.pt"
        if run.dense:
            run.model.load_state_dict(torch.load(path, weights_only=True))
            own_trainer.train(run.model, run.seed, first=10)
        else:
            assert not path.exists()
            assert (run.start, run.start_step) == ("step-5", 5)
            own_trainer.train(run.model, run.seed, first=5)
        run.report(10, val_loss=0.4, accuracy=0.25)
        run.report(20, val_loss=0.6, accuracy=own_trainer.accuracy(run.model))
        folder = run.checkpoint_dir
    assert not folder.exists()
    frame = tombola.Results.open(tmp_path).frame()
    dense = frame.iloc[0]
    assert (dense.early_stop_iteration, dense.early_stop_val_loss, dense.early_stop_test_accuracy) == (10, 0.4, 0.25)
    assert Store(tmp_path).facts(dense.job)["history"]["iteration"] == [8, 10, 20]
    assert not list((tmp_path / "jobs").rglob("checkpoints"))


def test_a_killed_script_continues_at_the_run_it_was_in(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, own_trainer, tombola\n"
        "for run in tombola.rounds(own_trainer.make, out=sys.argv[1], rounds=2, trials=1, arms=['ticket'],\n"
        "                          figures=False, quiet=True):\n"
        "    print(run.level, flush=True)\n"
        "    own_trainer.train(run.model, run.seed)\n"
        "    if run.level == int(sys.argv[2]):\n"
        "        os._exit(9)\n"
        "    run.report(20, accuracy=own_trainer.accuracy(run.model))\n"
    )
    helpers = str(Path(own_trainer.__file__).parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([helpers, *sys.path])}

    def start(out, last):
        command = [sys.executable, str(script), str(tmp_path / out), str(last)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert start("killed", 1).returncode == 9
    seen = loop(tmp_path / "killed", arms=["ticket"])
    assert seen == [("ticket", 1), ("ticket", 2)]
    loop(tmp_path / "whole", arms=["ticket"])
    killed, whole = (tombola.Results.open(tmp_path / name).ticket(0, 2) for name in ("killed", "whole"))
    assert killed == whole


def test_global_generators_are_seeded_equally_in_all_arms(tmp_path):
    drawn = set()
    for run in tombola.rounds(own_trainer.make, out=tmp_path, **SMALL):
        drawn.add((torch.rand(()).item(), np.random.rand(), random.random(), run.rng.initial_seed() == run.seed))
        body(run)
    assert len(drawn) == 1
    levels = set()
    for run in tombola.rounds(own_trainer.make, out=tmp_path / "noise", noise="level", arms=["ticket"], **SMALL):
        levels.add(run.seed)
        body(run)
    assert len(levels) == 3


def test_other_settings_train_anew_and_the_same_ones_do_not(tmp_path):
    assert len(loop(tmp_path, arms=["ticket"], settings={"lr": 0.1})) == 3
    assert loop(tmp_path, arms=["ticket"], settings={"lr": 0.1}) == []
    assert len(loop(tmp_path, arms=["ticket"], settings={"lr": 0.2})) == 3


def test_another_loop_or_study_keeps_its_folder(tmp_path):
    loop(tmp_path / "loop", arms=["ticket"])
    files = {path: path.read_bytes() for path in (tmp_path / "loop").rglob("*") if path.is_file()}
    with pytest.raises(
        InputError, match=r"loop holds the loop 'loop' of own_trainer:make, and this is the loop 'b' of"
    ):
        loop(tmp_path / "loop", arms=["ticket"], name="b")
    with pytest.raises(
        InputError, match=r"and this is the loop 'loop' of own_trainer:seeded; set out to another folder"
    ):
        loop(tmp_path / "loop", make=own_trainer.seeded, arms=["ticket"])
    assert files == {path: path.read_bytes() for path in (tmp_path / "loop").rglob("*") if path.is_file()}
    study = tombola.Study.load("demo", trials=1, **{"pruning.rounds": 0, "training.iterations": 2})
    tombola.run(study, tmp_path / "other", workers=0, **QUIET)
    with pytest.raises(InputError, match=r"other holds the study 'demo' of lenet-300-100, and this is the loop 'loop'"):
        loop(tmp_path / "other")


def test_a_model_that_takes_a_seed(tmp_path):
    assert len(loop(tmp_path, own_trainer.seeded, arms=["ticket", "reinit"])) == 5
    frame = tombola.Results.open(tmp_path)
    assert not torch.equal(frame.ticket(0, 1).weights["1.weight"], frame.ticket(0, 1, "reinit").weights["1.weight"])


def test_a_metric_of_which_less_is_better(tmp_path):
    for run in tombola.rounds(own_trainer.make, out=tmp_path, arms=["ticket"], metric="perplexity", **SMALL):
        own_trainer.train(run.model, run.seed)
        for step, validation in enumerate((30.0, 10.0, 20.0)):
            run.report(step, val_perplexity=validation, perplexity=validation + 1)
    frame = tombola.Results.open(tmp_path).frame()
    assert set(frame.metric_better) == {"lower"}
    assert set(frame.early_stop_test_perplexity) == {11.0}
    assert set(frame.final_test_perplexity) == {21.0}


def test_a_metric_that_is_not_finite_ends_its_chain(tmp_path):
    seen = []
    for run in tombola.rounds(own_trainer.make, out=tmp_path, arms=["ticket", "random"], **SMALL):
        seen.append((run.arm, run.level))
        own_trainer.train(run.model, run.seed)
        run.report(20, accuracy=float("nan") if (run.arm, run.level) == ("ticket", 1) else 0.5)
    assert ("ticket", 2) not in seen
    assert ("random", 2) in seen
    frame = tombola.Results.open(tmp_path).frame()
    assert frame[frame.status == "diverged"][["arm", "level"]].values.tolist() == [["ticket", 1]]


def test_the_folder_of_a_loop_is_not_run_by_another_command(tmp_path):
    loop(tmp_path, arms=["ticket"])
    with pytest.raises(InputError, match="start the script of that loop"):
        tombola.run(tmp_path, quiet=True)


def test_trained_weights_train_on_as_often_as_the_trainer_likes(tmp_path):
    """`lr-rewind` starts from final weights; where the ticket rewinds to makes no difference to it."""
    starts = set()
    options = {"arms": ["lr-rewind"], "rewind": [0, "step-5"], **SMALL}
    for run in tombola.rounds(own_trainer.make, out=tmp_path, **options):
        starts.add((run.level, run.start, run.start_step))
        own_trainer.fit(run)
    assert starts == {(0, "start", 0), (1, "final", 0), (2, "final", 0)}
    frame = tombola.Results.open(tmp_path).frame()
    assert frame.arm.tolist() == ["lr-rewind"] * 3
    assert frame.iterations_before.tolist() == [0, 20, 40]
