"""`make bench`: time tombola against the plain loop, print a table, write benchmarks/results/latest.json."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import convolutions, picture, workload
from benchmarks.measure import Measure, at_least, summed_up
from tombola.running.devices import cores
from tombola.running.executors import Workers

HERE = Path(__file__).parent
LENET = "lenet-300-100"


def throughputs(seconds: float, repeats: int) -> Iterator[Measure]:
    """Measure one level of several densities, and a chain of 24: the whole machine against the better plain loop."""
    workers = cores()
    pool = Workers(workers, 1)
    densities = [0.8**level for level in range(25)]
    wanted = {1.0: 1.3, 0.21: 1.5, 0.07: 3.0, 0.036: 5.0, 0.012: 8.0}
    ratios: dict[float, list[float]] = {density: [] for density in wanted}
    shares: dict[float, list[float]] = {density: [] for density in (1.0, 0.036)}
    chains, curve = [], {}
    for _ in range(repeats):
        ceiling = sum(workload.in_all_workers(pool, workers, workload.product_rate, LENET, seconds / 2))
        plain = min(workload.plain_step(LENET, threads, seconds) for threads in (1, 2))
        examined = min(workload.plain_evaluation_pace(LENET, threads, seconds) for threads in (1, 2))
        ours = {}
        for density in (*wanted, *densities[1:]):
            paces = workload.in_all_workers(pool, workers, workload.engine_pace, LENET, density, seconds / 2)
            # Seconds a unit, of all workers together.
            ours[density] = [1 / sum(1 / pace[kind] for pace in paces) for kind in (0, 1)]
        for density in wanted:
            ratios[density].append(plain / ours[density][0])
        for density, found in shares.items():
            found.append(100 * workload.step_operations(LENET, density) / ours[density][0] / ceiling)
        share = workload.evaluation_share(500)  # as lenet-mnist evaluates
        each = [100 * ours[density][0] + share * ours[density][1] for density in (1.0, *densities[1:])]
        chains.append(25 * (100 * plain + share * examined) / sum(each))
        curve = {density: 500 * cost for density, cost in zip((1.0, *densities[1:]), each, strict=True)}
    pool.shutdown()
    picture.draw(curve, 500 * (100 * plain + share * examined), HERE.parent / "docs" / "performance.svg")
    for density, goal in wanted.items():
        label = "dense level" if density == 1.0 else f"one level at Pm {100 * density:.3g}"
        yield summed_up(f"{label}, throughput of {workers} workers", ratios[density], f">= {goal}x", at_least(goal))
    for density, found in shares.items():
        name = f"live multiply-adds at Pm {100 * density:.3g}, share of the matrix-product ceiling"
        yield summed_up(name, found, "-", lambda value: None, "per cent of what all workers do in large products")
    yield summed_up("a chain of 24 levels, evaluation every 100 iterations included", chains, ">= 3x", at_least(3))


def overhead(seconds: float, repeats: int) -> Measure:
    """Measure what tombola's loop adds to the plain loop."""
    values = []
    for _ in range(repeats):
        ours, plain = workload.loop_overhead(seconds)
        values.append(100 * (ours / plain - 1))
    note = "per cent; negative where tombola is faster"
    return summed_up("added to the plain loop, dense engine, one worker", values, "<= 3 %", lambda v: v <= 3, note)


def convolution(seconds: float, repeats: int) -> Measure:
    """Measure Conv-2 in bfloat16 against the plain float32 loop, the better of one thread and all."""
    values = []
    for _ in range(repeats):
        plain = min(workload.plain_step("conv-2", threads, seconds) for threads in (1, cores()))
        torch.set_num_threads(cores())
        runner = workload.engine_at("conv-2", 1.0, "dense", "bfloat16")
        values.append(plain / workload.pace(runner.advance, 2, seconds))
    return summed_up("Conv-2, batch 60, bfloat16 against plain float32", values, ">= 2x", at_least(2))


def memory() -> Measure:
    """Measure the peak memory of one Lenet run, beyond the data and a process that has imported torch."""
    code = """
import torch, torch.nn.functional
from benchmarks import workload
torch.set_num_threads(1)
logits = torch.nn.Linear(784, 10)(torch.randn(60, 784))
torch.nn.functional.cross_entropy(logits, torch.zeros(60, dtype=torch.int64)).backward()
before = workload.peak_memory()
splits = workload.made_up("lenet-300-100")
data = sum(p.inputs.nbytes + p.targets.nbytes for p in (splits.train, splits.validation, splits.test))
runner = workload.engine_at("lenet-300-100", DENSITY)
runner.advance(200); runner.evaluate("test"); runner.evaluate("train"); runner.weights(); runner.optimizer_state()
print((workload.peak_memory() - before - data) / 1e6)
"""
    values = []
    for density in ("1.0", "0.036"):
        command = [sys.executable, "-c", code.replace("DENSITY", density)]
        values.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return summed_up("peak memory of a Lenet run beyond torch and data, MB", values, "<= 150", lambda v: v <= 150)


def on_a_gpu() -> Iterator[Measure]:
    """Measure the best stack of Lenet runs against one eager run at a time, if a GPU exists."""
    name = "best stack of Lenet runs on a GPU, steps per second against one eager run"
    if not torch.cuda.is_available():
        yield Measure(name, None, ">= 50x", None, 0, None, "no GPU here: not measured")
        return
    values = [workload.best_stack_ratio() for _ in range(3)]
    yield summed_up(name, values, ">= 50x", at_least(50))


def main() -> None:
    """Run all measures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter and fewer repeats: under three minutes")
    quick = parser.parse_args().quick
    seconds, repeats = (0.4, 1) if quick else (1.5, 3)
    measures = [*throughputs(seconds, repeats), overhead(6 if quick else 30, repeats)]
    measures += [convolution(3 * seconds, repeats), *convolutions.levels(seconds, repeats)]
    measures += [*convolutions.chain(seconds, repeats), memory(), *on_a_gpu()]
    table = Table(box=None, padding=(0, 2, 0, 0))
    for header in ("measure", "value", "goal", "met", "repeats", "lowest - highest", ""):
        table.add_column(header)
    for row in measures:
        spread = f"{row.spread[0]:.2f} - {row.spread[1]:.2f}" if row.spread else "-"
        met = {True: "yes", False: "NO", None: "-"}[row.met]
        value = "-" if row.value is None else f"{row.value:.2f}"
        table.add_row(row.measure, value, row.goal, met, str(row.repeats), spread, row.note)
    Console(width=160).print(table)
    results = HERE / "results" / ("quick.json" if quick else "latest.json")
    results.parent.mkdir(exist_ok=True)
    about = {"torch": torch.__version__, "python": platform.python_version(), "cores": cores()}
    results.write_text(json.dumps([asdict(row) | {"machine": about} for row in measures], indent=1) + "\n")
    Console().print(f"written to {results.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
