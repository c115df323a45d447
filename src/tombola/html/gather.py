"""Everything that the page shows of one study, as tables and texts; nothing here knows of HTML."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from tombola.analysis.answer import Answer, answer_of
from tombola.analysis.break_down import break_down
from tombola.analysis.claims import Claim, Outcome, evaluate, published_claims
from tombola.analysis.connectivity import barrier_statistics, height_of
from tombola.analysis.layers import dead_units, layer_densities
from tombola.analysis.learning_curves import WORDS, mean_curves, of_sound_runs
from tombola.analysis.measures import early_of
from tombola.analysis.order import in_order
from tombola.analysis.overlap import mask_overlap
from tombola.analysis.paired import at_equal_density, of_whole_levels, paired_gains
from tombola.analysis.patterns import pattern_costs
from tombola.analysis.rewinds import later_rewinds
from tombola.analysis.roles import main_arm_of, role_of
from tombola.analysis.rounds import worth_of_rounds
from tombola.analysis.signs import sign_flips
from tombola.analysis.spread import spread
from tombola.analysis.stability import Parting, partings_of
from tombola.analysis.statistics import level_statistics
from tombola.analysis.verdicts import verdicts
from tombola.export.stored import Measurements, read_measurements
from tombola.figures.training import choose_levels
from tombola.formatting import typeset
from tombola.html.reproducibility import Sheet, flat_settings, sheet
from tombola.html.sentences import findings
from tombola.html.weights import Pictures, input_pictures, tickets, weight_histograms
from tombola.running.results import Results
from tombola.running.ticket import Ticket
from tombola.studies.arms import ARMS
from tombola.studies.loading import dump_study
from tombola.studies.study import Study
from tombola.tables.answer import barriers_in_words
from tombola.tables.captions import HEIGHTS, Height
from tombola.tasks.metric import Metric, metric_of

POINTS_PER_CURVE = 120


@dataclass(frozen=True)
class Found:
    """What one study found.

    Args:
        name: of the study, as it stands in every table's column `study`.
        description: of the study.
        study_file: its settings as YAML.
        settings: the same by dotted name, as a person reads them; without name and description.
        metric: of the study.
        height: what barriers are measured in.
        levels: `Results.frame()`.
        statistics, verdicts, break_down: as returned by `tombola.analysis`.
        gains: of the ticket arm over each other arm, test metric at early stop, paired by trial.
        rewinds: of its later rewinds over its first one: see `later_rewinds`.
        controls: names of the arms that are controls; None where a table has no more than names.
        patterns: what each pattern costs against unstructured masks, as `tombola.analysis.patterns` gives it.
        curves: mean, min and max of the metric at a few levels, thinned; `every` says to which evaluation.
        cut_note: what a caption says where runs were longer than the curve of their level.
        measured_on: the examples of the curves, "test" or "validation".
        layers: density of each layer, mean over trials.
        dead: units without a live path, of the ticket arm in the first trial; empty where paths can't be followed.
        overlap: of the masks of different trials.
        flips: the share of signs that training flips in each layer, of the ticket arm, means over trials.
        barriers: on lines between runs; empty where the study asks for none.
        histograms: of the kept weights of the first trial.
        pictures: of the first layer's mask in the first trial.
        measurements: what `tombola measure` found of its tickets.
        claims: what the study says of each claim that is about studies like it.
        answer: in short.
        findings: in sentences.
        sheet: everything needed to repeat the study.
        margin: of verdicts and break-down, as a fraction.
    """

    name: str
    description: str
    study_file: str
    settings: dict[str, str]
    metric: Metric
    height: Height
    levels: pd.DataFrame
    statistics: pd.DataFrame
    verdicts: pd.DataFrame
    break_down: pd.DataFrame
    gains: pd.DataFrame
    rewinds: pd.DataFrame
    controls: frozenset[str] | None
    patterns: pd.DataFrame
    curves: pd.DataFrame
    every: int
    cut_note: str
    measured_on: str
    layers: pd.DataFrame
    dead: pd.DataFrame
    overlap: pd.DataFrame
    flips: pd.DataFrame
    barriers: pd.DataFrame
    histograms: pd.DataFrame
    pictures: Pictures
    measurements: Measurements
    claims: tuple[Outcome, ...]
    answer: Answer
    findings: tuple[str, ...]
    sheet: Sheet
    margin: float

    @property
    def arm(self) -> str | None:
        """The arm that is compared with the others."""
        return None if self.levels.empty else main_arm_of(self.levels)

    @property
    def first_trial(self) -> int:
        """The number of the trial that tables of a single one show."""
        return 0 if self.levels.empty else int(self.levels["trial"].min())


@dataclass(frozen=True)
class Judged:
    """What the tables of levels and curves alone say: fields as in `Found`.

    Args:
        arm: that is compared with the others; None where nothing is known.
        chosen: the few levels that curves are shown at.
    """

    metric: Metric
    statistics: pd.DataFrame
    verdicts: pd.DataFrame
    break_down: pd.DataFrame
    gains: pd.DataFrame
    rewinds: pd.DataFrame
    curves: pd.DataFrame
    every: int
    cut_note: str
    measured_on: str
    answer: Answer
    findings: tuple[str, ...]
    arm: str | None
    chosen: list[int]


def judge(
    levels: pd.DataFrame,
    curves: pd.DataFrame,
    margin: float,
    rules: Mapping[str, str] | None = None,
    controls: Collection[str] | None = None,
    missing: int = 0,
    partings: tuple[Parting, ...] = (),
) -> Judged:
    """Return what tables say.

    Args:
        levels: a row per (arm, trial, repeat, level) of one study.
        curves: a row per evaluation.
        margin: the loss that still counts as none, as a fraction: see `verdicts`.
        rules: arm -> its rule, where arms have names of their own.
        controls: names of the arms that are controls; by default tombola's own.
        missing: work items that are not finished.
        partings: of the study's interpolations.

    Raises:
        InputError: `margin` is not a number between 0 and 1.
    """
    begun, metric = not levels.empty, metric_of(levels)
    statistics = level_statistics(levels) if begun else pd.DataFrame()
    judged = verdicts(levels, margin) if begun else pd.DataFrame()
    broken = break_down(levels, margin) if begun else pd.DataFrame()
    arms = in_order(levels["arm"])
    arm = main_arm_of(levels) if begun else None
    others = [other for other in arms if arm and other != arm and role_of(other, arm, controls) != "rewind"]
    gains = at_equal_density(
        _together([paired_gains(levels, arm, other, early_of(metric)) for other in others if arm]), levels
    )
    rewinds = later_rewinds(levels, arm) if arm else pd.DataFrame()
    answer = answer_of(levels, margin, missing, judged if begun else None, partings)
    chosen = _chosen(levels, arm)
    curves, every, cut, measured_on = _thinned(of_sound_runs(levels, curves), chosen, metric)
    fair = of_whole_levels(gains, levels)
    worth = partial(worth_of_rounds, levels, fair, rules=rules)
    said = tuple(map(typeset, barriers_in_words(answer))) or findings(
        statistics, judged, fair, broken, margin, metric, worth, rewinds, controls
    )
    return Judged(
        metric, statistics, judged, broken, gains, rewinds, curves, every, cut, measured_on, answer, said, arm, chosen
    )


def gather(
    results: Results, name: str | None = None, claims: Sequence[Claim] | None = None, margin: float | None = None
) -> Found:
    """Return what a study has found so far.

    Args:
        results: of the study.
        name: to call it by, where its own would not tell it from others.
        claims: to check; the published ones where they are not given.
        margin: the accepted loss, as a fraction: see `verdicts`; the study's where it is not given.

    Raises:
        InputError: `margin` is not a number between 0 and 1.
    """
    margin = results.study.margin if margin is None else margin
    name = results.study.name if name is None else name
    levels = results.frame().assign(study=name)
    rules, controls = rules_of(results.study), controls_of(results.study)
    judged = judge(
        levels, results.curves().assign(study=name), margin, rules, controls, results.missing(), partings_of(results)
    )
    held = tickets(results, judged.chosen, judged.arm) if judged.arm else {}
    known = _densities(levels, judged.arm, results.study.first_trial)
    densities = {level: known.get(level, ticket.mask.density) for level, ticket in held.items()}
    points = results.connectivity().assign(study=name)
    first = results.plan.coverage.layers[0]
    return Found(
        name=name,
        description=results.study.description,
        study_file=dump_study(results.study.without_folder()),
        settings=flat_settings(results.study),
        metric=judged.metric,
        height=HEIGHTS[height_of(points)],
        levels=levels,
        statistics=judged.statistics,
        verdicts=judged.verdicts,
        break_down=judged.break_down,
        gains=judged.gains,
        rewinds=judged.rewinds,
        controls=controls,
        patterns=pattern_costs(results, margin, levels) if len(levels) else pd.DataFrame(),
        curves=judged.curves,
        every=judged.every,
        cut_note=judged.cut_note,
        measured_on=judged.measured_on,
        layers=_layers(results, name),
        dead=_dead(results, name, judged.arm),
        overlap=_overlap(results, name),
        flips=_flips(results, name, judged.arm),
        barriers=_barriers(results, points),
        histograms=weight_histograms(held, densities),
        pictures=_pictures(held, first.name, results.plan.data.input_shape, densities),
        measurements=read_measurements(results),
        claims=checked_claims(levels, results.study.model_dump(mode="json"), claims, points),
        answer=judged.answer,
        findings=judged.findings,
        sheet=sheet(results, levels),
        margin=margin,
    )


def rules_of(study: Study) -> dict[str, str]:
    """Return the rule of each arm; "" for a control or a transferred ticket: no rivals of the ticket's rounds."""
    return {arm.label: "" if arm.is_control or arm.transfer else arm.rule for arm in study.arms}


def controls_of(study: Study) -> frozenset[str]:
    """Return the names of the arms that are controls."""
    return frozenset(arm.label for arm in study.arms if arm.is_control or (arm.rule in ARMS and ARMS[arm.rule].control))


def checked_claims(
    levels: pd.DataFrame,
    settings: dict[str, Any],
    claims: Sequence[Claim] | None = None,
    points: pd.DataFrame | None = None,
) -> tuple[Outcome, ...]:
    """Return what a study says of the claims that are about studies like it; the published ones by default."""
    if levels.empty:
        return ()
    known = {str(levels["study"].iloc[0]): settings} if settings else {}
    wanted = published_claims() if claims is None else claims
    return tuple(outcome for outcome in evaluate(levels, wanted, known, points=points) if outcome.applies)


def _together(pieces: list[pd.DataFrame]) -> pd.DataFrame:
    pieces = [piece for piece in pieces if not piece.empty]
    return pd.concat(pieces, ignore_index=True) if pieces else pd.DataFrame()


def _chosen(levels: pd.DataFrame, arm: str | None) -> list[int]:
    """Return the few levels that curves, weights and pictures are shown at: those of the paper's Figure 3."""
    densities = levels[levels["arm"] == arm].groupby("level")["density"].mean() if arm else {}
    return choose_levels({int(level): float(density) for level, density in densities.items()}) if len(densities) else []


def _thinned(curves: pd.DataFrame, chosen: list[int], metric: Metric) -> tuple[pd.DataFrame, int, str, str]:
    whole = curves[curves["level"].isin(chosen)]
    means = mean_curves(whole, metric)
    curves, part, note = means.rows, means.part, means.note()
    measure = f"{part}_{metric.name}"
    if curves.empty:
        return pd.DataFrame(), 1, note if len(means.measured) else "", WORDS[part]
    by = ["study", "arm", "level", "iteration"]
    # Each curve has its own iterations: those of one may miss all that are kept of another.
    place = curves.groupby(by[:-1], observed=True)["iteration"].rank("dense").astype(int) - 1
    last = place.groupby([curves[name] for name in by[:-1]], observed=True).transform("max")
    every = max(1, -(-(int(last.max()) + 1) // POINTS_PER_CURVE))
    curves = curves[(place % every == 0) | (place == last)]
    found = spread(curves, by, list(dict.fromkeys((measure, "val_loss"))))
    found = found.assign(**{name: found[f"{measure}_{name}"] for name in ("mean", "min", "max")})
    density = curves.groupby(["study", "arm", "level"])["density"].mean().reset_index()
    columns = [*by, "density", "n", "runs", "mean", "min", "max", "val_loss_mean"]
    return found.merge(density)[columns], every, note, WORDS[part]


def _layers(results: Results, name: str) -> pd.DataFrame:
    layers = layer_densities(results)
    if layers.empty:
        return pd.DataFrame()
    layers = _at_whole_density(layers.assign(study=name), results)
    by = ["study", "arm", "level", "layer"]
    found = layers.groupby(by, sort=False).agg(
        density=("density", "mean"),
        layer_density=("layer_density", "mean"),
        remaining=("remaining", "mean"),
        size=("size", "first"),
    )
    return found.reset_index()


def _dead(results: Results, name: str, arm: str | None) -> pd.DataFrame:
    if arm is None:
        return pd.DataFrame()
    return _at_whole_density(dead_units(results, results.study.first_trial, arms=[arm]).assign(study=name), results)


def _overlap(results: Results, name: str) -> pd.DataFrame:
    if results.study.trials < 2:
        return pd.DataFrame()
    return _at_whole_density(mask_overlap(results).assign(study=name), results)


def _flips(results: Results, name: str, arm: str | None) -> pd.DataFrame:
    found = sign_flips(results, [arm]) if arm is not None else pd.DataFrame()
    if found.empty:
        return pd.DataFrame()
    by = ["study", "arm", "level", "layer"]
    shares = spread(found.assign(study=name), by, ["share"])
    density = found.groupby("level")["density"].mean()
    named = {"share_mean": "share", "share_min": "low", "share_max": "high"}
    shares = shares.rename(columns=named).assign(density=shares["level"].map(density))
    return shares[[*by, "density", "n", "runs", "share", "low", "high"]]


def _barriers(results: Results, points: pd.DataFrame) -> pd.DataFrame:
    settings = results.study.connectivity
    return pd.DataFrame() if settings is None else barrier_statistics(points, settings.threshold)


def _at_whole_density(rows: pd.DataFrame, results: Results) -> pd.DataFrame:
    """Return rows of layers with the density of the whole network as `density`, and their own as `layer_density`.

    That of the whole network counts its matrix weights that can't be pruned, as everywhere else.
    """
    if rows.empty:
        return pd.DataFrame()
    whole = results.frame().groupby(["arm", "level"])["density"].mean()
    return rows.rename(columns={"density": "layer_density"}).join(whole, on=["arm", "level"])


def _densities(levels: pd.DataFrame, arm: str | None, trial: int) -> dict[int, float]:
    """Return the densities of one arm's first repeat in one trial, by level: shares of all matrix weights."""
    if arm is None:
        return {}
    rows = levels[(levels["arm"] == arm) & (levels["trial"] == trial) & (levels["repeat"] == 0)]
    return {int(level): float(density) for level, density in zip(rows["level"], rows["density"], strict=True)}


def _pictures(held: dict[int, Ticket], first: str, input_shape: Any, densities: Mapping[int, float]) -> Pictures:
    if held and first not in next(iter(held.values())).mask:
        return Pictures(f"The first layer, {first}, is never pruned.")
    return input_pictures({level: ticket for level, ticket in held.items() if level}, first, input_shape, densities)
