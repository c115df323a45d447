"""Copy what a page of docs/results shows from a results folder: tables, figures, and a summary of the curves.

python docs/results/publish.py results/lenet-mnist docs/results/lenet-mnist
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pandas as pd

import tombola

EVERY = 1000  # iterations between two rows of the curves' summary


def main() -> None:
    """Copy and sum up."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    results = tombola.Results.open(source)
    results.save()
    for name in ("results.csv", "study.yaml", *(f"figures/figure-{n}.png" for n in (1, 3, 4))):
        if (source / name).exists():
            shutil.copy(source / name, target / Path(name).name)
    curves = pd.read_csv(source / "curves.csv")
    last = curves.iteration.max()
    chosen = curves[(curves.iteration % EVERY == 0) | (curves.iteration == last)]
    groups = chosen.groupby(["study", "arm", "level", "iteration"], sort=False)
    summary = groups.agg(
        density=("density", "mean"),
        runs=("test_accuracy", "size"),
        test_accuracy_mean=("test_accuracy", "mean"),
        test_accuracy_min=("test_accuracy", "min"),
        test_accuracy_max=("test_accuracy", "max"),
        val_loss_mean=("val_loss", "mean"),
    )
    summary.round(5).to_csv(target / "curves-summary.csv")


if __name__ == "__main__":
    main()
