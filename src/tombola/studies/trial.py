"""One trial of a study while it is planned: the pieces from which arms build their rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from pydantic import ValidationError

from tombola.data import Description
from tombola.errors import InputError
from tombola.networks import Coverage
from tombola.networks.axes import Axes
from tombola.networks.narrow import Narrowed, Narrower
from tombola.pruning import CRITERIA
from tombola.pruning.at_init import WITH_EXAMPLES
from tombola.pruning.patterns import Pattern
from tombola.pruning.scoring import KNOWN
from tombola.pruning.select import after_round
from tombola.registry import code_fingerprint
from tombola.studies.arms import ARMS, Found, Rule, rule_named
from tombola.studies.moves import moving
from tombola.studies.study import ArmSettings, Study
from tombola.tasks import Task, TaskSettings
from tombola.training.moving import Method, Moving
from tombola.training.popup import Popup, counts_of
from tombola.training.recipe import Recipe
from tombola.training.tracking import EarlyBird, TrackedMasks
from tombola.work import (
    Cost,
    InitialState,
    Interpolation,
    Item,
    Limit,
    MaskSearch,
    MaskUse,
    MovingRun,
    Observations,
    Run,
    SgdNoise,
    Shuffle,
    Spec,
    Supermask,
    Training,
)

NEW_BEST = 0.1  # of the evaluations have a lower validation loss than all before: test examples are measured there
# What an arm gives in the place of a mask -> its work, and the fields that say so.
INSTEAD: dict[type, Callable[[Any], tuple[type[Training], dict[str, Any]]]] = {
    Popup: lambda popup: (Supermask, {"popup": popup}),
    Moving: lambda moving: (MovingRun, {"moving": moving}),
    Narrowed: lambda small: (Run, {"network": small.settings, "network_code": small.code}),
}
# Passes of the examples through the network, forward and back, of what looks at examples.
PASSES = {"synflow": 300, "grasp": 9, "snip": 3, "gradient-at-init": 3, "gradient": 3, "wanda": 1}


def set_aside(study: Study, data: Description) -> int:
    """Return the number of validation examples of each trial."""
    asked = study.data.validation
    return asked if isinstance(asked, int) else data.validation


def epoch_length(study: Study, data: Description, recipe: Recipe) -> int:
    """Return the number of iterations in an epoch of a study's data under one of its recipes.

    Raises:
        InputError: the training set, less the validation examples, does not fill one batch.
    """
    examples = data.train - set_aside(study, data)
    if examples < recipe.batch_size:
        raise InputError(
            f"data.validation={study.data.validation} leaves {max(0, examples)} of {data.train} training examples: "
            f"too few for training.batch_size={recipe.batch_size}; lower one of them"
        )
    return examples // recipe.batch_size


def _is_dense(spec: Training) -> bool:
    """Return whether all weights take part in training, whatever the mask."""
    return isinstance(spec, Supermask) or (isinstance(spec, Run) and bool(spec.mask and spec.mask.frozen))


class Codes(NamedTuple):
    """Fingerprints of a user's own network, data and task; "" for ours."""

    network: str
    data: str
    task: str = ""


@dataclass
class Trial:
    """One trial of a study while it is planned: arms build their rules from its methods.

    Args:
        remaining: number of weights of the whole network at each level.
        rewind: the iteration that kept weights go back to.
        rewinds: all of the study's, those of its connectivity included.
        settings: of the arm that is being planned.
        tracked_rates: of the masks that are tracked while the dense network trains, where the arm has rates of its own.
        narrower: of the network; None where no arm may ask for a narrower one.
        source: the trial of the same number in which that arm's ticket is found, where it is transferred.
        role: what its groups are called by, where it is such a source.
        size: multiply-adds of its dense network relative to the study's, where it is such a source.
        items: all work of the study so far, by identity; each item comes after those that it needs.
    """

    study: Study
    number: int
    rates: tuple[dict[str, float], ...]
    codes: Codes
    items: dict[str, Item] = field(repr=False)
    data: Description
    coverage: Coverage = field(repr=False)
    remaining: Sequence[int] = field(repr=False)
    rewind: int = 0
    rewinds: tuple[int, ...] = (0,)
    settings: ArmSettings | None = None
    source: Trial | None = None
    role: str = ""
    size: float = 1.0
    tracked_rates: tuple[dict[str, float], ...] | None = field(default=None, kw_only=True)
    narrower: Narrower | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        tracked = () if self.tracked_masks is None else (self.tracked_masks,)
        observe = Observations(snapshots=tuple(sorted(set(self.rewinds) - {0})), masks=tracked)
        self.dense = self._train("dense", "dense", 0, InitialState(), None, observe=observe)
        self._chains: dict[Rule, list[Training]] = {}

    @property
    def set_aside(self) -> int:
        """The number of validation examples of the trial."""
        return set_aside(self.study, self.data)

    @cached_property
    def task(self) -> Task:
        """What is learned."""
        return self.study.task.make()

    @cached_property
    def _deciding(self) -> TaskSettings:
        return self.study.task.deciding()

    @property
    def pattern(self) -> Pattern | None:
        """The pattern of the masks: the arm's own, or else the study's."""
        return (self.settings and self.settings.pattern) or self.study.pruning.pattern

    @property
    def axes(self) -> dict[str, Axes]:
        """What a pattern must know of layers that are not stored as [outputs, inputs, window]; {} without a pattern."""
        return {} if self.pattern is None else self.coverage.axes()

    @property
    def rewound(self) -> InitialState:
        """The trial's own weights at the rewind iteration."""
        return InitialState(run=self.dense.id, iteration=self.rewind)

    @property
    def initial(self) -> InitialState:
        """The trial's own weights at initialisation, whatever the value of `rewind`."""
        return InitialState()

    def other_start(self, draw: int) -> InitialState:
        """Return the weights of another initialisation, trained to the rewind iteration without a mask."""
        if not self.rewind:
            return InitialState(draw=draw)
        run = self._train(
            f"late-reinit-{draw - 1}.start",
            "late-reinit",
            0,
            InitialState(draw=draw),
            None,
            observe=Observations(snapshots=(self.rewind,)),
            until=self.rewind,
        )
        return InitialState(run=run.id, iteration=self.rewind)

    def run(self, arm: Rule | str, level: int) -> Training:
        """Return the run of an arm at a level, the dense run at level 0; those before it are planned too.

        Args:
            arm: its rule, or its name.
            level: of the study.
        """
        rule = rule_named(arm) if isinstance(arm, str) else arm
        chain = self._chains.setdefault(rule, [self.dense])
        label = next((name for name, ours in ARMS.items() if ours.rule is rule), getattr(rule, "__name__", "arm"))
        mine = self.settings
        pattern = mine.pattern if mine else None
        planned = any((arm.rule, arm.pattern) == (label, pattern) for arm in self.study.arms)
        label += f"-{pattern.label}" if pattern else ""
        owner = self._owner(rule)
        training = owner.training if owner else {}
        planner = self if owner in (None, mine) else replace(self, settings=owner)
        group = label if planned else f"{label}, for other arms' masks"
        while len(chain) <= level:
            chain.append(planner.plan_arm(label, rule, len(chain), 0, 1, training, group))
        return chain[level]

    def _owner(self, rule: Rule) -> ArmSettings | None:
        """Return the arm whose runs and masks a rule means: the one that is planned, or the one that it controls.

        None means a rule without options. That is also how others see `ticket`: a ticket with a recipe of its own is
        another curve, and controls keep the masks of the study's tickets.

        Raises:
            InputError: several arms with this rule have options, and none is without.
        """
        mine = self.settings
        if mine and not (mine.is_control or mine.transfer) and rule_named(mine.rule) is rule:
            return mine
        if mine is None or rule is ARMS["ticket"].rule:
            return None
        arms = [arm for arm in self.study.arms if not (arm.is_control or arm.transfer) and arm.pattern == mine.pattern]
        of_rule = [arm for arm in arms if rule_named(arm.rule) is rule]
        if not of_rule or not all(arm.training or arm.criterion for arm in of_rule):
            return None
        if len(of_rule) > 1:
            names = ", ".join(repr(arm.label) for arm in of_rule)
            raise InputError(
                f"arm {mine.label!r}: it takes the masks of {of_rule[0].rule}, and the arms {names} have different "
                f"ones; keep one of them, or add the plain arm {of_rule[0].rule}"
            )
        return of_rule[0]

    def ticket(self, level: int) -> Training:
        """Return the ticket's own run at a level; that of the dense network at level 0."""
        return self.run("ticket", level)

    def copy(self, level: int, number: int) -> Training:
        """Return a run of a level's network from the rewind iteration on, with training noise of its own.

        Copy 0 has the study's own noise: it is the ticket's run, and at level 0 and iteration 0 the dense one. From a
        later iteration the optimiser starts fresh, in all copies alike.
        """
        mask: MaskUse | None = None
        if level == 0:
            if not self.rewind and not number:
                return self.dense
            initial = self.rewound if self.rewind else InitialState()
        else:
            ticket = self.ticket(level)
            if not number:
                return ticket
            assert isinstance(ticket, Run)
            initial, mask = ticket.initial, ticket.mask
        label = f"copy-{number}.from-{self.rewind}"
        return self._train(label, "copies, for connectivity", level, initial, mask, copy_number=number)

    def interpolation(self, one: Training, other: Training, points: int, align: bool = False) -> Spec:
        """Return the spec of the line between two runs; `align` orders the units of `one` as those of `other`."""
        ends = {"one": one.id, "other": other.id, "points": points, "align": align}
        return self.spec(Interpolation, **ends, precision=one.training.precision)

    def pruned(self, run: Training, level: int) -> MaskUse:
        """Return the mask found by pruning a run of the level before by one round."""
        return self._prune(run, level - 1, level)

    def own_mask(self, run: Training) -> MaskUse:
        """Return the mask that a run has or finds, with nothing pruned."""
        return MaskUse(run=run.id)

    @property
    def tracked_masks(self) -> TrackedMasks | None:
        """The masks that are tracked during the dense run, or None."""
        pruning = self.study.pruning
        early_bird = pruning.early_bird
        if early_bird is None and any(arm.rule == "early-bird" for arm in self.study.arms):
            early_bird = EarlyBird()
        rates = self.rates if self.tracked_rates is None else self.tracked_rates
        if early_bird is None or not rates:
            return None
        return TrackedMasks(rates=rates, scope=pruning.scope, minimum=pruning.minimum, early_bird=early_bird)

    def early_bird(self, level: int) -> MaskUse:
        """Return the mask of a level as it was when it settled while the dense network trained.

        Raises:
            InputError: no masks are tracked.
        """
        if self.tracked_masks is None:
            raise InputError("your own arm uses early-bird masks: set pruning.early_bird, for example to {}")
        self._refuse_pattern("early-bird masks")
        search = self._search(self.dense, 0, level)
        update = {"criterion": "magnitude", "code": "", "early_bird": self.tracked_masks.early_bird}
        return self._use(search.model_copy(update=update), "early-bird")

    def popup(self, level: int, draw: int) -> Popup:
        """Return how the supermask with as many weights as the level has is found.

        Raises:
            InputError: a layer would keep no weight.
        """
        self._refuse_pattern("a supermask")
        counts = self._counts(level, "a supermask")
        weights = self.settings.weights if self.settings else None
        return Popup(counts=counts, draw=draw) if weights is None else Popup(counts=counts, draw=draw, weights=weights)

    def moving(self, method: Method, level: int, draw: int) -> Moving:
        """Return the rule of a mask that moves until it has as many weights as the level has.

        Raises:
            InputError: a layer would keep no weight, the schedule does not fit the budget, or patience could end the
                run before it.
        """
        self._refuse_pattern(method)
        settings, recipe = self.settings, self.study.recipe(level)
        recipe = recipe.changed(settings.training if settings else {})
        name = settings.label if settings else method
        if recipe.patience:
            raise InputError(
                f"arm {name!r}: training.patience={recipe.patience} could end a run before its mask has moved; leave "
                "patience out"
            )
        budget = recipe.budget(epoch_length(self.study, self.data, recipe))
        return moving(method, settings.moves if settings else None, self._counts(level, name), budget, draw, name)

    def narrowed(self, level: int) -> Narrowed:
        """Return a dense network with about as many weights as the level has.

        Raises:
            InputError: the network can't be scaled to that.
        """
        name = self.settings.label if self.settings else "small-dense"
        if self.narrower is None:
            raise InputError(f"arm {name!r}: a source has no narrower network; take small-dense without transfer")
        self._refuse_pattern("a dense network")
        return self.narrower.at(self.remaining[level], f"arm {name!r} at level {level}")

    def _counts(self, level: int, what: str) -> dict[str, int]:
        """Return how many weights each pruned layer has at a level; the same share of all under scope `global`.

        Raises:
            InputError: a layer would keep no weight.
        """
        pruning, rounds = self.study.pruning, self.rates[:level]
        sizes = {name: size for name, size in self.coverage.sizes().items() if name in rounds[0]}
        counts = sizes
        for rates in rounds:
            counts = after_round(counts, rates, pruning.scope, sizes, pruning.minimum)
        if pruning.scope == "global":  # then only their sum says anything
            counts = counts_of(sizes, sum(counts.values()), pruning.minimum)
        if empty := [name.removesuffix(".weight") for name, count in counts.items() if not count]:
            raise InputError(
                f"{what} at level {level} would leave layer {empty[0]!r} no weight; lower pruning.rounds to "
                f"{level - 1}, set pruning.minimum, or exclude the layer"
            )
        return counts

    def supermask(self, level: int, draw: int) -> Training:
        """Return the work that finds the supermask of a level, as the study's arm `edge-popup` does.

        Raises:
            InputError: the study has several such arms.
        """
        found = [arm for arm in self.study.arms if arm.rule == "edge-popup" and not (arm.is_control or arm.transfer)]
        if len(found) > 1:
            names = ", ".join(arm.label for arm in found)
            raise InputError(
                f"edge-popup-trained: the study has several arms with masks for it: {names}; keep only one of them"
            )
        settings = found[0] if found else ArmSettings(rule="edge-popup")
        finder = replace(self, settings=settings)
        repeats = max(settings.per_trial, draw + 1)
        group = settings.label if found else "edge-popup, for other arms' masks"
        rule = ARMS["edge-popup"].rule
        return finder.plan_arm(settings.label, rule, level, draw, repeats, settings.training, group)

    def last_rate(self, level: int) -> Recipe:
        """Return the recipe of a level with the learning rate of its last iteration throughout.

        Raises:
            InputError: that rate is practically 0, and the arm does not set another.
        """
        recipe = self.study.recipe(level)
        budget = recipe.budget(epoch_length(self.study, self.data, recipe))
        if recipe.ends_at_zero(budget) and not (self.settings and "lr" in self.settings.training):
            name = self.settings.label if self.settings else "fine-tune"
            raise InputError(
                f"arm {name!r} trains at the last learning rate of schedule: {recipe.schedule}, which ends at 0: it "
                "would change nothing; use lr-rewind or another schedule, or give the arm a rate: training: {lr: 0.001}"
            )
        constant = {
            "lr": recipe.learning_rate(budget - 1, budget),
            "schedule": "constant",
            "milestones": (),
            "warmup": 0,
        }
        return recipe.model_copy(update=constant)

    def iterative(self, level: int) -> MaskUse:
        """Return the mask found by pruning the ticket of the level before by one round."""
        search = self._search(self.run("ticket", level - 1), level - 1, level)
        if back_off := self.study.pruning.back_off:
            metric = self.task.primary
            limit = Limit(
                dense=self.dense.id,
                margin=back_off.margin,
                factor=back_off.factor,
                metric=metric.name,
                better=metric.better,
            )
            search = search.model_copy(update={"limit": limit})
        return self._use(search, "ticket")

    def one_shot(self, level: int) -> MaskUse:
        """Return the mask found by pruning the dense run by that many rounds at once, by the arm's own criterion."""
        search = self._search(self.dense, 0, level)
        name = self.settings.criterion if self.settings else None
        if name is None and self.settings and self.settings.is_control:
            owner = self._owner(rule_named(self.settings.rule))
            name = owner.criterion if owner else None
        if name is not None:
            code = code_fingerprint(name, CRITERIA, "criterion")
            search = search.model_copy(update={"criterion": name, "code": code})
        return self._use(search, "one-shot")

    def at_init(self, method: str, level: int, repeat: int = 0) -> MaskUse:
        """Return the mask found by pruning the untrained network once, to the level's number of weights exactly.

        All layers that the study prunes are compared together; others stay whole.

        Args:
            method: one of `tombola.pruning.AT_INIT`, a criterion, or `package.module:function`.
            level: of the study.
            repeat: numbers the method's draws, and those of the examples that it is given. A method that does not draw
                finds one mask for all repeats only where this is 0.

        Raises:
            InputError: the method does not exist, or fewer weights would be left than there are layers.
        """
        sizes = self.coverage.sizes()
        layers = [name for name in sizes if any(rates.get(name) for rates in self.rates)]
        pool = sum(sizes[name] for name in layers)
        keep = self.remaining[level] - (self.remaining[0] - pool)
        if keep < len(layers):
            raise InputError(
                f"pruning.rounds: level {level} leaves {keep} weights for {len(layers)} layers, but a method at "
                f"initialisation needs at least one in each; lower pruning.rounds to {level - 1}, or lower the rate"
            )
        if method in ("random-uniform", "random-erk"):
            self._refuse_pattern(f"the method {method}")
        uses_data = method in WITH_EXAMPLES or method not in KNOWN
        search = self.spec(
            MaskSearch,
            criterion=method,
            scope="global",
            rates=dict.fromkeys(layers, (pool - keep) / pool),
            minimum=self.study.pruning.minimum,
            pattern=self.pattern,
            axes=self.axes,
            code=code_fingerprint(method, KNOWN, "method"),
            examples=self.study.pruning.init_examples if uses_data else 0,
            level=level,
            repeat=repeat,
        )
        return self._use(search, method)

    def add(
        self, spec: Spec, label: str, group: str, cost: Cost | None = None, observe: Observations | None = None
    ) -> Item:
        """Add work of any kind to the plan, and return its item; what equal work observes already is kept.

        Args:
            spec: what decides the outcome.
            label: names it for a person, without network, data and trial, which are added.
            group: the line of `tombola plan` that counts it.
            cost: what it is expected to cost.
            observe: what is recorded on the way.
        """
        study = self.study
        known = self.items.get(spec.id)
        wanted = observe or Observations()
        if known is not None:
            if known.observe.with_(wanted) != known.observe:
                self.items[spec.id] = replace(known, observe=known.observe.with_(wanted))
            return self.items[spec.id]
        item = Item(
            spec=spec,
            label=f"{study.network.name}.{study.data.source}.trial-{self.number}.{label}",
            group=f"{self.role}{group}",
            cost=cost or Cost(),
            observe=wanted,
            data_file=None if study.data.path is None else str(study.data.path),
            readers=study.data.stream_workers,
        )
        self.items[item.id] = item
        return item

    def plan_arm(
        self,
        label: str,
        rule: Rule,
        level: int,
        repeat: int,
        repeats: int,
        training: Mapping[str, Any] | None = None,
        group: str = "",
    ) -> Training:
        """Plan what an arm asks for at a level; `training` has fields of its recipe that differ from the study's."""
        try:
            found = rule(self, level, repeat)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"arm {label!r} failed at level {level}: {type(error).__name__}: {error}; "
                "tombola calls an arm as arm(trial, level, repeat); it must return (InitialState, MaskUse)"
            ) from error
        try:
            initial, mask, *others = found
            assert isinstance(initial, InitialState)
            assert isinstance(mask, MaskUse | Popup | Moving | Narrowed)
            assert not others or (len(others) == 1 and isinstance(others[0], Recipe))
        except (TypeError, ValueError, AssertionError):
            raise InputError(
                f"arm {label!r} must return (InitialState, MaskUse), or (InitialState, MaskUse, Recipe); it returned "
                f"{found!r}"
            ) from None
        parent = self.items.get(initial.run) if initial.run else None
        known = parent is not None and (initial.trained or initial.iteration in (0, *parent.observe.snapshots))
        if initial.run and not known:
            raise InputError(
                f"arm {label!r} starts from iteration {initial.iteration} of a run that takes no snapshot there"
            )
        try:
            recipe = (others[0] if others else self.study.recipe(level)).changed(training or {})
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise InputError(f"arm {label!r}: its training is invalid: {message}") from None
        number = f"-{repeat}" if repeats > 1 else ""
        return self._train(f"{label}{number}", group or label, level, initial, mask, recipe=recipe)

    def spec(self, kind: type[Any], **fields: Any) -> Any:
        """Return a spec with the study's network, data, seed and trial; a data file is known by its content alone."""
        study = self.study
        network = fields.pop("network", study.network)
        return kind(
            network=network.model_copy(update={"output": None}),  # decides rates alone, which are there by name
            data=study.data.model_copy(
                update={"stream_workers": 0} | ({"path": f"content:{self.codes.data}"} if study.data.path else {})
            ),
            seed=study.seed,
            trial=self.number,
            task=self._deciding,
            network_code=fields.pop("network_code", self.codes.network),
            data_code=self.codes.data,
            task_code=self.codes.task,
            **fields,
        )

    def shuffle(self, stream: str, level: int, repeat: int) -> Shuffle:
        """Return the permutation of an arm's mask that a control uses; it keeps the pattern.

        Args:
            stream: the arm whose masks are shuffled.
            level, repeat: each has a permutation of its own.
        """
        return Shuffle(stream=stream, repeat=repeat, level=level, pattern=self.pattern, axes=self.axes)

    def _refuse_pattern(self, what: str) -> None:
        if self.pattern is not None:
            own = self.settings is not None and self.settings.pattern is not None
            where = f"arms: pattern of {self.settings.label!r}" if own and self.settings else "pruning.pattern"
            raise InputError(f"{where}: {what} can't follow a pattern; remove the arm or the pattern")

    def _prune(self, parent: Training, first: int, last: int) -> MaskUse:
        """Return the mask found by pruning `parent`, of level `first`, to level `last`."""
        return self._use(self._search(parent, first, last), "one-shot" if parent is self.dense else "masks")

    def _search(self, parent: Training, first: int, last: int) -> MaskSearch:
        pruning, rounds = self.study.pruning, self.rates[first:last]
        same = 1
        while same < len(rounds) and rounds[-same - 1] == rounds[-1]:
            same += 1
        return self.spec(
            MaskSearch,
            run=parent.id,
            criterion=pruning.criterion,
            scope=pruning.scope,
            rates=rounds[-1],
            minimum=pruning.minimum,
            rounds=same,
            before=rounds[:-same],
            level=last,
            pattern=self.pattern,
            axes=self.axes,
            code=code_fingerprint(pruning.criterion, CRITERIA, "criterion"),
        )

    def _use(self, search: MaskSearch, of: str) -> MaskUse:
        """Plan a mask search and return the use of its mask."""
        examples = self.task.few_count(self.data, search.examples) if search.examples else 1
        if search.run is not None:  # its next batch
            parent = self.items[search.run].spec
            assert isinstance(parent, Training)
            examples = parent.training.batch_size
        cost = Cost(evaluated=PASSES.get(search.criterion, 0) * examples, size=self.size)
        item = self.add(search, f"mask.{of}.level-{search.level:02}", "masks", cost)
        return MaskUse(search=item.id)

    def _train(
        self,
        label: str,
        group: str,
        level: int,
        initial: InitialState,
        mask: Found | None,
        recipe: Recipe | None = None,
        observe: Observations | None = None,
        until: int | None = None,
        copy_number: int = 0,
    ) -> Training:
        study, recipe = self.study, recipe or self.study.recipe(level)
        noise = SgdNoise(level=level if study.noise == "level" else 0, copy_number=copy_number)
        code = recipe.code()
        measured = Observations(test_every=recipe.test_interval, train_every=recipe.train_interval)
        observe = measured.with_(observe or Observations())
        common = {"training": recipe.deciding, "initial": initial, "until": until, "noise": noise, "recipe_code": code}
        kind, about = INSTEAD[type(mask)](mask) if type(mask) in INSTEAD else (Run, {"mask": mask})
        spec: Training = self.spec(kind, **about, **common)
        cost = self._cost(spec, recipe, level)
        if isinstance(mask, Narrowed):
            cost = replace(cost, density=mask.share)
        added = self.add(spec, f"{label}.level-{level:02}" if level else label, group, cost, observe)
        assert isinstance(added.spec, Training)
        return added.spec

    def _density(self, spec: Training, level: int, budget: int) -> float:
        """Return the share of matrix weights that take part in training, on average over a run."""
        if isinstance(spec, MovingRun):
            sizes = self.coverage.sizes()
            return self.coverage.density(round(spec.moving.kept_share(sizes, budget) * sum(sizes.values())))
        return 1.0 if _is_dense(spec) else self.coverage.density(self.remaining[level])

    def _cost(self, spec: Training, recipe: Recipe, level: int) -> Cost:
        epoch = epoch_length(self.study, self.data, recipe)
        budget = recipe.budget(epoch)
        iterations = min(budget, spec.until or budget) - spec.initial.iteration
        evaluations = math.ceil(iterations / recipe.interval(epoch)) + 1
        interval = 1 if isinstance(spec, MovingRun) else recipe.test_interval

        def curve(asked: int | None) -> int:
            return 1 if asked is None else math.ceil(iterations / max(asked, recipe.interval(epoch))) + 1

        tests = curve(interval) + math.ceil(NEW_BEST * (evaluations - curve(interval)))
        return Cost(
            iterations=iterations,
            batch_size=recipe.batch_size,
            evaluated=evaluations * self.set_aside
            + tests * self.data.test
            + curve(recipe.train_interval) * self.data.train,
            density=self._density(spec, level, budget),
            size=self.size,
        )
