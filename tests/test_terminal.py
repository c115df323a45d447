"""What reaches terminals, pipes and spreadsheets: names do nothing there, and a failed write is one sentence."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tombola import cli, terminal
from tombola.analysis.reading import read_levels
from tombola.formatting import as_csv, text_of_csv
from tombola.running.results import LEVEL_COLUMNS

NASTY = "a\x1b]0;owned\x07\x1b[2J\x9b31m\u202eb\rc"


def test_control_characters_are_shown() -> None:
    shown = terminal.printable(NASTY)
    assert shown == "a\\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\u202eb\\rc"
    assert terminal.printable("tab\tand\nline, Ü-ñ-名") == "tab\tand\nline, Ü-ñ-名"


@pytest.mark.parametrize("coloured", [False, True])
def test_no_console_lets_them_through(coloured: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    stream = io.StringIO()
    console = terminal.console(stream, force_terminal=coloured, color_system="standard" if coloured else None)
    table = Table("header", title=NASTY)
    table.add_row(Text(NASTY, style="bold"))
    console.print(table, NASTY, Text(NASTY), terminal.markup(f"[red]{NASTY}"), highlight=False)
    found = stream.getvalue()
    assert "\x07" not in found
    assert "\x9b" not in found
    assert "\x1b]" not in found
    assert "\x1b[2J" not in found
    assert found.count("\\x1b]0;owned") == 5
    assert "[red]" in found
    assert ("\x1b[1m" in found) is coloured  # its own


def test_status_shows_a_hostile_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.yaml").write_text('extends: demo\nname: "\\e]0;owned\\a\\e[2Jx"\n')
    monkeypatch.setattr(sys, "argv", ["tombola", "status", "--out", str(tmp_path)])
    cli.main()
    out, err = capsys.readouterr()
    assert "\\x1b]0;owned\\x07\\x1b[2Jx" in out
    assert "\x1b" not in out + err


def test_so_does_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["tombola", "status", "\x1b[2J"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("redirection", "reason"), [("> /dev/full", "No space left on device"), (">&-", "it is closed")]
)
def test_output_that_can_not_be_written(redirection: str, reason: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    command = ["sh", "-c", f'"$0" -m tombola presets show demo {redirection}', sys.executable]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == f"tombola: can't write to standard output: {reason}\n"
    assert done.returncode == 1


def test_errors_that_can_not_be_written_leave_the_status_alone() -> None:
    command = ["sh", "-c", '"$0" -m tombola nothing 2>&-', sys.executable]
    assert subprocess.run(command, capture_output=True).returncode == 2


def test_a_reader_that_has_gone_is_no_error() -> None:
    command = ["sh", "-c", '"$0" -m tombola presets show demo | true', sys.executable]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_empty_path_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tombola", "run", "demo", "--out", ""])
    with pytest.raises(SystemExit):
        cli.main()
    assert "--out is empty; give a path" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


FORMULAS = ['=HYPERLINK("http://x")', "+1", "-o", "@SUM(A1)", "\t=1", "\r=1", "'quoted", "''", "plain", "1e5", ""]


def test_names_are_no_formulas(tmp_path: Path) -> None:
    names = [name for name in FORMULAS if name]  # a table with an empty name is refused
    numbers = {column: [1] * len(names) for column in LEVEL_COLUMNS} | {"final_val_loss": [-1.5] * len(names)}
    texts = {
        "arm": names,
        "study": ["=1+1"] * len(names),
        "network": ["net"] * len(names),
        "status": ["ok"] * len(names),
    }
    metric = {"metric": "accuracy", "metric_better": "higher", "metric_unit": "%"}
    written = as_csv(pd.DataFrame(numbers | texts | metric))
    rows = list(csv.reader(io.StringIO(written.decode(), newline="")))
    assert len(rows) == 1 + len(names)
    for cell in (cell for row in rows for cell in row):
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")) or cell == "-1.5"
    (tmp_path / "results.csv").write_bytes(written)
    levels, _ = read_levels(tmp_path / "results.csv")
    assert list(levels["arm"]) == names
    assert set(levels["study"]) == {"=1+1"}


@pytest.mark.parametrize("text", FORMULAS)
def test_a_cell_comes_back(text: str) -> None:
    frame = pd.DataFrame({"x": [text]})
    cell = pd.read_csv(io.BytesIO(as_csv(frame)), dtype=str, keep_default_na=False)["x"][0]
    assert text_of_csv(cell) == text
    assert list(frame["x"]) == [text], "the table itself is as it was"
