"""Reads a study from presets, files, results folders, `extends` and overrides. Errors name file and line."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from tombola.errors import InputError, nearest, shown
from tombola.paths import local_path, read_text
from tombola.studies.cluster import SHELL
from tombola.studies.explaining import Place, explain
from tombola.studies.study import Study
from tombola.untrusted_yaml import MAX_BYTES, MAX_DEPTH, read_yaml

STUDY_FILE = "study.yaml"  # in every results folder
DEFAULT_RESULTS = "results"  # where those folders are, unless said otherwise


@dataclass
class Draft:
    """Settings before validation, with the file and line of each."""

    settings: dict[str, Any] = field(default_factory=dict)
    written: dict[Place, str] = field(default_factory=dict)
    parents: set[Place] = field(default_factory=set)  # places that hold others

    def where(self, place: Place) -> str:
        """Return "file, line n" for a field, or for the nearest section around it."""
        return _nearest_place(self.written, place)

    def lay(self, settings: dict[str, Any], where: Callable[[Place], str]) -> None:
        """Merge settings into the draft: sections field by field, other values as a whole."""
        for section, value in settings.items():
            base = self.settings.get(section)
            self.settings[section] = copy.deepcopy(_over(section, base, value))
            self._note((section,), value, where)

    def _note(self, place: Place, value: Any, where: Callable[[Place], str]) -> None:
        if not isinstance(value, dict) and place in self.parents:  # replaces whatever stood there
            length = len(place)
            self.written = {other: line for other, line in self.written.items() if other[:length] != place}
        self.written[place] = where(place)
        children = list(
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        if children:
            self.parents.add(place)
        for key, child in children:
            self._note((*place, key), child, where)


def _nearest_place(places: Mapping[Place, str], place: Place) -> str:
    return next((places[place[:n]] for n in range(len(place), 0, -1) if place[:n] in places), "")


def preset_names() -> list[str]:
    """Return the names of all presets."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in files("tombola.studies").joinpath("presets").iterdir()
        if entry.name.endswith(".yaml")
    )


def preset_text(name: str) -> str:
    """Return the text of a preset's file.

    Raises:
        InputError: the preset does not exist.
    """
    if name not in preset_names():
        raise InputError(f"unknown preset {name!r}{nearest(name, preset_names())}")
    return files("tombola.studies").joinpath("presets", f"{name}.yaml").read_text("utf-8")


def load_study(name: str, overrides: Mapping[str, Any] | None = None, assignments: Iterable[str] = ()) -> Study:
    """Load a study, and replace fields.

    Args:
        name: a preset, a study file, or a results folder.
        overrides: field -> value, from Python; fields may be dotted.
        assignments: "field=value" texts from the command line; values are read as YAML.

    Raises:
        InputError: the study does not exist or is not valid.
    """
    draft = _read(name, ())
    for key, value in (overrides or {}).items():
        draft.lay(_from_here(_nested(key, value)), lambda place: "argument")
    together: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InputError(f"{text!r} is not an override: write FIELD=VALUE, such as training.lr=2e-4")
        try:
            settings = _nested(key, read_yaml(value, f"{key[:60]}=..."))
        except InputError as error:
            if value.count("[") + value.count("{") == value.count("]") + value.count("}"):
                raise
            raise InputError(f"{error}; a shell splits values at spaces: quote the argument, '{key}=[a, b]'") from None
        for section in settings.keys() & together.keys():
            if isinstance(together[section], str):  # a short form, which fields are now added to
                draft.lay(_from_here({section: together.pop(section)}), lambda place: "command line")
        together = _deep(together, settings)
    draft.lay(_from_here(together), lambda place: "command line")
    return _validated(draft)


def dump_study(study: Study) -> str:
    """Return a study as YAML text that `load_study` reads back as the same study."""
    import io

    content = study.model_dump(mode="json", exclude={"cluster": set(SHELL)})
    if study.cluster is None:
        del content["cluster"]
    if study.trainer is None:
        del content["trainer"]
    else:  # their places hold nothing that a person wrote
        content = {key: value for key, value in content.items() if key not in TRAINERS_OWN}
    stream = io.StringIO()
    yaml = YAML()
    yaml.width = 120
    yaml.dump(content, stream)
    return stream.getvalue()


def _read(name: str, seen: tuple[str, ...], relative_to: Path = Path()) -> Draft:
    """Read one study and all studies that it extends."""
    if not name:
        raise InputError("the study's name is empty; give a preset, a study file or a results folder")
    path = relative_to / local_path(name, "study")
    if name in preset_names():
        source, text, folder = f"preset {name}", preset_text(name), Path()
    else:
        if path.is_dir():
            path = path / STUDY_FILE
            if not path.is_file():
                raise InputError(f"{str(path.parent)!r} is not a results folder: it has no {STUDY_FILE}")
        elif not path.is_file():
            if path.suffix in (".yaml", ".yml") or "/" in name:
                raise InputError(f"no study file or results folder has the name {str(path)!r}")
            if seen == () and (Path(DEFAULT_RESULTS) / name / STUDY_FILE).is_file():
                return _read(str(Path(DEFAULT_RESULTS) / name), seen)
            hint = nearest(name, preset_names())
            raise InputError(
                f"unknown study {name!r}{hint} (list the presets with `tombola presets`, or give the path of a study "
                "file)"
            )
        elif path.suffix == ".py":
            raise InputError(f"{path} is a Python script, not a study file; start it with: python {path}")
        source, text, folder = str(path), read_text(path, MAX_BYTES), path.parent
    real = source if name in preset_names() else str(path.resolve())
    if real in seen:
        raise InputError(f"extends refers to itself: {' -> '.join([*seen, real])}")
    loaded = read_yaml(text, source)
    if not isinstance(loaded, CommentedMap):
        raise InputError(f"{source}: a study file needs `field: value` lines")
    base = loaded.pop("extends", None)
    if base is not None and not isinstance(base, str):
        raise InputError(f"{source}: extends must name one preset or file, not {base!r}")
    draft = _read(base, (*seen, real), folder) if base else Draft()
    draft.settings.pop("description", None)  # it describes the base
    lines = dict(_lines(loaded, source))
    settings = _plain(loaded)
    # A path in a study file is relative to that file, wherever tombola is started.
    draft.lay(_from_here(settings, folder), lambda place: _nearest_place(lines, place))
    return draft


def _from_here(settings: dict[str, Any], folder: Path = Path()) -> dict[str, Any]:
    """Make the data's path absolute, because the study does not store the folder that it is relative to.

    That of a preset is relative to the current directory; see `tombola.data.load` for where else it is looked for.
    """
    data = settings.get("data")
    if isinstance(data, dict) and isinstance(data.get("path"), str):
        path = Path(folder, local_path(data["path"], "data.path")).absolute()
        settings = settings | {"data": data | {"path": str(path)}}
    if isinstance(arms := settings.get("arms"), list):
        settings = settings | {"arms": [_arm_from_here(arm, folder) for arm in arms]}
    return settings


def _arm_from_here(arm: Any, folder: Path) -> Any:
    """Make the paths of an arm's source absolute, as those of the study itself."""
    if not isinstance(arm, dict):
        return arm
    if len(arm) == 1 and isinstance(options := next(iter(arm.values())), dict):  # {ticket: {transfer: ...}}
        return {next(iter(arm)): _arm_from_here(options, folder)}
    transfer = arm.get("transfer")
    if not isinstance(transfer, dict):
        return arm
    source = transfer.get("from")
    if isinstance(source, dict):
        return arm | {"transfer": transfer | {"from": _from_here(source, folder)}}
    if isinstance(source, str) and source and source not in preset_names():
        path = Path(folder, local_path(source, "transfer.from"))
        if path.exists():
            return arm | {"transfer": transfer | {"from": str(path.absolute())}}
    return arm


def _lines(node: Any, source: str, place: Place = ()) -> Iterable[tuple[Place, str]]:
    """Yield where each field of a parsed file stands."""
    if isinstance(node, CommentedMap):
        children, line = node.items(), node.lc.key
    elif isinstance(node, CommentedSeq):
        children, line = enumerate(node), node.lc.item
    else:
        return
    for key, value in children:
        # Keys that `<<` brings in have no line of their own.
        with contextlib.suppress(KeyError, TypeError):
            yield (*place, key), f"{source}, line {line(key)[0] + 1}"
        yield from _lines(value, source, (*place, key))


def _plain(node: Any) -> Any:
    """Return ruamel's decorated values as plain Python ones; YAML tags mean nothing here."""
    if isinstance(node, Mapping):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_plain(value) for value in node]
    if isinstance(node, Path):
        return str(node)
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return getattr(node, "value", node)


def _nested(key: str, value: Any) -> dict[str, Any]:
    """Turn ("training.lr", 1) into {"training": {"lr": 1}}."""
    parts = key.strip().split(".")
    if len(parts) > MAX_DEPTH:
        raise InputError(f"{shown(key)}: more than {MAX_DEPTH} nested fields")
    for part in reversed(parts):
        value = {part: value}
    return dict(_plain(value))


TRAINERS_OWN = ("data", "task", "training", "retraining")  # sections that a study with a trainer does not have
# A plain string in their place means this field.
SHORT = {"network": "name", "data": "source", "task": "name", "trainer": "name"}
# Who sets one of these means the others to be gone.
RIVALS = {
    "training": ("iterations", "epochs"),
    "retraining": ("iterations", "epochs"),
    "pruning": ("rate", "target", "densities"),
}


def laid_over(section: str, base: Any, value: Any) -> Any:
    """Return a section, `base` as it is kept, with the fields of `value` in it."""
    plain = {field: each for field, each in base.items() if each is not None} if isinstance(base, dict) else base
    return _from_here({section: _over(section, plain, _plain(value))})[section]


def _over(section: str, base: Any, value: Any) -> Any:
    """Return what `value` makes of a section that was `base`."""
    short = SHORT.get(section)
    if short and isinstance(base, str):
        base = {short: base}
    if short and isinstance(value, str):  # another network or data set; of the old one only the split's size stays
        kept = {"validation": base["validation"]} if isinstance(base, dict) and "validation" in base else {}
        return {short: value} | kept
    if not isinstance(value, dict) or not isinstance(base, dict):
        return value
    gone: set[str] = set()
    if section == "task" and value.get("name") not in (None, base.get("name")):  # it has options of its own
        gone = base.keys() - value.keys()
    if section == "data" and value.get("source", "npz") != "npz":
        gone = {"path"}
    if section == "network" and value.get("name") not in (None, base.get("name")):  # its factory takes others
        gone = {"arguments", "output"}
        if (":" in str(value["name"])) != (":" in str(base.get("name"))):  # whose default of init is another
            gone.add("init")
    if any(value.get(rival) is not None for rival in RIVALS.get(section, ())):
        gone |= set(RIVALS[section]) - value.keys()
    if section == "pruning":
        if value.get("scope") == "global":  # which has one rate for all layers
            gone |= {"output_rate", "rates"} - value.keys()
        if isinstance(value.get("rate"), list) or value.get("densities"):  # which say how many rounds there are
            gone |= {"rounds"} - value.keys()
    return _deep({key: kept for key, kept in base.items() if key not in gone}, value)


def _deep(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and bool(value) and isinstance(merged.get(key), dict)  # {} empties
        merged[key] = _deep(merged[key], value) if both else value
    return merged


def _validated(draft: Draft) -> Study:
    if "name" not in draft.settings:
        raise InputError("the study has no name: add the line `name: my-study`")
    settings = dict(draft.settings)
    for section, value in settings.items():
        if isinstance(value, dict):  # null stands for a field's default
            settings[section] = {field: each for field, each in value.items() if each is not None}
    try:
        return Study.model_validate(settings)
    except ValidationError as error:
        raise InputError(explain(error, Study, draft.where)) from None
