"""The command that runs a study again."""

from __future__ import annotations

import io
import shlex
from typing import Any

from ruamel.yaml import YAML

from tombola.errors import InputError
from tombola.studies.loading import STUDY_FILE, load_study, preset_names
from tombola.studies.study import Study
from tombola.studies.trainer import LOOP


def command(study: Study) -> str:
    """Return the shell command: of a preset with its changes, or of the study file that lies beside the results.

    A loop over `tombola.rounds` is a user's own script, whose name nobody knows: a comment names the loop.
    """
    if study.trainer is not None and study.trainer.is_loop:
        return f"# run the script whose loop over tombola.rounds has name={study.trainer.name.removeprefix(LOOP)!r}"
    study = study.without_folder()
    if study.name in preset_names():
        preset = load_study(study.name).without_folder()
        changes = _changes(preset.model_dump(mode="json"), study.model_dump(mode="json"))
        try:
            if load_study(study.name, assignments=changes).without_folder() == study:
                return shlex.join(["tombola", "run", study.name, *changes])
        except InputError:
            pass  # some change can't be said on a command line
    return f"tombola run {STUDY_FILE}"


def _changes(preset: dict[str, Any], study: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for field, value in study.items():
        if preset[field] == value:
            continue
        if isinstance(value, dict) and isinstance(preset[field], dict) and value.keys() == preset[field].keys():
            found += _changes(preset[field], value, f"{prefix}{field}.")
        else:
            found.append(f"{prefix}{field}={_flow(_short(value) if field == 'arms' else value)}")
    return found


def _short(arms: list[dict[str, Any]]) -> list[Any]:
    """Return arms as a person writes them: `ticket`, `{reinit: {per_trial: 3}}`."""
    short: list[Any] = []
    for arm in arms:
        options = {name: value for name, value in arm.items() if name != "rule" and value not in ("", 1)}
        short.append({arm["rule"]: options} if options else arm["rule"])
    return short


def _flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    if value is None:
        return "null"
    yaml = YAML(typ="safe")
    yaml.default_flow_style = True
    yaml.width = 10_000
    buffer = io.StringIO()
    yaml.dump(value, buffer)
    return buffer.getvalue().removesuffix("...\n").strip()
