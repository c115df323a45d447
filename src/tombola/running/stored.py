"""What a stored result may say: every `result.json` is checked against this before anything is made of it.

Its checksums show that it is what was written. They don't show who wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tombola.work import KINDS, Observations

Count = Annotated[int, Field(ge=0, le=2**60)]
Columns = dict[str, list[float]]


class _Engine(BaseModel):
    name: str


class _Remarks(BaseModel):
    model_config = ConfigDict(extra="allow")

    collapsed: list[str] = []
    no_path: bool = False


class _Settling(BaseModel):
    iteration: list[float]
    distance: list[list[float]]
    settled: list[float | None]

    @model_validator(mode="after")
    def _fits(self) -> _Settling:
        if len(self.settled) != len(self.distance) or any(len(each) != len(self.iteration) for each in self.distance):
            raise ValueError("its lists have different lengths")
        return self


class _Facts(BaseModel):
    """What every result has."""

    model_config = ConfigDict(extra="allow")

    id: str
    kind: str
    settings: dict[str, Any] | None
    spec: dict[str, Any]
    observed: Observations
    diverged_at: int | None
    seconds: float = Field(ge=0, allow_inf_nan=False)
    remarks: _Remarks = _Remarks()
    digest: str | None = None
    made_from: dict[str, str] = {}


class _Searched(_Facts):
    """Of a mask search."""

    remaining: dict[str, Count]


class _Trained(_Facts):
    """Of a run, whoever trained it, and of a supermask."""

    remaining: dict[str, Count]
    engine: _Engine
    history: Columns
    iterations: Count
    train: list[float] | None
    snapshots: list[str]
    normalisation: dict[str, list[float]] = {}
    early_stop: int | None = Field(default=None, ge=0)
    zeros: Count = 0
    energy_kwh: float | None = None
    co2_kg: float | None = None
    settling: list[_Settling] = []

    @model_validator(mode="after")
    def _is_a_history(self) -> _Trained:
        lengths = {len(column) for column in self.history.values()}
        if len(lengths) != 1 or not {"iteration", "val_loss"} <= self.history.keys():
            raise ValueError("its history is not a table of evaluations")
        (length,) = lengths
        if self.diverged_at is None and (not length or self.train is None or (self.early_stop or 0) >= length):
            raise ValueError("its history is too short")
        if len(self.settling) != len(self.observed.masks):
            raise ValueError("it does not tell of the masks that were watched")
        return self


class _Interpolated(_Facts):
    """Of an interpolation."""

    remaining: list[Count] = Field(min_length=2, max_length=2)
    along: Columns


_OF_KIND: dict[str, type[_Facts]] = {
    "interpolation": _Interpolated,
    "mask-search": _Searched,
    "moving-run": _Trained,
    "own-interpolation": _Interpolated,
    "own-mask-search": _Searched,
    "own-run": _Trained,
    "run": _Trained,
    "supermask": _Trained,
}


def check_facts(facts: Mapping[str, Any]) -> None:
    """Check what a result says.

    Raises:
        ValueError: something is missing, of another type, or does not belong to the settings that its identity is a
            hash of.
    """
    kind = facts.get("kind")
    try:
        _OF_KIND.get(kind if isinstance(kind, str) else "", _Facts).model_validate(facts)
        settings = facts["settings"]
        if settings is not None and kind in KINDS:
            spec = KINDS[kind].spec.model_validate(facts["spec"])
            if spec.settings() | {"revision": settings.get("revision")} != settings:
                raise ValueError("its spec is not that of its settings")
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise ValueError(f"{where}: {fault['msg']}" if where else fault["msg"]) from None
