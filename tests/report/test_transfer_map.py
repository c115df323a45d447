"""The heat map of transferred tickets, and the verdicts in its cells."""

import numpy as np
import pandas as pd
import pytest
from made_up_levels import levels_of

from tombola.analysis.transfers import AS_GOOD, OPEN, WORSE, transfers
from tombola.errors import InputError
from tombola.figures import draw
from tombola.figures.form import SCREEN
from tombola.figures.setting import Setting
from tombola.figures.transfer import transfer

ARMS = {
    "ticket": ([0.98, 0.97], [3000, 3000]),
    "near": ([0.98, 0.97], [3000, 3000]),
    "far": ([0.97, 0.95], [3000, 3000]),
    "random-mask": ([0.96, 0.94], [3000, 3000]),
}
SOURCES = {("s", "near"): ("mnist, sgd", "mask"), ("s", "far"): ("fashion-mnist, adam", "mask-and-weights")}


def levels(**settings):
    return levels_of(ARMS, noise=(0.0001, 10.0), **settings)


def rows(table, arm):
    return table[table["arm"] == arm].set_index("level")


def test_verdicts_are_those_of_paired_differences():
    table = transfers(levels(), SOURCES)
    assert list(rows(table, "near")["verdict"]) == [AS_GOOD, AS_GOOD]
    assert list(rows(table, "far")["verdict"]) == [WORSE, WORSE]
    assert table["over_random"].all()
    assert rows(table, "far")["mean"].to_numpy() == pytest.approx([-1.0, -2.0], abs=0.05)  # points
    frame = levels().pivot_table(index=["level", "trial"], columns="arm", values="early_stop_test_accuracy")
    by_hand = 100 * (frame["far"] - frame["ticket"]).groupby("level").mean()
    assert rows(table, "far").loc[2, "mean"] == pytest.approx(by_hand[2])


def test_one_trial_a_diverged_run_and_no_variation_decide_nothing():
    assert set(transfers(levels(trials=1), SOURCES)["verdict"]) == {OPEN}
    some = levels()
    lost = some.assign(status=np.where((some.arm == "near") & (some.trial == 0) & (some.level == 1), "diverged", "ok"))
    assert list(rows(transfers(lost, SOURCES), "near")["verdict"]) == [OPEN, AS_GOOD]
    flat = levels_of({name: ARMS[name] for name in ("ticket", "near")}, noise=(0.0, 0.0))
    assert set(transfers(flat, SOURCES)["verdict"]) == {OPEN}
    assert not transfers(flat, SOURCES)["over_random"].any()


def test_the_map_shows_each_source_and_target():
    both = pd.concat([levels(study="a"), levels(study="b", seed=1)], ignore_index=True)
    settings = {
        "a": Setting(target="mnist, adam", sources={"near": ("mnist, sgd", "mask")}),
        "b": Setting(target="mnist, sgd", sources={"far": ("mnist, adam", "mask-and-weights")}),
    }
    figure = transfer(both, settings, SCREEN)
    cells = [text.get_text() for text in figure.axes[-1].texts]
    assert len(cells) == 2
    far = next(cell for cell in cells if cell.endswith("-*"))
    assert float(far.split()[0]) == pytest.approx(-2.0, abs=0.05)
    axes = figure.axes[-1]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["A", "B"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["A weights", "B mask"]
    small = " ".join(text.get_text() for text in figure.texts)
    assert "A: mnist, adam" in small
    assert "B: mnist, sgd" in small


def test_arms_that_letters_do_not_tell_apart_have_rows_of_their_own():
    sources = dict.fromkeys(("near", "far"), ("mnist, adam", "mask"))
    figure = transfer(levels(), {"s": Setting(target="mnist, adam", sources=sources)}, SCREEN)
    axes = figure.axes[-1]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["A mask, far", "A mask, near"]
    assert sorted(round(text.get_position()[1]) for text in axes.texts) == [0, 1]


def test_a_study_without_transfer_has_no_map(tmp_path):
    assert transfer(levels(), {"s": Setting()}, SCREEN) is None
    with pytest.raises(InputError, match="transfer can't be drawn from these results: it needs an arm ticket and arms"):
        draw(levels(), pd.DataFrame(), tmp_path, ["transfer"])


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_the_map_says_which_sign_is_better(better):
    table = levels()
    if better == "lower":
        table = table.rename(columns={name: name.replace("accuracy", "rmse") for name in table})
        table = table.assign(metric="rmse", metric_better="lower", metric_unit="")
    figure = transfer(table, {"s": Setting(target="mnist, adam", sources={"far": ("mnist, sgd", "mask")})}, SCREEN)
    said = " ".join(" ".join(text.get_text().split()) for text in figure.texts)
    assert "less that of the target's own" not in said
    assert "above 0: the transferred ticket is better" in said
    worse = float(figure.axes[-1].texts[0].get_text().split()[0])
    assert (worse < 0) == (better == "higher")  # 0.95 of accuracy is worse than 0.97, of rmse better
