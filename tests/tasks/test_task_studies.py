"""Each task as a study: planned, trained, pruned, stopped, shown."""

import math

import pandas as pd
import pytest
import torch
from interrupting import run_interrupted

import tombola
from tombola.pruning.at_init.snip import snip
from tombola.running.execute import execute
from tombola.running.masks import _snapshots, _untrained
from tombola.running.options import RunOptions
from tombola.running.problem import build_of, splits_of
from tombola.running.store import Store
from tombola.studies import make_plan
from tombola.tasks.metric import metric_of

STUDIES = {
    "regression": {"network": "task_nets:mlp", "data": "regression", "task": {"name": "regression", "unit": "kW"}},
    "multilabel": {"network": "task_nets:small_cnn", "data": "multilabel", "task": "multilabel"},
    "tokens": {"network": "task_nets:Lstm", "data": "tokens", "task": "classification"},
    "language-model": {"network": "task_nets:Transformer", "data": "text", "task": "language-model"},
    "segmentation": {"network": "task_nets:UNet", "data": "segmentation", "task": "segmentation"},
}
METRICS = {
    "regression": ("rmse", "lower", "kW"),
    "multilabel": ("f1", "higher", "%"),
    "tokens": ("accuracy", "higher", "%"),
    "language-model": ("perplexity", "lower", ""),
    "segmentation": ("iou", "higher", "%"),
}


def study(name, **changes):
    """Return a small study of a task; `changes` are fields, dotted with two underscores."""
    base = STUDIES[name]
    settings = {
        "name": name,
        "network": {"name": base["network"]},
        "data": {"source": base["data"], "validation": 24},
        "task": base["task"],
        "training": {"lr": 0.01, "batch_size": 12, "iterations": 24, "evaluate_every": 8},
        "pruning": {"rate": 0.4, "rounds": 2},
        "arms": ["ticket", "reinit", "random-mask"],
        "trials": 1,
    }
    for field, value in changes.items():
        section, _, key = field.partition("__")
        settings[section] = settings[section] | {key: value} if key else value
    return tombola.Study.model_validate(settings)


def run(planned, folder, **options):
    return tombola.run(planned, folder, workers=0, device="cpu", figures=False, quiet=True, **options)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_of_each_task_runs_and_speaks_of_its_own_metric(name, tmp_path):
    results = run(study(name), tmp_path)
    frame, curves = results.frame(), results.curves()
    metric, better, unit = METRICS[name]
    assert len(frame) == 9
    assert set(frame["status"]) == {"ok"}
    assert set(frame["engine"]) == {"dense"}
    found = metric_of(frame)
    assert (found.name, found.better, found.unit) == (metric, better, unit)
    for moment in ("early_stop_test", "final_test", "final_train"):
        assert frame[f"{moment}_{metric}"].notna().all()
        assert name == "tokens" or f"{moment}_accuracy" not in frame or name == "segmentation"
    assert {"iteration", "val_loss", f"val_{metric}", "test_loss", f"test_{metric}"} <= set(curves)
    dense = curves[(curves.arm == "ticket") & (curves.level == 0)]
    assert dense["val_loss"].iloc[-1] < dense["val_loss"].iloc[0]
    assert found.is_better(dense[f"val_{metric}"].iloc[-1], dense[f"val_{metric}"].iloc[0]) or name == "segmentation"
    kept = results.plan.remaining
    assert (frame[frame.level == 2]["remaining_weights"] == kept[2]).all()
    written = pd.read_csv(tmp_path / "results.csv")
    assert list(written) == list(frame)


@pytest.mark.parametrize("name", STUDIES)
def test_tables_hold_what_the_stored_network_computes(name, tmp_path):
    """The metric of the trained ticket, computed once more on the whole test part by other means."""
    results = run(study(name, arms=["ticket"], pruning__rounds=1), tmp_path)
    (row,) = [row for row in results.plan.rows if row.level == 1]
    item = results.plan.work[row.job]
    test = splits_of(item, RunOptions()).test
    module = build_of(item, splits_of(item, RunOptions()))().eval()
    module.load_state_dict(results.ticket(level=1).trained)
    with torch.no_grad():
        output = module(test.inputs)
    facts = results.frame().query("level == 1").iloc[0]
    if name == "regression":
        expected = (output[:, 0] - test.targets).square().mean().sqrt()
    elif name == "tokens":
        expected = (output.argmax(1) == test.targets).float().mean()
    elif name == "language-model":
        picked = output[:, :-1].log_softmax(2).gather(2, test.inputs[:, 1:, None])
        expected = (-picked.mean()).exp()
    elif name == "multilabel":
        there, predicted = test.targets.bool(), output.sigmoid() > 0.5
        scores = [2 * (there & predicted)[:, k].sum() / (there[:, k].sum() + predicted[:, k].sum()) for k in range(3)]
        expected = torch.stack(scores).mean()
    else:
        predicted = output.argmax(1)
        ious = [
            ((predicted == k) & (test.targets == k)).sum() / ((predicted == k) | (test.targets == k)).sum()
            for k in range(3)
        ]
        expected = torch.stack(ious).nan_to_num().mean()
    assert facts[f"final_test_{METRICS[name][0]}"] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(("data", "network"), [("dict", "task_nets:Named"), ("pair", "task_nets:Pair")])
def test_a_network_with_several_inputs(data, network, tmp_path):
    planned = study("tokens", network={"name": network}, data={"source": data, "validation": 24})
    results = run(planned, tmp_path)
    frame = results.frame()
    assert len(frame) == 9
    assert frame["final_train_accuracy"].max() > 0.6
    ticket = results.ticket(level=1)
    ticket.save(tmp_path / "one.ticket")
    module = tombola.Ticket.load(tmp_path / "one.ticket").build(trust=True)
    assert all(bool((dict(module.named_parameters())[name][~keep] == 0).all()) for name, keep in ticket.mask.items())
    with pytest.raises(tombola.InputError, match="without normalisation"):
        ticket.normalise(torch.zeros(1, 3))


@pytest.mark.parametrize("name", ["regression", "language-model", "segmentation"])
@pytest.mark.parametrize("criterion", ["gradient", "snip", "grasp"])
def test_criteria_that_differentiate_use_the_tasks_loss(name, criterion, tmp_path):
    if criterion == "gradient":
        planned = study(name, arms=["ticket"], pruning__criterion="gradient", pruning__rounds=1)
    else:
        planned = study(name, arms=[criterion], pruning__rounds=1)
    frame = run(planned, tmp_path).frame()
    assert set(frame["status"]) == {"ok"}


def test_snip_of_a_regression_is_the_weight_times_the_gradient_of_the_squared_error(tmp_path):
    plan = make_plan(study("regression", arms=["snip"], pruning__rounds=1))
    (item,) = [item for item in plan.work.values() if item.kind == "mask-search"]
    splits = splits_of(item, RunOptions())
    build = build_of(item, splits)
    remarks = {}
    snapshots = _snapshots(item.spec, _untrained(item.spec, build, splits), [item.spec.rates], build, splits, remarks)
    found = snip(snapshots)
    module = snapshots.network()
    places = remarks["examples"]
    assert len(places) == len(set(places)) == 48  # all there are: fewer than ten times ten
    loss = (module(splits.train.inputs[places])[:, 0] - splits.train.targets[places]).square().mean()
    loss.backward()
    for name, parameter in module.named_parameters():
        if name in found:
            assert torch.allclose(found[name], (parameter * parameter.grad).abs(), rtol=1e-4)


def test_a_metric_that_is_lower_where_it_is_better_ends_levels_and_backs_off(tmp_path):
    """A perplexity of six equally likely tokens is 6; a margin that no run reaches ends every arm at level 0."""
    ended = run(study("language-model", arms=["ticket"], pruning__stop_margin=5.5), tmp_path / "ended")
    assert list(ended.frame()["level"]) == [0]
    whole = run(study("language-model", arms=["ticket"], pruning__stop_margin=0.0), tmp_path / "whole")
    assert list(whole.frame()["level"]) == [0, 1, 2]
    strict = study("regression", arms=["ticket"], pruning__back_off={"margin": 0.0}, pruning__rounds=3)
    results = run(strict, tmp_path / "strict")
    frame = results.frame()
    dense = results.store.facts(results.plan.rows[0].job)["history"]
    first = results.store.facts(results.plan.rows[1].job)["history"]
    best = [min(zip(each["val_loss"], each["val_rmse"], strict=True))[1] for each in (dense, first)]
    removed = -frame["remaining_weights"].diff().iloc[2]
    expected = frame["remaining_weights"].iloc[1] - results.plan.remaining[2]
    if best[1] > best[0]:  # level 1 is worse than the dense network: its mask is given up
        assert frame["remaining_weights"].iloc[2] > results.plan.remaining[2]
    else:
        assert removed == expected


def test_connectivity_of_another_task_shows_its_metric(tmp_path):
    planned = study("regression", connectivity={"levels": [0], "points": 3}, arms=["ticket"], pruning__rounds=1)
    plan, store = make_plan(planned), Store(tmp_path)
    store.create()
    for item in plan.work.values():
        assert execute([item.as_json()], str(tmp_path), RunOptions()) == ["done"]
    points = tombola.Results(plan, store).connectivity()
    assert {"train_loss", "test_loss", "train_rmse", "test_rmse", "test_r2"} <= set(points)
    assert "test_error" not in points
    assert (points["test_rmse"] ** 2).values == pytest.approx(points["test_loss"].values)


def test_the_shown_metric_changes_no_identity(tmp_path):
    one = run(study("regression"), tmp_path)
    other = run(study("regression", task={"name": "regression", "metric": "mae", "unit": "W"}), tmp_path)
    assert one.plan.work.keys() == other.plan.work.keys()
    assert metric_of(other.frame()).name == "mae"
    assert list(one.frame()["final_test_mae"]) == list(other.frame()["final_test_mae"])
    third = study("multilabel", task={"name": "multilabel", "threshold": 0.4})
    assert not make_plan(third).work.keys() & make_plan(study("multilabel")).work.keys()


def test_the_written_study_is_read_back(tmp_path):
    planned = study("regression", arms=["ticket"], pruning__rounds=1)
    run(planned, tmp_path)
    assert tombola.Results.open(tmp_path).study == planned
    assert tombola.Study.load(str(tmp_path)).task.options == {"unit": "kW"}


def test_an_interrupted_run_is_resumed_bit_equal(tmp_path, monkeypatch):
    planned = study("language-model", arms=["ticket"], pruning__rounds=1)
    whole = run(planned, tmp_path / "whole")
    with monkeypatch.context() as patch:
        run_interrupted(planned, tmp_path / "cut", patch, every=4)
    cut = tombola.Results(whole.plan, Store(tmp_path / "cut"))
    assert cut.curves().equals(whole.curves())
    assert cut.ticket(level=1) == whole.ticket(level=1)


def test_bfloat16_of_a_sequence(tmp_path):
    frame = run(study("language-model", training__precision="bfloat16", arms=["ticket"]), tmp_path).frame()
    assert frame["final_test_perplexity"].map(math.isfinite).all()
