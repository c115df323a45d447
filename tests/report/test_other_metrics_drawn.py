"""Tables, figures, sentences and plots of studies whose metric is not accuracy."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from tombola.analysis import break_down, level_statistics, paired_gains, verdicts
from tombola.errors import InputError
from tombola.figures import Setting, draw
from tombola.figures.density import figure_1, figure_4
from tombola.figures.interpolation import barriers, error_curves
from tombola.figures.rounds import rounds
from tombola.figures.training import figure_3
from tombola.formatting import digits, margin_in_words, number, signed, value, with_unit
from tombola.html import density_specs
from tombola.html.figures import density_figures
from tombola.html.sentences import findings
from tombola.html.series import series_of
from tombola.tables import barrier_table, summary_table, ticket_versus_reinit
from tombola.tasks.metric import ACCURACY, Metric

RMSE = Metric("rmse", "lower", "kW")
PERPLEXITY = Metric("perplexity", "lower")
IOU = Metric("mean_iou", "higher", "%")
Tables = tuple[pd.DataFrame, pd.DataFrame]


def as_metric(table: pd.DataFrame, metric: Metric, factor: float) -> pd.DataFrame:
    """Return accuracies as values of another metric, errors where lower is better."""
    columns = [column for column in table if column.endswith("accuracy")]
    names = {column: column.removesuffix("accuracy") + metric.name for column in columns}
    change = (lambda a: factor * (1 - a)) if metric.better == "lower" else (lambda a: factor * a)
    return table.assign(**{column: change(table[column]) for column in columns}).rename(columns=names)


@pytest.fixture(params=[(RMSE, 0.5), (PERPLEXITY, 900.0), (IOU, 1.0)], ids=lambda pair: pair[0].name)
def study(request: pytest.FixtureRequest, make: Callable[..., Tables]) -> tuple[Metric, pd.DataFrame, pd.DataFrame]:
    metric, factor = request.param
    levels, curves = make(trials=3, rounds=8, arms=("ticket", "reinit", "random-mask"), evaluations=8)
    return metric, as_metric(levels, metric, factor).assign(**metric.columns), as_metric(curves, metric, factor)


@pytest.mark.parametrize(
    ("stored", "text"),
    [(0.0, "0"), (0.0123456, "0.0123"), (24.06, "24.1"), (9.999, "10.0"), (1234.5, "1,234"), (-0.5, "-0.500"),
     (2.5e-7, "2.50e-07"), (3.2e9, "3.20e+09"), (999_999.0, "1.00e+06"), (float("nan"), "nan")],
)  # fmt: skip
def test_three_significant_digits(stored: float, text: str) -> None:
    assert digits(stored) == text


def test_numbers_and_units() -> None:
    assert value(0.97918, ACCURACY) == "97.92 %"
    assert value(0.0123, RMSE) == "0.0123 kW"
    assert value(24.06, PERPLEXITY) == "24.1"
    assert with_unit(signed(0.355, ACCURACY), ACCURACY) == "+0.35 points"
    assert with_unit(signed(-0.0123, RMSE), RMSE) == "-0.0123 kW"
    assert with_unit(signed(3.0, PERPLEXITY), PERPLEXITY) == "+3.00"
    assert margin_in_words(0.001, IOU) == "0.1 points"
    assert margin_in_words(0.001, RMSE) == "0.1 % of the dense network's value"


def printed(table: object) -> str:
    stream = io.StringIO()
    Console(file=stream, width=120).print(table)
    return stream.getvalue()


def test_terminal_tables(study: tuple[Metric, pd.DataFrame, pd.DataFrame]) -> None:
    metric, levels, _ = study
    text = printed(summary_table(levels))
    unit = f", {metric.unit}" if metric.unit else ""
    unit += " (lower is better)" if metric.better == "lower" else ""
    assert f"study: test {metric.words} at early stop{unit}\n" in text
    assert "accuracy" not in text
    first = levels[(levels["arm"] == "ticket") & (levels["level"] == 1)][f"early_stop_test_{metric.name}"]
    assert number(metric.scale * first.mean(), metric) in text
    pairs = printed(ticket_versus_reinit(levels))
    assert f"study: test {metric.words} at the end of training{unit}, mean" in pairs
    assert "ticket - reinit" in pairs


def test_two_metrics_stand_side_by_side_in_the_terminal(make: Callable[..., Tables]) -> None:
    accuracies = make(trials=2, rounds=2, arms=("ticket",))[0].assign(**ACCURACY.columns)
    errors = as_metric(accuracies, RMSE, 1.0).assign(study="other", **RMSE.columns)
    text = printed(summary_table(pd.concat([accuracies, errors])))
    assert "study: test accuracy at early stop, %" in text
    assert "other: test rmse at early stop, kW" in text


def test_figures(study: tuple[Metric, pd.DataFrame, pd.DataFrame]) -> None:
    metric, levels, curves = study
    unit = f" ({metric.unit})" if metric.unit else ""
    figure = figure_1(levels)
    assert figure is not None
    axes = figure.axes[1]
    assert axes.get_ylabel() == f"test {metric.words} at early stop{unit}"
    told = " ".join(text.get_text() for text in figure.texts)
    assert (f"of {metric.words}, lower is better" in told) == (metric.better == "lower")
    rows = levels[(levels["arm"] == "ticket") & (levels["level"] > 0)]
    drawn = np.concatenate([line.get_ydata() for line in axes.lines if len(line.get_ydata()) > 5])
    best = metric.best(list(rows.groupby("level")[f"early_stop_test_{metric.name}"].mean()))
    low, high = axes.get_ylim()
    assert low < metric.scale * best < high
    assert np.isclose(drawn, metric.scale * best).any()
    for made in (figure_3(levels, curves), figure_4(levels), rounds(levels, curves)):
        assert made is not None
        labels = [each.get_ylabel() for each in made.axes]
        assert any(metric.words in label for label in labels)
        words = [text.get_text() for text in made.texts] + labels
        assert not [text for text in words if "accuracy" in text]


def test_an_axis_of_errors_hides_the_collapsed_ones_at_the_top(make: Callable[..., Tables]) -> None:
    levels = as_metric(make(trials=2, rounds=12, arms=("ticket",))[0], RMSE, 1.0).assign(**RMSE.columns)
    levels.loc[levels["level"] == 12, "early_stop_test_rmse"] = 0.89
    figure = figure_1(levels)
    assert figure is not None
    assert figure.axes[1].get_ylim()[1] < 0.89
    assert any("1 point above the axes not shown" in text.get_text() for text in figure.texts)


def test_studies_of_two_metrics_are_refused_by_name(make: Callable[..., Tables], tmp_path: Path) -> None:
    levels, curves = make(trials=2, rounds=2, arms=("ticket",))
    errors = as_metric(levels, RMSE, 1.0).assign(study="other", **RMSE.columns)
    with pytest.raises(InputError, match=r"accuracy .* and rmse"):
        draw(pd.concat([levels.assign(**ACCURACY.columns), errors]), curves, tmp_path)
    assert not list(tmp_path.iterdir())


def test_sentences(study: tuple[Metric, pd.DataFrame, pd.DataFrame]) -> None:
    metric, levels, _ = study
    measure = f"early_stop_test_{metric.name}"
    gains = pd.concat([paired_gains(levels, "ticket", other, measure) for other in ("reinit", "random-mask")])
    told = " ".join(findings(level_statistics(levels), verdicts(levels), gains, break_down(levels), 0.001, metric))
    assert f" in {metric.words} at early stop" in told
    assert f"Test {metric.words} at early stop stays within" in told
    assert "accura" not in told
    if metric.unit == "kW":
        assert "(lower is better), in kW" in told
        assert "points" not in told
    if metric.unit == "%":
        assert "in percentage points" in told
        assert "within 0.1 points of the dense" in told


def test_one_trial_in_sentences(make: Callable[..., Tables]) -> None:
    levels = as_metric(make(trials=1, rounds=4, arms=("ticket",))[0], RMSE, 1.0).assign(**RMSE.columns)
    told = " ".join(
        findings(level_statistics(levels), verdicts(levels), pd.DataFrame(), break_down(levels), 0.001, RMSE)
    )
    best = levels[levels["level"] > 0]["early_stop_test_rmse"].min()
    assert "ticket is best in rmse at early stop with" in told
    assert f"weights: {number(best, RMSE)} kW" in told


def test_plots_of_the_page(study: tuple[Metric, pd.DataFrame, pd.DataFrame]) -> None:
    metric, levels, _ = study
    statistics, series = level_statistics(levels), series_of(levels)
    figures = density_figures(statistics, series, metric)
    assert figures[0].key == f"early-stop-test-{metric.name.replace('_', '-')}"
    assert figures[0].title == f"Test {metric.words} at early stop"
    spec = json.dumps(figures[0].spec)
    assert f"{metric.scale:g} * datum.mean" in spec
    assert "accuracy" not in spec
    gains = paired_gains(levels, "ticket", "reinit", f"early_stop_test_{metric.name}")
    sides = "ticket minus control" if metric.better == "higher" else "control minus ticket"
    assert sides in json.dumps(density_specs.gains("gains", gains, series, sides, metric))


def test_a_metric_of_a_user_cannot_leave_its_string(make: Callable[..., Tables]) -> None:
    """The name of a metric comes from a user's task, and stands in an expression of the plot."""
    metric = Metric("x' || alert(1) || '", "lower")
    levels = as_metric(make(trials=2, rounds=3, arms=("ticket",))[0], metric, 1.0).assign(**metric.columns)
    spec = density_figures(level_statistics(levels), series_of(levels), metric)[0].spec
    assert spec is not None
    (condition,) = [each["filter"] for each in spec["transform"] if "measure" in str(each.get("filter"))]
    assert condition == f"datum.measure === {json.dumps(f'early_stop_test_{metric.name}')} && isValid(datum.mean)"


def test_barriers_in_loss() -> None:
    place = {"study": "s", "kind": "copies", "trial": 0, "copy": 0, "other_copy": 1, "position": [0.0, 0.5, 1.0]}
    pieces = [
        pd.DataFrame(
            place
            | {"level": level, "other_level": level, "rewind": 0, "line": f"l{level}", "density": 0.8**level}
            | {"train_loss": [0.1, 0.3, 0.1], "test_loss": [0.2, 0.5123, 0.2]}
        )
        for level in (1, 2)
    ]
    points = pd.concat(pieces, ignore_index=True)
    text = printed(barrier_table(points, 0.02))
    assert "s: loss barriers" in text
    assert "0.312" in text
    assert "test barrier at most 0.02\n" in text
    assert "points" not in text
    levels = pd.DataFrame({"study": ["s"], "network": ["n"], "arm": ["ticket"], "level": [1]})
    figure = error_curves(levels, points, "copies")
    assert figure is not None
    assert figure.axes[0].get_ylabel() == "loss"
    assert figure.axes[0].get_ylim()[1] == pytest.approx(0.5123, abs=0.03)
    figure = barriers(levels, points, {"s": Setting()})
    assert figure is not None
    assert figure.axes[0].get_ylabel() == "test loss barrier"


def test_a_regression_from_training_to_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing on the page of a regression speaks of accuracy or of points."""
    import task_nets

    import tombola
    from tombola.data import sources
    from tombola.html.write import write_comparison, write_report

    for kind in ("regression", "tokens"):
        source = sources.Source(
            describe=lambda place, kind=kind: task_nets.dataset(kind).description,
            load=lambda place, kind=kind: task_nets.dataset(kind),
        )
        monkeypatch.setitem(sources.SOURCES, kind, source)

    def results_of(name: str, network: str, task: object) -> tombola.Results:
        study = tombola.Study.model_validate(
            {
                "name": name,
                "network": {"name": f"task_nets:{network}"},
                "data": {"source": name, "validation": 24},
                "task": task,
                "training": {"lr": 0.01, "batch_size": 12, "iterations": 16, "evaluate_every": 8},
                "pruning": {"rate": 0.4, "rounds": 1},
                "arms": ["ticket", "reinit"],
                "trials": 2,
                "connectivity": {"copies": 2},
            }
        )
        return tombola.run(study, tmp_path / name, workers=0, device="cpu", figures=False, quiet=True)

    regression = results_of("regression", "mlp", {"name": "regression", "unit": "kW"})
    page = write_report(regression).read_text()
    body = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)
    for text in ("Test rmse at early stop", " in rmse at early stop (lower is better), in kW", "Loss barrier"):
        assert text in body
    assert "accura" not in body
    assert not re.search(r"\d points", body)
    assert (tmp_path / "regression" / "barriers.csv").is_file()
    with pytest.raises(InputError, match=r"rmse \(lower, kW\) and accuracy"):
        write_comparison([regression, results_of("tokens", "Lstm", "classification")], tmp_path / "both.html")
