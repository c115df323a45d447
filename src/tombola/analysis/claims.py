"""Claims of publications, checked against the results of a study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import Field, ValidationError, field_validator, model_validator

from tombola.analysis.expressions import BadExpression, Expression, parse
from tombola.analysis.intervals import means
from tombola.analysis.quantities import Evidence, NotMeasured
from tombola.analysis.summary import whole_stops
from tombola.errors import InputError, nearest
from tombola.formatting import counted_are
from tombola.paths import local_path, read_text
from tombola.section import Section
from tombola.studies.explaining import fields_of
from tombola.studies.loading import TRAINERS_OWN
from tombola.studies.study import ArmSettings, Study
from tombola.tasks.metric import metric_of
from tombola.training.recipe import Recipe
from tombola.untrusted_yaml import MAX_BYTES, read_yaml

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
INCONCLUSIVE, NOT_MEASURED = "inconclusive", "not measured"
ANOTHER_RECIPE = "another recipe: the claim is about "
UNTOLD = "; the table does not tell "
BOTH_SIDES = "the interval lies partly inside and partly outside the expected range"


Value = str | int | float | None
BUDGETS = ("training.iterations", "training.epochs", "retraining.iterations", "retraining.epochs")


class Claim(Section):
    """One claim, as a claims file has it.

    Args:
        id: its name in tables; unique in its file.
        source: the publication, and where in it.
        sentence: the claim in words.
        expression: the measured quantity; see `tombola.analysis.expressions`.
        expected: the value that the claim gives, where the expression is not a comparison.
        tolerance: the accepted distance from the expected value.
        stated: whether expression, expected value and tolerance were stated "before the run" or "after first runs";
            None if unknown.
        minimum: the smallest number of trials for a conclusion.
        nearest: how far a level's density may be from the one asked for: 0.12 allows 12 % more or less.
        metric: of the studies that the claim is about: gains, expected value and tolerance are in its unit.
        applies: field of a study -> the value, or list of values, that it must have: `network.name: lenet-300-100`;
            null means that the study leaves the field out. Of other studies the claim says nothing.
        recipe: the same, of how a study is trained and pruned: where it differs, the claim is about the study, but is
            not measured. Fields of `training` count as the study's `retraining` and the claim's arms change them. A
            claim about a budget is not measured where `training.patience` may cut it short.
    """

    id: str = Field(min_length=1, max_length=60)
    source: str = Field(min_length=1)
    sentence: str = Field(min_length=1)
    expression: str = Field(min_length=1)
    expected: float | None = None
    tolerance: float | None = Field(default=None, gt=0)
    stated: Literal["before the run", "after first runs"] | None = None
    minimum: int = Field(default=3, ge=2)
    nearest: float = Field(default=0.12, gt=0, le=0.5)
    metric: str = Field(default="accuracy", min_length=1)
    applies: dict[str, Value | list[Value]] = Field(default_factory=dict)
    recipe: dict[str, Value | list[Value]] = Field(default_factory=dict)

    @field_validator("applies", "recipe")
    @classmethod
    def _fields_exist(cls, fields: dict[str, Any]) -> dict[str, Any]:
        for field in fields:
            parts = field.split(".")
            for place, part in enumerate(parts):
                known = fields_of(Study, tuple(parts[:place]))
                if known and part not in known:
                    raise ValueError(f"a study has no field {field!r}{nearest(part, known)}")
        return fields

    @model_validator(mode="after")
    def _expectation_fits(self) -> Claim:
        try:
            compares = self.parsed.side is not None
        except BadExpression as error:
            raise ValueError(f"expression: {error}") from None
        if compares and (self.expected is not None or self.tolerance is not None):
            raise ValueError("a comparison takes neither expected nor tolerance; remove them")
        if not compares and (self.expected is None or self.tolerance is None):
            raise ValueError("an expression without a comparison needs expected and tolerance")
        return self

    @cached_property
    def parsed(self) -> Expression:
        """The expression, parsed."""
        return parse(self.expression)

    @property
    def expectation(self) -> str:
        """The expected value, in a few characters."""
        if self.parsed.side is None:
            return f"{self.expected:g} ± {self.tolerance:g}"
        sign = (">" if self.parsed.side == "greater" else "<") + ("" if self.parsed.strict else "=")
        return f"{sign} {0.0 if self.parsed.bound is None else self.parsed.bound:g}"


@dataclass(frozen=True)
class Outcome:
    """The result of checking one claim against one study.

    Args:
        study: its name.
        claim: the claim.
        outcome: "reproduced", "not reproduced", "inconclusive" or "not measured".
        reason: in words.
        n: trials that it rests on.
        measured: mean of the expression over trials; of a comparison of two measured sides, left minus right. None
            where nothing is measured.
        low, high: interval of that mean; None where n < 2.
        applies: whether the claim is about studies like this one.
        std: standard deviation over trials; None where n < 2.
        biased: whether runs or trials are left out, so that the others are a biased sample.
        unknown: settings that the claim is about, and that a table without a study file does not tell.
    """

    study: str
    claim: Claim
    outcome: str
    reason: str
    n: int = 0
    measured: float | None = None
    low: float | None = None
    high: float | None = None
    applies: bool = True
    std: float | None = None
    biased: bool = False
    unknown: tuple[str, ...] = ()

    @property
    def other_recipe(self) -> str:
        """The claim's recipe and the study's, where they differ and the claim is therefore not measured; else ""."""
        return self.reason.removeprefix(ANOTHER_RECIPE) if self.reason.startswith(ANOTHER_RECIPE) else ""

    def as_json(self) -> dict[str, Any]:
        """Return the outcome as a flat mapping of JSON values, the same keys each time."""
        claim = self.claim
        return {
            "study": self.study,
            "id": claim.id,
            "source": claim.source,
            "sentence": claim.sentence,
            "expression": claim.expression,
            "expected": claim.expectation,
            "stated": claim.stated,
            "outcome": self.outcome,
            "reason": self.reason,
            "n": self.n,
            "minimum_n": claim.minimum,
            "measured": self.measured,
            "low": self.low,
            "high": self.high,
            "applies": self.applies,
        }


def evaluate(
    frame: pd.DataFrame,
    claims: Sequence[Claim],
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    confidence: float = 0.95,
    points: pd.DataFrame | None = None,
) -> list[Outcome]:
    """Check each claim against each study of a results table.

    [low, high] is the interval (Student's t) of the mean of the expression over trials:

    - of a claim with an expected value: `reproduced` where the whole interval lies within expected ± tolerance, `not
      reproduced` where none of it does;
    - of a comparison: `reproduced` where the whole interval lies on the right side, `not reproduced` where it all lies
      on the wrong one; a bound that equals the other side is on the right side of `>=` and `<=` only. If all trials
      give the same value, a comparison is `inconclusive`;
    - `inconclusive` otherwise; also with fewer trials than the claim's minimum, and where a diverged run or a trial is
      left out, because the remaining trials are a biased sample;
    - `not measured` where the claim is about another metric, study or recipe, or where the results lack the arm, the
      level or the break-down.

    Arguments:
        frame: as returned by `Results.frame()`, of one study or several.
        claims: see `load_claims` and `published_claims`.
        settings: study's name -> its settings, as returned by `Study.model_dump()`. Of a study that is not in there,
            only its name, its network's name and the iterations in the table are compared.
        confidence: of the interval.
        points: as returned by `Results.connectivity()`, of the same studies; None where there are no interpolations.

    Raises:
        InputError: `confidence` is not a number between 0 and 1.
    """
    outcomes = []
    for study, levels in whole_stops(frame).groupby("study", sort=False):
        told = (settings or {}).get(str(study))
        known = _of_table(str(study), levels) if told is None else told
        metric = metric_of(levels).name
        for claim in claims:
            if claim.metric != metric:
                reason = f"the claim is about {claim.metric}; this study measures {metric}"
                outcomes.append(Outcome(str(study), claim, NOT_MEASURED, reason, applies=False))
            elif other := _differs(claim, claim.applies, known, told is not None):
                outcomes.append(Outcome(str(study), claim, NOT_MEASURED, f"the claim is about {other}", applies=False))
            elif other := _differs(claim, claim.recipe, known, told is not None):
                outcomes.append(Outcome(str(study), claim, NOT_MEASURED, ANOTHER_RECIPE + other))
            else:
                known_points = pd.DataFrame() if points is None or points.empty else points[points["study"] == study]
                outcome = _evaluate(str(study), levels, claim, confidence, known_points, _gap(levels, told))
                fields = sorted({*claim.applies, *claim.recipe})
                unknown = tuple(field for field in fields if told is None and not _is_told(known, field))
                if unknown:
                    outcome = replace(outcome, reason=f"{outcome.reason}{UNTOLD}{', '.join(unknown)}", unknown=unknown)
                outcomes.append(outcome)
    return outcomes


def _of_table(study: str, levels: pd.DataFrame) -> dict[str, Any]:
    """Return the settings of a study that its rows tell."""
    found: dict[str, Any] = {"name": study, "network": {"name": str(levels["network"].iloc[0])}}
    budgets = set(levels["iterations"].dropna()) if "iterations" in levels else set()
    return found | ({"training": {"iterations": int(budgets.pop())}} if len(budgets) == 1 else {})


def _is_told(known: Mapping[str, Any], field: str) -> bool:
    return _inner(known, field.split(".")) is not None


def _gap(levels: pd.DataFrame, settings: Mapping[str, Any] | None) -> int:
    """Return how many trials of a study have no row, though a later one has."""
    there = set(levels["trial"])
    first = int((settings or {}).get("first_trial", 0))
    return 0 if settings is None else len(set(range(first, int(max(there)))) - there)


def _evaluate(
    study: str, levels: pd.DataFrame, claim: Claim, confidence: float, points: pd.DataFrame, gap: int
) -> Outcome:
    evidence = Evidence(levels, claim.nearest, points=points)
    try:
        values = claim.parsed.measure(evidence)
    except NotMeasured as error:
        return Outcome(study, claim, NOT_MEASURED, str(error))
    if values.empty:
        return Outcome(study, claim, NOT_MEASURED, _no_trial(evidence))
    found = means([values.to_numpy(dtype=float)], confidence)
    mean, low, high = (float(each[0]) for each in (found.mean, found.low, found.high))
    verdict, reason = _judge(claim, len(values), low, high, flat=float(found.std[0]) == 0)
    if left_out := _left_out(evidence, len(values), gap):
        verdict, reason = (
            INCONCLUSIVE,
            f"{left_out}: the remaining trials are a biased sample (alone: {reason})",
        )
    found_outcome = Outcome(study, claim, verdict, reason, len(values), mean, biased=bool(left_out))
    return found_outcome if math.isnan(low) else replace(found_outcome, low=low, high=high, std=float(found.std[0]))


def _no_trial(evidence: Evidence) -> str:
    lost = len(evidence.lost)
    return "no trial has all values that the expression needs" + (f"; {lost} diverged" if lost else "")


def _left_out(evidence: Evidence, n: int, gap: int) -> str:
    """Return the trials and runs that a sample of n trials lacks; "" if none.

    Args:
        evidence: of the study.
        n: trials of the sample.
        gap: trials of the study without any row.
    """
    trials, lost = evidence.levels["trial"].nunique() + gap, len(evidence.lost)
    have = "has" if n == 1 else "have"
    parts = [f"only {n} of {trials} trials {have} all values that the expression needs"] if n < trials else []
    parts += [f"{counted_are(lost, 'diverged run')} omitted"] if lost else []
    return ", and ".join(parts)


def _judge(claim: Claim, n: int, low: float, high: float, flat: bool) -> tuple[str, str]:
    if n < claim.minimum:
        return INCONCLUSIVE, f"{n} of at least {claim.minimum} trials"
    if claim.parsed.side is None:
        assert claim.expected is not None
        assert claim.tolerance is not None
        first, last = claim.expected - claim.tolerance, claim.expected + claim.tolerance
        right, wrong = first <= low and high <= last, high < first or low > last
    elif flat:
        return INCONCLUSIVE, f"the same value in all {n} trials: without variation a comparison can't be judged"
    else:
        bound, strict = claim.parsed.bound or 0.0, claim.parsed.strict
        if claim.parsed.side == "less":
            bound, low, high = -bound, -high, -low
        right, wrong = (low > bound, high <= bound) if strict else (low >= bound, high < bound)
    if right:
        return REPRODUCED, "the whole interval lies inside the expected range"
    if wrong:
        return NOT_REPRODUCED, "the whole interval lies outside the expected range"
    return INCONCLUSIVE, BOTH_SIDES


def _differs(claim: Claim, fields: Mapping[str, Any], settings: Mapping[str, Any], whole: bool) -> str | None:
    """Return the first setting of a study that differs from the claim's; None if none differs, as far as known.

    Args:
        claim: the claim.
        fields: its `applies` or `recipe`.
        settings: of the study.
        whole: all of its settings are known, not only those that a table tells.
    """
    if any(budget in fields for budget in BUDGETS):
        fields = {"training.patience": None} | dict(fields)
    for field, wanted in fields.items():
        if not whole and not _is_told(settings, field):
            continue
        allowed = wanted if isinstance(wanted, list) else [wanted]
        dense_only = f"re{field}" in fields
        for value in _values(claim, field, settings, dense_only) if whole else [_inner(settings, field.split("."))]:
            if value not in allowed:
                shown, found = (" or ".join(map(_shown, each)) for each in (allowed, [value]))
                return f"{field}={shown}; this study has {found}"
    return None


def _values(claim: Claim, field: str, settings: Mapping[str, Any], dense_only: bool) -> list[Any]:
    """Return the values that a field has for the runs that a claim is about.

    Args:
        claim: the claim.
        field: of a study.
        settings: of the study.
        dense_only: a field of `training` is meant for the dense network alone.
    """
    section, *rest = field.split(".")
    if section in TRAINERS_OWN and settings.get("trainer") is not None:
        return [None]
    if section not in ("training", "retraining") or not rest or not settings.get("training"):
        return [_inner(settings, [section, *rest])]
    dense = Recipe.model_validate(settings["training"])
    levels = dense.changed(settings.get("retraining") or {})
    arms = [arm for arm in settings.get("arms", ()) if ArmSettings.model_validate(arm).label in claim.parsed.arms]
    recipes = [levels, *(levels.changed(arm["training"]) for arm in arms if arm["training"])]
    if section == "training":
        recipes = [dense] if dense_only else [dense, *recipes]
    return [_inner(recipe.model_dump(mode="json"), rest) for recipe in recipes]


def _inner(value: Any, path: Sequence[str]) -> Any:
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _shown(value: Value) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


@cache
def published_claims() -> tuple[Claim, ...]:
    """Return the claims that come with tombola: of the paper's Sections 2 to 4, and of two studies that repeat it."""
    folder = files("tombola").joinpath("claims")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return tuple(claim for name in names for claim in read_claims(folder.joinpath(name).read_text("utf-8"), name))


def load_claims(path: str | Path) -> list[Claim]:
    """Return the claims of a file.

    Raises:
        InputError: the file can't be read or is not a claims file; the message names file, claim, and allowed values.
    """
    return read_claims(read_text(local_path(path, "the claims file"), MAX_BYTES), str(path))


def read_claims(text: str, source: str) -> list[Claim]:
    """Return the claims of a file's text. Fields beside `claims` are defaults of all of them.

    Raises:
        InputError: it is not a claims file; `source` is its name in the message.
    """
    content = read_yaml(text, source, "safe")
    if not isinstance(content, dict) or not isinstance(content.get("claims"), list) or not content["claims"]:
        raise InputError(f"{source}: a claims file needs a list `claims:`; fields beside it apply to all claims")
    common = {key: value for key, value in content.items() if key != "claims"}
    claims: list[Claim] = []
    for number, fields in enumerate(content["claims"], start=1):
        name = f"claim {number}"
        if not isinstance(fields, dict):
            raise InputError(f"{source}, {name}: a claim is a list of `field: value` lines")
        if isinstance(fields.get("id"), str):
            name = f"claim {fields['id']!r}"
        try:
            claim = Claim.model_validate(common | fields)
        except ValidationError as error:
            raise InputError("\n".join(f"{source}, {name}: {_explain(each)}" for each in error.errors())) from None
        if claim.id in (other.id for other in claims):
            raise InputError(f"{source}, {name}: another claim has the same id; give it its own")
        claims.append(claim)
    return claims


def _explain(details: Any) -> str:
    field = ".".join(str(part) for part in details["loc"])
    if details["type"] == "extra_forbidden":
        return f"unknown field {field!r}{nearest(field, Claim.model_fields)}"
    if details["type"] == "missing":
        return f"{field} is missing"
    message = details["msg"].removeprefix("Value error, ")
    shown = repr(details.get("input"))
    return message if not field else f"{field}={shown if len(shown) < 60 else shown[:57] + '...'}: {message}"
