"""From a study to the jobs that it needs and the table rows that they fill."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from tombola.data import Description, describe, fingerprint
from tombola.errors import InputError
from tombola.named import code_fingerprint, resolve
from tombola.networks import Anatomy, examine, factory, initialised
from tombola.pruning import CRITERIA, try_criterion
from tombola.pruning.select import plan_counts
from tombola.studies.arms import ARMS, Arm
from tombola.studies.connectivity import Line, Pair, Work, connect
from tombola.studies.job import Job, Limit, MaskRule, Origin, Prune
from tombola.studies.rewind import iterations
from tombola.studies.study import ArmSettings, Study
from tombola.training.recipe import Recipe

COPIES_APART = 1_000_000  # numbers of the noise of a copy and of the next: more than any study has levels


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
        for (
            job
        ) in self.jobs.values():  # a chain that no arm shows is still trained, and so is a run that others start from
            if job.id not in found:
                found[job.id] = found[job.mask.prune.job] + 1 if job.mask else 0
        return found | dict.fromkeys(self.lines, 0)

    def iterations(self, job: Work) -> int:
        """Return the number of iterations that `job` trains for at most; a line trains for none."""
        if isinstance(job, Line):
            return 0
        budget = job.training.budget(epoch_length(self.study, self.data, job.training))
        return min(budget, job.until or budget) - job.origin.iteration

    def examined(self, job: Work) -> int:
        """Return how many examples `job` is evaluated on, over all its evaluations."""
        if isinstance(job, Line):
            return job.points * (self.data.train - self.study.data.validation + self.data.test)
        evaluations = (
            self.iterations(job) // job.training.interval(epoch_length(self.study, self.data, job.training)) + 1
        )
        return evaluations * (self.study.data.validation + self.data.test) + self.data.train

    def operations(self, job: Work) -> float:
        """Estimate the floating-point operations of a job, evaluations included, in which pruned weights cost nothing.

        A multiply-add counts as two. A training step costs three passes of this (forward, and backward for weights
        and for inputs), an evaluation one. Layer densities are taken to be equal.
        """
        density = self.remaining[self.levels[job.id]] / self.remaining[0]
        example = 2.0 * density * sum(layer.size * layer.uses for layer in self.anatomy.layers)
        trained = 0 if isinstance(job, Line) else self.iterations(job) * job.training.batch_size
        return example * (3 * trained + self.examined(job))


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
    rewinds = iterations(study.rewind, epoch_length(study, data, study.training), budget)
    parting = _partings(study, rewinds, budget, data)
    starts = tuple(dict.fromkeys((*rewinds, *parting)))
    if study.training.patience and any(starts):
        who = "rewind" if any(rewinds) else "connectivity.rewind"
        raise InputError(
            f"training.patience={study.training.patience} could end the dense run before iteration {max(starts)}, "
            f"which {who} asks for; give patience to the pruned levels alone, as retraining.patience"
        )
    rates = study.pruning.resolve(anatomy)
    remaining = plan_counts(anatomy.sizes(), rates, study.pruning.scope, study.pruning.minimum)
    resolve(study.pruning.criterion, CRITERIA, "criterion")
    try_criterion(study.pruning.criterion, anatomy.shapes())
    arms = [resolve(arm.rule, ARMS, "arm") for arm in study.arms]
    codes = (study.network.code(), fingerprint(study.data, root))

    jobs: dict[str, Job] = {}
    rows: list[Row] = []
    for settings, arm in zip(study.arms, arms, strict=True):
        curves = [
            [
                row
                for number in range(study.trials)
                for row in _rows(settings, arm, Trial(study, number, rates, codes, jobs, data, rewind, starts))
            ]
            for rewind in rewinds
        ]
        if all([row.job for row in curve] == [row.job for row in curves[0]] for curve in curves):
            curves = curves[:1]  # where to rewind to makes no difference to this arm
        for rewind, curve in zip(rewinds, curves, strict=False):
            label = f"{settings.label}@{rewind}" if len(curves) > 1 else settings.label
            rows += [replace(row, arm=label) for row in curve]
    lines: dict[str, Line] = {}
    pairs: list[Pair] = []
    for rewind in parting:
        assert study.connectivity is not None
        for number in range(study.trials):
            trial = Trial(study, number, rates, codes, jobs, data, rewind, starts)
            for pair, line in connect(trial, study.connectivity):
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
            job = trial.job_of(settings.label, arm, level, repeat, settings.per_trial)
            if repeat and job.id in seen:
                raise InputError(f"arm {settings.label!r}: its repeats are all the same job; leave per_trial out")
            seen.add(job.id)
            rows.append(Row(settings.label, trial.number, repeat, level, job.id))
    return rows


@dataclass
class Trial:
    """One trial of a study while it is planned: what arms build their rules from.

    Args:
        rewind: the iteration that kept weights go back to.
        rewinds: all of the study's, those of its connectivity included.
    """

    study: Study
    number: int
    rates: tuple[dict[str, float], ...]
    codes: tuple[str, str]
    jobs: dict[str, Job] = field(repr=False)
    data: Description
    rewind: int = 0
    rewinds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        self.dense = self._add("dense", 0, Origin(), None, keep=tuple(sorted(set(self.rewinds) - {0})))
        self._chains: dict[Arm, list[Job]] = {}

    @property
    def start(self) -> Origin:
        """The trial's own weights at the rewind iteration."""
        return Origin(job=self.dense.id, iteration=self.rewind)

    def other_start(self, draw: int) -> Origin:
        """Return the weights of another initialisation, trained to the rewind iteration without a mask."""
        if not self.rewind:
            return Origin(draw=draw)
        keep = (self.rewind,)
        run = self._add(f"late-reinit-{draw - 1}.start", 0, Origin(draw=draw), None, keep=keep, until=self.rewind)
        return Origin(job=run.id, iteration=self.rewind)

    def run(self, arm: Arm, level: int) -> Job:
        """Return the job of an arm at a level, the dense run at level 0; those before it are planned too."""
        chain = self._chains.setdefault(arm, [self.dense])
        label = next((name for name, ours in ARMS.items() if ours is arm), arm.__name__)
        while len(chain) <= level:
            chain.append(self.job_of(label, arm, len(chain), 0, 1))
        return chain[level]

    def ticket(self, level: int) -> Job:
        """Return the ticket's own run at a level; that of the dense network at level 0."""
        return self.run(ARMS["ticket"], level)

    def copy(self, level: int, number: int) -> Job:
        """Return a run of a level's network from the rewind iteration on, with training noise of its own.

        Copy 0 has the study's own noise: it is the ticket's run, and at level 0 and iteration 0 the dense one. From a
        later iteration the optimiser starts fresh, in all copies alike.
        """
        if level == 0:
            if not self.rewind and not number:
                return self.dense
            origin, mask = self.start if self.rewind else Origin(), None
        else:
            ticket = self.ticket(level)
            if not number:
                return ticket
            origin, mask = ticket.origin, ticket.mask
        return self._add(f"copy-{number}.from-{self.rewind}", level, origin, mask, copy=number)

    def pruned(self, job: Job, level: int) -> MaskRule:
        """Return the mask found by pruning a job of the level before by one round."""
        return self._prune(job, level - 1, level)

    def last_rate(self, level: int) -> Recipe:
        """Return the recipe of a level with the learning rate of its last iteration throughout."""
        recipe = self.study.recipe(level)
        budget = recipe.budget(epoch_length(self.study, self.data, recipe))
        constant = {
            "lr": recipe.learning_rate(budget - 1, budget),
            "schedule": "constant",
            "milestones": (),
            "warmup": 0,
        }
        return recipe.model_copy(update=constant)

    def iterative(self, level: int) -> MaskRule:
        """Return the mask found by pruning the ticket of the level before by one round."""
        mask = self._prune(self.run(ARMS["ticket"], level - 1), level - 1, level)
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
            origin, mask, *others = found
            assert isinstance(origin, Origin)
            assert isinstance(mask, MaskRule)
            assert not others or (len(others) == 1 and isinstance(others[0], Recipe))
        except (TypeError, ValueError, AssertionError):
            raise InputError(
                f"arm {label!r} must return (Origin, MaskRule), or those and a Recipe; it gave {found!r}"
            ) from None
        parent = self.jobs.get(origin.job) if origin.job else None
        known = parent is not None and (origin.moment == "final" or origin.iteration in (0, *parent.keep))
        if origin.job and not known:
            raise InputError(
                f"arm {label!r} starts from iteration {origin.iteration} of a job that takes no snapshot there"
            )
        number = f"-{repeat}" if repeats > 1 else ""
        return self._add(f"{label}{number}", level, origin, mask, recipe=others[0] if others else None)

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

    def _add(
        self,
        label: str,
        level: int,
        origin: Origin,
        mask: MaskRule | None,
        recipe: Recipe | None = None,
        keep: tuple[int, ...] = (),
        until: int | None = None,
        copy: int = 0,
    ) -> Job:
        study = self.study
        place = f"{label}.level-{level:02}" if level else label
        job = Job(
            network=study.network,
            data=study.data,
            training=recipe or study.recipe(level),
            seed=study.seed,
            trial=self.number,
            origin=origin,
            mask=mask,
            until=until,
            noise=(level if study.noise == "level" else 0) + COPIES_APART * copy,
            network_code=self.codes[0],
            data_code=self.codes[1],
            label=f"{study.network.name}.{study.data.source}.trial-{self.number}.{place}",
            keep=keep,
        )
        return self.jobs.setdefault(job.id, job)
