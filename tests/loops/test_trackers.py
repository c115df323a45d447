"""Trackers: what they are given, and that nothing they raise stops a run."""

import own_trainer
import pytest

import tombola
from tombola.cli import cli
from tombola.errors import InputError

LOGGED = []
SMALL = {"rounds": 1, "trials": 1, "arms": ["ticket"], "figures": False}


class Own:
    def __init__(self, run):
        LOGGED.append((run.group, run.name, round(run.settings["density"], 3)))

    def log(self, values, step):
        LOGGED.append((step, values))

    def close(self):
        LOGGED.append("closed")


class Failing(Own):
    def log(self, values, step):
        raise ConnectionError("the server is gone")


def loop(out, tracker, **options):
    for run in tombola.rounds(own_trainer.make, out=out, tracker=tracker, **SMALL, **options):
        own_trainer.train(run.model, run.seed)
        run.report(10, val_loss=0.5)
        run.report(20, val_loss=0.25, accuracy=0.5)


def test_each_run_is_logged_once_under_a_readable_name(tmp_path):
    LOGGED.clear()
    loop(tmp_path, "test_trackers:Own", quiet=True)
    rows = [(10, {"val_loss": 0.5}), (20, {"val_loss": 0.25, "test_accuracy": 0.5}), "closed"]
    assert [
        ("dense", "dense.trial-0", 1.0),
        *rows,
        ("ticket/level-01", "ticket.level-01.trial-0", 0.824),
        *rows,
    ] == LOGGED


def test_what_a_tracker_raises_stops_no_run(tmp_path, capsys):
    LOGGED.clear()
    loop(tmp_path, "test_trackers:Failing")
    assert len(tombola.Results.open(tmp_path).frame()) == 2
    said = capsys.readouterr().err
    assert said.count("tracker test_trackers:Failing failed") == 1
    assert "ConnectionError: the server is gone" in said
    assert LOGGED[-1] == "closed"


class Leaving(Own):
    def log(self, values, step):
        raise SystemExit("no login")


def test_a_tracker_that_exits_stops_no_run(tmp_path, capsys):
    loop(tmp_path, "test_trackers:Leaving")
    assert len(tombola.Results.open(tmp_path).frame()) == 2
    assert "SystemExit: no login" in capsys.readouterr().err


def test_a_tracker_without_its_package_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("tombola.extras.installed", lambda module: False)
    with pytest.raises(InputError, match=r"tracker wandb needs wandb, which is not installed: pip install"):
        loop(tmp_path / "out", "wandb", quiet=True)
    assert not (tmp_path / "out").exists()


def test_an_unknown_tracker_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="did you mean 'tensorboard'"):
        loop(tmp_path / "out", "tensorbord", quiet=True)
    with pytest.raises(InputError, match="did you mean 'tensorboard'"):
        tombola.run("demo", tmp_path / "out", tracker="tensorbord", quiet=True)
    assert not (tmp_path / "out").exists()


def test_a_built_in_run_is_logged_too(tmp_path):
    LOGGED.clear()
    study = tombola.Study.load("demo", trials=1, arms=["ticket"], **{"pruning.rounds": 1, "training.iterations": 10})
    tombola.run(study, tmp_path, workers=0, figures=False, quiet=True, tracker="test_trackers:Own")
    assert [each[0] for each in LOGGED if isinstance(each[0], str)] == ["dense", "c", "ticket/level-01", "c"]
    steps = [each for each in LOGGED if isinstance(each[0], int)]
    assert {"val_loss", "test_accuracy"} <= steps[0][1].keys()
    assert "--tracker" in {option for each in cli.commands["run"].params for option in each.opts}


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    loop(tmp_path, "tensorboard", quiet=True)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (tmp_path / "tensorboard" / "ticket" / "level-01").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    assert [(each.step, each.value) for each in events.Scalars("val_loss")] == [(10, 0.5), (20, 0.25)]


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    loop(tmp_path / "out", "mlflow", quiet=True)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("loop")
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert found.keys() == {"dense.trial-0", "ticket.level-01.trial-0"}
    assert found["dense.trial-0"].data.metrics["test_accuracy"] == 0.5
    assert found["ticket.level-01.trial-0"].data.params["arm"] == "ticket"


@pytest.mark.filterwarnings("ignore")  # of wandb's own
def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    loop(tmp_path, "wandb", quiet=True)
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2
