"""One trial of a study while it is planned: the pieces from which arms build their rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from tombola.data import Description
from tombola.errors import InputError
from tombola.named import code_fingerprint, resolve
from tombola.networks import Anatomy
from tombola.pruning import CRITERIA
from tombola.pruning.at_init import WITH_EXAMPLES
from tombola.pruning.scoring import KNOWN
from tombola.pruning.select import after_round
from tombola.studies.arms import ARMS, Arm
from tombola.studies.job import Job, Limit, MaskRule, Origin, Prune
from tombola.studies.study import ArmSettings, Study
from tombola.training.popup import Popup, counts_of
from tombola.training.recipe import Recipe
from tombola.training.watching import EarlyBird, Watch

COPIES_APART = 1_000_000  # numbers of the noise of a copy and of the next: more than any study has levels


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
        # The chain of another arm, of which this may be a control, is trained as that arm is.
        mine = self.settings
        its_own = mine and not (mine.shuffle or mine.reinit) and resolve(mine.rule, ARMS, "arm") is arm
        training = mine.training if mine and its_own else {}
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
        self._refuse_pattern("early-bird masks")
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
        self._refuse_pattern("edge-popup")
        pruning, rounds = self.study.pruning, self.rates[:level]
        sizes = {name: size for name, size in self.anatomy.sizes().items() if name in rounds[0]}
        counts = sizes
        for rates in rounds:
            counts = after_round(counts, rates, pruning.scope, sizes, pruning.minimum)
        if pruning.scope == "global":  # then only their sum says anything
            counts = counts_of(sizes, sum(counts.values()), pruning.minimum)
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
        if method in ("random-uniform", "random-erk"):
            self._refuse_pattern(f"the method {method}")
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
                pattern=self.study.pruning.pattern,
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

    def _refuse_pattern(self, what: str) -> None:
        if self.study.pruning.pattern is not None:
            raise InputError(f"pruning.pattern: {what} can't follow a pattern; leave out the arm, or the pattern")

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
                pattern=pruning.pattern,
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
