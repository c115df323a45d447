"""What only a GPU can show; `make gpu` runs it first."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

import tombola
from helpers.small_studies import small_study
from tombola.networks import NETWORKS, initialised
from tombola.pruning import Mask
from tombola.running.stack_size import GpuMemory, StackSize
from tombola.seeds import Seeds
from tombola.training.engine import ReplicaState
from tombola.training.engines import stacked
from tombola.training.engines.dense import DenseEngine
from tombola.training.engines.stacked import StackedEngine
from tombola.training.recipe import Recipe

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU here"),
]

GPU, CPU = torch.device("cuda"), torch.device("cpu")
SHAPES = {"lenet-300-100": (1, 28, 28), "conv-2": (3, 32, 32)}
DROPOUT = "conv-2-dropout"
STEPS = 20


def shape_of(network: str) -> tuple[int, ...]:
    return SHAPES[network.removesuffix("-dropout")]


def splits_on(network: str, device: torch.device) -> tombola.data.Splits:
    generator = torch.Generator().manual_seed(0)

    def part(count: int) -> tombola.data.Part:
        targets = torch.randint(10, (count,), generator=generator)
        inputs = torch.randn(count, *shape_of(network), generator=generator) + targets.view(-1, 1, 1, 1) / 10
        return tombola.data.Part(inputs, targets).to(device)

    return tombola.data.Splits(part(600), part(100), part(200), (0.0,), (1.0,), 10)


def trained(engine: type, network: str, device: torch.device, replicas: int, **fields: object) -> object:
    splits = splits_on(network, device)

    def build() -> torch.nn.Module:
        if network == DROPOUT:
            return NETWORKS["conv-2"](SHAPES["conv-2"], 10, dropout=0.5)
        return NETWORKS[network](SHAPES[network], 10)

    starts = []
    for seed in range(replicas):
        generator = torch.Generator().manual_seed(seed)
        weights = initialised(build, "glorot-normal", seed).state_dict()
        keep = {n: torch.rand(w.shape, generator=generator) < 0.4 for n, w in weights.items() if w.dim() > 1}
        mask = Mask(keep)
        starts.append(ReplicaState(mask.apply(weights), mask, Seeds(0, seed), splits))
    recipe = Recipe(**{"lr": 1e-3, "batch_size": 60, "iterations": 1000} | fields)
    runner = engine(build, starts, recipe, 1000, device)
    runner.advance(STEPS)
    return runner


@pytest.mark.parametrize("network", SHAPES)
@pytest.mark.parametrize("engine", [DenseEngine, StackedEngine])
def test_a_gpu_trains_as_the_cpu_does(network: str, engine: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    here, there = (trained(engine, network, device, 1) for device in (CPU, GPU))
    for name, weight in here.weights().items():
        torch.testing.assert_close(there.weights()[name], weight, rtol=2e-2, atol=2e-3)
    (mine,), (its,) = here.evaluate("test"), there.evaluate("test")
    assert its.loss == pytest.approx(mine.loss, rel=1e-2)


@pytest.mark.parametrize("network", SHAPES)
def test_a_stack_trains_each_run_as_alone(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    stack = trained(StackedEngine, network, GPU, 3)
    found = stack.evaluate("validation")
    for replica in range(3):
        weights = stack.weights(replica)
        pruned = [weight for weight in weights.values() if weight.dim() > 1]
        assert all(0.5 < float((weight == 0).float().mean()) < 0.7 for weight in pruned)
        assert found[replica].loss > 0
    alone = trained(StackedEngine, network, GPU, 1)
    for name, weight in alone.weights().items():
        torch.testing.assert_close(stack.weights(0)[name], weight, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize(
    ("network", "fields"),
    [
        ("lenet-300-100", {"warmup": 30}),
        ("lenet-300-100", {"optimizer": "adamw", "clip_value": 0.01}),
        ("lenet-300-100", {"optimizer": "rmsprop", "momentum": 0.5}),
        ("conv-2", {"optimizer": "sgd", "momentum": 0.9, "augment": ("flip", "crop")}),
        ("conv-2", {"precision": "bfloat16"}),
        ("conv-2-dropout", {}),
    ],
    ids=["adam", "adamw-clip", "rmsprop", "sgd-augment", "bfloat16", "dropout"],
)
def test_a_cuda_graph_does_what_plain_steps_do(
    network: str, fields: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    graphs = trained(StackedEngine, network, GPU, 3, **fields)
    assert graphs.facts["cuda_graph"] is True, graphs.facts
    with monkeypatch.context() as plainly:
        plainly.setattr(stacked, "recorder_of", lambda device: None)
        plain = trained(StackedEngine, network, GPU, 3, **fields)
    loose = {"rtol": 5e-2, "atol": 5e-3} if fields.get("precision") else {"rtol": 1e-2, "atol": 1e-3}
    assert graphs.advance(5) == pytest.approx(plain.advance(5), rel=5e-2)
    for replica in range(3):
        for name, weight in plain.weights(replica).items():
            torch.testing.assert_close(graphs.weights(replica)[name], weight, **loose)


def test_the_memory_of_stacks_is_measured() -> None:
    splits, build = splits_on("conv-2", GPU), partial(NETWORKS["conv-2"], SHAPES["conv-2"], 10)
    weights = initialised(build, "glorot-normal", 0).state_dict()
    starts = [ReplicaState(weights, Mask({}), Seeds(0, seed), splits) for seed in range(3)]
    recipe = Recipe(lr=1e-3, batch_size=60, iterations=1000)
    memory = GpuMemory(GPU)
    size = StackSize(memory, lambda starts: StackedEngine(build, starts, recipe, 1000, GPU), starts)
    most = size.most()
    one = 4 * sum(weight.nbytes for weight in weights.values())  # with gradients and Adam's moments
    assert most is not None
    assert 2 <= most < memory.free() / one


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_precisions_learn(precision: str) -> None:
    runner = trained(DenseEngine, "conv-2", GPU, 1, precision=precision)
    before = runner.evaluate("train")[0].loss
    runner.advance(200)
    assert runner.evaluate("train")[0].loss < before


def test_a_study_runs_and_resumes_on_a_gpu(tmp_path: Path) -> None:
    study = small_study(trials=3, arms=["ticket", "reinit"], training__iterations=200, training__evaluate_every=50)
    results = tombola.run(study, tmp_path / "a" / "results", device="cuda", figures=False, quiet=True)
    frame = results.frame()
    assert set(frame["engine"]) <= {"stacked", "dense"}
    assert frame["final_test_accuracy"].min() > 0.5
    again = tombola.run(study, tmp_path / "a" / "results", device="cuda", figures=False, quiet=True).frame()
    assert again["seconds"].equals(frame["seconds"])


def test_a_stack_that_does_not_fit_is_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    make = StackedEngine.__init__

    def too_large(self: StackedEngine, build: object, starts: list[ReplicaState], *rest: object) -> None:
        sizes.append(len(starts))
        if len(starts) > 1:
            torch.empty(2**50, device="cuda")  # more than any card has
        make(self, build, starts, *rest)

    monkeypatch.setattr(StackedEngine, "__init__", too_large)
    study = small_study(trials=4, pruning__rounds=0)
    results = tombola.run(study, tmp_path / "results", device="cuda", workers=0, figures=False, quiet=True)
    assert len(results.frame()) == 4
    assert 1 in sizes
    assert max(sizes) > 1
