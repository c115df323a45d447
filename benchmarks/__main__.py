"""`make bench`: time tombola against the plain loop, print a table, write benchmarks/results/latest.json.

`python -m benchmarks --only conv-2 conv-2-chain` measures some parts; the rows of the others stay in the file.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

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
        wish = (">= 75 %", at_least(75)) if density == 1.0 else ("-", lambda value: None)
        yield summed_up(name, found, *wish, "per cent of what all workers do in large products")
    yield summed_up("a chain of 24 levels, evaluation every 100 iterations included", chains, ">= 8x", at_least(8))


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


def parts(quick: bool) -> dict[str, Callable[[], Iterable[Measure]]]:
    """Return what can be measured alone, by name."""
    seconds, repeats = (0.4, 1) if quick else (1.5, 3)
    found: dict[str, Callable[[], Iterable[Measure]]] = {
        "lenet": lambda: throughputs(seconds, repeats),
        "overhead": lambda: [overhead(6 if quick else 30, repeats)],
        "bfloat16": lambda: [convolution(3 * seconds, repeats)],
    }
    for network in convolutions.SCHEDULES:
        found[network] = lambda network=network: convolutions.levels(network, seconds, repeats)  # type: ignore[misc]
    found["conv-2-chain"] = lambda: convolutions.chain(seconds, repeats)
    return found | {"memory": lambda: [memory()], "gpu": on_a_gpu}


def kept(file: Path, names: Iterable[str]) -> list[dict[str, Any]]:
    """Return the rows of an earlier measurement, except for some parts."""
    if not file.exists():
        return []
    return [row for row in json.loads(file.read_text()) if row.get("part") and row["part"] not in {*names}]


def main() -> None:
    """Measure all parts, or some."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter and fewer repeats: under three minutes")
    parser.add_argument("--only", nargs="+", choices=[*parts(True)], metavar="PART", help="; ".join(parts(True)))
    options = parser.parse_args()
    results = HERE / "results" / ("quick.json" if options.quick else "latest.json")
    results.parent.mkdir(exist_ok=True)
    chosen = parts(options.quick)
    names = options.only or list(chosen)
    about = {"torch": torch.__version__, "python": platform.python_version(), "cores": cores()}
    rows = kept(results, names)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for header in ("measure", "value", "goal", "met", "repeats", "lowest - highest", ""):
        table.add_column(header)
    for name in names:
        begun = time.perf_counter()
        measures = list(chosen[name]())
        Console().print(f"{name}: {time.perf_counter() - begun:.0f} s")
        rows += [asdict(row) | {"part": name, "machine": about} for row in measures]
        rows.sort(key=lambda row: list(chosen).index(row["part"]))
        results.write_text(json.dumps(rows, indent=1) + "\n")  # what is measured is not lost where a later part fails
        for row in measures:
            _add(table, row)
    Console(width=160).print(table)
    Console().print(f"written to {results.relative_to(HERE.parent)}")


def _add(table: Table, row: Measure) -> None:
    spread = f"{row.spread[0]:.2f} - {row.spread[1]:.2f}" if row.spread else "-"
    met = {True: "yes", False: "NO", None: "-"}[row.met]
    value = "-" if row.value is None else f"{row.value:.2f}"
    table.add_row(row.measure, value, row.goal, met, str(row.repeats), spread, row.note)


if __name__ == "__main__":
    main()
