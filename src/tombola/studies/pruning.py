"""The `pruning` section of a study: the weights that each round removes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from tombola.errors import InputError
from tombola.networks import KINDS, Coverage
from tombola.pruning.criteria import CRITERIA, SYNONYMS
from tombola.pruning.patterns import Pattern, fitting_rates
from tombola.pruning.schedule import constant_rate, rates_to
from tombola.pruning.select import Scope
from tombola.registry import named
from tombola.section import MOST_ITERATIONS, MOST_LEVELS, Section, as_name, or_number
from tombola.training.tracking import EarlyBird

Rate = float | tuple[float, ...]  # of every round, or a list with one for each


class BackOff(Section):
    """Back-off: after a level with too large a loss, tombola discards its mask and prunes the last good mask by less.

    Args:
        margin: the accepted loss of the task's metric, compared with the dense network, on the validation examples at
            early stop. A fraction for percentages: 0.01 is 1 percentage point of accuracy.
        factor: multiplies the rates after each failure.
    """

    margin: float = Field(ge=0)
    factor: float = Field(default=0.5, gt=0, lt=1)


class Pruning(Section):
    """The `pruning` section: the weights that each round removes.

    A rate is the fraction of the remaining weights that one round removes; density is the fraction kept. Set exactly
    one of `rate`, `target` and `densities`.

    Args:
        criterion: scores the weights; the lowest scores go first. One of ours or `package.module:function`.
        scope: "layer" compares weights within each layer, "global" across all layers together.
        rate: the rate of every layer that no other field sets; a list has one rate per round.
        target: density of the whole network after the last round, reached at one constant rate.
        densities: of the whole network at levels 1, 2, ..., falling.
        output_rate: the rate of the output layer, under scope "layer"; by default half of the others' (the paper's
            Figure 2).
        rates: layer -> rate, under scope "layer". A key is a layer, a pattern such as "conv*", or a kind: "conv",
            "linear", "recurrent", "attention", "embedding" or "parameter". A layer's own name comes before a pattern,
            a pattern before `output_rate`, and that before a kind.
        exclude: layers, patterns or kinds that are never pruned; "output" stands for the output layer.
        rounds: number of rounds; level n has been pruned n times. Follows from a list of rates or densities.
        minimum: the least number of weights that a layer keeps.
        back_off: prunes by less after a level with too large a loss. Densities are then unknown before the run.
        early_bird: tracks, during the dense run, the mask of magnitude pruning to each level, and records when it
            settles; set by default with an arm `early-bird`.
        stop_margin: an arm ends at the level whose validation metric is not better than chance by this margin; for
            classification, when the accuracy is below 1 / classes plus this.
        init_examples: examples of each class for `snip` and `grasp` (Tanaka et al. 2020 take ten); if the targets are
            not class numbers, ten times as many of all examples.
        pattern: weights that are pruned together: "channel", {"n": 2, "m": 4} or {"block": [4, 1]}.
    """

    criterion: str = Field(default="magnitude", json_schema_extra=named([*CRITERIA, *SYNONYMS], "criterion"))
    scope: Scope = "layer"
    rate: Rate | None = None
    target: float | None = Field(default=None, gt=0, lt=1)
    densities: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(default=(), max_length=MOST_LEVELS)
    output_rate: Rate | None = None
    rates: dict[str, Rate] = Field(default_factory=dict)
    exclude: tuple[str, ...] = Field(default=(), json_schema_extra=or_number)
    rounds: int = Field(ge=0, le=MOST_LEVELS)
    minimum: int = Field(default=0, ge=0, le=MOST_ITERATIONS)
    back_off: BackOff | None = None
    early_bird: EarlyBird | None = None
    stop_margin: float | None = Field(default=None, ge=0)
    pattern: Pattern | None = None
    init_examples: int = Field(default=10, ge=1, le=MOST_ITERATIONS)

    @model_validator(mode="before")
    @classmethod
    def _rounds_of_a_list(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("rounds") is None:
            for steps in (value.get("densities"), value.get("rate")):
                if isinstance(steps, list | tuple) and steps:
                    return value | {"rounds": len(steps)}
        return value

    @field_validator("criterion")
    @classmethod
    def _one_name(cls, criterion: str) -> str:
        """One criterion under two names must make the same work."""
        return SYNONYMS.get(criterion, criterion)

    @field_validator("rate", "output_rate", mode="before")
    @classmethod
    def _rate(cls, value: Any) -> Any:
        return None if value is None else _as_rate(value)

    @field_validator("rates", mode="before")
    @classmethod
    def _rates(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError("must be a map of layer to rate, such as {fc1: 0.5}")
        return {as_name(layer): _as_rate(rate, f" of {layer!r}") for layer, rate in value.items()}

    @field_validator("exclude", mode="before")
    @classmethod
    def _exclude(cls, value: Any) -> Any:
        return [as_name(layer) for layer in value] if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _check(self) -> Pruning:
        if (self.rate is not None) + (self.target is not None) + bool(self.densities) != 1:
            raise ValueError("set exactly one of rate, target and densities")
        if self.scope == "global" and (self.rates or self.output_rate is not None):
            raise ValueError(
                "scope: global compares all layers at one rate; rates and output_rate need scope: layer (to keep a "
                "layer whole, add it to exclude)"
            )
        lists = {"rate": self.rate, "output_rate": self.output_rate, "densities": self.densities or None}
        lists |= {f"rates.{layer}": rate for layer, rate in self.rates.items()}
        for name, steps in lists.items():
            if isinstance(steps, tuple) and len(steps) != self.rounds:
                raise ValueError(
                    f"{name} lists {len(steps)} values for {self.rounds} rounds; remove rounds, or set it to that "
                    "number"
                )
        if any(later >= earlier for earlier, later in zip(self.densities, self.densities[1:], strict=False)):
            raise ValueError("densities must fall from level to level")
        return self

    def resolve(self, coverage: Coverage, pattern: Pattern | None = None) -> tuple[dict[str, float], ...]:
        """Return weight name -> rate for every layer that is pruned, for each round.

        Args:
            coverage: of the network.
            pattern: of an arm, in the place of the section's own; then rounds may be fewer, as `fitting_rates` says.

        Raises:
            InputError: the network lacks a named layer, no layer remains to prune, or a density can't be reached.
        """
        excluded = {name for key in self.exclude for name in _layers(key, coverage, "pruning.exclude")}
        ours = pattern or self.pattern
        if ours is not None and ours.channel:
            excluded.add(coverage.output)  # its units are the classes
        kinds: dict[str, Rate] = {}
        named: dict[str, Rate] = {}
        for key, rate in sorted(self.rates.items(), key=lambda item: _precedence(item[0])):
            found = _layers(key, coverage, "pruning.rates")
            if len(found) == 1 and found[0] in excluded:
                raise InputError(f"pruning: {found[0]!r} is both in exclude and in rates; remove one")
            (kinds if key in KINDS else named).update(dict.fromkeys(found, rate))
        pruned = [layer.name for layer in coverage.layers if layer.name not in excluded]
        if not pruned:
            raise InputError("pruning.exclude: it excludes every prunable layer; remove at least one")

        def rates_at(number: int, base: float) -> dict[str, float]:
            rates = {name: _of(kinds.get(name, base), number) for name in pruned}
            if self.scope == "layer" and coverage.output in rates:
                half = rates[coverage.output] / 2
                rates[coverage.output] = half if self.output_rate is None else _of(self.output_rate, number)
            return rates | {name: _of(rate, number) for name, rate in named.items() if name in rates}

        sizes = coverage.sizes()
        if self.densities:
            bases = rates_to(sizes, self.densities, self.scope, self.minimum, rates_at)
        elif self.target is not None:
            if any(isinstance(rate, tuple) for rate in (self.output_rate, *self.rates.values())):
                raise InputError(
                    "pruning.target uses one constant rate, so output_rate and rates can't be lists; give single "
                    "numbers"
                )
            base = constant_rate(
                sizes, self.target, self.rounds, self.scope, self.minimum, lambda base: rates_at(0, base)
            )
            bases = [base] * self.rounds
        else:
            assert self.rate is not None
            bases = [_of(self.rate, number) for number in range(self.rounds)]
        rounds = [rates_at(number, base) for number, base in enumerate(bases)]
        if ours is not None:
            _check_axes([name for name in pruned if any(rates[name] for rates in rounds)], coverage)
        may_end, axes = pattern is not None, coverage.axes()
        return fitting_rates(ours, rounds, coverage.shapes(), self.scope, self.minimum, may_end, axes)


def _check_axes(names: Sequence[str], coverage: Coverage) -> None:
    """Refuse a pattern for layers whose inputs and outputs are not known.

    Raises:
        InputError: one of the layers called `names` is such a layer.
    """
    unknown = [layer for layer in coverage.layers if layer.name in names and layer.axes is None]
    if not unknown:
        return
    shape, every = "x".join(map(str, unknown[0].shape)), ", ".join(layer.name for layer in unknown)
    raise InputError(
        f"pruning.pattern: which axes of {unknown[0].name!r}, of shape {shape}, are inputs and which are outputs can't "
        f"be told from the forward pass; exclude it: pruning.exclude: [{every}]"
    )


def _as_rate(value: Any, whose: str = "") -> Rate:
    """Return a rate as it was written, checked; pydantic would say of a union what no part of it accepts."""
    if isinstance(value, list | tuple):
        return tuple(_share(each, whose) for each in value)
    return _share(value, whose)


def _share(value: Any, whose: str) -> float:
    try:
        share = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        share = math.nan
    if not 0 <= share <= 1:
        raise ValueError(
            f"the rate{whose} is {value}: it must lie between 0 and 1, or be a list with one for each round"
        )
    return share


def _of(rate: Rate, number: int) -> float:
    return rate[number] if isinstance(rate, tuple) else rate


def _is_pattern(key: str) -> bool:
    return any(sign in key for sign in "*?[")


def _precedence(key: str) -> int:
    return 0 if key in KINDS else 1 if _is_pattern(key) else 2


def _layers(key: str, coverage: Coverage, field: str) -> list[str]:
    """Return the weight names that match a key of `rates` or `exclude`."""
    names = [layer.name for layer in coverage.layers]
    if key in KINDS:  # a layer that is called so is there as "conv.weight"
        found = [layer.name for layer in coverage.layers if layer.kind == key]
    elif key in names or f"{key}.weight" in names:
        return [coverage.select(key, field)]
    elif key == "output":
        return [coverage.output]
    elif _is_pattern(key):
        found = [name for name in names if fnmatchcase(name, key) or fnmatchcase(name.removesuffix(".weight"), key)]
    else:
        return [coverage.select(key, field)]  # which says what there is
    if not found:
        known = ", ".join(name.removesuffix(".weight") for name in names)
        raise InputError(f"{field}: no prunable layer matches {key!r}; the layers are {known}")
    return found
