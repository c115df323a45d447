"""The paper's Figures 1 and 4 to 8, and one that compares criteria: what is reached against the weights that remain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tombola.analysis.learning_curves import LEVEL, WORDS, mean_curves, of_sound_runs
from tombola.analysis.measures import STOP, early_of, final_of, train_of
from tombola.analysis.order import in_order
from tombola.analysis.summary import diverged
from tombola.figures.against import Panel, against_density
from tombola.figures.form import SCREEN, Form
from tombola.figures.setting import Setting
from tombola.figures.style import BLUE, Style
from tombola.formatting import axis_label, counted, first_of, plain
from tombola.tasks.metric import Metric, metric_of

FOUR_ABOUT = "early stopping and end of training against weights remaining"

# Where in training Figures 7 and 8 look: 30,000, 60,000 and 112,480 iterations; 10,000, 20,000 and 30,000.
VGG_ITERATIONS = (30_000 / 112_480, 60_000 / 112_480, 1.0)
RESNET_ITERATIONS = (1 / 3, 2 / 3, 1.0)
RUN = ["study", "arm", "trial", "repeat", "level"]

Settings = Mapping[str, Setting]


def panels_of(metric: Metric) -> tuple[Panel, Panel, Panel, Panel]:
    """Return early-stop iteration, test metric there, test metric at the end, training metric at the end."""
    return (
        Panel(STOP, "early-stop iteration", None),
        Panel(early_of(metric), axis_label(f"test {metric.words} at early stop", metric.unit), metric),
        Panel(final_of(metric), axis_label(f"test {metric.words} at the end", metric.unit), metric),
        Panel(train_of(metric), axis_label(f"training {metric.words} at the end", metric.unit), metric),
    )


def figure_1(levels: pd.DataFrame, form: Form = SCREEN) -> Figure | None:
    """Return Figure 1: tickets and random sparse networks, early-stop iteration and accuracy there."""
    arms = [arm for arm in in_order(levels["arm"]) if arm in ("ticket", "random-mask")]
    about = "early stopping against weights remaining"
    return against_density(_named(levels, _networks(levels)), arms, panels_of(metric_of(levels))[:2], about, form)


def figure_4(levels: pd.DataFrame, form: Form = SCREEN) -> Figure | None:
    """Return Figure 4: iterative and one-shot tickets and their reinitialised controls, at early stop and at the end.

    A user's own arms belong here too: this is where an idea is compared with the paper's.
    """
    arms = [arm for arm in in_order(levels["arm"]) if arm != "random-mask"]
    return against_density(levels, arms, panels_of(metric_of(levels)), FOUR_ABOUT, form)


def figure_5(levels: pd.DataFrame, form: Form = SCREEN) -> Figure | None:
    """Return Figure 5: the tickets of several networks and their reinitialised controls."""
    arms = [arm for arm in in_order(levels["arm"]) if arm in ("ticket", "reinit")]
    return against_density(_named(levels, _networks(levels)), arms, panels_of(metric_of(levels)), FOUR_ABOUT, form)


def figure_6(levels: pd.DataFrame, settings: Settings, form: Form = SCREEN) -> Figure | None:
    """Return Figure 6: tickets of networks with dropout, solid, beside those of the same networks without, dashed.

    Only networks of which there is one study with and one without are shown.
    """
    tickets = levels[levels["arm"] == "ticket"]
    network_of = _networks(tickets)
    kinds: dict[str, dict[str, list[str]]] = {}
    for study, network in network_of.items():
        kind = "with dropout" if settings[study].dropout else "without dropout"
        kinds.setdefault(network, {}).setdefault(kind, []).append(study)
    arm_of = {
        study: kind
        for found in kinds.values()
        if sorted(map(len, found.values())) == [1, 1]
        for kind, (study,) in found.items()
    }
    pairs = tickets[tickets["study"].isin(arm_of)]
    pairs = pairs.assign(arm=pairs["study"].map(arm_of), study=pairs["study"].map(network_of))
    looks = {"with dropout": Style(BLUE, "o", "-"), "without dropout": Style(BLUE, "o", "--", hollow=True)}
    return against_density(
        pairs, list(looks), panels_of(metric_of(levels)), "tickets with and without dropout", form, style_of=looks
    )


def figure_7(levels: pd.DataFrame, curves: pd.DataFrame, settings: Settings, form: Form = SCREEN) -> Figure | None:
    """Return Figure 7: test accuracy of VGG-19 at 30K, 60K and 112K iterations, by learning rate."""
    return _while_training(levels, curves, settings, form, VGG_ITERATIONS)


def figure_8(levels: pd.DataFrame, curves: pd.DataFrame, settings: Settings, form: Form = SCREEN) -> Figure | None:
    """Return Figure 8: test accuracy of Resnet-18 at 10K, 20K and 30K iterations, by learning rate."""
    return _while_training(levels, curves, settings, form, RESNET_ITERATIONS)


def criteria(levels: pd.DataFrame, settings: Settings, form: Form = SCREEN) -> Figure | None:
    """Return the test metric against sparsity, the tickets of several criteria beside one another."""
    several = levels["study"].nunique() > 1
    arms = [arm for arm in in_order(levels["arm"]) if arm == "ticket" or not several]
    levels = _named(levels, {study: setting.criterion for study, setting in settings.items()})
    metric = metric_of(levels)
    about = f"test {metric.words} against sparsity"
    return against_density(levels, arms, panels_of(metric)[1:3], about, form, x="sparsity")


def by_round(levels: pd.DataFrame, curves: pd.DataFrame, form: Form = SCREEN) -> Figure | None:
    """Return validation loss and metric, test loss and sparsity of each round; the first three at early stop."""
    metric, loss = metric_of(levels), Metric("loss", "lower")
    measured = [f"val_{metric.name}", "test_loss"]
    at = ["iteration", *measured]
    found = curves.reindex(columns=[*RUN, *at]).astype(dict.fromkeys(at, float))
    known = found.rename(columns={"iteration": STOP}).drop_duplicates([*RUN, STOP])
    levels = levels.drop(columns=measured, errors="ignore").merge(known, on=[*RUN, STOP], how="left")
    panels = (
        Panel("early_stop_val_loss", "best validation loss", loss),
        Panel(measured[0], axis_label(f"validation {metric.words} there", metric.unit), metric),
        Panel(measured[1], "test loss there", loss),
        Panel("sparsity", "sparsity (%)", Metric("sparsity", "higher", "%")),
    )
    about = f"validation loss, validation {metric.words}, test loss and sparsity by round"
    return against_density(levels, in_order(levels["arm"]), panels, about, form, x="round")


def _while_training(
    levels: pd.DataFrame, curves: pd.DataFrame, settings: Settings, form: Form, fractions: tuple[float, ...]
) -> Figure | None:
    if curves.empty:
        return None
    levels, panels, measured_on = at_fractions(levels, curves, fractions)
    # Before studies get other names: a figure omits random sparse networks.
    panels = [_naming_omitted(panel, levels[levels["arm"] != "random-mask"]) for panel in panels]
    levels = _named(levels, {study: f"learning rate {setting.learning_rate}" for study, setting in settings.items()})
    about = f"{measured_on} {metric_of(levels).words} during training, against weights remaining"
    arms = [arm for arm in in_order(levels["arm"]) if arm != "random-mask"]
    return against_density(levels, arms, panels, about, form)


def at_fractions(
    levels: pd.DataFrame, curves: pd.DataFrame, fractions: tuple[float, ...]
) -> tuple[pd.DataFrame, list[Panel], str]:
    """Return the levels with the metric at fractions of each study's budget, a panel for each, and what it is of.

    The evaluation nearest to a fraction is taken, of those that all runs share; that before the first step does not
    count. A level counts where all its runs came that far.
    """
    panels, metric = [], metric_of(levels)
    means = mean_curves(of_sound_runs(levels, curves), metric)
    curves, part, whole = means.measured, means.part, means.rows
    for number, fraction in enumerate(fractions if len(curves) else ()):
        measure, chosen = f"{part}_{metric.name}_{number}", dict[str, int]()
        for study, rows in curves[curves["iteration"] > 0].groupby("study", observed=True):
            found = _shared_iterations(rows, whole[whole["study"] == study])
            chosen[study] = int(found[np.abs(found - fraction * rows["iteration"].max()).argmin()])
        there = whole[whole["iteration"] == whole["study"].map(chosen)]
        levels = levels.merge(
            there[[*RUN, f"{part}_{metric.name}"]].rename(columns={f"{part}_{metric.name}": measure}), how="left"
        )
        at = f"at iteration {min(chosen.values()):,}"
        if len(set(chosen.values())) > 1:
            at = f"after {100 * fraction:.0f} % of training"
        panels.append(Panel(measure, axis_label(f"{WORDS[part]} {metric.words}", metric.unit), metric, title=at))
    return levels, panels, WORDS[part]


def _shared_iterations(curves: pd.DataFrame, whole: pd.DataFrame) -> np.ndarray:
    """Return the iterations of a study at which all levels that came that far were evaluated; without any, all.

    Args:
        curves: the evaluations of the study after the first step.
        whole: those that all runs of a level have.
    """
    ends = curves.groupby(list(LEVEL), observed=True)["iteration"].max().to_numpy()
    counts = whole[[*LEVEL, "iteration"]].drop_duplicates()["iteration"].value_counts()
    shared = [place for place, count in counts.items() if place > 0 and count == (ends >= place).sum()]
    return np.array(sorted(shared)) if shared else np.unique(curves["iteration"])


def _naming_omitted(panel: Panel, levels: pd.DataFrame) -> Panel:
    """Return a panel whose title counts the runs that have no value in it, and names their arms."""
    lost = levels[panel.measure].isna() & ~diverged(levels) & (levels["density"] > 0)
    in_all_arms = lost.groupby([levels[name] for name in RUN if name != "arm" and name in levels]).transform("all")
    arm = levels["arm"].mask(in_all_arms & (levels["level"] == 0), "dense")  # one run, shown in each arm
    gone = levels.assign(arm=arm)[lost]
    if gone.empty:
        return panel
    arms = first_of([plain(arm, 12) for arm in in_order(gone["arm"])], 2)
    runs = counted(len(gone.drop_duplicates([name for name in RUN if name in gone])), "run")
    return replace(panel, title=f"{panel.title}, {runs} omitted ({arms})")


def _networks(levels: pd.DataFrame) -> dict[str, str]:
    return dict(zip(levels["study"], levels["network"], strict=True))


def _named(levels: pd.DataFrame, name_of: Mapping[str, str]) -> pd.DataFrame:
    """Return the levels with studies called by what tells them apart, where each has another such name."""
    studies = list(dict.fromkeys(levels["study"]))
    names = [name_of[study] for study in studies]
    if len(studies) == 1 or len(set(names)) < len(studies):
        return levels
    return levels.assign(study=levels["study"].map(dict(zip(studies, names, strict=True))))
