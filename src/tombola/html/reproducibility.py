"""The reproducibility sheet: what Raff (2019, "A Step Toward Quantifying Independently Reproducible Machine Learning
Research") found to matter, stated for one study."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tombola.data.dataset import is_one_shape
from tombola.data.digits import SHA256 as DIGITS_SHA256
from tombola.data.published import PUBLISHED
from tombola.formatting import counted, counted_are, plain
from tombola.running.collapse import said
from tombola.running.results import Results
from tombola.seeds import PURPOSES
from tombola.studies.command import command
from tombola.studies.study import ArmSettings, Study

UNKNOWN = "not recorded"


@dataclass(frozen=True)
class Group:
    """Related facts, in display order."""

    title: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Sheet:
    """Everything needed to repeat a study.

    Args:
        command: of the shell.
        groups: of facts.
    """

    command: str
    groups: tuple[Group, ...]


def sheet(results: Results, levels: pd.DataFrame) -> Sheet:
    """Return the sheet of a study, finished or not; `levels` is its results table."""
    study, plan = results.study.without_folder(), results.plan
    settings = study.model_dump(mode="json")
    facts = [results.store.facts(job) for job in dict.fromkeys(levels["job"])]
    layers = "; ".join(f"{layer.name}: {layer.size:,}" for layer in plan.coverage.layers)
    network = [*_settings(settings["network"]), ("prunable weights", f"{plan.remaining[0]:,} ({layers})")]
    groups = [
        Group("Network", tuple(network)),
        *_training(results, settings, facts),
        Group(
            "Pruning",
            (
                *_settings(settings["pruning"]),
                ("rewind", _rewind(study.rewind)),
            ),
        ),
        *([Group("Connectivity", tuple(_settings(settings["connectivity"])))] if study.connectivity else []),
        Group("Runs", (("arms", "; ".join(map(_arm, study.arms))), *_runs(results, levels))),
        Group("Seeds", _seeds(results)),
        Group("Compute", _compute(results, levels, facts)),
        Group("Software", _software(facts)),
    ]
    return Sheet(command(study), tuple(groups))


def flat_settings(study: Study) -> dict[str, str]:
    """Return every setting by its dotted name, without name and description, which decide nothing."""
    found: dict[str, str] = {}
    for name, value in study.model_dump(mode="json", exclude={"name", "description"}).items():
        if isinstance(value, dict):
            found |= {f"{name}.{key}": _value(each) for key, each in value.items()}
        else:
            found[name] = "; ".join(map(_arm, study.arms)) if name == "arms" else _value(value)
    return found


def _arm(arm: ArmSettings) -> str:
    changes = ["mask shuffled"] * arm.shuffle + ["fresh initialisation"] * arm.reinit
    changes += [f"kept weights: {arm.kept}{' with their signs' * arm.signs}"] * (arm.kept != "rewind")
    if arm.transfer is not None:
        changes.insert(0, f"{arm.transfer.take.replace('-', ' ')} from {_value(arm.transfer.source)}")
    control = "; ".join(changes + [f"pruned weights: {arm.pruned}"] * (arm.pruned != "zero"))
    rule = f" (rule {arm.rule}{control and '; '}{control})" if arm.label != arm.rule else ""
    repeats = f", {arm.per_trial} per trial" if arm.per_trial > 1 else ""
    return f"{arm.label}{rule}{repeats}"


def _rewind(rewind: Any) -> str:
    """Return the rewind step as text."""
    if isinstance(rewind, tuple):
        return ", ".join(map(_rewind, rewind))
    if isinstance(rewind, float):
        return f"to {100 * rewind:g} % of the budget"
    if isinstance(rewind, str):
        return f"to {rewind}"
    return f"to iteration {rewind}" + ("" if rewind else ", the initialisation")


def _training(results: Results, settings: dict[str, Any], facts: list[dict[str, Any]]) -> list[Group]:
    """Return the groups on data and training; for a user's own trainer, its settings."""
    if results.study.trainer is not None:
        return [Group("Training", tuple(_settings(settings["trainer"])))]
    budget = ("budget", counted(results.plan.budget(), "iteration"))
    return [
        Group("Data", (*_settings(settings["data"]), *_data(results), *_normalisation(facts))),
        Group("Training", (*_settings(settings["training"]), budget)),
    ]


def _settings(section: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), _value(value)) for name, value in section.items()]


def _value(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_value(each)}" for key, each in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_value, value)) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _data(results: Results) -> list[tuple[str, str]]:
    about, source = results.plan.data, results.study.data.source
    shape = _shape(about.input_shape)
    facts = [
        ("examples", f"{about.train:,} of the training set, validation included; {about.test:,} of the test set"),
        ("inputs", f"{shape}, {about.classes} classes"),
    ]
    if source in PUBLISHED:
        facts += [(f"sha256 of {name}.gz", digest) for name, digest in PUBLISHED[source].compressed.items()]
    elif source == "digits":
        facts.append(("sha256 of images and labels", DIGITS_SHA256))
    elif codes := {getattr(item.spec, "data_code", "") for item in results.plan.work.values()} - {""}:
        facts.append(("fingerprint of the file", ", ".join(sorted(codes))))
    return facts


def _shape(shape: Any) -> str:
    """Return the shape of an input, "1 × 28 × 28", or of each of several, "numbers: 12; city: one number"."""
    if is_one_shape(shape):
        return " × ".join(map(str, shape)) or "one number"
    if isinstance(shape, dict):
        return "; ".join(f"{name}: {_shape(each)}" for name, each in shape.items())
    return "; ".join(map(_shape, shape))


def _normalisation(facts: list[dict[str, Any]]) -> list[tuple[str, str]]:
    if not facts or "normalisation" not in facts[0]:
        return []
    used = facts[0]["normalisation"]
    if not used["mean"]:
        return [("normalisation", "none; networks take the inputs as they are")]
    mean, std = (", ".join(f"{value:.6g}" for value in used[name]) for name in ("mean", "std"))
    return [("normalisation, first trial", f"mean {mean}; standard deviation {std}")]


def _runs(results: Results, levels: pd.DataFrame) -> list[tuple[str, str]]:
    done, diverged = levels.drop_duplicates("job"), levels["status"].eq("diverged")
    runs = counted(len(done), "training run")
    if missing := results.missing():
        runs += f"; {counted_are(missing, 'work item', len(results.plan.work))} missing"
    facts = [("trials", str(results.study.trials)), ("number of runs", runs)]
    if diverged.any():
        facts.append(("diverged", counted(int(levels[diverged]["job"].nunique()), "run")))
    if collapsed := _collapsed(results, levels):
        facts.append(("collapsed", collapsed))
    return facts


def _collapsed(results: Results, levels: pd.DataFrame) -> str:
    """Return the runs whose mask empties a layer or leaves no path, with the layers; "" for none."""
    runs = levels[levels["status"].eq("collapsed")]
    places: dict[tuple[str, str], list[int]] = {}
    for row in runs.to_dict("records"):
        what = said(results.store.facts(row["job"])["remarks"])
        places.setdefault((row["arm"], what), []).append(row["level"])
    parts = [
        f"{plain(arm)} at level {', '.join(map(str, sorted(set(at))))}: {what}" for (arm, what), at in places.items()
    ]
    return "; ".join([counted(runs["job"].nunique(), "run"), *parts]) if parts else ""


def _seeds(results: Results) -> tuple[tuple[str, str], ...]:
    return (
        ("study seed", str(results.study.seed)),
        ("trials", ", ".join(map(str, results.study.trial_numbers))),
        (
            "each draw",
            f"its own generator, from study seed, trial, purpose ({', '.join(PURPOSES)}) and counter; "
            "tombola does not use the global generator",
        ),
    )


def _compute(results: Results, levels: pd.DataFrame, facts: list[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    runs = levels.drop_duplicates("job")
    seconds = float(runs["seconds"].sum())
    operations = sum(results.plan.operations(results.plan.work[job]) for job in runs["job"])
    engines = [fact["engine"] for fact in facts]
    found = [
        ("machine", _distinct(fact["versions"].get("machine") for fact in facts)),
        ("device", _distinct(engine.get("device") for engine in engines)),
        ("engine", _distinct(engine.get("name") for engine in engines)),
        ("threads per run", _distinct(engine.get("threads") for engine in engines)),
        ("training time", f"{seconds:,.0f} s ({seconds / 3600:,.2f} h) summed over runs, evaluations included"),
        (
            "operations",
            f"{operations:.3g} floating-point operations, estimated: two per multiply-add, none for pruned weights, "
            "backward twice forward, evaluations included",
        ),
    ]
    energy = runs["energy_kwh"].dropna() if "energy_kwh" in runs else pd.Series(dtype=float)
    if len(energy):
        found.append(("energy", f"{energy.sum():.4g} kWh, measured in {len(energy):,} of {counted(len(runs), 'run')}"))
    else:
        found.append(("energy", "not measured"))
    emitted = runs["co2_kg"].dropna() if "co2_kg" in runs else pd.Series(dtype=float)
    if len(emitted):
        found.append(("CO2", f"{emitted.sum():.4g} kg, known of {len(emitted):,} of {counted(len(runs), 'run')}"))
    return tuple(found)


def _software(facts: list[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    versions = [fact["versions"] for fact in facts]
    names = [name for name in dict.fromkeys(name for each in versions for name in each) if name != "machine"]
    found = [(name, _distinct(each.get(name) for each in versions)) for name in names if name != "commit"]
    commits = _distinct(each.get("commit") for each in versions)
    return (*found, ("git commit of tombola", commits))


def _distinct(values: Iterable[Any]) -> str:
    found = sorted({str(value) for value in values if value is not None})
    return ", ".join(found) or UNKNOWN
