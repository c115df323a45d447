"""A study: network, data, training, pruning, arms and trials, validated and frozen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from tombola.data import DataSettings
from tombola.errors import InputError
from tombola.networks import Anatomy, NetworkSettings
from tombola.pruning.select import Scope
from tombola.section import Section
from tombola.training.recipe import Recipe


class Pruning(Section):
    """The `pruning` section: what one round removes.

    A rate is the fraction of the remaining weights that one round removes; density is the fraction kept.

    Args:
        criterion: scores the weights; the lowest scores go first. One of ours or `package.module:function`.
        scope: "layer" compares weights within each layer, "global" across all layers together.
        rate: of every layer that nothing else is said about.
        output_rate: of the output layer, under scope "layer"; half of `rate` where it is not given (the paper's
            Figure 2).
        rates: layer -> rate, under scope "layer"; of two that fit a layer, the later.
        exclude: layers that are never pruned; "output" stands for the output layer. Here as in `rates`, a pattern such
            as "*.shortcut" stands for every layer whose name it matches.
        rounds: number of rounds; level n has been pruned n times.
        minimum: the least number of weights that a layer keeps.
    """

    criterion: str = "magnitude"
    scope: Scope = "layer"
    rate: float = Field(ge=0, le=1)
    output_rate: float | None = Field(default=None, ge=0, le=1)
    rates: dict[str, float] = Field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    rounds: int = Field(ge=0)
    minimum: int = Field(default=0, ge=0)

    @field_validator("rates")
    @classmethod
    def _rates_in_range(cls, rates: dict[str, float]) -> dict[str, float]:
        for layer, rate in rates.items():
            if not 0 <= rate <= 1:
                raise ValueError(f"the rate of {layer!r} is {rate}: it must lie between 0 and 1")
        return rates

    @model_validator(mode="after")
    def _layer_rates_need_layer_scope(self) -> Pruning:
        if self.scope == "global" and (self.rates or self.output_rate is not None):
            raise ValueError(
                "scope: global compares all layers at one rate; rates and output_rate belong to scope: layer "
                "(a layer that is to be left alone goes into exclude)"
            )
        return self

    def resolve(self, anatomy: Anatomy) -> dict[str, float]:
        """Return weight name -> rate for every layer that is pruned.

        Raises:
            InputError: a layer is named that the network does not have, or nothing is left to prune.
        """

        def find(name: str, field: str) -> tuple[str, ...]:
            names = [layer.name for layer in anatomy.layers]
            if name == "output" and not {"output", "output.weight"} & set(names):
                return (anatomy.output,)
            return anatomy.match(name, f"pruning.{field}")

        excluded = {layer for name in self.exclude for layer in find(name, "exclude")}
        named = {layer: rate for name, rate in self.rates.items() for layer in find(name, "rates")}
        if both := excluded & named.keys():
            raise InputError(f"pruning: {sorted(both)[0]!r} stands both in exclude and in rates")
        rates = {layer.name: self.rate for layer in anatomy.layers}
        if self.scope == "layer":
            rates[anatomy.output] = self.rate / 2 if self.output_rate is None else self.output_rate
        rates |= named
        rates = {name: rate for name, rate in rates.items() if name not in excluded}
        if not rates:
            raise InputError("pruning.exclude: every prunable layer is excluded; there is nothing to prune")
        return rates


class ArmSettings(Section):
    """One arm of a study.

    Args:
        rule: one of ours (see `tombola.studies.arms`), or `package.module:function`.
        name: of the curve in tables and figures; the rule's name where it is not given.
        per_trial: repetitions in each trial.
    """

    rule: str
    name: str = ""
    per_trial: int = Field(default=1, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        """Accept `reinit` and `{reinit: {per_trial: 3}}` for `{rule: reinit, per_trial: 3}`."""
        if isinstance(value, str):
            return {"rule": value}
        if isinstance(value, dict) and len(value) == 1 and "rule" not in value:
            ((rule, options),) = value.items()
            if options is None or isinstance(options, dict):
                return {"rule": rule, **(options or {})}
        return value

    @property
    def label(self) -> str:
        """The arm's name in tables and figures."""
        return self.name or self.rule


class Study(Section):
    """What `tombola run` runs.

    Args:
        name: of the study, and of its results folder unless another is asked for.
        description: one line for lists.
        seed: all randomness follows from it and the trial's number.
        network, data, training, pruning: see those sections.
        rewind: the iteration of the dense run that kept weights go back to; 0 is the initialisation. A rewound
            network goes on from there: schedule and data order continue, and the budget counts from 0.
        arms: the curves.
        trials: independent repetitions: own initialisation, data order and split.
    """

    name: str = Field(min_length=1, max_length=100)
    description: str = ""
    seed: int = Field(default=0, ge=0)
    network: NetworkSettings
    data: DataSettings
    training: Recipe
    pruning: Pruning
    rewind: int = Field(default=0, ge=0)
    arms: tuple[ArmSettings, ...] = Field(min_length=1)
    trials: int = Field(ge=1)

    @field_validator("network", mode="before")
    @classmethod
    def _network_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("data", mode="before")
    @classmethod
    def _data_source(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value

    @field_validator("arms", mode="before")
    @classmethod
    def _single_arm(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | dict) else value

    @field_validator("arms")
    @classmethod
    def _arms_differ(cls, arms: tuple[ArmSettings, ...]) -> tuple[ArmSettings, ...]:
        labels = [arm.label for arm in arms]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"two arms are called {label!r}; give one of them another name")
        return arms

    @classmethod
    def load(cls, name: str | Path, /, **overrides: Any) -> Study:
        """Load a preset, a study file, or the study of a results folder.

        >>> Study.load("demo", trials=1).trials
        1

        Args:
            name: of a preset; or the path of a `.yaml` file or results folder.
            **overrides: fields to replace: `trials=1`, `training={"iterations": 2000}`, or
                `**{"training.iterations": 2000}`.

        Raises:
            InputError: the study does not exist or says something that can't be; the message names field, value,
                what is allowed, file and line.
        """
        from tombola.studies.loading import load_study

        return load_study(str(name), overrides)

    @property
    def slug(self) -> str:
        """The name as it may stand in a path."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.name).strip("-.") or "study"
