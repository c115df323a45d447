"""What a task can't be is refused before anything is trained: the field, the value, what is possible."""

from pathlib import Path

import numpy as np
import pytest
import task_nets
from test_task_studies import run, study

import tombola
from tombola.data import Dataset, sources
from tombola.errors import DataError, InputError
from tombola.pruning.mask import Mask
from tombola.studies import make_plan
from tombola.studies.start_checks import check_data_at_hand
from tombola.tasks import Metric
from tombola.training.engines import choose_engine


def refused(match, name, **changes):
    with pytest.raises(tombola.InputError, match=match):
        make_plan(study(name, **changes))


def refused_at_the_start(match, folder, name="regression-2", **changes):
    """Refused by `tombola plan` and by `run`, with the data at hand and nothing written."""
    settings = {"data": {"source": name, "validation": 24}, "network": {"name": "task_nets:mlp"}} | changes
    planned = study("regression", **settings)
    plan = make_plan(planned)
    with pytest.raises(tombola.InputError, match=match):
        check_data_at_hand(plan)
    with pytest.raises(tombola.InputError, match=match):
        run(planned, folder / "out")
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("regresion", r"unknown task 'regresion'; did you mean 'regression'"),
        ("task_nets:Missing", r"'Missing' in 'task_nets' does not exist"),
        ("task_nets:mlp", r"task 'task_nets:mlp' can't be built with \{\}: TypeError"),
        ("task_nets:Lstm", r"task 'task_nets:Lstm' can't be built"),
        ({"name": "task_nets:Distance", "radius": "wide"}, r"task.radius='wide'"),
        ({"name": "task_nets:Distance", "radios": 1}, r"no option 'radios'; did you mean 'radius'"),
    ],
)
def test_a_task_that_there_is_not(task, message):
    refused(message, "regression", task=task)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"name": "regression", "metric": "r3"}, r"task.metric='r3': must be 'rmse', 'mae' or 'r2'"),
        ({"label_smooting": 0.1}, r"has no option 'label_smooting'; did you mean 'label_smoothing'"),
        ({"label_smoothing": 1.0}, r"task.label_smoothing=1.0: must be less than 1"),
        ({"class_weights": [1, -1]}, r"task.class_weights=\[1, -1\]: must be 0 or more"),
        ({"class_weights": "balanced"}, r"task.class_weights='balanced': must be a list of numbers"),
        ({"name": "multilabel", "threshold": 0}, r"task.threshold=0: must be greater than 0"),
        ({"name": "multilabel", "pos_weight": 0}, r"task.pos_weight=0: must be above 0"),
        ({"name": "segmentation", "classes": 1}, r"task.classes=1"),
    ],
)
def test_an_option_that_does_not_fit(task, message, tmp_path):
    with pytest.raises(tombola.InputError, match=message):
        tombola.Study.load("demo", task=task)


@pytest.mark.parametrize(
    ("data", "task", "message"),
    [
        (
            "regression",
            "classification",
            r"one class number for each example, but regression has targets of type float32",
        ),
        ("tokens", "multilabel", r"shape \(N, labels\), but tokens has class numbers of 2 classes"),
        ("tokens", "segmentation", r"an integer class number for each pixel"),
        ("regression", "language-model", r"int64 token ids of shape \(N, tokens\)"),
        ("text", "regression", r"one array of numbers as targets, but text has no targets"),
        ("tokens", "language-model", r"language-model needs no targets, or an int64 token id for each position"),
    ],
)
def test_data_of_another_kind(data, task, message):
    refused(message, "regression", data={"source": data, "validation": 24}, task=task)


@pytest.mark.parametrize(
    ("name", "network", "message"),
    [
        (
            "regression",
            {"name": "task_nets:mlp", "arguments": {"classes": 2}},
            r"of shape \(4,\) for 4 .*returned \(4, 2\)",
        ),
        (
            "multilabel",
            {"name": "task_nets:small_cnn", "arguments": {"classes": 2}},
            r"shape \(4, 3\).*returned \(4, 2\)",
        ),
        ("tokens", {"name": "task_nets:Lstm", "arguments": {"classes": 1}}, r"returns 1 scores.* has 2 classes"),
        (
            "segmentation",
            {"name": "task_nets:UNet", "arguments": {"classes": 2}},
            r"\(4, 3, 8, 8\).*returned \(4, 2, 8, 8\)",
        ),
        ("segmentation", {"name": "task_nets:small_cnn"}, r"class scores of shape \(4, 3, 8, 8\).*returned \(4, 3\)"),
        ("language-model", {"name": "task_nets:Lstm", "arguments": {"classes": 6}}, r"\(4, 9, 6\).*returned \(4, 6\)"),
        (
            "language-model",
            {"name": "task_nets:Transformer", "arguments": {"causal": False}},
            r"depend on later tokens, so it sees the tokens that it must predict",
        ),
    ],
)
def test_an_output_of_another_shape(name, network, message):
    refused(message, name, network=network)


def test_targets_of_their_own_need_no_causal_network(tmp_path):
    planned = study(
        "language-model",
        network={"name": "task_nets:Transformer", "arguments": {"causal": False}},
        data={"source": "hidden-text", "validation": 24},
        arms=["ticket"],
        pruning__rounds=1,
    )
    frame = run(planned, tmp_path).frame()
    assert (frame["final_test_perplexity"] < 6).all()


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("task_nets:Row", r"the task's loss is a tensor of shape \(12,\); it must be a scalar"),
        ("task_nets:NotFinite", r"the task's loss is inf at the start of training"),
        ("task_nets:Detached", r"does not depend on any parameter"),
        ("task_nets:Batchwise", r"the task's distance depends on the batch size: [\d.]+ with 24 examples at a time, "),
        (
            "task_nets:Sevenfold",
            r"`loss` is (\S+) on the first 12 training examples, but .* `scores` returns for them is (?!\1)\d",
        ),
        ("task_nets:Failing", r"`loss` of task Failing failed: RuntimeError: no such table"),
    ],
)
def test_a_loss_or_a_metric_that_can_not_be(task, message, tmp_path):
    refused_at_the_start(message, tmp_path, task=task)


def test_a_task_of_ones_own(tmp_path):
    for number, task in enumerate(["task_nets:Distance", {"name": "task_nets:distance", "radius": 3.0}]):
        planned = study(
            "regression",
            task=task,
            data={"source": "regression-2", "validation": 24},
            arms=["ticket"],
            pruning__rounds=1,
        )
        results = run(planned, tmp_path / str(number))
        frame = results.frame()
        assert list(frame["metric_unit"].unique()) == ["cm"]
        assert {"final_test_distance", "final_test_near"} <= set(frame)
        assert all(item.spec.task_code for item in results.plan.work.values())
        # Its tables are read without its code.
        with tombola.registry.reading():
            again = tombola.Results.open(tmp_path / str(number))
            assert again.frame().equals(frame)
            assert again.missing() == 0


def test_a_loss_of_ones_own_is_not_taken_for_cross_entropy(tmp_path):
    own = {"name": "task_nets:Reversed"}
    planned = study("tokens", network={"name": "task_nets:mlp"}, data={"source": "pair-0", "validation": 24}, task=own)
    task = planned.task.make()
    assert not task.plain_cross_entropy
    import torch

    def build() -> torch.nn.Module:
        return task_nets.mlp((5,), 3)

    example, mask = torch.zeros(1, 5), Mask({"0.weight": torch.zeros(16, 5, dtype=torch.bool)})
    assert choose_engine("auto", build, mask, planned.training, example, True, task).name == "dense"
    with pytest.raises(tombola.InputError, match="engine 'sparse' can't train this study"):
        choose_engine("sparse", build, mask, planned.training, example, True, task)


@pytest.mark.parametrize(
    ("name", "field", "margin", "message"),
    [
        (
            "regression",
            "stop_margin",
            0.1,
            r"pruning.stop_margin=0.1: the rmse of a guess is unknown for task: regression",
        ),
        ("segmentation", "stop_margin", 0.1, r"the iou of a guess is unknown"),
        ("tokens", "stop_margin", 1.5, r"pruning.stop_margin=1.5: must be less than 1; .*accuracy"),
        ("tokens", "back_off", {"margin": 1.0}, r"pruning.back_off.margin=1: must be less than 1"),
    ],
)
def test_a_margin_that_means_nothing(name, field, margin, message):
    refused(message, name, **{f"pruning__{field}": margin})


def changed_source(monkeypatch, kind, **fields):
    """Make another data set of a known source, which the process remembers by its name: to be called once a test."""
    for remembered in (sources._remember, sources._remember_fingerprint, sources._remember_description):
        remembered.cache_clear()
    known = task_nets.dataset(kind)
    arrays = {"name": kind, "classes": known.classes}
    arrays |= {
        f"{part}_{what}": getattr(known, f"{part}_{what}")
        for part in ("train", "test")
        for what in ("inputs", "targets")
    }
    made = Dataset(**(arrays | fields))
    source = sources.Source(describe=lambda place: made.description, load=lambda place: made)
    monkeypatch.setitem(sources.SOURCES, f"{kind}-changed", source)
    return {"source": f"{kind}-changed", "validation": 24}


def test_targets_that_are_no_labels(monkeypatch, tmp_path):
    targets = task_nets.dataset("multilabel").test_targets.copy()
    targets[3, 1] = 2
    data = changed_source(monkeypatch, "multilabel", test_targets=targets)
    planned = study("multilabel", data=data)
    with pytest.raises(tombola.InputError, match="targets of 0 and 1, but multilabel-changed has the target 2"):
        check_data_at_hand(make_plan(planned))
    with pytest.raises(tombola.InputError, match="targets of 0 and 1, but multilabel-changed has the target 2"):
        run(planned, tmp_path / "out")


def test_planning_leaves_to_the_run_what_it_would_have_to_download(monkeypatch):
    def load(place):
        assert not place.may_download
        raise DataError("not here")

    known = task_nets.dataset("regression").description
    monkeypatch.setitem(sources.SOURCES, "far", sources.Source(describe=lambda place: known, load=load))
    check_data_at_hand(make_plan(study("regression", data={"source": "far", "validation": 24})))


def test_infinite_targets(monkeypatch, tmp_path):
    targets = np.array(task_nets.dataset("regression").train_targets)
    targets[:] = np.inf
    data = changed_source(monkeypatch, "regression", train_targets=targets)
    with pytest.raises(tombola.InputError, match="the task's loss is inf at the start of training"):
        run(study("regression", data=data), tmp_path / "out")


def test_pixels_that_are_ignored_are_no_class(monkeypatch, tmp_path):
    known = task_nets.dataset("segmentation")
    parts = {}
    for part in ("train", "test"):
        targets = getattr(known, f"{part}_targets").copy()
        targets[:, 0] = 255
        parts[f"{part}_targets"] = targets
    data = changed_source(monkeypatch, "segmentation", classes=256, **parts)
    refused("set task.classes", "segmentation", data=data, task={"name": "segmentation", "ignore_index": 255})
    wrong = {"name": "segmentation", "ignore_index": 255, "classes": 2}
    with pytest.raises(tombola.InputError, match=r"task\.classes=2: segmentation-changed has the class number 2"):
        run(study("segmentation", data=data, task=wrong), tmp_path / "out")
    right = study("segmentation", data=data, task=wrong | {"classes": 3}, arms=["ticket"], pruning__rounds=1)
    assert set(run(right, tmp_path / "right").frame()["status"]) == {"ok"}


def test_weights_of_another_number(tmp_path):
    refused(
        r"task.class_weights lists 3 weights, but tokens has 2 classes", "tokens", task={"class_weights": [1, 1, 1]}
    )
    refused(
        r"task.pos_weight lists 2 weights, but multilabel has 3",
        "multilabel",
        task={"name": "multilabel", "pos_weight": [1, 1]},
    )


def test_code_of_a_task_is_part_of_the_identity(tmp_path, monkeypatch):
    text = Path(task_nets.__file__).read_text()
    (tmp_path / "first_tasks.py").write_text(text)
    (tmp_path / "second_tasks.py").write_text(text.replace("self.radius).sum()", "2 * self.radius).sum()"))
    monkeypatch.syspath_prepend(tmp_path)
    codes = {name: study("regression", task=f"{name}_tasks:Distance").task.code() for name in ("first", "second")}
    assert all(codes.values())
    assert codes["first"] != codes["second"]


def test_the_task_in_the_docs_runs(tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "docs" / "studies.md").read_text()
    (code,) = [block for block in text.split("```python\n")[1:] if block.startswith("# my_tasks.py")]
    (tmp_path / "my_tasks.py").write_text(code.split("```")[0])
    monkeypatch.syspath_prepend(tmp_path)
    data = {"source": "regression-2", "validation": 24}
    task = {"name": "my_tasks:Distance", "radius": 0.5}
    planned = study("regression", task=task, data=data, arms=["ticket"], pruning__rounds=1)
    frame = run(planned, tmp_path / "out").frame()
    assert list(frame["metric"].unique()) == ["distance"]


def test_a_metric_of_no_known_direction_is_refused():
    with pytest.raises(InputError, match="metric 'distance': better is 'down'"):
        Metric("distance", "down", "cm")  # type: ignore[arg-type]
