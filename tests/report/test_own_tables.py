"""Tables that others have measured: the schema, and what `report`, `figures` and `claims` make of them."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from made_up_levels import levels_of

import tombola.figures
from tombola.analysis import verdicts
from tombola.analysis.reading import read_curves, read_table, studies_beside
from tombola.analysis.schema import COLUMNS, NO_CURVES, VERSION, checked, checked_curves, names
from tombola.cli import cli
from tombola.errors import InputError
from tombola.html import render
from tombola.html.own_table import gather_table
from tombola.html.weights import Picture, Pictures
from tombola.html.write import write_table_report

PAGE = Path(__file__).parents[2] / "docs" / "results.md"
PAGES = PAGE.with_suffix("")


def own(metric="accuracy", arms=("dense", "lottery", "random"), trials=4):
    """Return a table with the required columns alone."""
    generator = np.random.default_rng(0)
    rows = []
    for arm in arms:
        for trial in range(trials):
            for level in (0,) if arm == "dense" else (1, 2):
                value = 0.9 + 0.01 * generator.random() - (0.1 * level if arm == "random" else 0.0)
                place = {"arm": arm, "trial": trial, "level": level, "density": 0.5**level}
                rows.append(place | {"early_stop_iteration": 100 + trial, f"early_stop_test_{metric}": value})
    return pd.DataFrame(rows)


def curves_of(levels):
    rows = [
        {
            **dict(zip(("arm", "trial", "level"), place, strict=True)),
            "iteration": step,
            "test_accuracy": 0.5 + step / 400,
        }
        for place in zip(levels.arm, levels.trial, levels.level, strict=True)
        for step in (50, 100)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments):
        done = CliRunner().invoke(cli, list(map(str, arguments)))
        return done.output if done.exception is None else str(done.exception)

    return invoke


def test_the_required_columns_are_enough():
    levels = checked(own())
    assert set(names()) - {"schema"} <= set(levels.columns)
    assert sorted(levels.arm.unique()) == ["lottery", "random"]
    assert len(levels[levels.level == 0]) == 8  # the dense runs, for each arm
    found = verdicts(levels)
    assert found[found.arm == "random"].verdict.tolist() == ["losing", "losing"]
    assert found.n.tolist() == [4] * 4
    assert checked(levels).equals(levels)


def test_the_name_of_the_metric_is_found():
    levels = checked(own("rmse"))
    assert levels[["metric", "metric_better", "metric_unit"]].drop_duplicates().values.tolist() == [
        ["rmse", "lower", ""]
    ]
    levels = checked(own("kappa").assign(metric="kappa", metric_unit="points"))
    assert levels[["metric_better", "metric_unit"]].iloc[0].tolist() == ["higher", "points"]


def test_the_order_of_rows_is_nothing_to_verdicts():
    levels = checked(own())
    renamed = own()[::-1]
    pd.testing.assert_frame_equal(
        verdicts(checked(renamed)).sort_values(["arm", "level"], ignore_index=True),
        verdicts(levels).sort_values(["arm", "level"], ignore_index=True),
    )


def change(**values):
    def apply(table):
        for name, value in values.items():
            table = table.assign(**{name: table[name].astype(object)})
            table.loc[1, name] = value
        return table.infer_objects()

    return apply


REFUSED = [
    (lambda table: table.drop(columns="arm"), "mine: the column 'arm' is missing; needed are arm, trial"),
    (
        lambda table: table.rename(columns={"density": "densty"}),
        "'density' is missing; did you mean 'dens",
    ),
    (lambda table: table.drop(columns="early_stop_test_accuracy"), "'early_stop_test_accuracy' is miss"),
    (change(density=1.5), r"mine, row 2: density=1\.5 must be above 0, at most 1"),
    (change(density=0.0), r"mine, row 2: density=0\.0 must be above 0"),
    (change(density="half"), "mine, row 2: density=half is not a number"),
    (change(level=0.5), r"mine, row 2: level=0\.5 is not a whole number"),
    (change(arm=" "), "mine, row 2: arm is empty"),
    (change(arm=np.nan), "mine, row 2: arm is empty"),
    (change(trial=10.0**30), r"mine, row 2: trial=1e\+30 is not a whole number"),
    (change(trial=-1), "mine, row 2: trial=-1 must be at least 0"),
    (change(trial=np.nan), "mine, row 2: trial=nan is missing"),
    (change(early_stop_test_accuracy=97.2), "must be a share from 0 to 1 .or set metric_unit"),
    (change(early_stop_test_accuracy=np.nan), "a run without a result has status=diverged"),
    (lambda table: table.assign(status="fine"), "row 1: status=fine must be one of ok, collapsed, diverged"),
    (lambda table: table.assign(schema=2), "schema=2, and this version of tombola reads 1; upgrade"),
    (change(trial=0), "two rows have study=own, arm=.*, trial=0, repeat=0, level=0; give each run"),
]


@pytest.mark.parametrize(("spoil", "message"), REFUSED)
def test_bad_tables(spoil, message):
    with pytest.raises(InputError, match=message):
        checked(spoil(own()), "mine")


def test_a_diverged_run_needs_no_values():
    table = own().assign(status="ok")
    table.loc[5, ["status", "early_stop_iteration", "early_stop_test_accuracy"]] = ["diverged", np.nan, np.nan]
    assert "diverged" in verdicts(checked(table)).reason.iloc[1]


def test_curves(tmp_path):
    levels = checked(own())
    curves = checked_curves(curves_of(own()), levels)
    assert len(curves) == 2 * len(levels)
    assert set(curves.density) == {1.0, 0.5, 0.25}
    with pytest.raises(InputError, match="the column 'iteration' is missing; needed are arm, trial, level, iteration"):
        checked_curves(curves_of(own()).drop(columns="iteration"), levels)
    own().to_csv(tmp_path / "mine.csv", index=False)
    assert read_curves(tmp_path / "mine.csv", levels).empty
    curves_of(own()).to_csv(tmp_path / "mine-curves.csv", index=False)
    assert len(read_curves(tmp_path / "mine.csv", read_table(tmp_path / "mine.csv"))) == len(curves)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda curves: curves.replace({"arm": {"lottery": "Lottery"}}), "did you mean 'lottery'"),
        (lambda curves: curves.assign(study="other"), "'other': its study is not in the table of levels"),
        (lambda curves: curves.assign(trial=curves["trial"] + 9), "no trial, repeat and level of its curves"),
    ],
)
def test_curves_that_fit_no_level_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        checked_curves(change(curves_of(own())), checked(own()))


def test_the_page_names_its_first_trial_and_shows_no_interval_of_equal_differences(monkeypatch):
    monkeypatch.setattr(render, "_vega", lambda: "")  # large, and not what is tested
    levels = checked(levels_of({"ticket": ([0.97], [4000])}, 2, (0.0, 0.0)).assign(trial=[5, 5, 6, 6]))
    found = gather_table(levels, NO_CURVES, claims=())
    equal = {"mean": 1.0, "low": 1.0, "high": 1.0, "p_holm": np.nan, "n": 2, "verdict": "inconclusive"}
    place = {"pattern": "1:4", "arm": "a", "level": 1, "density": 0.8, "baseline": "b", "baseline_density": 0.8}
    gains = pd.DataFrame([place | equal])
    picture = Picture(1, 0.8, "data:,", 1, 1, "A picture")
    page = render.report(replace(found, patterns=gains, pictures=Pictures("Masks.", (picture,))))
    assert "Trial 5, arm ticket." in page
    assert "<small>−1.00 in all trials</small>" in page  # verdicts
    assert "+1.00<small>in all trials</small>" in page  # patterns
    assert not re.search(r"<small>([+−][\d.]+) to \1</small>", page)


@pytest.mark.slow
def test_report_figures_and_claims_of_a_file(call, tmp_path):
    pytest.importorskip("vl_convert")
    own().to_csv("mine.csv", index=False)
    curves_of(own()).to_csv("mine-curves.csv", index=False)
    assert call("report", "mine.csv").endswith("\nmine.html\n")
    page = (tmp_path / "mine.html").read_text()
    assert "These results were measured elsewhere" in page
    assert "from a table of results" in page
    assert "worse by more than" in page
    assert "learning curves" in page.lower()
    assert "figures/figure-4.png" in call("figures", "mine.csv", "--figure", "4").split()
    (tmp_path / "claims.yaml").write_text(
        "source: mine\nminimum: 2\napplies: {}\nclaims:\n  - id: A\n    sentence: It is better.\n"
        '    expression: gain("lottery", 0.5)\n    expected: 0\n    tolerance: 1\n'
    )
    assert '"outcome": "reproduced"' in call("claims", "mine.csv", "--claims", "claims.yaml", "--format", "json")


def test_what_the_commands_refuse(call):
    own().to_csv("mine.csv", index=False)
    pd.concat([own().assign(study=name) for name in "ab"]).to_csv("two.csv", index=False)
    assert call("report", "two.csv").startswith("two.csv holds 2 studies: a, b; a report shows one study")
    assert call("report", "mine.csv", "--out", "x").startswith("--out names a results folder, and mine.csv is a table")
    assert "give results folders alone or tables alone" in call("figures", "mine.csv", "results/demo")
    own().drop(columns="trial").to_csv("bad.csv", index=False)
    for command in ("report", "figures", "claims"):
        assert call(command, "bad.csv").startswith("bad.csv: the column 'trial' is missing")
    own().to_csv("again.csv", index=False)
    own().assign(study="mine").to_csv("again.csv", index=False)
    assert "two tables hold a study 'mine'" in call("figures", "mine.csv", "again.csv")


def test_claims_about_another_recipe_are_not_judged_where_the_study_lies_beside(tmp_path):
    """Study B's table says nothing about the paper's claims on the same network."""
    rows = read_table(PAGES / "lenet-mnist-global" / "results.csv")
    rows = rows[rows["level"].isin([0, 10, 15, 20])]
    rows.to_csv(tmp_path / "results.csv", index=False)
    levels = read_table(tmp_path / "results.csv")
    assert studies_beside(tmp_path / "results.csv", levels) == {}
    shutil.copy(PAGES / "lenet-mnist-global" / "study.yaml", tmp_path)
    study = studies_beside(tmp_path / "results.csv", levels)["lenet-mnist-global"].model_copy(update={"margin": 0.007})
    file, bare = tmp_path / "results.csv", levels.drop(columns="iterations")
    alone, beside = (gather_table(levels, NO_CURVES, file, study=each) for each in (None, study))
    unknown = gather_table(bare, NO_CURVES, file, study=None)
    judged = {
        name: {
            outcome.claim.id for outcome in found.claims if not outcome.other_recipe and outcome.measured is not None
        }
        for name, found in {"alone": alone, "beside": beside, "unknown": unknown}.items()
    }
    assert "study-b-15-delta" in judged["beside"]
    assert all(name.startswith("study-b-") for name in judged["beside"])
    assert any(name.startswith("lenet-L") for name in judged["unknown"])  # nobody knows its settings
    assert not any(name.startswith("lenet-L") for name in judged["alone"])  # its rows tell the iterations
    assert (alone.margin, beside.margin) == (0.001, 0.007)
    assert beside.controls == {"reinit"}


def test_the_command_reads_the_study_beside(call, tmp_path):
    pytest.importorskip("vl_convert")
    own().assign(study="demo").to_csv("results.csv", index=False)
    (tmp_path / "study.yaml").write_text("extends: demo\nmargin: 0.31\n")
    assert "within 31 points" in " ".join(call("report", "results.csv").split())
    assert "within 20 points" in " ".join(call("report", "results.csv", "--margin", "0.2").split())


def test_figures_know_the_studies_beside_a_table(call, monkeypatch):
    known = {}
    monkeypatch.setattr(tombola.figures, "draw", lambda *_, settings, **__: known.update(settings) or [])
    call("figures", PAGES / "conv4-cifar10-criteria-10k" / "results.csv")
    criteria = ("stability", "magnitude", "random")
    assert {name: each.criterion for name, each in known.items()} == {
        f"conv4-cifar10-{criterion}-10k": criterion for criterion in criteria
    }


def test_a_frame_without_a_file(tmp_path):
    pytest.importorskip("vl_convert")
    assert "<h1>own</h1>" in write_table_report(own(), tmp_path / "page.html").read_text()


def test_the_page_has_each_column():
    """The schema is a contract: docs/results.md says what the code checks."""
    text = PAGE.read_text()
    assert f"Version {VERSION}" in text
    rows = dict(re.findall(r"^\| `([a-z0-9_<>]+)` \| (.*) \|$", text, re.MULTILINE))
    for column in COLUMNS:
        kind, meaning, missing = rows[column.name].split(" | ")
        assert kind.partition(",")[0] == column.kind
        assert meaning == column.meaning
        if column.default is None:
            assert missing == "required"
        elif column.default != column.default:
            assert missing == "unknown"
        else:
            assert missing == f"`{column.default}`"
