"""Costs: the figure against them, and the sentence on whether rounds of pruning pay."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from made_up_levels import levels_of
from small_studies import run_study

from tombola.analysis import paired_gains
from tombola.analysis.break_down import break_down
from tombola.analysis.rounds import worth_of_rounds
from tombola.analysis.statistics import level_statistics
from tombola.analysis.verdicts import verdicts
from tombola.cli import cli
from tombola.errors import InputError
from tombola.figures import draw
from tombola.figures.cost import cost
from tombola.html.gather import gather
from tombola.html.sentences import findings
from tombola.running.results import Results
from tombola.studies.arms import ARMS

ARM = {
    "ticket": ([0.98, 0.97], [3000, 3000]),
    "gradual": ([0.975, 0.95], [3000, 3000]),
    "rigl": ([0.97, 0.96], [3000, 3000]),
    "reinit": ([0.999, 0.999], [3000, 3000]),  # a control: no rival
}
COSTS = {"ticket": 1.5, "gradual": 0.8, "rigl": 0.4, "reinit": 1.5}
EARLY = "early_stop_test_accuracy"


def levels(noise=0.0001, **changes):
    table = levels_of(ARM | changes, noise=(noise, 10.0))
    return table.assign(cost=np.where(table["level"] == 0, 1.0, table["arm"].map(COSTS) * table["level"]))


def worth(table, level, rules=None):
    others = [arm for arm in dict.fromkeys(table["arm"]) if arm != "ticket"]
    gains = pd.concat([paired_gains(table, "ticket", other, EARLY) for other in others])
    return worth_of_rounds(table, gains, level, rules)


def said(table, margin=0.001):
    others = [arm for arm in dict.fromkeys(table["arm"]) if arm != "ticket"]
    gains = pd.concat([paired_gains(table, "ticket", other, EARLY) for other in others])
    found = findings(
        level_statistics(table),
        verdicts(table, margin),
        gains,
        break_down(table, margin),
        margin,
        worth=lambda level: worth_of_rounds(table, gains, level),
    )
    return next((sentence for sentence in found if "worth its rounds" in sentence), None)


def test_the_best_arm_without_rounds_is_the_one_to_beat():
    table = levels()
    first, second = worth(table, 1), worth(table, 2)
    assert (first.baseline, second.baseline) == ("gradual", "rigl")
    assert (first.cost, first.baseline_cost, second.cost, second.baseline_cost) == (1.5, 0.8, 3.0, 0.8)
    by_hand = table.pivot_table(index=["level", "trial"], columns="arm", values=EARLY).loc[2]
    assert second.mean == pytest.approx(100 * (by_hand["ticket"] - by_hand["rigl"]).mean())
    assert second.low < second.mean < second.high
    assert first.others == 2


def test_a_baseline_is_known_by_its_rule_and_counts_at_equal_density_alone():
    named = levels().replace({"arm": {"gradual": "mine"}})
    assert worth(named, 1).baseline == "rigl"
    assert worth(named, 1, {"mine": "gradual"}).baseline == "mine"
    assert worth(named, 1, {"mine": "gradual", "rigl": ""}).others == 1
    table = levels()
    table.loc[table["arm"] == "gradual", "density"] *= 0.9
    assert worth(table, 1).baseline == "rigl"
    assert worth(levels().query("arm in ['ticket', 'reinit']"), 1) is None


def test_the_sentence_has_verdict_interval_and_both_costs():
    sentence = said(levels())
    assert sentence.startswith("Iterative pruning is worth its rounds with ")
    assert "ticket (cost: 1.5 dense runs) gains 0.49 points (+0.47 to +0.50)" in sentence
    assert sentence.endswith("over gradual (cost: 0.8 dense runs), the best of 2 arms without rounds.")
    better = said(levels(rigl=([0.99, 0.99], [3000, 3000])))
    assert better.startswith("Iterative pruning is not worth its rounds with ")
    assert "loses 1.0" in better
    near = ([0.9801, 0.9701], [3000, 3000])
    assert said(levels(noise=0.003, rigl=near)).startswith(
        "The trials do not decide whether iterative pruning is worth"
    )
    same = levels(noise=0.0, rigl=([0.97, 0.96], [3000, 3000]))
    assert said(same).startswith(
        "The trials do not decide whether iterative pruning is worth"
    )  # no spread, no interval
    assert said(levels(noise=0.00003, rigl=([0.9795, 0.9695], [3000, 3000])), margin=0.01).startswith(
        "Iterative pruning is worth"
    )
    assert said(levels().query("trial == 0")) is None


def test_the_figure_has_density_and_cost_side_by_side(tmp_path):
    figure = cost(levels())
    left, right = figure.axes
    assert left.get_ylim() == right.get_ylim()
    assert right.get_xlabel() == "training cost (dense runs)"
    x = {tuple(np.round(line.get_xdata(), 6)) for line in right.get_lines() if len(line.get_xdata()) == 3}
    assert x >= {(1.0, 1.5, 3.0), (1.0, 0.8, 1.6), (1.0, 0.4, 0.8)}
    with pytest.raises(InputError, match="cost can't be drawn from these results: it needs costs"):
        draw(levels().drop(columns="cost"), pd.DataFrame(), tmp_path, ["cost"])


def test_the_figure_counts_the_points_beyond_its_axes():
    good = {name: ([0.98] * 6, [3000] * 6) for name in ("ticket", "gradual", "rigl")}
    table = levels_of(good | {"reinit": ([0.98] * 5 + [0.1], [3000] * 6)}, noise=(0.0001, 10.0)).assign(cost=1.5)
    said = " ".join(text.get_text() for text in cost(table).texts)
    assert "1 point below the axes not shown" in " ".join(said.split())


def test_a_study_is_drawn_against_cost_and_the_report_says_whether_rounds_pay(tmp_path):
    out = tmp_path / "a" / "out"
    arms = ["ticket", {"one-shot": {"name": "once"}}, {"of": "one-shot", "shuffle": True, "name": "mixed"}]
    plan, store = run_study(out, arms=arms, trials=2, pruning__rounds=1)
    results = Results(plan, store)
    (sentence,) = [each for each in gather(results).findings if "its rounds" in each]
    row = results.frame().query("arm == 'once' and level == 1").iloc[0]
    assert f"once (cost: {row.cost:.3g} dense runs)." in sentence
    assert "best of" not in sentence  # the shuffled control does not compete
    results.save()
    from tombola.running.kept_plan import keep_plan

    keep_plan(out, plan)
    called = CliRunner().invoke(cli, ["figures", str(out), "--against", "cost"], catch_exceptions=False)
    assert called.exit_code == 0
    assert {path.name for path in (out / "figures").iterdir()} == {"cost.png", "cost.svg"}
    with pytest.raises(InputError, match="--against cost draws the figure cost alone"):
        CliRunner().invoke(cli, ["figures", str(out), "--against", "cost", "--figure", "1"], catch_exceptions=False)


def test_no_control_counts_as_a_method_without_rounds_but_random_places():
    assert {name for name, arm in ARMS.items() if arm.no_rounds and arm.control} == {"random", "random-erk"}
