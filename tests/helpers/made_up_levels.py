"""Tables of levels with known answers, as `Results.frame()` gives them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

RATE = 0.8  # each level keeps four fifths of the one before


def levels_of(
    arms: dict[str, tuple[Sequence[float], Sequence[float]]],
    trials: int = 5,
    noise: tuple[float, float] = (0.0005, 100.0),
    seed: int = 0,
    study: str = "s",
    network: str = "lenet-300-100",
) -> pd.DataFrame:
    """Return a table in which the true accuracies and early-stop iterations of each arm are given.

    Level 0, the dense network, is 0.98 at iteration 4,000, and the same run in all arms.

    Arguments:
        arms: name -> (accuracy at level 1, 2, ...; early-stop iteration at level 1, 2, ...).
        trials: number of trials.
        noise: standard deviations of a single run's accuracy and iteration.
        seed: of the noise.
        study, network: as in the table.
    """
    rng = np.random.default_rng(seed)
    dense = [(0.98 + noise[0] * rng.normal(), 4000 + noise[1] * rng.normal()) for _ in range(trials)]
    rows = []
    for arm, (accuracies, iterations) in arms.items():
        for trial in range(trials):
            runs = [dense[trial]]
            for accuracy, iteration in zip(accuracies, iterations, strict=True):
                runs.append((accuracy + noise[0] * rng.normal(), iteration + noise[1] * rng.normal()))
            for level, (accuracy, iteration) in enumerate(runs):
                rows.append(
                    {
                        "study": study,
                        "network": network,
                        "arm": arm,
                        "trial": trial,
                        "repeat": 0,
                        "level": level,
                        "density": RATE**level,
                        "remaining_weights": round(100_000 * RATE**level),
                        "early_stop_iteration": iteration,
                        "early_stop_test_accuracy": accuracy,
                        "final_test_accuracy": accuracy - 0.001,
                        "final_train_accuracy": 1.0,
                        "status": "ok",
                    }
                )
    return pd.DataFrame(rows)
