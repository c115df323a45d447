"""Transfer: an arm whose ticket was found on another data set, by another recipe, or for another task.

Morcos et al. 2019 ("One ticket to win them all") and Mehta 2019 ("Sparse transfer learning via winning
lottery tickets"): a ticket that is found on the source trains on the target. The source's runs are work of the same
plan, so a source is never unfinished.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator

from tombola.errors import InputError
from tombola.networks import Coverage
from tombola.section import SAME_AS, JsonSchema, Section
from tombola.studies.arms import Rule, arm_named
from tombola.training.moving import Moving
from tombola.training.popup import Popup
from tombola.work import InitialState, MaskUse, Supermask

if TYPE_CHECKING:
    from tombola.studies.study import ArmSettings, Study
    from tombola.studies.trial import Trial

SECTIONS = ("data", "task", "training", "retraining", "network", "seed")  # that a source may have of its own


class Transfer(Section):
    """Where a ticket is found, and what of it is taken.

    Args:
        source: fields of the study that are others where the ticket is found, such as `{data: fashion-mnist}`; written
            as `from`. The name of a preset or study file stands for its sections `SECTIONS`. Everything else is as in
            the study itself, so that level n is pruned as often here and there.
        take: "mask" puts the mask on what the arm starts from in the study itself; "mask-and-weights" takes the
            source's starting weights too, "mask-and-trained" the source's weights after training at that level.
    """

    OTHER_NAMES: ClassVar = ("from",)  # of `source`

    model_config = ConfigDict(populate_by_name=True)

    source: dict[str, Any] = Field(min_length=1, alias="from")
    take: Literal["mask", "mask-and-weights", "mask-and-trained"] = "mask-and-weights"

    @classmethod
    def written_forms(cls, fields: JsonSchema) -> list[JsonSchema]:
        """Accept a preset or study file as the source, and only the sections that a source may have."""
        sections = {name: {SAME_AS: name} for name in SECTIONS}
        own = {"type": "object", "properties": sections, "additionalProperties": False, "minProperties": 1}
        source = {
            "anyOf": [{"type": "string"}, own],
            "description": fields["properties"]["from"].get("description", ""),
        }
        names = {"from": source, "source": source}  # the second in files that tombola wrote
        either = [{"required": [name]} for name in names]
        return [fields | {"properties": fields["properties"] | names, "required": [], "anyOf": either}]

    @field_validator("source", mode="before")
    @classmethod
    def _sections(cls, value: Any) -> Any:
        if isinstance(value, str):
            return _sections_of(value)
        if isinstance(value, dict) and (unknown := [name for name in value if name not in SECTIONS]):
            raise ValueError(
                f"a source has no {unknown[0]!r} of its own; it may have {', '.join(SECTIONS)}, and all else is as in "
                "the study itself"
            )
        return value


def _sections_of(name: str) -> dict[str, Any]:
    """Return the sections of a study that is named as the source."""
    from tombola.studies.loading import load_study  # which needs this module

    try:
        study = load_study(name)
    except InputError as error:
        raise ValueError(str(error)) from None
    if study.trainer is not None:
        raise ValueError(f"study {name!r} has a trainer of its own; a source is trained by tombola")
    return {section: study.model_dump(mode="json", exclude_none=True)[section] for section in SECTIONS}


def source_study(study: Study, transfer: Transfer) -> Study:
    """Return the study in which a transferred ticket is found.

    Raises:
        ValidationError: the source's fields do not go together.
    """
    from tombola.studies.loading import laid_over
    from tombola.studies.study import Study

    settings = study.model_dump(mode="json", exclude={"description", "arms", "connectivity", "trainer"})
    for section, value in transfer.source.items():
        settings[section] = laid_over(section, settings[section], value)
    for section, value in settings.items():
        if isinstance(value, dict):
            settings[section] = {field: each for field, each in value.items() if each is not None}
    rules = dict.fromkeys(arm.rule for arm in study.arms if arm.transfer)
    return Study.model_validate(settings | {"arms": list(rules)})


def transferred(settings: ArmSettings, arm: Rule) -> Rule:
    """Return the arm with its masks, and what else is taken, from the source's trial.

    Args:
        settings: of the arm.
        arm: its rule.
    """
    if settings.transfer is None:
        return arm
    take = settings.transfer.take
    drawn = settings.starts_fresh or (take == "mask-and-weights" and arm_named(settings.rule).fresh)
    if drawn and take != "mask":
        raise InputError(
            f"arm {settings.label!r}: it draws new weights here, so transfer.take={take!r} would take no weights "
            "of the source; set take: mask"
        )

    def carried(trial: Trial, level: int, repeat: int) -> Any:
        source = trial.source
        assert source is not None
        found = arm(source, level, repeat)
        if not isinstance(found, tuple) or len(found) < 2 or not isinstance(found[0], InitialState):
            return found  # which the plan will complain of
        initial, mask, *_ = found
        finds = isinstance(mask, Popup | Moving)
        if finds or initial.trained:
            why = "finds its mask by training" if finds else "starts from trained weights"
            raise InputError(
                f"arm {settings.label!r}: {settings.rule} {why} and can't be transferred; take ticket, one-shot or a "
                "method at initialisation"
            )
        if not isinstance(mask, MaskUse):
            return found
        if take == "mask":
            initial = _own_start(settings, arm, trial, level, repeat)
        elif take == "mask-and-trained":
            if repeat:
                raise InputError(
                    f"arm {settings.label!r}: per_trial={settings.per_trial} with take: mask-and-trained would put the "
                    "mask of one repeat on weights trained under another's; set per_trial: 1"
                )
            initial = InitialState(run=source.run(arm, level).id, trained=True)
        elif initial == InitialState():  # the source's seed may be another
            initial = InitialState(run=source.dense.id)
        head = head_between(source.coverage, trial.coverage, settings.label)
        if take != "mask":
            _check_others(source.coverage, trial.coverage, settings.label)
        if head and trial.study.pruning.pattern is not None:
            raise InputError(
                f"arm {settings.label!r}: the output layer has another width in the source, and its new random mask "
                "can't follow pruning.pattern; exclude the output layer, or leave the pattern out"
            )
        return initial, mask.model_copy(update={"head": head}) if head else mask

    return carried


def _own_start(settings: ArmSettings, arm: Rule, trial: Trial, level: int, repeat: int) -> InitialState:
    """Return what the arm starts from in the study itself: its own weights, or those that it draws.

    Raises:
        InputError: to have them, scores would be trained here.
    """
    initial: InitialState = arm(trial, level, repeat)[0]
    if initial.run is not None and isinstance(trial.items[initial.run].spec, Supermask):
        raise InputError(
            f"arm {settings.label!r}: {settings.rule} starts from the weights that its scores were trained for, so its "
            "mask can't be taken alone; set transfer.take: mask-and-weights, or transfer ticket"
        )
    return initial


def head_between(source: Coverage, target: Coverage, arm: str) -> str | None:
    """Return the name of the output layer's weight where it has another shape in the source; None where all agree.

    Raises:
        InputError: another layer differs.
    """
    here, there = target.shapes(), source.shapes()
    differing = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    others = [name for name in differing if not name == source.output == target.output]
    if others:
        name = others[0]
        raise InputError(
            f"arm {arm!r}: transfer can't carry layer {name.removesuffix('.weight')!r}, whose shape is "
            f"{_said(there, name)} in the source and {_said(here, name)} here; only the output layer may differ"
        )
    return target.output if differing else None


def _check_others(source: Coverage, target: Coverage, arm: str) -> None:
    """Check that weights can be carried over: biases, statistics and all else but the output layer's must agree.

    Raises:
        InputError: one is missing, or has another shape.
    """
    here, there = target.others, source.others
    head = target.output.rpartition(".")[0]
    for name in sorted({**here, **there}):
        of_head = name in here and name in there and name.rpartition(".")[0] == head
        if here.get(name) != there.get(name) and not of_head:
            raise InputError(
                f"arm {arm!r}: transfer can't carry the tensor {name!r}, whose shape is {_said(there, name)} in the "
                f"source and {_said(here, name)} here; set transfer.take: mask"
            )


def _said(shapes: Mapping[str, tuple[int, ...]], name: str) -> str:
    return str(tuple(shapes[name])) if name in shapes else "missing"
