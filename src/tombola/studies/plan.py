"""From a study to the jobs that it needs and the table rows that they fill."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from tombola.data import Description, describe, fingerprint
from tombola.errors import InputError
from tombola.networks import Anatomy, examine, factory, initialised
from tombola.pruning import CRITERIA, try_criterion
from tombola.pruning.select import plan_counts
from tombola.registry import resolve
from tombola.studies.arms import ARMS, NOT_REWOUND, Arm
from tombola.studies.connectivity import Line, Pair, Work, connect
from tombola.studies.controls import control
from tombola.studies.job import Job
from tombola.studies.rewind import iterations
from tombola.studies.size import MAX_RUNS, check_size, runs_of
from tombola.studies.study import ArmSettings, Study
from tombola.studies.trial import Trial, epoch_length


@dataclass(frozen=True)
class Row:
    """One row of the results table: which job it shows, and as what."""

    arm: str
    trial: int
    repeat: int
    level: int
    job: str


@dataclass(frozen=True)
class Plan:
    """All that a study comes to.

    Args:
        study: what was planned.
        data: shape and size of the data set.
        anatomy: the network's prunable layers.
        remaining: number of weights that remain at each level, the dense level 0 included; where `pruning.back_off`
            is set, or a criterion skips rounds, the fewest that can remain.
        jobs: by identity; each comes after those that it needs.
        rows: of the results table, in the study's order of arms.
        lines: by identity, between runs that are among the jobs.
        pairs: what the lines show; two may share one.
    """

    study: Study
    data: Description
    anatomy: Anatomy
    remaining: tuple[int, ...]
    jobs: dict[str, Job]
    rows: tuple[Row, ...]
    lines: dict[str, Line] = field(default_factory=dict)
    pairs: tuple[Pair, ...] = ()

    @cached_property
    def work(self) -> dict[str, Work]:
        """All that is to be done, by identity: jobs and lines, each after what it needs."""
        return {**self.jobs, **self.lines}

    def budget(self, level: int = 0) -> int:
        """Return the iterations of a job of that level that starts at iteration 0."""
        recipe = self.study.recipe(level)
        return recipe.budget(epoch_length(self.study, self.data, recipe))

    @cached_property
    def levels(self) -> dict[str, int]:
        """Level of each job, by identity; a line, whose weights are computed whether they live or not, counts as 0."""
        found = {row.job: row.level for row in self.rows}
        # A chain that no arm shows is still trained, and so is a run that others start from.
        for job in self.jobs.values():
            if job.id not in found:
                found[job.id] = found[job.mask.prune.job] + 1 if job.mask else 0
        return found | dict.fromkeys(self.lines, 0)

    def density(self, job: Work) -> float:
        """Return the share of weights that `job` computes with, 0 to 1: all of them where scores are trained."""
        full = isinstance(job, Line) or job.popup
        return 1.0 if full else self.remaining[self.levels[job.id]] / self.remaining[0]

    def iterations(self, job: Work) -> int:
        """Return the number of iterations that `job` trains for at most; a line trains for none."""
        if isinstance(job, Line):
            return 0
        budget = job.training.budget(epoch_length(self.study, self.data, job.training))
        return min(budget, job.until or budget) - job.origin.iteration

    def evaluations(self, job: Job) -> int:
        """Return how often `job` is evaluated on validation and test, at its start and its end too."""
        interval = job.training.interval(epoch_length(self.study, self.data, job.training))
        return math.ceil(self.iterations(job) / interval) + 1

    def examined(self, job: Work) -> int:
        """Return how many examples `job` is evaluated on, over all its evaluations."""
        if isinstance(job, Line):
            return job.points * (self.data.train - self.study.data.validation + self.data.test)
        return self.evaluations(job) * (self.study.data.validation + self.data.test) + self.data.train

    def operations(self, job: Work) -> float:
        """Estimate the floating-point operations of a job, evaluations included, in which pruned weights cost nothing.

        A multiply-add counts as two. A training step costs three passes of this (forward, and backward for weights
        and for inputs), an evaluation one. Layer densities are taken to be equal.
        """
        example = 2.0 * self.density(job) * sum(layer.size * layer.uses for layer in self.anatomy.layers)
        trained = 0 if isinstance(job, Line) else self.iterations(job) * job.training.batch_size
        return example * (3 * trained + self.examined(job))


def make_plan(study: Study, root: Path | None = None, max_runs: int = MAX_RUNS) -> Plan:
    """Work out the jobs of a study. Nothing is downloaded, trained or written.

    Args:
        study: what to plan.
        root: folder of data sets.
        max_runs: more are refused before any of them is worked out.

    Raises:
        InputError: a network, criterion or arm does not exist or does not fit, or the study asks for what can't be.
    """
    check_size(runs_of(study), max_runs)
    data = describe(study.data, root)
    build = factory(study.network, data.input_shape, data.classes)
    anatomy = examine(initialised(build, "pytorch", 0), data.input_shape, study.network.output)
    if anatomy.classes < data.classes:
        raise InputError(
            f"the network returns {anatomy.classes} scores per example, but {study.data.source} has {data.classes} "
            "classes"
        )
    recipes = [study.training, *(study.recipe(1).changed(arm.training) for arm in study.arms)]
    if any(recipe.augment for recipe in recipes) and len(data.input_shape) != 3:
        raise InputError(
            f"training.augment is for images (channels, height, width), and an example of {study.data.source} has "
            f"shape {data.input_shape}; leave augment out"
        )
    dense, ticket, *others = [
        recipe.budget(epoch_length(study, data, recipe)) for recipe in (recipes[0], study.recipe(1), *recipes[1:])
    ]
    rewound = [arm.rule not in NOT_REWOUND and not arm.reinit for arm in study.arms]
    budget = min(dense, ticket, *(each for each, goes_back in zip(others, rewound, strict=True) if goes_back))
    rewinds = iterations(study.rewind, epoch_length(study, data, study.training), budget)
    parting = _partings(study, rewinds, budget, data)
    starts = tuple(dict.fromkeys((*rewinds, *parting)))
    if study.training.patience and any(starts):
        who, asked = ("rewind", rewinds) if any(rewinds) else ("connectivity.rewind", parting)
        raise InputError(
            f"training.patience={study.training.patience} could end the dense run before iteration {max(asked)}, "
            f"which {who} asks for; give patience to the pruned levels alone, as retraining.patience"
        )
    rates = study.pruning.resolve(anatomy)
    remaining = plan_counts(anatomy.sizes(), rates, study.pruning.scope, study.pruning.minimum)
    resolve(study.pruning.criterion, CRITERIA, "criterion")
    untrained = partial(initialised, build, study.network.init, 0)
    try_criterion(study.pruning.criterion, anatomy.shapes(), untrained, data.input_shape, data.classes)
    arms = [control(resolve(arm.rule, ARMS, "arm"), arm.shuffle, arm.reinit) for arm in study.arms]
    codes = (study.network.code(), fingerprint(study.data, root))

    jobs: dict[str, Job] = {}
    rows: list[Row] = []

    def trial(number: int, rewind: int, settings: ArmSettings | None) -> Trial:
        return Trial(study, number, rates, codes, jobs, data, anatomy, remaining, rewind, starts, settings)

    for settings, arm in zip(study.arms, arms, strict=True):
        curves = [
            [row for number in range(study.trials) for row in _rows(settings, arm, trial(number, rewind, settings))]
            for rewind in rewinds
        ]
        if all([row.job for row in curve] == [row.job for row in curves[0]] for curve in curves):
            curves = curves[:1]  # where to rewind to makes no difference to this arm
        for rewind, curve in zip(rewinds, curves, strict=False):
            label = f"{settings.label}@{rewind}" if len(curves) > 1 else settings.label
            rows += [replace(row, arm=label) for row in curve]
    for prune in {job.mask.prune.criterion: job.mask.prune for job in jobs.values() if job.mask}.values():
        if prune.criterion != study.pruning.criterion:
            examples = bool(prune.examples)
            try_criterion(prune.criterion, anatomy.shapes(), untrained, data.input_shape, data.classes, examples)
    lines: dict[str, Line] = {}
    pairs: list[Pair] = []
    for rewind in parting:
        assert study.connectivity is not None
        for number in range(study.trials):
            for pair, line in connect(trial(number, rewind, None), study.connectivity):
                lines.setdefault(line.id, line)
                pairs.append(pair)
    return Plan(study, data, anatomy, tuple(remaining), jobs, tuple(rows), lines, tuple(pairs))


def _partings(study: Study, rewinds: tuple[int, ...], budget: int, data: Description) -> tuple[int, ...]:
    """Return the iterations from which copies are trained; none where the study does not ask for any.

    Raises:
        InputError: an iteration or a level is beyond what the study has.
    """
    settings = study.connectivity
    if settings is None:
        return ()
    if settings.levels[-1] > study.pruning.rounds:
        raise InputError(
            f"connectivity.levels names level {settings.levels[-1]}, but with pruning.rounds={study.pruning.rounds} "
            f"there are levels 0 to {study.pruning.rounds}"
        )
    if settings.rewind is None:
        return rewinds
    return iterations(settings.rewind, epoch_length(study, data, study.training), budget, "connectivity.rewind")


def _rows(settings: ArmSettings, arm: Arm, trial: Trial) -> list[Row]:
    """Return the rows of an arm in a trial, and plan their jobs."""
    rows = [Row(settings.label, trial.number, 0, 0, trial.dense.id)]
    seen: set[str] = set()
    for repeat in range(settings.per_trial):
        for level in range(1, trial.study.pruning.rounds + 1):
            job = trial.job_of(settings.label, arm, level, repeat, settings.per_trial, settings.training)
            if repeat and job.id in seen:
                raise InputError(f"arm {settings.label!r}: its repeats are all the same job; leave per_trial out")
            seen.add(job.id)
            rows.append(Row(settings.label, trial.number, repeat, level, job.id))
    return rows
