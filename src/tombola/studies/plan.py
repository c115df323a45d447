"""From a study to the jobs that it needs and the table rows that they fill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tombola.data import Description, describe, fingerprint
from tombola.errors import InputError
from tombola.named import code_fingerprint, resolve
from tombola.networks import Anatomy, examine, factory, initialised
from tombola.pruning import CRITERIA, try_criterion
from tombola.pruning.at_init import WITH_EXAMPLES
from tombola.pruning.scoring import KNOWN
from tombola.pruning.select import after_round, kept_after, plan_counts
from tombola.studies.arms import ARMS, Arm
from tombola.studies.connectivity import Line, Pair, Work, connect
from tombola.studies.controls import control
from tombola.studies.job import Job, Limit, MaskRule, Origin, Prune
from tombola.studies.rewind import iterations
from tombola.studies.study import ArmSettings, Study
from tombola.training.popup import Popup, counts_of
from tombola.training.recipe import Recipe
from tombola.training.watching import EarlyBird, Watch

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
        example = 2.0 * self.density(job) * sum(layer.size * layer.uses for layer in self.anatomy.layers)
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
    recipes = [study.training, *(study.recipe(1).changed(arm.training) for arm in study.arms)]
    if any(recipe.augment for recipe in recipes) and len(data.input_shape) != 3:
        raise InputError(
            f"training.augment is for images (channels, height, width), and an example of {study.data.source} has "
            f"shape {data.input_shape}; leave augment out"
        )
    # Supermasks start at iteration 0 whatever `rewind` says.
    rewound = recipes[:1] + [r for r, arm in zip(recipes[1:], study.arms, strict=True) if arm.rule != "edge-popup"]
    budget = min(recipe.budget(epoch_length(study, data, recipe)) for recipe in [*rewound, study.recipe(1)])
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


@dataclass
class Trial:
    """One trial of a study while it is planned: what arms build their rules from.

    Args:
        remaining: number of weights of the whole network at each level.
        rewind: the iteration that kept weights go back to.
        rewinds: all of the study's, those of its connectivity included.
        settings: of the arm that is being planned.
    """

    study: Study
    number: int
    rates: tuple[dict[str, float], ...]
    codes: tuple[str, str]
    jobs: dict[str, Job] = field(repr=False)
    data: Description
    anatomy: Anatomy = field(repr=False)
    remaining: Sequence[int] = field(repr=False)
    rewind: int = 0
    rewinds: tuple[int, ...] = (0,)
    settings: ArmSettings | None = None

    def __post_init__(self) -> None:
        watch = () if self.watch is None else (self.watch,)
        self.dense = self._add("dense", 0, Origin(), None, keep=tuple(sorted(set(self.rewinds) - {0})), watch=watch)
        self._chains: dict[Arm, list[Job]] = {}

    @property
    def start(self) -> Origin:
        """The trial's own weights at the rewind iteration."""
        return Origin(job=self.dense.id, iteration=self.rewind)

    @property
    def initial(self) -> Origin:
        """The trial's own weights at initialisation, wherever others rewind to."""
        return Origin(job=self.dense.id)

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
        # The chain of another arm is trained as that arm is.
        mine = self.settings if self.settings and resolve(self.settings.rule, ARMS, "arm") is arm else None
        training = mine.training if mine else {}
        while len(chain) <= level:
            chain.append(self.job_of(label, arm, len(chain), 0, 1, training))
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

    def own_mask(self, job: Job) -> MaskRule:
        """Return the mask that a job has or finds, with nothing pruned."""
        return MaskRule(prune=Prune(job=job.id, criterion="magnitude", scope="layer", rates={}))

    @property
    def watch(self) -> Watch | None:
        """The masks that are watched while the dense network trains, if any are."""
        pruning = self.study.pruning
        early_bird = pruning.early_bird
        if early_bird is None and any(arm.rule == "early-bird" for arm in self.study.arms):
            early_bird = EarlyBird()
        if early_bird is None or not self.rates:
            return None
        return Watch(rates=self.rates, scope=pruning.scope, minimum=pruning.minimum, early_bird=early_bird)

    def early_bird(self, level: int) -> MaskRule:
        """Return the mask of a level as it was when it settled while the dense network trained.

        Raises:
            InputError: nothing is watched.
        """
        if self.watch is None:
            raise InputError("pruning.early_bird must be set for an arm of one's own that asks for early-bird masks")
        mask = self.one_shot(level)
        update = {"criterion": "magnitude", "code": "", "early_bird": self.watch.early_bird}
        return mask.model_copy(update={"prune": mask.prune.model_copy(update=update)})

    def popup(self, level: int, draw: int) -> Popup:
        """Return how the supermask with as many weights as the level has is found.

        Raises:
            InputError: a layer would keep no weight.
        """
        pruning, rounds = self.study.pruning, self.rates[:level]
        sizes = {name: size for name, size in self.anatomy.sizes().items() if name in rounds[0]}
        if pruning.scope == "layer":
            steps = {name: [rates[name] for rates in rounds] for name in sizes}
            counts = {name: kept_after(size, steps[name], min(pruning.minimum, size)) for name, size in sizes.items()}
        else:
            left: Mapping[str, int] = sizes
            for rates in rounds:
                left = after_round(left, rates, "global", sizes, pruning.minimum)
            counts = counts_of(sizes, sum(left.values()), pruning.minimum)
        if empty := [name.removesuffix(".weight") for name, count in counts.items() if not count]:
            raise InputError(
                f"edge-popup at level {level} would leave layer {empty[0]!r} no weight; ask for at most {level - 1} "
                "rounds, set pruning.minimum, or exclude the layer"
            )
        weights = self.settings.weights if self.settings else None
        return Popup(counts=counts, draw=draw) if weights is None else Popup(counts=counts, draw=draw, weights=weights)

    def supermask(self, level: int, draw: int) -> Job:
        """Return the job that finds the supermask of a level, as the study's arm `edge-popup` does; it is planned too.

        Raises:
            InputError: the study has several such arms.
        """
        found = [arm for arm in self.study.arms if arm.rule == "edge-popup" and not (arm.shuffle or arm.reinit)]
        if len(found) > 1:
            names = ", ".join(arm.label for arm in found)
            raise InputError(
                f"edge-popup-trained: of which arm are the masks? there are {names}; leave all but one out"
            )
        settings = found[0] if found else ArmSettings(rule="edge-popup")
        finder = replace(self, settings=settings)
        repeats = max(settings.per_trial, draw + 1)
        return finder.job_of(settings.label, ARMS["edge-popup"], level, draw, repeats, settings.training)

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

    def at_init(self, method: str, level: int, draw: int = 0) -> MaskRule:
        """Return the mask found by pruning the untrained network once, to the level's number of weights exactly.

        All layers that the study prunes are compared together; others stay whole.

        Args:
            method: one of `tombola.pruning.AT_INIT`, a criterion, or `package.module:function`.
            level: of the study.
            draw: which draw of the method's, and of the examples that it is given.

        Raises:
            InputError: there is no such method, or fewer weights would be left than there are layers.
        """
        sizes = self.anatomy.sizes()
        layers = [name for name in sizes if any(rates.get(name) for rates in self.rates)]
        pool = sum(sizes[name] for name in layers)
        keep = self.remaining[level] - (self.remaining[0] - pool)
        if keep < len(layers):
            raise InputError(
                f"pruning.rounds: level {level} leaves {keep} weights to {len(layers)} layers, and a method at "
                f"initialisation can't keep one in each; ask for at most {level - 1} rounds, or for a lower rate"
            )
        uses_data = method in WITH_EXAMPLES or method not in KNOWN
        return MaskRule(
            prune=Prune(
                job=self.dense.id,
                criterion=method,
                scope="global",
                rates=dict.fromkeys(layers, (pool - keep) / pool),
                minimum=self.study.pruning.minimum,
                code=code_fingerprint(method, KNOWN, "method"),
                examples=self.study.pruning.init_examples if uses_data else 0,
                draw=draw,
            )
        )

    def job_of(
        self, label: str, arm: Arm, level: int, repeat: int, repeats: int, training: Mapping[str, Any] | None = None
    ) -> Job:
        """Plan the job that an arm asks for; `training` has fields of its recipe that are others."""
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
            assert isinstance(mask, MaskRule | Popup)
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
        try:
            recipe = (others[0] if others else self.study.recipe(level)).changed(training or {})
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise InputError(f"arm {label!r}: its training can't be changed so: {message}") from None
        number = f"-{repeat}" if repeats > 1 else ""
        return self._add(f"{label}{number}", level, origin, mask, recipe=recipe)

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
        mask: MaskRule | Popup | None,
        recipe: Recipe | None = None,
        keep: tuple[int, ...] = (),
        until: int | None = None,
        watch: tuple[Watch, ...] = (),
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
            mask=None if isinstance(mask, Popup) else mask,
            popup=mask if isinstance(mask, Popup) else None,
            until=until,
            noise=(level if study.noise == "level" else 0) + COPIES_APART * copy,
            network_code=self.codes[0],
            data_code=self.codes[1],
            label=f"{study.network.name}.{study.data.source}.trial-{self.number}.{place}",
            keep=keep,
            watch=watch,
        )
        return self.jobs.setdefault(job.id, job)
