"""Interpolations between runs of a user's own trainer, evaluated by a user's own function."""

import math

import own_trainer
import pytest
import torch
from torch import nn
from torch.nn import functional

import tombola
from tombola.errors import InputError, WorkFailed
from tombola.training.interpolation import between

SMALL = {"rounds": 1, "trials": 1, "arms": ["ticket"], "figures": False, "quiet": True}
LINES = {"levels": [0, 1], "points": 3}


def evaluate(model):
    inputs, targets = own_trainer.examples()
    scores = model(inputs[200:])
    accuracy = (scores.argmax(1) == targets[200:]).float().mean()
    return {"accuracy": accuracy, "loss": functional.cross_entropy(scores, targets[200:]), "train_accuracy": 0.75}


def no_metric(model):
    return {"loss": 1.0}


def failing(model):
    raise ValueError("no examples here")


def loop(out, function=evaluate, body=own_trainer.fit, **options):
    seen = []
    for run in tombola.rounds(own_trainer.make, out=out, evaluate=function, **{**SMALL, **options}):
        seen.append((run.arm, run.level, run.seed))
        body(run)
    return seen


def test_points_are_those_between_the_runs(tmp_path):
    """The oracle: interpolate the stored weights by hand, and evaluate a plain module."""
    seen = loop(tmp_path, connectivity=LINES)
    assert [place[:2] for place in seen] == [("dense", 0), ("copy-1", 0), ("ticket", 1), ("copy-1", 1)]
    assert len({seed for _, _, seed in seen}) == 2  # copies differ in noise from the study's own runs
    assert loop(tmp_path, connectivity=LINES) == []
    results = tombola.Results.open(tmp_path)
    points = results.connectivity()
    assert set(points.kind) == {"copies", "dense-ticket", "levels"}
    assert len(points) == 3 * 4
    plain = own_trainer.make()
    for _, point in points.iterrows():
        spec = results.store.facts(point.line)["spec"]
        one, other = (results.store.load(spec[end]).snapshots["final"] for end in ("one", "other"))
        plain.load_state_dict(between(one, other, point.position))
        with torch.no_grad():
            expected = evaluate(plain)
        assert point.test_error == 1 - float(expected["accuracy"])
        assert point.test_loss == float(expected["loss"])
        assert (point.train_error, math.isnan(point.train_loss)) == (0.25, True)
    assert (tmp_path / "connectivity.csv").is_file()
    assert "test_mean" in (tmp_path / "barriers.csv").read_text()


def test_ends_are_the_runs_own_metrics(tmp_path):
    loop(tmp_path, connectivity=LINES | {"between": ["dense-ticket"]})
    results = tombola.Results.open(tmp_path)
    points, frame = results.connectivity(), results.frame()
    ends = points[points.position.isin([0.0, 1.0])].sort_values("position").test_error.tolist()
    accuracies = frame.sort_values("level", ascending=False).final_test_accuracy
    assert ends == pytest.approx([1 - value for value in accuracies])


def test_a_study_file_gives_the_same_lines(tmp_path):
    fields = {
        "network": "own_trainer:make",
        "trainer": {"name": "own_trainer:fit", "evaluate": "test_own_connectivity:evaluate"},
        "pruning": {"rate": 0.2, "rounds": 1},
        "arms": ["ticket"],
        "trials": 1,
        "connectivity": LINES,
    }
    study = tombola.Study.model_validate({"name": "loop", **fields})
    found = tombola.run(study, tmp_path / "study", workers=0, figures=False, quiet=True)
    loop(tmp_path / "loop", connectivity=LINES)
    other = tombola.Results.open(tmp_path / "loop")
    columns = [name for name in found.connectivity() if name != "line"]
    assert found.connectivity()[columns].equals(other.connectivity()[columns])
    assert tombola.Study.model_validate(study.model_dump(mode="json")) == study
    broken = tombola.Study.model_validate(
        {"name": "b", **fields, "trainer": fields["trainer"] | {"evaluate": "test_own_connectivity:failing"}}
    )
    with pytest.raises(WorkFailed, match="evaluate failed: ValueError: no examples here"):
        tombola.run(broken, tmp_path / "broken", workers=0, figures=False, quiet=True)


def test_copies_part_at_a_snapshot(tmp_path):
    starts = []

    def body(run):
        starts.append((run.arm, run.level, run.start))
        own_trainer.fit(run)

    loop(tmp_path, body=body, connectivity={"levels": [0], "points": 3, "rewind": "step-5"})
    assert ("copy-1", 0, "step-5") in starts
    assert set(tombola.Results.open(tmp_path).connectivity().rewind) == {5}


def test_another_metric(tmp_path):
    def body(run):
        own_trainer.train(run.model, run.seed)
        run.report(20, **evaluate(run.model))

    loop(tmp_path, body=body, metric="loss", connectivity=LINES)
    points = tombola.Results.open(tmp_path).connectivity()
    assert "test_error" not in points
    assert points.test_loss.notna().all()


def with_batch_norm():
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


REFUSED = [
    ({"function": None}, "connectivity evaluates networks between two runs; give `evaluate`"),
    ({"function": 3}, "evaluate is a int; give a function"),
    ({"connectivity": {"levels": [2]}}, "connectivity.levels names level 2"),
    ({"connectivity": {"levels": [0], "rewind": 0.1}}, "rewind must name a snapshot of the trainer"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_planning_refuses(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        loop(tmp_path / "out", **{"connectivity": LINES, **options})
    assert not (tmp_path / "out").exists()


def test_batch_norm_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"make_model has a batch norm \('1'\).*leave connectivity out"):
        tombola.rounds(with_batch_norm, out=tmp_path, evaluate=evaluate, connectivity=LINES, **SMALL)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (no_metric, "evaluate returned loss, and barriers are measured in accuracy; return accuracy too"),
        (failing, "evaluate failed: ValueError: no examples here"),
        (lambda model: 0.5, "evaluate returned a float; return metrics by name"),
        (lambda model: {"accuracy": [1, 2]}, "each value must be one number"),
    ],
)
def test_an_evaluate_that_does_not_do_its_part(tmp_path, function, message):
    with pytest.raises(InputError, match=message):
        loop(tmp_path, function, connectivity={"levels": [0], "points": 3})
