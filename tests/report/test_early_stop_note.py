"""Figures of the metric at early stop say where early stop is the end of training."""

import numpy as np
import pandas as pd
import pytest
from made_up_levels import levels_of

from tombola.figures.cost import cost
from tombola.figures.form import SCREEN
from tombola.figures.rewinding import rewinding
from tombola.figures.setting import Setting
from tombola.figures.transfer import transfer
from tombola.tables.captions import AT_THE_END, early_stop_note

ARMS = {"ticket": ([0.98, 0.97], [3000, 3000]), "near": ([0.98, 0.96], [3000, 3000])}


def of_several_iterations():
    """A study that rewinds to two iterations."""
    levels = levels_of(ARMS)
    return pd.concat([levels.assign(arm=levels["arm"] + f"@{k}") for k in (0, 100)], ignore_index=True)


def transferred(levels):
    return transfer(levels, {"s": Setting(target="mnist, sgd", sources={"near": ("mnist, adam", "mask")})}, SCREEN)


@pytest.mark.parametrize(
    ("draw", "levels"),
    [
        (cost, levels_of(ARMS).assign(cost=1.5)),
        (rewinding, of_several_iterations()),
        (transferred, levels_of(ARMS)),
    ],
)
def test_a_figure_says_that_early_stop_is_the_end_of_training(draw, levels):
    def small_print(levels):
        lines = sorted(draw(levels).texts, key=lambda text: -text.get_position()[1])  # the last line is made first
        return " ".join(" ".join(line.get_text().split()) for line in lines)

    without = levels.assign(early_stop_val_loss=np.nan, early_stop_iteration=5000, iterations=5000)
    assert AT_THE_END in small_print(without)
    assert AT_THE_END not in small_print(without.assign(early_stop_val_loss=0.1))


def test_of_several_studies_those_without_validation_are_named():
    without, others = (
        levels_of(ARMS, study=name).assign(early_stop_iteration=5000, iterations=5000, early_stop_val_loss=loss)
        for name, loss in (("blind", np.nan), ("seeing", 0.1))
    )
    both = early_stop_note(pd.concat([without, others], ignore_index=True))
    assert both == "early stop of blind is the end of training: no run there has a validation loss"
    assert early_stop_note(others) == ""
