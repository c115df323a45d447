"""Synthetic studies, shaped like those of the paper, for the tests of tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

ALL_ARMS = ("ticket", "reinit", "random-mask", "one-shot", "one-shot-reinit")
Tables = tuple[pd.DataFrame, pd.DataFrame]


def synthetic(
    trials: int = 5,
    rounds: int = 24,
    arms: Sequence[str] = ALL_ARMS,
    repeats: int = 1,
    name: str = "study",
    seed: int = 0,
    evaluations: int = 25,
) -> Tables:
    """Return the tables of a study in which tickets stay good for long and their controls do not.

    `repeats` is the number of runs per trial of the reinitialised arms.
    """
    generator = np.random.default_rng(seed)
    total, budget = 266_200, 50_000
    iterations = np.linspace(budget / evaluations, budget, evaluations).astype(int)
    levels, curves = [], []
    dense = generator.normal(0, 0.0006, trials), generator.uniform(0.8, 1.25, trials)
    for arm in arms:
        weakness = {"ticket": 0.004, "one-shot": 0.007}.get(arm, 0.02)
        for trial in range(trials):
            for level in range(rounds + 1):
                remaining = round(total * 0.8**level)
                density = remaining / total
                for repeat in range(repeats if "reinit" in arm and level else 1):
                    gain = 0.003 * np.exp(-((np.log(density / 0.2)) ** 2))
                    best = 0.98 + gain * (weakness < 0.01) - weakness * (0.02 / density) ** 0.8
                    noise, pace = generator.normal(0, 0.0006), generator.uniform(0.8, 1.25)
                    if level == 0:  # the same job in every arm
                        gain, best, noise, pace = 0.0, 0.979, dense[0][trial], dense[1][trial]
                    best = max(best, 0.11) + noise
                    stop = int(6000 * (1 + weakness * 40 * np.log(1 / density)) * pace)
                    place = {
                        "study": name,
                        "arm": arm,
                        "trial": trial,
                        "repeat": repeat,
                        "level": level,
                        "density": density,
                    }
                    levels.append(
                        place
                        | {
                            "network": "lenet-300-100",
                            "remaining_weights": remaining,
                            "early_stop_iteration": stop,
                            "early_stop_test_accuracy": best,
                            "early_stop_val_loss": 1 - best,
                            "final_test_accuracy": best - 0.001,
                            "final_train_accuracy": min(1.0, best + 0.02),
                            "iterations": budget,
                            "seconds": 12.5,
                            "status": "ok",
                            "job": f"{arm}-{trial}-{repeat}-{level}",
                        }
                    )
                    climb = best - (best - 0.1) * np.exp(-3 * iterations / stop)
                    shared = np.random.default_rng(trial) if level == 0 else generator
                    noisy = climb + shared.normal(0, 0.0004, len(iterations))
                    curves.append(
                        pd.DataFrame(
                            place
                            | {
                                "iteration": iterations,
                                "val_loss": 1 - noisy,
                                "val_accuracy": noisy,
                                "test_loss": 1 - noisy,
                                "test_accuracy": noisy,
                            }
                        )
                    )
    return pd.DataFrame(levels), pd.concat(curves, ignore_index=True)


@pytest.fixture(scope="session")
def make() -> Callable[..., Tables]:
    return synthetic


def several(networks: Mapping[str, str], **options: Any) -> Tables:
    """Return the tables of several studies: study -> network. Each later one is 5 points worse, and denser."""
    tables = [synthetic(name=name, seed=seed, **options) for seed, name in enumerate(networks)]
    for place, (pair, network) in enumerate(zip(tables, networks.values(), strict=True)):
        pair[0]["network"] = network
        for table in pair:
            accuracies = [column for column in table if column.endswith("accuracy")]
            table[accuracies] -= 0.05 * place
            table["density"] **= 1 - 0.03 * place
    levels, curves = (pd.concat(parts, ignore_index=True) for parts in zip(*tables, strict=True))
    return levels, curves


@pytest.fixture(scope="session")
def make_several() -> Callable[..., Tables]:
    return several


@pytest.fixture(scope="session")
def full(make: Callable[..., Tables]) -> Tables:
    """A small study of the paper's shape: 5 trials, all arms, 3 reinitialisations per trial."""
    return make(trials=3, rounds=18, repeats=2)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a tiny study of two trials, with names that attack a page; not to be changed."""
    # Here, because a test imports this file into a process of its own, for its tables alone.
    from hostile_names import HOSTILE, HOSTILE_ARM

    import tombola
    import tombola.running.devices as devices

    folder = tmp_path_factory.mktemp("page") / "results" / "hostile"
    settings = {
        "name": HOSTILE,
        "description": HOSTILE,
        "trials": 2,
        "training.iterations": 60,
        "training.evaluate_every": 10,
        "pruning.rounds": 3,
        "arms": ["ticket", {"rule": "reinit", "name": HOSTILE_ARM}],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "cores", lambda: 1)
        tombola.run(
            tombola.Study.load("demo", **settings), folder, workers=0, engine="dense", figures=False, quiet=True
        )
    return folder


@pytest.fixture(scope="session")
def hostile_page(hostile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its report."""
    import tombola
    from tombola.html.write import write_report

    path = tmp_path_factory.mktemp("report") / "report.html"
    return write_report(tombola.Results.open(hostile), path)
