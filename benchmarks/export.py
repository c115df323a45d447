"""How fast exported tickets are, against every other runtime that is installed: `make bench-export`.

Masks are random and weights as they are initialised: neither changes the time. Every contender of a network is timed in
the same rounds, one after another. Prints a table and writes benchmarks/results/export.json.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.roofline import Core, bounds, needs, probe
from tombola.export.artefacts import SINGLE
from tombola.export.c import ticket_sources
from tombola.export.c.build import object_bytes
from tombola.export.graph_trace import trace_ticket
from tombola.export.measure import measure
from tombola.export.measure_command import as_json
from tombola.formatting import byte_size, latency
from tombola.networks import NetworkSettings, examine, factory, initialised
from tombola.pruning.mask import Mask
from tombola.running.ticket import Ticket

RESULTS = Path(__file__).parent / "results" / "export.json"

CASES = [
    ("lenet-300-100", (1, 28, 28), 15),
    ("lenet-300-100", (1, 28, 28), 18),
    ("conv-2", (3, 32, 32), 0.10),
    ("conv-2", (3, 32, 32), 0.05),
    ("resnet-20", (3, 32, 32), 0.10),
    ("resnet-20", (3, 32, 32), 0.05),
]
"""Network, shape of an example, and density; of Lenet the round of pruning 20 % of each layer, 10 % of the output."""


def random_ticket(network: str, shape: tuple[int, ...], density: float) -> Ticket:
    """Return a ticket with a random mask."""
    settings = NetworkSettings(name=network)
    module = initialised(factory(settings, shape, 10), "glorot-normal", 0)
    coverage = examine(module, shape)
    generator = torch.Generator().manual_seed(0)
    keep = {}
    for layer in coverage.layers:
        part = (0.9 if layer.name == coverage.output else 0.8) ** density if density >= 1 else density
        order = torch.rand(layer.size, generator=generator).argsort()
        kept = torch.zeros(layer.size, dtype=torch.bool)
        kept[order[: round(part * layer.size)]] = True
        keep[layer.name] = kept.reshape(layer.shape)
    mask = Mask(keep)
    weights = mask.apply(module.state_dict())
    origin: dict[str, Any] = {
        "study": f"{network} at {mask.density:.1%}",
        "arm": "random-mask",
        "trial": 0,
        "level": 0,
        "network": settings.model_dump(mode="json"),
        "input_shape": list(shape),
        "classes": 10,
    }
    return Ticket(mask, weights, weights, {"mean": [0.0], "std": [1.0]}, origin)


def run(rounds: int, batches: tuple[int, ...], threads: tuple[int, ...] | None, console: Console) -> dict[str, Any]:
    """Measure every case and return what the results file holds."""
    core = probe()
    cases = []
    for network, shape, density in CASES:
        ticket = random_ticket(network, shape, density)
        measured = measure(ticket, None, None, batches, threads, rounds)
        roof = roofline(ticket, core)
        cases.append({"network": network, "density": ticket.mask.density, **as_json(measured), "roofline": roof})
        show(cases[-1], console)
    load = os.getloadavg()[0]
    if load > (os.cpu_count() or 1):
        console.print(
            f"The machine is busy (load {load:.1f}): trust the least times and their ratios, not the medians."
        )
    return {
        "load": load,
        "core": {"multiply_adds": core.multiply_adds, "loads": core.loads, "reads": core.reads},
        "cases": cases,
    }


def roofline(ticket: Ticket, core: Core) -> dict[str, Any]:
    """Return what a ticket needs and the least time that takes on one core."""
    sources = ticket_sources(ticket)
    need = needs(trace_ticket(ticket), sources.tables)
    code, work = object_bytes(sources, SINGLE)
    least = {name: 1e6 * seconds for name, seconds in bounds(need, core).items()}
    return {**vars(need), "object_bytes": code, "work_bytes": work, "least_us": least}


def show(case: dict[str, Any], console: Console) -> None:
    """Print one case."""
    code = byte_size(case["roofline"]["object_bytes"])
    title = f"{case['network']} at {case['density']:.2%}: {code} of object code and data"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("batch", "cores", "contender", "median", "least", "speedup", "speedup of least"):
        table.add_column(name, justify="left" if name == "contender" else "right")
    for batch, threads in dict.fromkeys((row["batch"], row["threads"]) for row in case["latencies"]):
        rows = [row for row in case["latencies"] if (row["batch"], row["threads"]) == (batch, threads)]
        for row in sorted(rows, key=lambda row: row["least_us"]):
            name = row["contender"] + ("" if row["float32"] else " *")
            times = latency(row["p50_us"]), latency(row["least_us"])
            ratios = f"{row['speedup']:.2f}x", f"{row['speedup_least']:.2f}x"
            table.add_row(str(batch), str(threads), name, *times, *ratios)
        table.add_section()
    console.print(table)
    least = ", ".join(f"{name} {latency(time)}" for name, time in case["roofline"]["least_us"].items())
    console.print(f"At least on one core and for one example: {least}.")
    console.print("* computes in lower precision. Speedup: over the best dense rival in float32.\n")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="How often each contender has its turn. [30]")
    parser.add_argument("--quick", action="store_true", help="Batch 1 on one core alone, in 10 rounds.")
    parser.add_argument("--out", type=Path, default=RESULTS, help="File to write. [benchmarks/results/export.json]")
    given = parser.parse_args()
    rounds, batches, threads = (10, (1,), (1,)) if given.quick else (given.rounds, (1, 64), None)
    found = run(rounds, batches, threads, Console(width=110, highlight=False))
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"Results: {given.out}")


if __name__ == "__main__":
    main()
