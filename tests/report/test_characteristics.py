"""What tickets look like over trials: layers, overlaps and pixels, counted by hand and as figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_up_levels import levels_of
from small_studies import find, run_study

from tombola.analysis import live_pixels
from tombola.analysis.layers import layer_densities
from tombola.analysis.overlap import mask_overlap
from tombola.errors import InputError
from tombola.figures import draw, gather
from tombola.figures.characteristics import layer_densities as layers_figure
from tombola.figures.characteristics import live_pixels as pixels_figure
from tombola.figures.characteristics import mask_overlap as overlap_figure
from tombola.figures.characteristics import sign_flips as flips_figure
from tombola.figures.form import SCREEN
from tombola.figures.setting import Setting
from tombola.running.results import Results

NAMES = ["layer-densities", "mask-overlap", "live-pixels"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("characteristics") / "out"
    network = {"name": "lenet-300-100", "arguments": {"hidden": [12]}}
    return Results(*run_study(folder, network=network, trials=2, arms=["ticket", "reinit"], pruning__rate=0.8))


def test_a_pixel_lives_where_a_path_begins(results):
    table = live_pixels(results)
    assert (table.loc[table["level"] == 0, "share"] == 1).all()
    for level in (1, 2):
        lives = []
        for trial in (0, 1):
            mask = results.store.mask(find(results.plan, "ticket", level, trial=trial).id)
            first, last = (keep.numpy() for keep in mask.values())
            lives.append((first & last.any(0)[:, None]).any(0).reshape(8, 8))
        rows = table[table["level"] == level].sort_values(["row", "column"])
        np.testing.assert_array_equal(rows["share"], np.mean(lives, axis=0).ravel())
        assert (rows["trials"] == 2).all()
    assert 0 < table.loc[table["level"] == 2, "share"].mean() < 1


def test_pixels_need_images_before_a_linear_layer(tmp_path):
    conv = Results(*run_study(tmp_path, network={"name": "conv-2", "arguments": {"width": 0.05}}, pruning__rounds=1))
    assert live_pixels(conv).empty
    levels, curves, settings = gather([conv])
    with pytest.raises(InputError, match="live-pixels can't be drawn from these results: it needs masks"):
        draw(levels, curves, tmp_path, ["live-pixels"], settings=settings)
    with pytest.raises(InputError, match="no arm 'tickets'; did you mean 'ticket'"):
        live_pixels(conv, "tickets")


def test_each_figure_is_drawn_on_request_alone(results, tmp_path):
    levels, curves, settings = gather([results])
    files = draw(levels, curves, tmp_path, NAMES, settings=settings, formats=["svg"])
    assert [file.stem for file in files] == NAMES
    others = draw(levels, curves, tmp_path, settings=settings, formats=["svg"])
    assert not {file.stem for file in others} & {*NAMES, "by-round"}
    for name in NAMES:
        with pytest.raises(InputError, match=f"{name} can't be drawn"):
            draw(levels, curves, tmp_path, [name])


def test_what_the_figures_show(results):
    levels, _, settings = gather([results])
    (setting,) = settings.values()
    expected = layer_densities(results).query("arm == 'ticket'").groupby(["layer", "level"], sort=False)["density"]
    lines = [line for line in layers_figure(levels, setting).axes[0].lines if len(line.get_xdata()) == 3]
    drawn = {tuple(np.round(line.get_ydata(), 6)) for line in lines}
    assert drawn >= {tuple(np.round(100 * each, 6)) for each in expected.mean().unstack("level").to_numpy()}

    overlap = mask_overlap(results).query("arm == 'ticket' and layer != 'all'").sort_values(["layer", "level"])
    shown = {tuple(np.round(line.get_ydata(), 6)) for line in overlap_figure(levels, setting).axes[0].lines}
    for name in ("jaccard", "chance"):
        for _, rows in overlap.groupby("layer"):
            assert tuple(np.round(100 * rows[name], 6)) in shown

    pictures = [axes.images[0].get_array() for axes in pixels_figure(levels, setting).axes if axes.images]
    table = live_pixels(results)
    assert len(pictures) == 3
    for picture, (_, rows) in zip(pictures, table.groupby("level"), strict=True):
        np.testing.assert_array_equal(picture.ravel(), rows.sort_values(["row", "column"])["share"])


@pytest.mark.parametrize("bars", ["range", "interval"])
def test_the_overlap_speaks_of_the_bars_that_it_draws(bars):
    """Pairs of trials are not independent, so there is no interval to draw."""
    levels = levels_of({"ticket": ([0.98, 0.97], [3000, 3000])}, trials=3)
    rows = [
        {"arm": "ticket", "layer": "fc", "level": level, "density": 0.8**level, "pairs": 3, "chance": 0.4}
        | {"jaccard": 0.5, "low": 0.4, "high": 0.6}
        for level in (1, 2)
    ]
    figure = overlap_figure(levels, Setting(reads={"overlap": lambda: pd.DataFrame(rows)}), replace(SCREEN, bars=bars))
    said = " ".join(" ".join(text.get_text().split()) for text in figure.texts)
    drawn = any(container.has_yerr for container in figure.axes[0].containers)
    assert drawn == (bars == "range")
    assert ("bars span" in said) == drawn
    assert "95 %" not in said


def test_arms_with_the_same_masks_share_a_panel(results):
    levels, _, settings = gather([results])
    (setting,) = settings.values()
    for figure in (layers_figure(levels, setting), overlap_figure(levels, setting)):
        assert [axes.get_title(loc="left") for axes in figure.axes] == ["(a) ticket, reinit"]
    titles = [axes.get_title(loc="left") for axes in flips_figure(levels, setting).axes]
    assert titles == ["(a) ticket", "(b) reinit"]


def test_averages_omit_diverged_runs(results, monkeypatch):
    frame = results.frame()
    lost = (frame["trial"] == 1) & (frame["level"] == 2)
    monkeypatch.setattr(Results, "frame", lambda self: frame.assign(status=frame["status"].where(~lost, "diverged")))
    layers = layer_densities(results)
    assert set(layers.loc[layers["level"] == 2, "trial"]) == {0}
    assert set(layers.loc[layers["level"] == 1, "trial"]) == {0, 1}
    assert set(mask_overlap(results)["level"]) == {1}  # one trial is left of level 2
    assert live_pixels(results).groupby("level")["trials"].first().tolist() == [2, 2, 1]
