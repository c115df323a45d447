"""How small does a Lenet-300-100 become, and what does the decoded file score? `python -m benchmarks.packed`.

The study is the preset lenet-mnist, five trials, at a reduced length. Each level is packed with each number of bits,
its shared values fine-tuned on the trial's training examples, written to a file, decoded, and measured. Of the
settings whose files keep within a budget in every trial, the one with the highest mean validation accuracy is chosen;
only then is its test accuracy looked at.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tombola
from tombola.data.parts import Part
from tombola.export.packed.decode import read
from tombola.export.packed.finetune import Tuning
from tombola.export.packed.ticket import load_packed
from tombola.export.source import splits_of
from tombola.running.results import Results

CHANGES = {"training.iterations": 8000, "pruning.rounds": 17, "arms": ["ticket"]}
DENSE_BYTES = 1_066_440  # of Lenet-300-100 in float32
BUDGETS = {"100x": DENSE_BYTES // 100, "150x": DENSE_BYTES // 150}
SETTINGS = "14:1,15:2,15:3,16:2,16:3,17:2,17:3"  # those whose files come near a budget
HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results/lenet-packed"), help="of the study; made if new")
    parser.add_argument("--data", type=Path, help="folder of data sets")
    parser.add_argument("--settings", default=SETTINGS, help=f"pairs of level and bits [{SETTINGS}]")
    parser.add_argument("--other-bits", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=4000, help="of fine-tuning")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "packed.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    results = study_results(given.results, given.data)
    settings = [
        (int(level), int(bits)) for level, _, bits in (pair.partition(":") for pair in given.settings.split(","))
    ]
    found = json.loads(given.out.read_text()) if given.out.exists() else {"dense": {}, "packed": {}}
    for trial in range(results.study.trials):
        measure_trial(results, trial, settings, given, found)
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(table(found))


def study_results(folder: Path, data: Path | None) -> Results:
    """Return the study's results; what is missing is run."""
    study = tombola.Study.load("lenet-mnist", trials=5, **CHANGES)
    if (folder / "study.yaml").is_file():
        results = Results.open(folder, data)
        if not results.missing():
            return results
    return tombola.run(study, folder, data=data, figures=False)


def measure_trial(
    results: Results, trial: int, settings: list[tuple[int, int]], given: argparse.Namespace, found: dict[str, Any]
) -> None:
    """Add the dense network of a trial and all its packed files to what is found."""
    splits = splits_of(results, trial, given.data)
    dense = results.ticket(trial=trial, level=0).build(trained=True)
    found["dense"][str(trial)] = [accuracy(dense, splits.validation), accuracy(dense, splits.test)]
    for level, bits in settings:
        name = f"level {level}, {bits} bits, {given.iterations} iterations, trial {trial}"
        if name in found["packed"]:
            continue
        ticket = results.ticket(trial=trial, level=level)
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "ticket.tombola"
            ticket.export(
                "packed",
                path,
                bits=bits,
                other_bits=given.other_bits,
                finetune=(splits.train.inputs, splits.train.targets),
                tuning=Tuning(iterations=given.iterations),
            )
            seconds, size, network, plain = (
                time.perf_counter() - begin,
                os.path.getsize(path),
                load_packed(path),
                read(path),
            )
        for parameter, value in network.state_dict().items():  # the decoder of NumPy alone gives the same
            assert np.array_equal(value.numpy(), plain.tensors[parameter])
        kept = int(sum(mask.sum() for mask in plain.masks.values()))
        found["packed"][name] = {
            "level": level,
            "bits": bits,
            "iterations": given.iterations,
            "trial": trial,
            "weights": ticket.mask.remaining,
            "live_weights": kept,
            "bytes": size,
            "validation": accuracy(network, splits.validation),
            "test": accuracy(network, splits.test),
            "seconds": round(seconds, 1),
        }
        given.out.write_text(json.dumps(found, indent=1) + "\n")
        print(name, found["packed"][name], file=sys.stderr, flush=True)


def accuracy(network: torch.nn.Module, part: Part) -> float:
    """Return the share of all examples of a split that a network gets right."""
    with torch.no_grad():
        return float((network.eval()(part.inputs).argmax(1) == part.targets).double().mean())


def table(found: dict[str, Any]) -> str:
    """Return the results as Markdown: every setting's size, and the accuracies of those that validation chooses."""
    trials = sorted(found["dense"])
    groups: dict[tuple[int, int, int], list[dict[str, Any]]] = {}
    for each in found["packed"].values():
        groups.setdefault((each["level"], each["bits"], each["iterations"]), []).append(each)
    groups = {key: group for key, group in groups.items() if len(group) == len(trials)}
    dense = [found["dense"][trial][1] for trial in trials]
    lines = [
        "| chosen for | level | Pm | bits | bytes (largest) | smaller by | bits per weight | validation | test |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| dense, float32 | 0 | 100 | 32 | {DENSE_BYTES:,} | 1x | 32 "
        f"| {mean([found['dense'][trial][0] for trial in trials])} | {mean(dense)} |",
    ]
    for name, budget in BUDGETS.items():
        fitting = {key: group for key, group in groups.items() if max(each["bytes"] for each in group) <= budget}
        if fitting:
            best = max(fitting, key=lambda key: statistics.mean(each["validation"] for each in fitting[key]))
            lines.append(row(f"{name} (at most {budget:,} bytes)", best, fitting[best]))
    lines += ["", "| level | bits | bytes | bits per weight | validation |", "|---|---|---|---|---|"]
    for key in sorted(groups):
        group = groups[key]
        sizes = [each["bytes"] for each in group]
        per_weight = statistics.mean(8 * each["bytes"] / each["weights"] for each in group)
        validation = mean([each["validation"] for each in group])
        lines.append(f"| {key[0]} | {key[1]} | {min(sizes):,} to {max(sizes):,} | {per_weight:.2f} | {validation} |")
    return "\n".join(lines) + "\n"


def row(name: str, key: tuple[int, int, int], group: list[dict[str, Any]]) -> str:
    """Return a line of the first table."""
    largest = max(each["bytes"] for each in group)
    density = 100 * statistics.mean(each["weights"] for each in group) / 266_200
    per_weight = statistics.mean(8 * each["bytes"] / each["weights"] for each in group)
    accuracies = f"{mean([each['validation'] for each in group])} | {mean([each['test'] for each in group])}"
    return (
        f"| {name} | {key[0]} | {density:.2f} | {key[1]} | {largest:,} | {DENSE_BYTES / largest:.0f}x "
        f"| {per_weight:.2f} | {accuracies} |"
    )


def mean(values: list[float]) -> str:
    """Return mean and standard deviation of fractions in percent."""
    return f"{100 * statistics.mean(values):.2f} ± {100 * statistics.stdev(values):.2f} %"


if __name__ == "__main__":
    main()
