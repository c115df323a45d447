"""Measurements: what is measured, what is reported missing, and the command."""

import importlib.util
import json
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from small_tickets import random_ticket

from tombola import cli
from tombola.errors import InputError
from tombola.export import rivals
from tombola.export.artefacts import in_blocks
from tombola.export.c.build import compiler
from tombola.export.conditions import conditions
from tombola.export.measure import Examples, Measurement, accuracy, measure
from tombola.export.measure_command import _named_examples
from tombola.export.measure_table import measurement_table
from tombola.export.rivals import RIVALS, Contest, NotFor
from tombola.export.timing import interleave, torch_threads
from tombola.formatting import byte_size, latency
from tombola.tasks import TASKS, Metric, TaskSettings

needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C compiler")
INSTALLED = [name for name, rival in RIVALS.items() if not rival.missing() and name != "torch.compile"]


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("network", ["lenet-300-100", "resnet-20"])
def test_rivals_compute_the_network(network, name):
    ticket = random_ticket(network, (3, 8, 8), 5)
    module, examples = ticket.build(True).eval(), torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        expected = module(examples).numpy()
    call = RIVALS[name].make(Contest(module, examples, 1, torch.randn(8, 3, 8, 8)))
    tolerance = 1e-4 if RIVALS[name].exact else 0.3
    np.testing.assert_allclose(np.asarray(call()), expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


def test_a_rival_that_is_not_for_the_network():
    with pytest.raises(NotFor, match="not images"):
        RIVALS["PyTorch, channels last"].make(Contest(torch.nn.Linear(2, 2), torch.randn(1, 2), 1, torch.randn(1, 2)))


@needs_compiler
def test_a_measurement(monkeypatch):
    monkeypatch.setitem(rivals.RIVALS, "Imaginary", rivals.Rival(lambda contest: None, ("no_such_package",)))
    ticket = random_ticket()
    inputs = np.random.default_rng(0).normal(size=(50, 1, 6, 6)).astype(np.float32)
    with torch.no_grad():
        targets = ticket.build(True).eval()(torch.from_numpy(inputs)).argmax(1).numpy()
    targets[:10] = (targets[:10] + 1) % 4
    names = ["PyTorch", "torch CSR", "Imaginary"]
    measured = measure(ticket, Examples(inputs, targets), names, (1, 5), (1, 2), rounds=2)
    sizes = measured.artefacts.set_index("form")
    assert list(sizes.index) == ["dense float32", "compact", "packed", "c", "pytorch (c)"]
    assert (sizes["accuracy"].drop("packed") == 0.8).all()
    assert sizes.loc["dense float32", ["bytes", "parameters", "multiply_adds"]].tolist() == [
        4 * 41604,
        41604,
        41200,
    ]
    live = ticket.mask.remaining + 400
    assert 0.8 * live < sizes.loc["c", "multiply_adds"] <= live
    assert sizes.loc["c", "memory_bytes"] < sizes.loc["dense float32", "memory_bytes"]
    assert (sizes["largest_difference"].drop("packed") < 1e-5).all()
    assert sizes.loc["packed", "largest_difference"] > 0
    assert sizes.loc["packed", "bytes"] < sizes.loc["c", "bytes"] / 3
    times = measured.latencies
    assert len(times) == 4 * 5
    assert set(times["contender"]) == {"compact", "c", "pytorch (c)", "PyTorch", "torch CSR"}
    assert (times["least_us"] <= times["p50_us"]).all()
    assert (times["p50_us"] <= times["p95_us"]).all()
    assert (times.loc[times["contender"] == "PyTorch", "speedup"] == 1).all()
    assert (times.loc[times["contender"] == "PyTorch", "speedup_least"] == 1).all()
    assert measured.notes == ("Imaginary: not installed (no_such_package)",)
    frame = measured.frame()
    assert len(frame) == 22  # the dense and the packed form have no time of their own
    assert {"ticket", "bytes", "accuracy", "p50_us"} <= set(frame)


def test_without_a_compiler_the_rest_is_measured(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    measured = measure(random_ticket(), rivals=["PyTorch"], batches=(2,), threads=(1,), rounds=1)
    assert list(measured.artefacts["form"]) == ["dense float32", "compact", "packed", "pytorch (numba)"]
    assert "accuracy" not in measured.artefacts
    assert len(measured.notes) == 1
    assert "needs a C compiler" in measured.notes[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rivals": ["Pytorch"]}, "unknown rival 'Pytorch'; did you mean 'PyTorch'"),
        ({"batches": (0,)}, "give whole numbers of 1 or more"),
        ({"threads": (0,)}, "give whole numbers of 1 or more"),
        ({"rounds": 0}, "give whole numbers of 1 or more"),
    ],
)
def test_what_can_not_be_measured(options, words):
    with pytest.raises(InputError, match=words):
        measure(random_ticket(), **options)


class Squeezed(torch.nn.Linear):
    """It loses the axis of the batch where there is one example."""

    def forward(self, x):
        return super().forward(x).squeeze()


def test_a_last_block_of_one_example_that_loses_its_axis_is_refused():
    compute = in_blocks(Squeezed(3, 1))
    assert compute(np.zeros((1002, 3), np.float32)).shape == (1002,)
    with pytest.raises(InputError, match=r"for a batch of 1 have shape \(\), without the axis of the batch: keep it"):
        compute(np.zeros((1001, 3), np.float32))


def test_rounds_are_interleaved():
    order = []
    calls = {name: lambda name=name: (order.append(name), time.sleep(0.011)) for name in "ab"}
    timings = interleave(calls, rounds=3)
    assert "".join(order[-6:]) == "ababab"
    assert all(len(timing.samples) == 3 for timing in timings.values())
    assert all(0.011 <= timing.least <= timing.p50 <= timing.p95 for timing in timings.values())


def test_threads_of_torch_are_as_before():
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_numbers_as_a_person_reads_them():
    assert [byte_size(each) for each in (12, 2048, 3 * 2**20)] == ["12 B", "2.0 KiB", "3.0 MiB"]
    assert [latency(each) for each in (2.34, 1500)] == ["2.3 us", "1.50 ms"]


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    random_ticket(input_shape=(64,), classes=10).save(tmp_path / "ticket.safetensors")
    common = ["measure", str(tmp_path / "ticket.safetensors"), "--rival", "PyTorch", "--batch", "1", "--threads", "1"]
    common += ["--rounds", "1"]
    found = json.loads(run(*common, "--format", "json"))
    assert [row["form"] for row in found[0]["artefacts"]] == ["dense float32", "compact", "packed", "pytorch (numba)"]
    (tmp_path / "table.csv").write_text(run(*common, "--format", "csv"))
    assert len(pd.read_csv(tmp_path / "table.csv")) == 5
    text = run(*common)
    assert "Latency of a batch of 1 on 1 core" in text
    with pytest.raises(InputError, match="its examples have shape"):
        run(*common, "--test", npz(tmp_path))


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (np.zeros((8, 1), np.float32), np.arange(8) % 2),
        (np.zeros(8, np.float32), np.arange(8) % 2),
        (np.zeros((8, 2, 3), np.float32), np.arange(8) % 2),
        (np.zeros((8, 2), np.float32), np.arange(8) / 8),
        (np.zeros((8, 2), np.float32), np.zeros((8, 2), np.int64)),
    ],
)
def test_the_accuracy_of_what_are_no_classes_is_refused(outputs, targets):
    with pytest.raises(InputError, match=r"the accuracy of classes needs outputs \[N, 2 or more\] and class numbers"):
        accuracy(outputs, targets)


def test_one_logit_has_no_accuracy_of_classes(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    random_ticket(input_shape=(5,), classes=1).save(tmp_path / "ticket")
    with pytest.raises(InputError, match="or give a results folder, whose study names its task"):
        run("measure", str(tmp_path / "ticket"), "--rival", "PyTorch", "--test", npz(tmp_path))


def study_of(task):
    """Return a results folder's study and metric, as far as measuring asks for them."""
    settings = TaskSettings.model_validate(task)
    primary = settings.make().primary if settings.name in TASKS else Metric("mse", "lower")
    study = SimpleNamespace(trainer=None, task=settings)
    return SimpleNamespace(study=study, plan=SimpleNamespace(measures=SimpleNamespace(primary=primary)))


@pytest.mark.parametrize("metric", ["rmse", "mae"])
def test_another_test_set_has_the_metric_of_the_study(metric, tmp_path):
    ticket, generator = random_ticket(input_shape=(5,), classes=1), np.random.default_rng(0)
    source = npz(tmp_path, generator.normal(size=(8, 5)).astype(np.float32))
    task = {"name": "regression", "metric": metric, "unit": "kW"}
    examples = _named_examples(ticket, source, None, study_of(task))
    with torch.no_grad():
        outputs = ticket.build(True).eval()(torch.from_numpy(examples.inputs)).numpy()
    errors = outputs[:, 0] - np.arange(8) % 2
    expected = {"rmse": np.sqrt(np.square(errors).mean()), "mae": np.abs(errors).mean()}[metric]
    assert examples.metric_name == metric
    assert examples.metric(outputs, examples.targets) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("classification", "the network must return one row of class scores|the network returns 1 scores"),
        ("segmentation", "segmentation"),
        ("elsewhere:Task", "the study's metric is mse, which your own code computes"),
    ],
)
def test_a_test_set_that_is_not_for_the_study(task, words, tmp_path):
    with pytest.raises(InputError, match=words):
        _named_examples(random_ticket(input_shape=(5,), classes=1), npz(tmp_path), None, study_of(task))


def npz(folder, inputs=None):
    """Return a data set of eight examples of five numbers."""
    inputs, targets = np.zeros((8, 5), np.float32) if inputs is None else inputs, np.arange(8) % 2
    names = ("x_train", "y_train", "x_test", "y_test")
    np.savez(folder / "own.npz", **dict(zip(names, (inputs, targets, inputs, targets), strict=True)))
    return str(folder / "own.npz")


def run(*arguments):
    """Return what the command prints."""
    result = CliRunner().invoke(cli.cli, list(arguments), catch_exceptions=False, standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.output


@needs_compiler
def test_the_table(capsys):
    from rich.console import Console

    measured = measure(random_ticket(), rivals=["PyTorch"], batches=(1,), threads=(1,), rounds=1)
    Console(width=200).print(measurement_table(measured))
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("dense float32") for line in lines)
    assert max(len(line) for line in lines if line.startswith("─")) <= 80


def test_tables_of_large_networks_keep_their_numbers_in_80_columns(capsys):
    from rich.console import Console

    form = {"form": "onnx compact-int8", "bytes": 1023 * 1024, "parameters": 11_173_962, "multiply_adds": 1_814_073_344}
    form |= {"memory_bytes": 1023 * 1024, "bits_per_token": 0.97971, "largest_difference": 1.2e-6}
    time = {"contender": "OpenVINO in bfloat16", "float32": False, "batch": 64, "threads": 16, "speedup": 123.4}
    time |= dict.fromkeys(("p50_us", "p95_us", "least_us"), 123456.7)
    ticket = "study " + "long-name " * 12
    measured = Measurement(
        pd.DataFrame([form]), pd.DataFrame([time]), ("Long " * 30,), conditions((), 1, None), ticket, "bits_per_token"
    )
    Console(width=80).print(measurement_table(measured))
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for number in ("1023.0 KiB", "11,173,962", "1,814,073,344", "0.9797", "1.2e-06", "123.46 ms", "123.40x"):
        assert number in text
    assert {"onnx", "compact-int8"} <= set(text.split())


def test_packages_are_looked_for_by_their_names():
    for rival in RIVALS.values():
        assert all(importlib.util.find_spec(name) is None for name in rival.missing())
