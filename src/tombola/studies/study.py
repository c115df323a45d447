"""A study: network, data, training, pruning, arms and trials, validated and frozen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from tombola.data import DataSettings
from tombola.errors import nearest
from tombola.networks import NetworkSettings
from tombola.pruning.at_init import AT_INIT
from tombola.pruning.criteria import CRITERIA, SYNONYMS
from tombola.pruning.patterns import Pattern
from tombola.registry import name_schema, named
from tombola.section import LARGEST_SEED, MOST_ARMS, MOST_REPEATS, SAME_AS, JsonSchema, Section
from tombola.studies.arms import ARMS
from tombola.studies.cluster import SHELL, ClusterSettings
from tombola.studies.connectivity import Connectivity
from tombola.studies.moves import DEFAULTS, Moves
from tombola.studies.pruning import Pruning
from tombola.studies.rewind import Rewind
from tombola.studies.trainer import Trainer
from tombola.studies.transfer import Transfer, source_study
from tombola.tasks import TaskSettings
from tombola.tasks.metric import MARGIN
from tombola.training.popup import FrozenWeights
from tombola.training.recipe import Recipe
from tombola.work.own_run import OWN_DATA, OWN_RECIPE

OF_THE_DENSE_RUN = ("one-shot", "one-shot-reinit")  # arms whose masks come from the dense run alone


class ArmSettings(Section):
    """One arm of a study.

    Args:
        rule: one of tombola's (see `tombola.studies.arms`), or `package.module:function`.
        name: of the curve in tables and figures; by default such as "snip" or "snip-shuffled".
        per_trial: repetitions in each trial.
        shuffle: a control: the rule's mask, shuffled within each layer (Su et al. 2020; Frankle et al. 2021).
        reinit: a control: the rule's mask on a fresh initialisation.
        training: fields of the recipe that change at levels 1 and up of this arm, such as `{lr: 0.1}`.
        pattern: of the arm's masks; it replaces `pruning.pattern`. An n:m arm ends where nothing more can go.
        criterion: of `one-shot` and `one-shot-reinit`: what the dense run is pruned by, instead of `pruning.criterion`.
        weights: of `edge-popup` and `supermask`: see `tombola.training.popup.Popup`.
        kept: what the kept weights start from: "rewind" as the rule says; "reinit" a fresh initialisation, "reshuffle"
            a permutation within the layer, "constant" plus or minus one constant (Zhou et al. 2019, mask-1 actions);
            "random-signs" the same magnitudes, their signs drawn at random.
        signs: kept weights have the sign that they would have had under `kept: rewind`.
        pruned: what pruned weights are: "zero"; "freeze" their starting values, untrained; "freeze-moved" the starting
            values of those whose magnitude grew while the dense network trained, the others 0.0 (mask-0 actions).
        moves: of `gradual`, `set`, `rigl` and `ac-dc`: when their mask moves.
        transfer: the rule's ticket is found on other data, by another recipe or for another task.
    """

    OTHER_NAMES: ClassVar = ("of",)  # of `rule`, in a control

    rule: str = Field(json_schema_extra=named(ARMS, "arm"))
    name: str = ""
    per_trial: int = Field(default=1, ge=1, le=MOST_REPEATS)
    shuffle: bool = False
    reinit: bool = False
    training: dict[str, Any] = Field(default_factory=dict, json_schema_extra={SAME_AS: "training"})
    criterion: str | None = Field(default=None, json_schema_extra=named([*CRITERIA, *SYNONYMS, *AT_INIT], "criterion"))
    weights: FrozenWeights | None = None
    pattern: Pattern | None = None
    kept: Literal["rewind", "reinit", "reshuffle", "constant", "random-signs"] = "rewind"
    signs: bool = False
    pruned: Literal["zero", "freeze", "freeze-moved"] = "zero"
    transfer: Transfer | None = None
    moves: Moves | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        """Accept `reinit` and `{reinit: {per_trial: 3}}` for `{rule: reinit, per_trial: 3}`, and `of` for `rule`."""
        if isinstance(value, str):
            return {"rule": value}
        if isinstance(value, dict) and "of" in value:
            if "rule" in value:
                raise ValueError("give an arm either `rule`, or `of` (the arm that it controls)")
            value = {"rule": value["of"], **{name: option for name, option in value.items() if name != "of"}}
            known = value.keys() <= cls.model_fields.keys()  # else the unknown option is what is wrong
            acts = value.get("kept", "rewind") != "rewind" or value.get("pruned", "zero") != "zero"
            if known and not acts and not any(_is_on(value.get(control)) for control in ("shuffle", "reinit")):
                raise ValueError(
                    f"a control of {value['rule']} must change something: give it shuffle: true, reinit: true, "
                    "kept: reinit (or another), or pruned: freeze; signs: true belongs to kept"
                )
            return value
        if isinstance(value, dict) and len(value) == 1 and "rule" not in value:
            ((rule, options),) = value.items()
            if options is None or isinstance(options, dict):
                return {"rule": rule, **(options or {})}
        return value

    @field_validator("criterion")
    @classmethod
    def _one_name(cls, criterion: str | None) -> str | None:
        return None if criterion is None else SYNONYMS.get(criterion, criterion)

    @classmethod
    def written_forms(cls, fields: JsonSchema) -> list[JsonSchema]:
        """Accept the short forms of `_short_forms`."""
        rule, name = fields["properties"]["rule"], name_schema(ARMS, "arm")
        options = {name: schema for name, schema in fields["properties"].items() if name != "rule"}
        control = fields | {"properties": {"of": rule, **options}, "required": ["of"]}
        section = {key: value for key, value in fields.items() if key != "required"} | {"properties": options}
        short = {"type": "object", "propertyNames": name, "minProperties": 1, "maxProperties": 1}
        return [name, fields, control, short | {"additionalProperties": {"anyOf": [section, {"type": "null"}]}}]

    @model_validator(mode="after")
    def _options_fit(self) -> ArmSettings:
        if self.weights and self.rule not in ("edge-popup", "supermask"):
            raise ValueError(f"only the arms edge-popup and supermask take weights, not {self.rule!r}")
        if self.criterion and self.rule not in OF_THE_DENSE_RUN:
            raise ValueError(
                f"criterion belongs to the arms {' and '.join(OF_THE_DENSE_RUN)}, which prune the dense run, not to "
                f"{self.rule!r}; set pruning.criterion"
            )
        if self.criterion and self.transfer:
            raise ValueError("criterion can't stand beside transfer; set pruning.criterion, which the source shares")
        if self.moves and self.rule not in DEFAULTS:
            raise ValueError(f"moves belongs to the arms {', '.join(DEFAULTS)}, not to {self.rule!r}")
        if self.transfer and self.pattern:
            raise ValueError("pattern can't stand beside transfer; set pruning.pattern, which the source shares")
        if self.reinit and self.kept != "rewind":
            raise ValueError(f"reinit: true and kept: {self.kept} both say what kept weights start from; leave one out")
        if self.signs and self.kept in ("rewind", "random-signs"):
            raise ValueError(f"signs: true belongs to kept: reinit, reshuffle or constant, not to kept: {self.kept}")
        return self

    def without_folder(self) -> ArmSettings:
        """Return the arm with the name of its source's data file alone."""
        data = self.transfer.source.get("data") if self.transfer else None
        if self.transfer is None or not isinstance(data, dict) or not data.get("path"):
            return self
        short = data | {"path": Path(data["path"]).name}
        transfer = self.transfer.model_copy(update={"source": self.transfer.source | {"data": short}})
        return self.model_copy(update={"transfer": transfer})

    @property
    def redraws(self) -> bool:
        """Whether kept weights come from another initialisation."""
        return self.reinit or self.kept == "reinit"

    @property
    def starts_fresh(self) -> bool:
        """Whether the whole network starts from another initialisation, whatever the study rewinds to."""
        return self.reinit or (self.kept == "reinit" and not self.signs)

    @property
    def is_control(self) -> bool:
        """Whether the arm uses the masks of its rule, and changes something else."""
        return self.shuffle or self.reinit or self.kept != "rewind" or self.pruned != "zero"

    @property
    def label(self) -> str:
        """The arm's name in tables and figures."""
        pattern = f"-{self.pattern.label}" if self.pattern else ""
        kept = "-reinit" if self.reinit else "" if self.kept == "rewind" else f"-{self.kept}"
        frozen = {"zero": "", "freeze": "-frozen", "freeze-moved": "-frozen-moved"}[self.pruned]
        pattern += f"-{self.criterion.rpartition(':')[2]}" if self.criterion else ""
        rule = self.rule + pattern + "-transferred" * (self.transfer is not None)
        return self.name or rule + "-shuffled" * self.shuffle + kept + "-signs" * self.signs + frozen


def _is_blank(given: Any, blank: Section) -> bool:
    """Return whether a section is empty or a placeholder: a kept plan has it, perhaps without fields added since."""
    try:
        return given in ({}, blank) or type(blank).model_validate(given) == blank
    except ValidationError:
        return False


def _is_on(value: Any) -> bool:
    """Return whether a switch is on, as far as it says either: to YAML 1.2, `no` is a text."""
    try:
        return value is not None and TypeAdapter(bool).validate_python(value)
    except ValidationError:
        return True  # which the field's own check will complain of


def _changed(recipe: Recipe, fields: dict[str, Any], where: str) -> Recipe:
    if unknown := sorted(fields.keys() - Recipe.model_fields.keys()):
        raise ValueError(f"{where}: unknown field {unknown[0]!r}{nearest(unknown[0], Recipe.model_fields)}")
    try:
        return recipe.changed(fields)
    except ValidationError as error:
        details = error.errors()[0]
        field = ".".join(str(part) for part in (where, *details["loc"]))
        raise ValueError(f"{field}: {details['msg'].removeprefix('Value error, ')}") from None


class Study(Section):
    """A study: the input of `tombola run`.

    Args:
        name: the name of the study, and of its default results folder.
        description: one line for lists.
        seed: all randomness follows from it and the trial's number.
        network: the network, and how its weights are drawn.
        data: the data set and its split.
        training: how a run trains.
        pruning: which weights each round removes.
        task: what is learned: a name of tombola's, or `package.module:Class`; with options as
            `{name: regression, metric: mae}`.
        trainer: a user's own function that trains all runs, instead of `data`, `task`, `training` and `retraining`.
        retraining: fields of `training` that change at levels 1 and up, such as `{epochs: 25}`.
        noise: "trial": all runs of a trial see the same batches in the same order; "level": each level has its own data
            order, augmentation and dropout.
        rewind: the iteration of the dense run whose weights tickets start from; 0 is the initialisation. Or a fraction
            of the budget (0.1), or epochs ("2 epochs"), or a list of those: then every arm that depends on it has one
            curve for each, called "ticket@500". A rewound network continues from there: schedule and data order
            continue, and the budget counts from 0.
        connectivity: the interpolations between runs to evaluate.
        arms: the curves.
        margin: the accepted loss of verdicts, as a fraction: see `tombola.analysis.verdicts`. It decides no run.
        cluster: what workers on other machines are like, for `tombola run --on`; it decides no outcome.
        trials: independent repetitions: own initialisation, data order and split.
        first_trial: the number of the first of them. Machines that share no folder can divide the trials of a study:
            `trials=10` on one, `first_trial=10 trials=10` on the other.
    """

    name: str = Field(min_length=1, max_length=100)
    description: str = ""
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    network: NetworkSettings
    data: DataSettings
    task: TaskSettings = TaskSettings()
    trainer: Trainer | None = None
    training: Recipe
    retraining: dict[str, Any] = Field(default_factory=dict, json_schema_extra={SAME_AS: "training"})
    pruning: Pruning
    noise: Literal["trial", "level"] = "trial"
    rewind: Rewind = 0
    connectivity: Connectivity | None = None
    arms: tuple[ArmSettings, ...] = Field(min_length=1, max_length=MOST_ARMS)
    trials: int = Field(ge=1, le=MOST_REPEATS)
    first_trial: int = Field(default=0, ge=0, le=MOST_REPEATS)
    margin: float = Field(default=MARGIN, ge=0, lt=1)
    cluster: ClusterSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _trainer_alone(cls, value: Any) -> Any:
        """Fill in placeholders for the sections that a trainer replaces, and refuse other values."""
        if not isinstance(value, dict) or value.get("trainer") is None:
            return value
        blanks: dict[str, Section] = {"data": OWN_DATA, "training": OWN_RECIPE, "task": TaskSettings()}
        for section, blank in blanks.items():
            given = value.get(section)
            if given is not None and not _is_blank(given, blank):
                raise ValueError(f"{section}: the trainer has its own; remove {section} or trainer")
        if value.get("retraining"):
            raise ValueError("retraining: the trainer has its own; remove retraining or trainer")
        return {**value, **blanks}

    @field_validator("network", mode="before")
    @classmethod
    def _network_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("data", mode="before")
    @classmethod
    def _data_source(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value

    @field_validator("cluster")
    @classmethod
    def _no_shell(cls, cluster: ClusterSettings | None) -> ClusterSettings | None:
        """Refuse lines that a shell would execute: a study may come from a stranger."""
        if cluster is not None and (found := [name for name in SHELL if getattr(cluster, name)]):
            raise ValueError(
                f"a study can't set {' and '.join(found)}, because a shell executes these lines; write them in a file "
                "of your own and give --cluster FILE, or give cluster=ClusterSettings(...) in Python"
            )
        return cluster

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

    @model_validator(mode="after")
    def _retraining_fits(self) -> Study:
        recipe = _changed(self.training, self.retraining, "retraining")
        for arm in self.arms:
            _changed(recipe, arm.training, f"arms: training of {arm.label!r}")
        return self

    @model_validator(mode="after")
    def _sources_fit(self) -> Study:
        for arm in self.arms:
            if arm.transfer is None:
                continue
            if self.trainer is not None:
                raise ValueError(f"arms: {arm.label!r} has transfer, which needs tombola's own training; leave it out")
            try:
                source_study(self, arm.transfer)
            except ValidationError as error:
                details = error.errors()[0]
                field = ".".join(str(part) for part in ("arms", arm.label, "transfer.from", *details["loc"]))
                raise ValueError(f"{field}: {details['msg'].removeprefix('Value error, ')}") from None
        return self

    def recipe(self, level: int) -> Recipe:
        """Return the training recipe of a level."""
        return self.training.changed(self.retraining) if level else self.training

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
            InputError: the study does not exist or is not valid; the message names field, value, allowed values, file
                and line.
        """
        from tombola.studies.loading import load_study

        return load_study(str(name), overrides)

    def without_folder(self) -> Study:
        """Return the study with the name of a data file alone: where it lies says nothing to others, or too much."""
        arms = tuple(arm.without_folder() for arm in self.arms)
        if self.data.path is None:
            return self.model_copy(update={"arms": arms})
        data = self.data.model_copy(update={"path": Path(self.data.path).name})
        return self.model_copy(update={"data": data, "arms": arms})

    @property
    def slug(self) -> str:
        """The name as it may stand in a path."""
        return slug_of(self.name)

    @property
    def trial_numbers(self) -> range:
        """The numbers of the trials: seeds depend on them."""
        return range(self.first_trial, self.first_trial + self.trials)

    @property
    def trials_text(self) -> str:
        """The trials by number: "trials 0 to 4"."""
        first, last = self.trial_numbers[0], self.trial_numbers[-1]
        return f"trials {first} to {last}" if last > first else f"trial {first}"


def slug_of(name: str) -> str:
    """Return the name of a study as it may stand in a path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "study"
