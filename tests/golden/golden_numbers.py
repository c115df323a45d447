"""Every number of a small study, keyed by what it belongs to; and the comparison with the frozen ones.

Job identities, folder names, engine names, timings and versions are left out: they may change, numbers may not.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from golden_cases import CASES, FAMILIES
from golden_data import data_section
from torch import Tensor

import tombola

FOLDER = Path(__file__).parent
FACTS = (
    "density",
    "remaining_weights",
    "sparsity",
    "early_stop_iteration",
    "early_stop_val_loss",
    "early_stop_test_accuracy",
    "final_val_loss",
    "final_test_accuracy",
    "final_train_accuracy",
    "iterations",
    "status",
)
CURVE = ("iteration", "val_loss", "val_accuracy", "test_loss", "test_accuracy")
POINT = ("density", "position", "train_error", "test_error", "train_loss", "test_loss")
ROW_KEY = ("arm", "trial", "repeat", "level")
POINT_KEY = ("kind", "trial", "rewind", "level", "copy", "other_level", "other_copy")
SETTLING_KEY = ("trial", "level")
SETTLING = ("density", "iteration", "distance", "settled")

SAMPLE = 256  # places of a mask whose bits are frozen one by one

Numbers = dict[str, dict[str, Any]]  # "row ticket 0 0 1" -> the numbers of that row


def signature() -> dict[str, Any]:
    """Return what decides the last bits of a sum: processor, versions and threads."""
    return {
        "processor": _processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numpy": metadata.version("numpy"),
        "numba": metadata.version("numba"),
    }


def _processor() -> str:
    """Return maker and instruction sets of the processor; its name where the system does not list them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    fields = dict(tuple(map(str.strip, line.split(":", 1))) for line in reversed(lines) if ":" in line)
    if "flags" not in fields:
        return f"{platform.machine()} {platform.processor()}".strip()
    vectors = ("sse", "avx", "fma", "amx", "f16c")
    flags = sorted(flag for flag in fields["flags"].split() if flag.startswith(vectors))
    digest = hashlib.sha256(" ".join(flags).encode()).hexdigest()[:8]
    return f"{fields.get('vendor_id', '')} {fields.get('cpu family', '')} {fields.get('model', '')} {digest}"


def numbers_of(name: str, folder: Path, workers: int = 0) -> Numbers:
    """Run a case in `folder`, and return its numbers as they come back from JSON."""
    case = CASES[name]
    data = data_section(case.data, folder)
    fields = {"data": data, **case.fields}
    # Test values at each evaluation, as they were frozen.
    fields["training"] = {"test_every": "evaluation", **fields.get("training", {})}
    study = tombola.Study.load(case.preset, **fields)
    out = folder / "results" / f"{name}-{workers}" / "study"  # no results folder has this one as a neighbour
    results = tombola.run(
        study, out, data=folder, workers=workers, device="cpu", engine=case.engine, figures=False, quiet=True
    )
    found = dict(_rows(results)) | dict(_points(results)) | dict(_settling(results))
    return json.loads(json.dumps(found))


def _rows(results: tombola.Results) -> Iterator[tuple[str, dict[str, Any]]]:
    frame = results.frame()
    curves = dict(tuple(results.curves().groupby(list(ROW_KEY), sort=False)))
    for facts in frame.to_dict("records"):
        key = tuple(facts[column] for column in ROW_KEY)
        arm, trial, repeat, level = key
        ticket = results.ticket(trial=trial, level=level, arm=arm, repeat=repeat)
        numbers = {column: _plain(facts[column]) for column in FACTS}
        numbers |= {f"curve {column}": _plain(list(curves[key][column])) for column in CURVE}
        numbers |= {"mask": _digest(ticket.mask), "start": _digest(ticket.weights), "trained": _digest(ticket.trained)}
        if level == 1:
            numbers["mask sample"] = _sample(ticket.mask)
        yield _name("row", key), numbers


def _points(results: tombola.Results) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, points in results.connectivity().groupby(list(POINT_KEY), sort=False):
        yield _name("line", key), {column: _plain(list(points[column])) for column in POINT}


def _settling(results: tombola.Results) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, moves in results.settling().groupby(list(SETTLING_KEY), sort=False):
        yield _name("settling", key), {column: _plain(list(moves[column])) for column in SETTLING}


def _name(kind: str, key: Any) -> str:
    return " ".join(map(str, (kind, *key)))


def _plain(value: Any) -> Any:
    """Return plain Python numbers; those that JSON does not know as text."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    value = getattr(value, "item", lambda: value)()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Return a hash of names, types, shapes and every bit."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:24]


def _sample(mask: Mapping[str, Tensor]) -> str:
    """Return the bits of SAMPLE evenly spaced places of a mask, as text of 0 and 1."""
    bits = torch.cat([mask[name].reshape(-1) for name in sorted(mask)])
    places = torch.arange(SAMPLE) * (len(bits) - 1) // (SAMPLE - 1)
    return "".join(str(int(bit)) for bit in bits[places])


def write(family: str, cases: Mapping[str, Numbers]) -> Path:
    """Freeze the numbers of a family, a line for each row; a row equal to an earlier one names that one."""
    path = FOLDER / f"{family}.json"
    lines = []
    for name, numbers in cases.items():
        earlier: dict[str, str] = {}
        rows = []
        for key, value in numbers.items():
            text = json.dumps(value, separators=(",", ":"))
            rows.append(f"{json.dumps(key)}:{json.dumps(earlier[text]) if text in earlier else text}")
            earlier.setdefault(text, key)
        lines.append(f"{json.dumps(name)}:{{\n" + ",\n".join(rows) + "\n}")
    head = json.dumps(signature(), separators=(",", ":"))
    path.write_text(f'{{"signature":{head},\n"cases":{{\n' + ",\n".join(lines) + "\n}}\n")
    return path


def read(family: str) -> tuple[dict[str, Any], dict[str, Numbers]]:
    """Return the signature of the machine on which a family was frozen, and the numbers of its cases."""
    frozen = json.loads((FOLDER / f"{family}.json").read_text())
    cases = {
        name: {key: numbers[value] if isinstance(value, str) else value for key, value in numbers.items()}
        for name, numbers in frozen["cases"].items()
    }
    return frozen["signature"], cases


def family_of(name: str) -> str:
    """Return the family that a case belongs to."""
    return next(family for family, cases in FAMILIES.items() if name in cases)
