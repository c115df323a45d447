"""How often a verdict says "winning ticket" of what is none: made-up studies in which no level is a winning ticket.

    python -m benchmarks.verdict_calibration [STUDIES]      # 1,000 of each scenario

Each scenario lies on the edge of what counts as no winning ticket, where errors are most frequent. Prints the shares of
verdicts, and of whole studies, that are wrong. Figures and their meaning: docs/statistics.md.
"""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tombola.analysis import verdicts

LEVELS = 24
MARGIN, CONFIDENCE = 0.001, 0.95


@dataclass(frozen=True)
class Scenario:
    """What is true of every level.

    Args:
        name: in the table.
        gain: of accuracy at early stop over dense, as a fraction.
        sooner: how many times earlier training stops than in dense.
        trials: of each study.
        every: iterations between evaluations; early stopping can only happen there.
    """

    name: str
    gain: float
    sooner: float
    trials: int
    every: int = 100


SCENARIOS = [
    *(Scenario("accuracy at the margin, much earlier", -MARGIN, 2.0, trials) for trials in (3, 5, 10)),
    *(Scenario("more accurate, no earlier", 0.005, 1.0, trials) for trials in (3, 5, 10)),
    Scenario("more accurate, no earlier, coarse evaluation", 0.005, 1.0, 3, every=860),
    Scenario("accuracy at the margin, no earlier", -MARGIN, 1.0, 5),
    Scenario("a network like dense", 0.0, 1.0, 5),
]


def made_up(scenario: Scenario, studies: int, seed: int) -> pd.DataFrame:
    """Return the levels of many studies, with the spread of Lenet on MNIST.

    Accuracies have a part that all levels of a trial share, a part of each run, and the chance of 10,000 test examples.
    Early-stopping iterations are log-normal; dense is drawn like any other run.
    """
    rng = np.random.default_rng(seed)
    shape = (studies, scenario.trials, LEVELS + 1)
    study, trial, level = (axis.ravel() for axis in np.indices(shape))
    sparse = level > 0
    accuracy = 0.975 + rng.normal(0, 0.001, shape[:2])[study, trial] + rng.normal(0, 0.0015, len(study))
    accuracy = rng.binomial(10_000, accuracy + scenario.gain * sparse) / 10_000
    iteration = 4000 * np.exp(rng.normal(0, 0.2, shape[:2])[study, trial] + rng.normal(0, 0.3, len(study)))
    iteration = iteration / np.where(sparse, scenario.sooner, 1.0)
    return pd.DataFrame(
        {
            "study": study,
            "arm": "ticket",
            "trial": trial,
            "level": level,
            "density": 0.8**level,
            "early_stop_test_accuracy": accuracy,
            "early_stop_iteration": np.maximum(1, np.round(iteration / scenario.every)) * scenario.every,
        }
    )


def main() -> None:
    """Print a row for each scenario."""
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    gc.freeze()  # statsmodels collects garbage at each call: now there is little to look through
    nominal = (1 - CONFIDENCE) / 2
    print(f"{studies:,} studies each, {LEVELS} levels; nominal error rate of a verdict {nominal:.1%}")
    print(f"{'no level is a winning ticket because:':48} trials   wrong verdicts   studies with one   after Holm")
    for number, scenario in enumerate(SCENARIOS):
        found = verdicts(made_up(scenario, studies, number), MARGIN, CONFIDENCE)
        wrong = found["verdict"] == "winning ticket"
        corrected = wrong & (found["p_holm"] <= nominal)
        each = wrong.groupby(found["study"]).mean()  # studies are independent, their levels are not
        error = each.std() / len(each) ** 0.5
        some, standing = (mistaken.groupby(found["study"]).any().mean() for mistaken in (wrong, corrected))
        print(
            f"{scenario.name:48} {scenario.trials:6}   {each.mean():6.2%} ± {error:5.2%} {some:18.1%} {standing:12.1%}"
        )


if __name__ == "__main__":
    main()
