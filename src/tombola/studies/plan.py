"""Turns a study into work items and the table rows that their results fill."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from torch import nn

from tombola.data import Description, describe, fingerprint, look_again
from tombola.errors import InputError
from tombola.networks import (
    NETWORKS,
    Coverage,
    NetworkSettings,
    examined,
    fixed_weights,
    initialised,
    network_for,
    without_second_initialisation,
)
from tombola.networks.narrow import Narrower
from tombola.pruning import CRITERIA, try_criterion
from tombola.pruning.select import plan_counts
from tombola.registry import resolve
from tombola.studies.arms import Rule, arm_named
from tombola.studies.connectivity import Pair, check_align, connect
from tombola.studies.controls import control
from tombola.studies.layer_checks import (
    check_gradients,
    check_moves,
    check_search,
    check_sparse_gradients,
    frozen_weights,
)
from tombola.studies.recipe_checks import check_recipe, unreached_milestones
from tombola.studies.rewind import iterations
from tombola.studies.size import MAX_RUNS, check_size, runs_of
from tombola.studies.sources import Source, source_of
from tombola.studies.state_checks import check_state_of_study
from tombola.studies.study import ArmSettings, Study
from tombola.studies.task_checks import check_margins, check_outputs, check_validation, fine_margin
from tombola.studies.transfer import source_study, transferred
from tombola.studies.trial import Codes, Trial, epoch_length
from tombola.tasks import ACCURACY_ALONE, Measures
from tombola.training.recipe import Recipe
from tombola.work import Item, MaskSearch, MovingRun, Run, Training


@dataclass(frozen=True)
class Row:
    """One row of the results table: its run and its place.

    Args:
        arm, trial, repeat, level: its place.
        job: identity of the run.
    """

    arm: str
    trial: int
    repeat: int
    level: int
    job: str


@dataclass(frozen=True)
class Plan:
    """The work and the tables of a study.

    Args:
        study: the planned study.
        data: shape and size of the data set.
        coverage: the network's prunable layers.
        remaining: number of weights that remain at each level, the dense level 0 included; where `pruning.back_off`
            is set, or a criterion skips rounds, the fewest that can remain.
        work: items by identity, each after those that it needs.
        rows: of the results table, in the study's order of arms.
        pairs: the places of the interpolations; two places may share one.
        measures: the task's measures.
    """

    study: Study
    data: Description
    coverage: Coverage
    remaining: tuple[int, ...]
    work: dict[str, Item]
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...] = ()
    measures: Measures = ACCURACY_ALONE

    def budget(self, level: int = 0) -> int:
        """Return the iterations of a run of that level that starts at iteration 0."""
        recipe = self.study.recipe(level)
        return recipe.budget(epoch_length(self.study, self.data, recipe))

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user before training, one line each."""
        undrawn = _undrawn(self.study.network.init, self.coverage)
        if self.study.trainer is not None:
            return undrawn
        recipes = (self.study.recipe(level) for level in (0, 1))
        lines = [
            unreached_milestones(recipe, recipe.budget(epoch_length(self.study, self.data, recipe)))
            for recipe in recipes
        ]
        heads = {spec.mask.head for item in self.work.values() if isinstance(spec := item.spec, Run) and spec.mask}
        lines += [
            f"note: a transferred ticket's output layer, {head}, has the study's own starting weights and a random "
            "mask: its source has other outputs"
            for head in sorted(filter(None, heads))
        ]
        if self.study.data.validation == 0:
            lines.append("note: data.validation is 0, so columns and figures at early stop show the end of training")
        lines.append(fine_margin(self.study.margin, self.measures.primary, self.data))
        return (*undrawn, *dict.fromkeys(line for line in lines if line))

    @cached_property
    def multiply_adds(self) -> float:
        """Multiply-adds of one example in the dense network."""
        return float(self.coverage.multiply_adds)

    def density(self, level: int) -> float:
        """Return the share of all matrix weights that remains at a level, 0 to 1; unprunable ones remain."""
        return self.coverage.density(self.remaining[level])

    def operations(self, item: Item) -> float:
        """Estimate the floating-point operations of an item, evaluations included; see `Cost.operations`."""
        return item.cost.operations(self.multiply_adds)

    @cached_property
    def wanted(self) -> frozenset[str]:
        """Identities of the work whose results the study itself shows."""
        return frozenset({row.job for row in self.rows} | {pair.line for pair in self.pairs})


def make_plan(study: Study, root: Path | None = None, max_runs: int = MAX_RUNS) -> Plan:
    """Plan the work of a study. It downloads, trains and writes nothing.

    Args:
        study: what to plan.
        root: folder of data sets.
        max_runs: refuse a study with more runs.

    Raises:
        InputError: a network, criterion or arm does not exist or does not fit, or a setting is impossible.
    """
    if study.trainer is not None:
        from tombola.studies.own import make_own_plan  # which needs this module

        return make_own_plan(study, max_runs)
    check_size(runs_of(study), max_runs)
    look_again()
    data, task = describe(study.data, root), study.task.make()
    task.check_data(data, study.data.source)
    build = network_for(study.network, data, task)
    coverage = examined(build, data, study.network)
    module = initialised(build, "pytorch", 0)
    check_sparse_gradients(module, f"network {study.network.name!r}")
    frozen = frozen_weights(module)
    check_outputs(task, module, data, study.data.source)
    if study.network.name not in NETWORKS:
        check_state_of_study(
            partial(initialised, build, "pytorch"), task, data, coverage.shapes(), f"network {study.network.name!r}"
        )
    check_margins(study, task, data)
    check_validation(study)
    recipes = [study.training, *(study.recipe(1).changed(arm.training) for arm in study.arms)]
    untrained = partial(initialised, build, study.network.init, 0)
    for recipe in (recipes[0], study.recipe(1), *recipes[1:]):
        epoch = epoch_length(study, data, recipe)
        check_recipe(recipe, recipe.budget(epoch), untrained, data, task, study.data)
    dense, ticket, *others = [
        recipe.budget(epoch_length(study, data, recipe)) for recipe in (recipes[0], study.recipe(1), *recipes[1:])
    ]
    rewound = [arm_named(arm.rule).start != "initial" and not arm.starts_fresh for arm in study.arms]
    budget = min(dense, ticket, *(each for each, goes_back in zip(others, rewound, strict=True) if goes_back))
    rewinds = iterations(study.rewind, epoch_length(study, data, study.training), budget)
    parting = _partings(study, rewinds, budget, data)
    starts = tuple(dict.fromkeys((*rewinds, *parting)))
    if study.training.patience and any(starts):
        who, asked = ("rewind", rewinds) if any(rewinds) else ("connectivity.rewind", parting)
        raise InputError(
            f"training.patience={study.training.patience} could end the dense run before iteration {max(asked)}, "
            f"which {who} needs; set patience for the pruned levels only, as retraining.patience"
        )
    _check_second_initialisation(study, build, coverage)
    check_align(study.connectivity, untrained(), data.input_shape)
    rates, remaining = reach(study, coverage)
    resolve(study.pruning.criterion, CRITERIA, "criterion")
    pruned = _pruned(study, coverage)
    try_criterion(study.pruning.criterion, coverage.shapes(), untrained, data, task, pruned=pruned)
    arms = [control(arm, transferred(arm, arm_named(arm.rule).rule)) for arm in study.arms]
    sources = {arm.label: source_of(source_study(study, arm.transfer), root) for arm in study.arms if arm.transfer}
    _check_sources(sources, starts)
    codes = Codes(study.network.fingerprint(untrained()), fingerprint(study.data, root), study.task.code())

    items: dict[str, Item] = {}
    narrower = Narrower(study.network, data, task, coverage)

    def trial(number: int, rewind: int, settings: ArmSettings | None) -> Trial:
        mine, left = reach(study, coverage, settings)
        found = sources.get(settings.label) if settings else None
        return Trial(
            study,
            number,
            mine,
            codes,
            items,
            data,
            coverage,
            left,
            rewind,
            starts,
            settings,
            found.trial(number, items, rewind, starts, coverage) if found else None,
            tracked_rates=rates,
            narrower=narrower,
        )

    rows = rows_of(study, arms, rewinds, trial)
    searches = [item.spec for item in items.values() if isinstance(item.spec, MaskSearch)]
    for search in {search.criterion: search for search in searches}.values():
        if search.criterion != study.pruning.criterion:
            examples = bool(search.examples)
            try_criterion(search.criterion, coverage.shapes(), untrained, data, task, examples, pruned)
    pairs: list[Pair] = []
    for rewind in parting:
        assert study.connectivity is not None
        for number in study.trial_numbers:
            pairs += connect(trial(number, rewind, None), study.connectivity)
    if sources:
        items = _needed(items, {row.job for row in rows} | {pair.line for pair in pairs})
    _check_gamma(study, items.values())
    for row in rows:
        if isinstance(spec := items[row.job].spec, MovingRun):
            check_moves(row.arm, spec.moving.counts, frozen)
    ours = _bare(study.network)
    layers = {ours: (frozen, coverage.shapes())}
    for source in sources.values():
        layers.setdefault(_bare(source.study.network), (source.frozen, source.coverage.shapes()))
    of_gradients = set[str]()
    for item in items.values():
        if isinstance(item.spec, MaskSearch):
            network = _bare(item.spec.network)
            check_search(item.spec, *layers[network])
            if item.spec.criterion == "gradient" and network == ours:
                of_gradients |= frozen & set(item.spec.pruned)
    if of_gradients:
        check_gradients(untrained(), task, data, [name for name in coverage.sizes() if name in of_gradients])
    return Plan(study, data, coverage, remaining, items, tuple(rows), tuple(pairs), task.measures(data))


def reach(
    study: Study, coverage: Coverage, settings: ArmSettings | None = None
) -> tuple[tuple[dict[str, float], ...], tuple[int, ...]]:
    """Return the rates of each round of an arm, and the number of weights that remain at each level.

    Args:
        study: what is planned.
        coverage: of its network.
        settings: of an arm, which may have a pattern of its own; None for the study.

    Raises:
        InputError: as `Pruning.resolve`; the message names the arm.
    """
    pruning, pattern = study.pruning, settings.pattern if settings else None
    try:
        rates = pruning.resolve(coverage, pattern)
    except InputError as error:
        if pattern is None or settings is None:
            raise
        raise InputError(f"arm {settings.label!r}: {error}") from error
    return rates, tuple(plan_counts(coverage.sizes(), rates, pruning.scope, pruning.minimum))


def _pruned(study: Study, coverage: Coverage) -> list[str]:
    """Return the names of the weights that some arm prunes; of all weights where none has rounds."""
    plans = [reach(study, coverage, arm)[0] for arm in (None, *study.arms)]
    return list(dict.fromkeys(name for rounds in plans for rates in rounds for name in rates)) or list(coverage.sizes())


def _bare(network: NetworkSettings) -> str:
    """Return what tells the networks of a study and of its sources apart."""
    return network.model_copy(update={"output": None}).model_dump_json()


def _check_gamma(study: Study, items: Iterable[Item]) -> None:
    """Refuse a `gamma` that no schedule uses.

    Raises:
        InputError: there is one.
    """
    recipes = [item.spec.training for item in items if isinstance(item.spec, Training)]
    used = {recipe.gamma for recipe in recipes if recipe.schedule == "step"}
    used.add(Recipe.model_fields["gamma"].default)
    arms = {f"arms: training of {arm.label!r}": study.recipe(1).changed(arm.training) for arm in study.arms}
    for where, recipe in {"training": study.training, "retraining": study.recipe(1), **arms}.items():
        if recipe.gamma not in used:
            raise InputError(
                f"{where}.gamma={recipe.gamma} belongs to schedule: step; remove gamma, or set that schedule"
            )


def _needed(items: Mapping[str, Item], wanted: set[str]) -> dict[str, Item]:
    """Return the work that some wanted work needs, in its order: not all of a source is."""
    found = set(wanted)
    for item in reversed(list(items.values())):  # what an item needs comes before it
        if item.id in found:
            found.update(item.needs)
    return {identity: item for identity, item in items.items() if identity in found}


def _check_sources(sources: Mapping[str, Source], starts: Sequence[int]) -> None:
    """Refuse sources that are not trained as far as weights are taken from.

    Raises:
        InputError: a source's budget is too small, or patience could end its dense run.
    """
    for label, source in sources.items():
        patience = source.study.training.patience
        if max(starts) >= source.budget or (patience and max(starts)):
            sooner = f", and training.patience={patience} could end it sooner" if patience else ""
            raise InputError(
                f"arm {label!r}: the source must train beyond iteration {max(starts)}, which rewind asks for; its "
                f"budget is {source.budget} iterations{sooner}"
            )


def rows_of(
    study: Study,
    arms: Sequence[Rule],
    rewinds: Sequence[int],
    trial: Callable[[int, int, ArmSettings | None], Trial],
) -> list[Row]:
    """Plan the runs of all arms, and return their rows.

    Args:
        study: what is planned.
        arms: the rule of each of its arms, controls applied.
        rewinds: where to rewind to.
        trial: returns the trial of a number, for a rewind step and an arm.
    """
    rows: list[Row] = []
    for settings, arm in zip(study.arms, arms, strict=True):
        curves = [
            [row for number in study.trial_numbers for row in _rows(settings, arm, trial(number, rewind, settings))]
            for rewind in rewinds
        ]
        if all([row.job for row in curve] == [row.job for row in curves[0]] for curve in curves):
            curves = curves[:1]  # where to rewind to makes no difference to this arm
        for rewind, curve in zip(rewinds, curves, strict=False):
            label = f"{settings.label}@{rewind}" if len(curves) > 1 else settings.label
            rows += [replace(row, arm=label) for row in curve]
    return rows


def _undrawn(scheme: str, coverage: Coverage) -> tuple[str, ...]:
    """Return a line that names the prunable layers that a scheme does not draw; none where it draws all."""
    names = [layer.name.removesuffix(".weight") for layer in coverage.layers if not layer.drawn]
    if scheme == "pytorch" or not names:
        return ()
    return (
        f"note: network.init: {scheme} draws linear and convolution layers; these prunable layers keep their "
        f"constructor's weights: {', '.join(names)}",
    )


def _check_second_initialisation(study: Study, build: Callable[[], nn.Module], coverage: Coverage) -> None:
    """Refuse controls on fresh initialisations of a network with weights that have one initialisation only.

    Raises:
        InputError: an arm asks for such a control. Pretrained weights are the usual reason.
    """
    fresh = [arm.label for arm in study.arms if arm.redraws or arm_named(arm.rule).fresh]
    sizes = coverage.sizes()
    if fresh and (fixed := fixed_weights(partial(initialised, build, study.network.init), sizes)):
        raise InputError(
            f"arms: {fresh[0]!r} needs a second initialisation, but {study.network.name!r} "
            f"{without_second_initialisation(fixed, sizes)}, or set network.init to a scheme such as kaiming-normal"
        )


def _partings(study: Study, rewinds: tuple[int, ...], budget: int, data: Description) -> tuple[int, ...]:
    """Return the iterations from which copies train; none without `connectivity`.

    Raises:
        InputError: an iteration or a level is beyond what the study has.
    """
    settings = study.connectivity
    if settings is None:
        return ()
    check_levels(study)
    if settings.rewind is None:
        return rewinds
    return iterations(settings.rewind, epoch_length(study, data, study.training), budget, "connectivity.rewind")


def check_levels(study: Study) -> None:
    """Refuse levels that the study does not have.

    Raises:
        InputError: `connectivity` names one.
    """
    settings, rounds = study.connectivity, study.pruning.rounds
    if settings is not None and settings.levels[-1] > rounds:
        raise InputError(
            f"connectivity.levels names level {settings.levels[-1]}, but with pruning.rounds={rounds} the levels are "
            f"0 to {rounds}"
        )


def _rows(settings: ArmSettings, arm: Rule, trial: Trial) -> list[Row]:
    """Return the rows of an arm in a trial, and plan their runs."""
    rows = [Row(settings.label, trial.number, 0, 0, trial.dense.id)]
    seen: set[str] = set()
    for repeat in range(settings.per_trial):
        for level in range(1, len(trial.rates) + 1):
            run = trial.plan_arm(settings.label, arm, level, repeat, settings.per_trial, settings.training)
            if repeat and run.id in seen:
                raise InputError(f"arm {settings.label!r}: all its repeats would be the same run; remove per_trial")
            seen.add(run.id)
            rows.append(Row(settings.label, trial.number, repeat, level, run.id))
    return rows
