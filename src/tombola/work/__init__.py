"""Work: anything that the scheduler runs and the store keeps, by identity. One record for each kind.

The scheduler, the store, the progress display and the estimates know a kind by its record alone. Another package adds a
kind by a function that returns its record: `kind = "package.module:function"` in the spec's class.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Literal

from pydantic import ValidationError

from tombola.errors import InputError, StoreError
from tombola.registry import resolve
from tombola.work.interpolation import Interpolation
from tombola.work.mask_search import Limit, MaskSearch
from tombola.work.on_data import OnData
from tombola.work.own_run import OWN_DATA, OWN_RECIPE, OwnInterpolation, OwnMaskSearch, OwnRun
from tombola.work.run import Frozen, InitialState, MaskUse, MovingRun, Run, SgdNoise, Shuffle, Supermask, Training
from tombola.work.spec import Cost, Item, Observations, Spec, identity_of

__all__ = [
    "KINDS",
    "OWN_DATA",
    "OWN_RECIPE",
    "Cost",
    "Frozen",
    "InitialState",
    "Interpolation",
    "Item",
    "Kind",
    "Limit",
    "MaskSearch",
    "MaskUse",
    "MovingRun",
    "Observations",
    "OnData",
    "OpaqueSpec",
    "OwnInterpolation",
    "OwnMaskSearch",
    "OwnRun",
    "Run",
    "SgdNoise",
    "Shuffle",
    "Spec",
    "Supermask",
    "Training",
    "identity_of",
    "is_counted",
    "item_from_json",
    "kind_named",
    "opaque_item_from_json",
]

RESULT, WEIGHTS = "result.json", "weights.safetensors"


def _alone(item: Item) -> Hashable:
    return item.id


def _of_one_kind(item: Item) -> Hashable:
    return item.kind


def _like_training(item: Item) -> Hashable:
    """Return what runs must have in common for an engine to train them in lockstep."""
    spec = item.spec
    assert isinstance(spec, Run)
    problem = (spec.network, spec.data, spec.task, spec.network_code, spec.data_code, spec.task_code)
    return tuple(map(str, problem)), spec.training, spec.initial.iteration, spec.until


@dataclass(frozen=True)
class Kind:
    """One kind of work.

    Args:
        name: in files and messages.
        noun: for one piece of it in a sentence, such as "run".
        spec: its class.
        execute: "module:function", called in a worker as `function(items, store, options)`; it stores each
            item's result. A text, so that planning imports nothing of what executing needs.
        files: of a result, beside its checksums.
        resource: what it is computed on: "gpu" takes the training device, "cpu" always runs on the CPU.
        together: items with equal values may be executed in one call.
        most: how many those may be; None: as many as an engine may stack.
        computes_zeros: whether pruned weights cost as much time as live ones, whatever the density.
        counted: whether the progress counts it; a mask search is a step on the way to a run.
    """

    name: str
    noun: str
    spec: type[Spec]
    execute: str
    files: tuple[str, ...] = (RESULT,)
    resource: Literal["cpu", "gpu"] = "cpu"
    together: Callable[[Item], Hashable] = _alone
    most: int | None = 1
    computes_zeros: bool = False
    counted: bool = True

    def executor(self) -> Callable[..., None]:
        """Import and return the function that executes items of this kind."""
        module, _, function = self.execute.partition(":")
        return getattr(import_module(module), function)


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "run",
            "run",
            Run,
            "tombola.running.training:execute_runs",
            (RESULT, WEIGHTS),
            resource="gpu",
            together=_like_training,
            most=None,
        ),
        Kind(
            "supermask",
            "supermask",
            Supermask,
            "tombola.running.training:execute_supermasks",
            (RESULT, WEIGHTS),
            resource="gpu",
            computes_zeros=True,
        ),
        Kind(
            "moving-run",
            "run",
            MovingRun,
            "tombola.running.training:execute_moving",
            (RESULT, WEIGHTS),
            resource="gpu",
            computes_zeros=True,
        ),
        Kind(
            "mask-search",
            "mask search",
            MaskSearch,
            "tombola.running.masks:execute",
            (RESULT, WEIGHTS),
            together=_of_one_kind,
            most=32,
            counted=False,
        ),
        Kind(
            "own-run",
            "run",
            OwnRun,
            "tombola.running.own_runs:execute_runs",
            (RESULT, WEIGHTS),
            resource="gpu",
        ),
        Kind(
            "own-mask-search",
            "mask search",
            OwnMaskSearch,
            "tombola.running.own_runs:execute_searches",
            (RESULT, WEIGHTS),
            together=_of_one_kind,
            most=32,
            counted=False,
        ),
        Kind("interpolation", "interpolation", Interpolation, "tombola.running.interpolations:execute", resource="gpu"),
        Kind(
            "own-interpolation",
            "interpolation",
            OwnInterpolation,
            "tombola.running.own_interpolations:execute",
            resource="gpu",
        ),
    )
}


def kind_named(name: str) -> Kind:
    """Return the record of a work kind.

    Raises:
        InputError: no such kind is known here.
    """
    if name in KINDS:
        return KINDS[name]
    found = resolve(name, {}, "work kind")()
    if not isinstance(found, Kind):
        raise InputError(f"work kind {name!r} returned a {type(found).__name__}; it must return a tombola.work.Kind")
    return found


def is_counted(item: Item) -> bool:
    """Return whether progress counts an item; one of a kind that reading does not resolve counts."""
    return isinstance(item.spec, OpaqueSpec) or kind_named(item.kind).counted


def item_from_json(values: Mapping[str, Any]) -> Item:
    """Return the item that `Item.as_json` wrote.

    Raises:
        InputError: its kind is not known here.
        StoreError: it is not an item.
    """
    try:
        spec = kind_named(values["kind"]).spec.model_validate(values["spec"])
        return _item(spec, values)
    except (KeyError, TypeError, ValidationError) as error:
        raise StoreError(f"not a work item: {str(error).splitlines()[0]}") from error


class OpaqueSpec(Spec):
    """The spec of a kind that is not looked up, because a folder is only read: reading imports no code.

    Args:
        of_kind: name of the kind.
        content: the spec as it was written.
        before: identities of what it needs.
    """

    kind: ClassVar[str] = "opaque"

    of_kind: str
    content: dict[str, Any]
    before: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """Identities of the work that this needed."""
        return self.before


def opaque_item_from_json(values: Mapping[str, Any]) -> Item:
    """Return an item for reading alone: kinds that tombola does not ship stay unresolved."""
    if values["kind"] in KINDS:
        return item_from_json(values)
    spec = OpaqueSpec(of_kind=values["kind"], content=values["spec"], before=tuple(values.get("needs", ())))
    return _item(spec, values)


def _item(spec: Spec, values: Mapping[str, Any]) -> Item:
    return Item(
        spec=spec,
        label=values["label"],
        group=values["group"],
        cost=Cost(**values["cost"]),
        observe=Observations.model_validate(values["observe"]),
        data_file=values["data_file"],
        readers=values.get("readers", 0),
        arm=values.get("arm", ""),
        repeat=values.get("repeat", 0),
        id=values["id"],
    )
