"""Figures, table and page of connectivity, from made-up lines and from a tiny study."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from rich.console import Console

import tombola
from tombola.analysis.answer import answer_of
from tombola.analysis.connectivity import barrier_statistics
from tombola.analysis.stability import partings_of
from tombola.cli import cli
from tombola.errors import InputError
from tombola.figures import SCREEN, Setting, draw, gather, gather_interpolations, paper
from tombola.figures.ending import ending
from tombola.figures.interpolation import barriers, error_curves
from tombola.formatting import typeset
from tombola.html.write import write_report
from tombola.running.results import POINT_COLUMNS
from tombola.running.store import Store
from tombola.studies import make_plan
from tombola.tables import barrier_table
from tombola.tables.answer import barriers_in_words, headline
from tombola.tables.overview import plan_table


def made(levels=(0, 3, 7), rewinds=(0, 100, 1000), trials=3, pairs=3, kinds=("copies", "dense-ticket", "levels")):
    """Return lines whose barrier is 8 points at iteration 0, 2 at 100, 0.5 at 1,000 - the same in every pair but for
    a hundredth a pair."""
    rows = []
    position = np.linspace(0, 1, 5)
    for kind in kinds:
        for level in levels if kind == "copies" else levels[1:]:
            for k in rewinds:
                for trial in range(trials):
                    for pair in range(pairs if kind == "copies" else 1):
                        height = 0.08 / (1 + k / 33.3) + 0.0001 * pair
                        place = {"study": "study", "kind": kind, "trial": trial, "rewind": k, "level": level}
                        place |= {"other_level": level if kind == "copies" else 0, "density": 0.8**level}
                        place |= {"copy": 0, "other_copy": pair, "line": f"{kind}-{level}-{k}-{trial}-{pair}"}
                        error = 0.05 + height * 4 * position * (1 - position)
                        values = {
                            "train_error": error / 2,
                            "test_error": error,
                            "train_loss": error,
                            "test_loss": error,
                        }
                        rows.append(pd.DataFrame({"position": position, **values, **place}))
    return pd.concat(rows, ignore_index=True)[list(POINT_COLUMNS)]


@pytest.fixture(scope="module")
def levels(make):
    return make(trials=3, rounds=2, arms=("ticket",))[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a tiny study with connectivity."""
    import tombola.running.devices as devices

    folder = tmp_path_factory.mktemp("lines") / "results" / "demo"
    settings = {"trials": 2, "training.iterations": 40, "training.evaluate_every": 20, "pruning.rounds": 2}
    connectivity = {"levels": [0, 2], "points": 5}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "cores", lambda: 1)
        study = tombola.Study.load("demo", rewind=[0, 10], arms=["ticket"], connectivity=connectivity, **settings)
        tombola.run(study, folder, workers=0, figures=False, quiet=True)
    return folder


@pytest.mark.parametrize("form", [SCREEN, paper(1), paper(2)])
def test_error_along_the_line(levels, form):
    points = made()
    figure = error_curves(levels, points, "copies", form)
    assert len(figure.axes) == 3
    for axes, k in zip(figure.axes, (0, 100, 1000), strict=True):
        assert f"from iteration {k:,}" in axes.get_title(loc="left")
        assert len(axes.lines) == 2 * 3  # test and training, of each density
        peak = 100 * (0.05 + 0.08 / (1 + k / 33.3) + 0.0001)  # the mean of three pairs
        assert max(axes.lines[0].get_ydata()) == pytest.approx(peak)
        (band,) = axes.collections[0].get_paths()
        assert band.vertices[:, 1].max() == pytest.approx(peak + 0.01)


def test_panels_are_whatever_there_is_less_of(levels):
    figure = error_curves(levels, made(levels=(0, 3), rewinds=(0, 10, 100)), "copies")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["(a) 100 % of weights", "(b) 51.2 % of weights"]
    one = error_curves(levels, made(rewinds=(0,)), "dense-ticket")
    assert [axes.get_title(loc="left") for axes in one.axes] == ["from iteration 0"]


def test_more_than_there_is_room_for_is_said(levels):
    figure = error_curves(levels, made(levels=tuple(range(9)), rewinds=(0,), trials=1, pairs=1), "copies")
    assert len(figure.axes[0].lines) == 2 * 6
    assert any("3 interpolations not shown" in text.get_text() for text in figure.texts)


def test_barriers_against_iteration_and_density(levels):
    figure = barriers(levels, made(), {"study": Setting(stable_below=0.02)})
    assert len(figure.axes) == 4
    against_k = figure.axes[0]
    heights = [line.get_ydata() for line in against_k.lines if len(line.get_ydata()) == 3 and line.get_marker() == "o"]
    assert heights[0] == pytest.approx([100 * (0.08 / (1 + k / 33.3) + 0.0001) for k in (0, 100, 1000)])
    assert [label.get_text() for label in against_k.get_xticklabels()] == ["0", "100", "1,000"]
    assert figure.axes[1].get_xscale() == "log"
    assert barriers(levels, made(levels=(0,), rewinds=(0,), kinds=("copies",)), {"study": Setting()}) is None
    assert len(barriers(levels, made(rewinds=(0,), kinds=("copies",)), {"study": Setting()}).axes) == 1


def test_a_curve_that_a_panel_lacks_changes_no_colours(levels):
    """As where every run from an iteration has diverged, or is yet to come."""
    points = made()
    points = points[(points["kind"] != "dense-ticket") | (points["rewind"] > 0)]
    copies, dense_ticket = barriers(levels, points, {"study": Setting()}).axes[1:3]
    colors = [[container.lines[0].get_color() for container in axes.containers] for axes in (copies, dense_ticket)]
    assert colors[1] == colors[0][1:]


def test_one_trial_says_that_it_has_no_intervals(levels):
    from dataclasses import replace

    figure = error_curves(levels, made(trials=1), "copies", replace(SCREEN, bars="interval"))
    assert not figure.axes[0].collections
    assert any("one trial, so no intervals" in text.get_text() for text in figure.texts)


def test_studies_without_lines_have_no_such_figure(make, tmp_path):
    levels, curves = make(trials=2, rounds=2, arms=("ticket",))
    with pytest.raises(InputError, match=r"lines-copies can't be drawn .* connectivity"):
        draw(levels, curves, tmp_path, ["lines-copies"])
    assert not any("lines" in path.name or "barriers" in path.name for path in draw(levels, curves, tmp_path))


def test_the_table():
    points = made(trials=2, kinds=("copies", "levels"), rewinds=(0, 1000), levels=(0, 3))
    stream = io.StringIO()
    Console(file=stream, width=100).print(barrier_table(points, 0.02))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    rows = [" ".join(line.split()) for line in lines]
    assert "copies 0 0 100 8.01 ± 0.01 4.00 ± 0.00 6 unstable" in rows
    assert "copies 1,000 3 51.2 0.27 ± 0.01 0.13 ± 0.00 6 stable" in rows
    assert "successive tickets 0 3, 0 51.2 8.00 ± 0.00 4.00 ± 0.00 2 unstable" in rows


def test_from_a_study_to_figures_table_and_page(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("vl_convert")
    done = CliRunner().invoke(cli, ["figures", str(folder), "--figure", "lines-copies", "--figure", "barriers"])
    assert done.exit_code == 0, done.output
    assert {Path(line).name for line in done.output.split()} == {
        f"{name}.{suffix}" for name in ("lines-copies", "barriers") for suffix in ("png", "svg")
    }
    shown = CliRunner().invoke(cli, ["results", str(folder)]).output
    assert "error barriers, percentage points" in shown
    assert shown.count("stable") >= 2 * (2 + 1 + 1)
    page = write_report(tombola.Results.open(folder), tmp_path / "page.html").read_text()
    assert "Barriers between runs" in page
    assert '"barriers"' in page
    assert page.count('<th scope="row">dense and ticket</th>') == 2


def test_a_study_of_connectivity_alone_answers_with_its_barriers(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert")
    study = tombola.Study.load(
        "demo",
        rewind=[0, 10],
        arms=["ticket"],
        connectivity={"levels": [0], "points": 3},
        trials=2,
        **{"pruning.rounds": 0, "training.iterations": 40, "training.evaluate_every": 20},
    )
    results = tombola.run(study, tmp_path / "out", workers=0, figures=False, quiet=True)
    found = partings_of(results)
    rows = barrier_statistics(results.connectivity(), 0.02)
    assert [each.rewind for each in found] == [0, 10]
    assert [each.mean for each in found] == rows["test_mean"].to_list()
    answer = answer_of(results.frame(), partings=found)
    assert (answer.kind, answer.at, answer.partings) == ("connectivity", None, found)
    page = write_report(results, tmp_path / "page.html").read_text()
    screen = page[page.index('id="answer"') : page.index("On this page")]
    assert typeset(headline(answer)) in screen
    assert screen.count('<th scope="row">copies</th>') == 2
    assert page.count('<th scope="row">copies</th>') == 2
    assert "No pruned level has results to draw" not in screen
    stream = io.StringIO()
    Console(file=stream, width=400).print(ending(results.frame(), partings=found))
    assert all(sentence in stream.getvalue() for sentence in (headline(answer), *barriers_in_words(answer)))
    assert headline(answer) in results._repr_html_()


def test_verdicts_come_before_barriers(folder: Path) -> None:
    results = tombola.Results.open(folder)
    answer = answer_of(results.frame(), partings=partings_of(results))
    assert answer.kind != "connectivity"
    assert answer.partings == ()


def test_the_plan_counts_every_copy(tmp_path: Path) -> None:
    """Copy 0 of the dense network from a later iteration has the noise of the dense run, but is another run."""
    study = tombola.Study.load(
        "demo", rewind=10, arms=["ticket"], trials=1, connectivity={"copies": 3}, **{"pruning.rounds": 1}
    )
    stream = io.StringIO()
    Console(file=stream, width=120).print(plan_table(make_plan(study), Store(tmp_path), "cpu", "dense", 1))
    rows = [" ".join(line.split()) for line in stream.getvalue().splitlines()]
    for start in (
        "dense 1 0",
        "copies, for connectivity 3 0",
        "interpolations, for connectivity 3 0",
    ):
        assert any(row.startswith(start) for row in rows)


def test_two_studies_of_one_name_have_their_own_lines(folder: Path, tmp_path: Path) -> None:
    import shutil

    other = tmp_path / "results" / "other"
    shutil.copytree(folder, other)
    opened = [tombola.Results.open(path) for path in (folder, other)]
    levels, curves, settings = gather(opened)
    points = gather_interpolations(opened, settings)
    assert set(points["study"]) == set(settings) == {"demo (demo)", "demo (other)"}
    paths = draw(levels, curves, tmp_path, ["lines-copies"], interpolations=points, settings=settings, formats=["svg"])
    assert len(paths) == 2
    assert paths == draw(
        levels, curves, tmp_path, ["lines-copies"], interpolations=points, settings=settings, formats=["svg"]
    )
