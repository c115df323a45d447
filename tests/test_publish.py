"""The script that makes the pages of docs/results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tombola

SCRIPT = Path(__file__).parents[1] / "docs" / "results" / "publish.py"
FIELDS = {"trials": 2, "training.iterations": 20, "pruning.rounds": 2, "arms": ["ticket", "random-mask"]}


@pytest.mark.slow
def test_a_page_keeps_its_head_and_gets_the_rest(tmp_path: Path) -> None:
    results = []
    for name in ("one", "two"):
        study = tombola.Study.load("demo", name=name, **FIELDS)
        tombola.run(study, tmp_path / name, workers=0, quiet=True, figures=False)
        results.append(str(tmp_path / name))
    page = tmp_path / "page" / "README.md"
    page.parent.mkdir()
    page.write_text("# A title\n\nFindings.\n")
    for sources, report in ((results[:1], "report.html"), (results[:1], "report.html"), (results, "comparison.html")):
        done = subprocess.run(
            [sys.executable, str(SCRIPT), *sources, str(page.parent)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        text = page.read_text()
        assert text.startswith("# A title\n\nFindings.\n")
        assert text.count("made by docs/results/publish.py") == 1
        assert f"[{report}]({report})" in text
        assert (page.parent / report).is_file()
        for picture in page.parent.glob("*.png"):
            assert f"]({picture.name})" in text
        assert str(tmp_path) not in text
