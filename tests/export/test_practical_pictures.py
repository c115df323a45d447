"""The pictures of docs/practical.md can be drawn again from what the benchmarks write."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.practical_pictures import HERE, main


def test_pictures_are_drawn_from_results(tmp_path: Path, capsys) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "packed.json").write_bytes((HERE / "results" / "packed.json").read_bytes())
    main(results, tmp_path / "first")
    assert "export.json is missing" in capsys.readouterr().out
    row = {"batch": 1, "threads": 1, "float32": True}
    cases = [
        {"network": "net", "density": density, "latencies": [row | {"contender": "c", "least_us": 100 * density}]}
        for density in (0.1, 0.05)
    ]
    (results / "export.json").write_text(json.dumps({"cases": cases}))
    main(results, tmp_path / "second")
    first, second = ((tmp_path / each / "size-accuracy.svg").read_bytes() for each in ("first", "second"))
    assert first == second
    assert b"<svg" in (tmp_path / "second" / "latency.svg").read_bytes()
