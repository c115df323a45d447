"""What figures have to know of a study beside its tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tombola import Study
from tombola.figures import Setting


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Setting(0.0, "0.002", "magnitude")),
        ({"network": {"name": "conv-2", "arguments": {"dropout": 0.5}}}, Setting(0.5, "0.002", "magnitude")),
        ({"network": {"name": "conv-2", "arguments": {"dropout": "much"}}}, Setting(0.0, "0.002", "magnitude")),
        (
            {"training.lr": 0.03, "training.warmup": 20_000, "training.iterations": 30_000},
            Setting(0.0, "0.03, warmup 20,000", "magnitude"),
        ),
        ({"pruning.criterion": "my.criteria:movement"}, Setting(0.0, "0.002", "movement")),
    ],
)
def test_settings_of_a_study(changes, expected):
    assert (
        replace(Setting.of(Study.load("demo", **{"training.lr": 0.002, **changes})), target="", margin=0.001)
        == expected
    )
