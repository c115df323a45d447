"""What a loop over `tombola.rounds` says: its work at the start, its answer at the end."""

import re
import shlex

import own_trainer
import pytest
import torch
from click.testing import CliRunner

import tombola
from tombola.cli import cli
from tombola.running.notes import notes_on
from tombola.running.store import Store

SMALL = {"rounds": 2, "trials": 2, "figures": False}


def go(out, stop_after=None, value=0.5, make=own_trainer.make, **options):
    for number, run in enumerate(tombola.rounds(make, out=out, **{**SMALL, **options})):
        if number == stop_after:
            return
        own_trainer.train(run.model, run.seed)
        run.report(20, accuracy=value)


def test_a_loop_says_its_work_before_the_first_run_and_its_answer_after_the_last(tmp_path, capsys):
    out = tmp_path / "a folder"
    go(out, stop_after=0)  # before the first run ends
    start = capsys.readouterr().err
    # A dense run, and 2 levels of ticket, 1 reinit and random-mask, for each trial: masks do not count as runs.
    assert start == (
        f"loop: 14 runs to do, one at a time, into {out} (2 trials, 2 rounds)\n"
        "Stop with Ctrl-C. The same script resumes.\n"
    )
    go(out, stop_after=3)
    assert "3/14 runs done" in capsys.readouterr().err
    go(out)
    text = capsys.readouterr().err
    assert f"loop: 11 of 14 runs to do, one at a time, into {out}" in text
    assert [int(done) for done in re.findall(r"(\d+)/14 runs done", text)] == list(range(4, 15))
    assert "No ticket is proven" in text or "A ticket with" in text
    assert f"Report:   tombola report {shlex.quote(str(out))}\n" in text
    assert "weights  accuracy  verdict" in text


@pytest.mark.parametrize(
    ("values", "broken", "name"),
    [
        ({"accuracy": float("nan")}, False, "accuracy"),
        ({"accuracy": 0.5, "val_loss": float("inf")}, False, "val_loss"),
        ({"accuracy": 0.5}, True, "weight '1.weight'"),
    ],
)
def test_a_diverged_run_says_what_was_not_finite(tmp_path, capsys, values, broken, name):
    for run in tombola.rounds(own_trainer.make, out=tmp_path, rounds=1, trials=1, arms=["ticket"], figures=False):
        own_trainer.train(run.model, run.seed)
        if broken:
            run.model[1].weight.data.fill_(float("nan"))
        run.report(20, **values)
    text = " ".join(capsys.readouterr().err.split())
    assert f"trial-0.dense: {name} was not finite at iteration 20; tombola skips the runs that need this one" in text
    assert "1 run diverged" in text
    assert tombola.Results.open(tmp_path).frame().status.tolist() == ["diverged"]


def test_a_validation_loss_without_the_metric_is_named_once(tmp_path, capsys):
    for run in tombola.rounds(own_trainer.make, out=tmp_path, rounds=1, trials=1, arms=["ticket"], figures=False):
        own_trainer.train(run.model, run.seed)
        run.report(10, val_loss=0.1)
        run.report(20, val_loss=0.2, accuracy=0.5)
    note = (
        "dense: val_loss was best at a step without accuracy, which is therefore not early stop; report accuracy with "
        "each val_loss"
    )
    text = capsys.readouterr().err
    assert text.count("was best at a step without") == 1
    assert note in " ".join(text.split())
    assert set(tombola.Results.open(tmp_path).frame().early_stop_iteration) == {20}


def test_status_counts_runs_as_the_loop_does(tmp_path):
    go(tmp_path, stop_after=4, quiet=True)
    row = CliRunner().invoke(cli, ["status", str(tmp_path)]).output.split()
    assert row[row.index("loop") + 1 :][:3] == ["4", "0", "14"]


def test_trials_of_one_start_are_named(tmp_path, capsys):
    go(tmp_path, stop_after=0, make=own_trainer.pretrained, arms=["ticket", "random-mask"])
    assert "note: make_model builds equal weights from every seed" in capsys.readouterr().err
    go(tmp_path / "drawn", stop_after=0, arms=["ticket"])
    assert "equal weights" not in capsys.readouterr().err


def test_what_cannot_be_tracked_is_named(tmp_path, capsys):
    with (tmp_path / "log").open("w") as log:

        def make():
            log.write("made\n")
            return own_trainer.make()

        go(tmp_path / "out", stop_after=0, make=make)
    note = "note: tombola can't track changes of log; when they change, give tombola.rounds other settings\n"
    assert capsys.readouterr().err.startswith(note)


def with_a_spare_layer():
    module = own_trainer.make()
    module[1].spare = torch.nn.Linear(8, 4)
    return module


def test_a_loop_and_a_plan_name_weights_that_are_never_pruned(tmp_path, capsys):
    go(tmp_path, stop_after=0, make=with_a_spare_layer, arms=["ticket"])
    note = (
        "note: 32 of 208 matrix weights (15.4 %) are never pruned, and count as remaining: 1.spare.weight (the forward "
        "pass never reaches it); remove layers that the network does not need, or give inputs that reach the others"
    )
    assert note in " ".join(capsys.readouterr().err.split())
    plan = tombola.Results.open(tmp_path).plan
    assert plan.density(1) == (32 + plan.remaining[1]) / 208
    assert note in notes_on(plan, Store(tmp_path / "new"))


def test_a_finished_loop_says_its_answer_again(tmp_path, capsys):
    go(tmp_path, quiet=True, trials=1, arms=["ticket"])
    assert capsys.readouterr().err == ""
    go(tmp_path, trials=1, arms=["ticket"])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"loop: all work is finished in {tmp_path}"
    assert lines[-1].startswith("Report:   tombola report ")
