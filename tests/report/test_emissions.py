"""The section on reproducing a study: what its runs used."""

from __future__ import annotations

from pathlib import Path

import tombola
from tombola.html.reproducibility import _compute


def test_co2_stands_beside_the_energy_where_it_is_known(tmp_path: Path) -> None:
    fields = {"trials": 1, "training.iterations": 20, "pruning.rounds": 1, "arms": ["ticket"]}
    study = tombola.Study.load("demo", **fields)
    results = tombola.run(study, tmp_path, workers=0, quiet=True, figures=False)
    levels = results.frame()
    assert "CO2" not in dict(_compute(results, levels, []))
    known = levels.assign(energy_kwh=[0.5, 0.25], co2_kg=[0.125, None])
    found = dict(_compute(results, known, []))
    assert found["energy"] == "0.75 kWh, measured in 2 of 2 runs"
    assert found["CO2"] == "0.125 kg, known of 1 of 2 runs"
