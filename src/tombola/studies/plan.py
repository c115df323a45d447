"""From a study to the jobs that it needs and the table rows that they fill."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tombola.data import Description, describe, fingerprint
from tombola.errors import InputError
from tombola.named import code_fingerprint, resolve
from tombola.networks import Anatomy, examine, factory, initialised
from tombola.pruning import CRITERIA, try_criterion
from tombola.pruning.select import plan_counts
from tombola.studies.arms import ARMS, Arm
from tombola.studies.job import Job, Limit, MaskRule, Origin, Prune
from tombola.studies.study import Study
from tombola.training.recipe import Recipe


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
    """

    study: Study
    data: Description
    anatomy: Anatomy
    remaining: tuple[int, ...]
    jobs: dict[str, Job]
    rows: tuple[Row, ...]

    def budget(self, level: int = 0) -> int:
        """Return the iterations of a job of that level that starts at iteration 0."""
        recipe = self.study.recipe(level)
        return recipe.budget(epoch_length(self.study, self.data, recipe))

    @cached_property
    def levels(self) -> dict[str, int]:
        """Level of each job, by identity."""
        found = {row.job: row.level for row in self.rows}
        for job in self.jobs.values():  # a chain that no arm shows is still trained
            if job.id not in found:
                assert job.mask is not None
                found[job.id] = found[job.mask.prune.job] + 1
        return found

    def iterations(self, job: Job) -> int:
        """Return the number of iterations that `job` trains for at most."""
        return self.budget(self.levels[job.id]) - job.origin.iteration

    def examined(self, job: Job) -> int:
        """Return how many examples `job` is evaluated on, over all its evaluations."""
        evaluations = (
            self.iterations(job) // job.training.interval(epoch_length(self.study, self.data, job.training)) + 1
        )
        return evaluations * (self.study.data.validation + self.data.test) + self.data.train

    def operations(self, job: Job) -> float:
        """Estimate the floating-point operations of a job, evaluations included, in which pruned weights cost nothing.

        A multiply-add counts as two. A training step costs three passes of this (forward, and backward for weights
        and for inputs), an evaluation one. Layer densities are taken to be equal.
        """
        density = self.remaining[self.levels[job.id]] / self.remaining[0]
        example = 2.0 * density * sum(layer.size * layer.uses for layer in self.anatomy.layers)
        return example * (3 * self.iterations(job) * job.training.batch_size + self.examined(job))


def epoch_length(study: Study, data: Description, recipe: Recipe) -> int:
    """Return the number of iterations in an epoch of a study's data under one of its recipes.

    Raises:
        InputError: the training set, less the validation examples, does not fill one batch.
    """
    examples = data.train - study.data.validation
    if examples < recipe.batch_size:
        raise InputError(
            f"data.validation={study.data.validation} leaves {max(0, examples)} of {data.train} examples to train on: "
            f"too few for training.batch_size={recipe.batch_size}"
        )
    return examples // recipe.batch_size


def make_plan(study: Study, root: Path | None = None) -> Plan:
    """Work out the jobs of a study. Nothing is downloaded, trained or written.

    Args:
        study: what to plan.
        root: folder of data sets.

    Raises:
        InputError: a network, criterion or arm does not exist or does not fit, or the study asks for what can't be.
    """
    data = describe(study.data, root)
    build = factory(study.network, data.input_shape, data.classes)
    anatomy = examine(initialised(build, "pytorch", 0), data.input_shape, study.network.output)
    if anatomy.classes < data.classes:
        raise InputError(
            f"the network returns {anatomy.classes} scores per example, but {study.data.source} has {data.classes} "
            "classes"
        )
    recipes = [study.recipe(level) for level in (0, 1)]
    if any(recipe.augment for recipe in recipes) and len(data.input_shape) != 3:
        raise InputError(
            f"training.augment is for images (channels, height, width), and an example of {study.data.source} has "
            f"shape {data.input_shape}; leave augment out"
        )
    budget = min(recipe.budget(epoch_length(study, data, recipe)) for recipe in recipes)
    if study.rewind >= budget:
        raise InputError(f"rewind={study.rewind} must be below the budget of {budget} iterations")
    rates = study.pruning.resolve(anatomy)
    remaining = plan_counts(anatomy.sizes(), rates, study.pruning.scope, study.pruning.minimum)
    resolve(study.pruning.criterion, CRITERIA, "criterion")
    try_criterion(study.pruning.criterion, anatomy.shapes())
    arms = [resolve(arm.rule, ARMS, "arm") for arm in study.arms]
    codes = (study.network.code(), fingerprint(study.data, root))

    jobs: dict[str, Job] = {}
    rows: list[Row] = []
    shown: set[tuple[str, str]] = set()
    trials = [Trial(study, number, rates, codes, jobs) for number in range(study.trials)]
    for settings, arm in zip(study.arms, arms, strict=True):
        for trial in trials:
            rows.append(Row(settings.label, trial.number, 0, 0, trial.dense.id))
            for repeat in range(settings.per_trial):
                for level in range(1, study.pruning.rounds + 1):
                    job = trial.job_of(settings.label, arm, level, repeat, settings.per_trial)
                    row = Row(settings.label, trial.number, repeat, level, job.id)
                    if repeat and (row.arm, row.job) in shown:
                        raise InputError(f"arm {row.arm!r}: its repeats are all the same job; leave per_trial out")
                    shown.add((row.arm, row.job))
                    rows.append(row)
    return Plan(study, data, anatomy, tuple(remaining), jobs, tuple(rows))


@dataclass
class Trial:
    """One trial of a study while it is planned: what arms build their rules from."""

    study: Study
    number: int
    rates: tuple[dict[str, float], ...]
    codes: tuple[str, str]
    jobs: dict[str, Job] = field(repr=False)

    def __post_init__(self) -> None:
        keep = (self.study.rewind,) if self.study.rewind else ()
        self.dense = self._add("dense", 0, Origin(), None, keep)
        self._chain = [self.dense]

    @property
    def start(self) -> Origin:
        """The trial's own weights at the rewind iteration."""
        return Origin(job=self.dense.id, iteration=self.study.rewind)

    def ticket(self, level: int) -> Job:
        """Return the job of the iterative chain at a level; those before it are planned too."""
        while len(self._chain) <= level:
            number = len(self._chain)
            self._chain.append(self._add("ticket", number, self.start, self.iterative(number)))
        return self._chain[level]

    def iterative(self, level: int) -> MaskRule:
        """Return the mask found by pruning the ticket of the level before by one round."""
        mask = self._prune(self.ticket(level - 1), level - 1, level)
        if back_off := self.study.pruning.back_off:
            limit = Limit(dense=self.dense.id, margin=back_off.margin, factor=back_off.factor)
            return mask.model_copy(update={"prune": mask.prune.model_copy(update={"limit": limit})})
        return mask

    def one_shot(self, level: int) -> MaskRule:
        """Return the mask found by pruning the dense run by that many rounds at once."""
        return self._prune(self.dense, 0, level)

    def job_of(self, label: str, arm: Arm, level: int, repeat: int, repeats: int) -> Job:
        """Plan the job that an arm asks for."""
        try:
            found = arm(self, level, repeat)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"arm {label!r} failed at level {level}: {type(error).__name__}: {error}; "
                "an arm is called as arm(trial, level, repeat) and returns (Origin, MaskRule)"
            ) from error
        try:
            origin, mask = found
            assert isinstance(origin, Origin)
            assert isinstance(mask, MaskRule)
        except (TypeError, ValueError, AssertionError):
            raise InputError(f"arm {label!r} must return (Origin, MaskRule); it gave {found!r}") from None
        parent = self.jobs.get(origin.job) if origin.job else None
        if origin.job and (parent is None or origin.iteration not in (0, *parent.keep)):
            raise InputError(
                f"arm {label!r} starts from iteration {origin.iteration} of a job that takes no snapshot there"
            )
        number = f"-{repeat}" if repeats > 1 else ""
        return self._add(f"{label}{number}", level, origin, mask)

    def _prune(self, parent: Job, first: int, last: int) -> MaskRule:
        """Return the mask found by pruning `parent`, of level `first`, to level `last`."""
        pruning, rounds = self.study.pruning, self.rates[first:last]
        same = 1
        while same < len(rounds) and rounds[-same - 1] == rounds[-1]:
            same += 1
        return MaskRule(
            prune=Prune(
                job=parent.id,
                criterion=pruning.criterion,
                scope=pruning.scope,
                rates=rounds[-1],
                minimum=pruning.minimum,
                rounds=same,
                before=rounds[:-same],
                code=code_fingerprint(pruning.criterion, CRITERIA, "criterion"),
            )
        )

    def _add(self, label: str, level: int, origin: Origin, mask: MaskRule | None, keep: tuple[int, ...] = ()) -> Job:
        study = self.study
        place = f"{label}.level-{level:02}" if level else label
        job = Job(
            network=study.network,
            data=study.data,
            training=study.recipe(level),
            seed=study.seed,
            trial=self.number,
            origin=origin,
            mask=mask,
            noise=level if study.noise == "level" else 0,
            network_code=self.codes[0],
            data_code=self.codes[1],
            label=f"{study.network.name}.{study.data.source}.trial-{self.number}.{place}",
            keep=keep,
        )
        return self.jobs.setdefault(job.id, job)
