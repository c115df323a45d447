"""The page as text and its parts: escaping, size, repeatable bytes, tables, plots that compile, pictures that count."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import vl_convert
from click.testing import CliRunner
from hostile_names import HOSTILE, HOSTILE_ARM
from PIL import Image
from ruamel.yaml import YAML

import tombola
from tombola.analysis.claims import read_claims
from tombola.analysis.roles import main_arm
from tombola.analysis.statistics import level_statistics
from tombola.cli import cli
from tombola.errors import InputError
from tombola.formatting import differences, plain, typeset
from tombola.html.embedded import table
from tombola.html.figures import density_figures
from tombola.html.series import series_of
from tombola.html.weights import input_pictures, weight_histograms
from tombola.html.write import write_comparison, write_report
from tombola.pruning.mask import Mask
from tombola.running.ticket import Ticket
from tombola.studies.command import command
from tombola.studies.loading import load_study
from tombola.tasks.metric import ACCURACY

Tables = tuple[pd.DataFrame, pd.DataFrame]


class Reader(HTMLParser):
    """What a browser would make of the page: its elements, and the text of each kind of them."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "img", "line", "circle", "br"):
            self._open.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self._open:
            self.text[self._open[-1]][-1] += data

    def closed(self) -> bool:
        return not self._open


@pytest.fixture(scope="module")
def read(hostile_page: Path) -> Reader:
    reader = Reader()
    reader.feed(hostile_page.read_text(encoding="utf-8"))
    reader.close()
    return reader


def test_the_page_is_well_formed_and_has_its_landmarks(read: Reader) -> None:
    assert read.closed()
    tags = [tag for tag, _ in read.elements]
    assert [tags.count(tag) for tag in ("header", "main", "nav", "footer", "h1")] == [1] * 5
    keys = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(keys) == len(set(keys))
    named = [attributes["aria-labelledby"] for _, attributes in read.elements if "aria-labelledby" in attributes]
    assert set(named) <= set(keys)
    targets = [str(attributes["href"])[1:] for tag, attributes in read.elements if tag == "a"]
    assert set(targets) <= set(keys)
    assert all(attributes.get("scope") for tag, attributes in read.elements if tag == "th")
    assert all(attributes.get("alt") for tag, attributes in read.elements if tag == "img")


def test_names_are_text_and_nothing_else(read: Reader) -> None:
    assert read.text["h1"] == [plain(HOSTILE)]
    assert any(plain(HOSTILE_ARM) in text for text in read.text["label"])
    assert len(read.text["script"]) == 3  # the data, the library, the page's own
    assert not any(name.startswith("on") for _, attributes in read.elements for name in attributes)
    assert all(str(a["src"]).startswith("data:image/png") for tag, a in read.elements if tag == "img")
    data = json.loads(read.text["script"][0])  # whole, so nothing in it has ended the element
    assert {each["study"] for each in data["series"]} == {HOSTILE}
    assert {each["arm"] for each in data["series"]} == {"ticket", HOSTILE_ARM}


def test_nothing_is_loaded_from_anywhere(read: Reader) -> None:
    loading = {"src", "srcset", "data", "action", "poster", "background"}
    places = [a[name] for _, a in read.elements for name in a.keys() & loading]
    places += [a["href"] for tag, a in read.elements if "href" in a]
    assert all(str(place).startswith(("data:", "#")) for place in places)
    assert "link" not in [tag for tag, _ in read.elements]
    assert not re.search(r"url\(|@import", "".join(read.text["style"]))
    policy = next(a["content"] for tag, a in read.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in str(policy).split("style-src")[0]


def test_the_same_results_give_the_same_bytes(hostile: Path, hostile_page: Path, tmp_path: Path) -> None:
    again = write_report(tombola.Results.open(hostile), tmp_path / "again.html")
    assert again.read_bytes() == hostile_page.read_bytes()
    shutil.copytree(hostile, tmp_path / "moved")
    moved = write_report(tombola.Results.open(tmp_path / "moved"))
    assert moved == tmp_path / "moved" / "report.html"
    assert moved.read_bytes() == hostile_page.read_bytes()


def test_it_is_small(hostile_page: Path) -> None:
    assert hostile_page.stat().st_size < 1.5e6


def test_a_study_with_nothing_done_has_a_page_too(hostile: Path, tmp_path: Path) -> None:
    folder = tmp_path / "begun"
    (folder / "jobs").mkdir(parents=True)
    shutil.copy(hostile / "study.yaml", folder)
    text = write_report(tombola.Results.open(folder)).read_text()
    assert "The study has no finished run yet." in text
    assert "work items are missing" in text
    assert "data-plot=" not in text.split("<script>")[0]


def test_a_comparison_keeps_studies_of_one_name_apart(hostile: Path, tmp_path: Path) -> None:
    shutil.copytree(hostile, tmp_path / "other")
    studies = [tombola.Results.open(folder) for folder in (hostile, tmp_path / "other")]
    text = write_comparison(studies, tmp_path / "comparison.html").read_text()
    reader = Reader()
    reader.feed(text)
    assert reader.text["h1"] == ["hostile · other"]
    assert "Differing settings" not in text
    changed = (tmp_path / "other" / "study.yaml").read_text().replace("lr: 0.0012", "lr: 0.5")
    (tmp_path / "other" / "study.yaml").write_text(changed)
    studies = [tombola.Results.open(folder) for folder in (hostile, tmp_path / "other")]
    text = write_comparison(studies, tmp_path / "comparison.html").read_text()
    assert re.search(r"training\.lr</th><td>0\.0012</td><td>0\.5</td>", text)


def _renamed(hostile: Path, folder: Path, name: str) -> tombola.Results:
    """Return a copy of the results under another name."""
    shutil.copytree(hostile, folder)
    text = (folder / "study.yaml").read_text()
    settings = YAML(typ="safe").load(text) | {"name": name}
    with (folder / "study.yaml").open("w") as file:
        YAML(typ="safe").dump(settings, file)
    return tombola.Results.open(folder)


def test_studies_whose_names_differ_by_case_are_kept_apart_in_their_order(hostile: Path, tmp_path: Path) -> None:
    names = ["Zeta", "alpha", "zeta"]
    studies = [_renamed(hostile, tmp_path / str(place), name) for place, name in enumerate(names)]
    reader = Reader()
    reader.feed(write_comparison(studies, tmp_path / "comparison.html").read_text())
    assert reader.text["legend"] == names


def test_names_alike_where_they_are_shown_are_numbered(hostile: Path, tmp_path: Path) -> None:
    long = "x" * 45
    studies = [_renamed(hostile, tmp_path / f"{long}{place}", f"{long}{place}") for place in "ab"]
    reader = Reader()
    reader.feed(write_comparison(studies, tmp_path / "comparison.html").read_text())
    assert [text[:5] for text in reader.text["legend"]] == ["1: xx", "2: xx"]


def test_the_margin_is_used_and_printed(hostile: Path, tmp_path: Path) -> None:
    results = tombola.Results.open(hostile)
    text = write_report(results, tmp_path / "wide.html", margin=0.9).read_text()
    assert "The margin is 90 points." in text
    assert "stays within 90 points" in text
    both = write_comparison([results, results], tmp_path / "both.html", margin=0.9).read_text()
    assert both.count("The margin is 90 points.") == 2
    assert "The margin is 0.5 points." in write_report(results, tmp_path / "usual.html").read_text()
    with pytest.raises(InputError, match="margin=5"):
        write_report(results, tmp_path / "wrong.html", margin=5)


def test_the_margin_of_the_study_is_the_default(hostile: Path, tmp_path: Path) -> None:
    results = tombola.Results.open(hostile)
    wide = shutil.copytree(hostile, tmp_path / "wide")
    stated = (wide / "study.yaml").read_text()
    assert "margin: 0.005" in stated  # the demo's
    (wide / "study.yaml").write_text(stated.replace("margin: 0.005", "margin: 0.9"))
    wider = tombola.Results.open(wide)
    assert wider.plan.work.keys() == results.plan.work.keys()  # it changes no run
    assert "The margin is 90 points." in write_report(wider, tmp_path / "wide.html").read_text()
    assert "The margin is 1 points." in write_report(wider, tmp_path / "one.html", margin=0.01).read_text()
    assert wider.verdicts().equals(results.verdicts(margin=0.9))
    with pytest.raises(InputError, match=r"different margins, 0.005 and 0.9: give one for all, such as --margin"):
        write_comparison([results, wider], tmp_path / "both.html")


def test_a_claim_says_when_it_was_stated_and_nothing_where_that_is_unknown(hostile: Path, tmp_path: Path) -> None:
    lines = [
        "{id: early, sentence: s, expression: 'gain(\"ticket\", 0.8) > 0', stated: before the run}",
        "{id: late, sentence: s, expression: 'gain(\"ticket\", 0.8) > 1', stated: after first runs}",
        "{id: unknown, sentence: s, expression: 'gain(\"ticket\", 0.8) > 2'}",
    ]
    claims = read_claims("source: me\nclaims:\n" + "\n".join(f"  - {line}" for line in lines), "own.yaml")
    text = write_report(tombola.Results.open(hostile), tmp_path / "page.html", claims).read_text()
    cells = re.findall(r"<dd>(&gt; .*?)</dd>", text)
    assert cells == [
        "&gt; 0<small>stated before the run</small>",
        "&gt; 1<small>stated after first runs</small>",
        "&gt; 2",
    ]
    assert "stated before the run, and" not in text


def test_the_margin_is_given_on_the_command_line(hostile: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    call = CliRunner().invoke
    told = call(cli, ["report", str(hostile), "-o", str(page), "--margin", "0.02"])
    assert told.exit_code == 0
    assert "within 2 points" in " ".join(told.output.split())
    assert "The margin is 2 points." in page.read_text()
    other = shutil.copytree(hostile, tmp_path / "other")
    assert call(cli, ["compare", str(hostile), str(other), "--out", str(page), "--margin", "0.03"]).exit_code == 0
    assert "The margin is 3 points." in page.read_text()
    assert call(cli, ["report", str(hostile), "--margin", "1"]).exit_code == 2


def test_every_plot_compiles_and_draws_all_arms(make: Callable[..., Tables]) -> None:
    levels, _ = make(trials=3, rounds=5, evaluations=3)
    series = series_of(levels)
    statistics = level_statistics(levels)
    rows = [
        {**row, "series": next(s.key for s in series if s.arm == row["arm"])}
        for row in json.loads(statistics.to_json(orient="records"))
    ]
    figures = density_figures(statistics, series, ACCURACY)
    assert len(figures) == 3
    for figure in figures:
        spec = {**figure.spec, "width": 400, "data": {"name": "statistics", "values": rows}}
        drawn = vl_convert.vegalite_to_svg(spec)
        for each in series:
            assert f'stroke="{each.color}"' in drawn
        assert "NaN" not in drawn
        assert "undefined" not in drawn


def test_series_have_the_looks_of_the_figures_and_of_their_study(make: Callable[..., Tables]) -> None:
    one, _ = make(trials=1, rounds=1, evaluations=2)
    alone = series_of(one)
    assert [each.arm for each in alone] == ["ticket", "reinit", "random-mask", "one-shot", "one-shot-reinit"]
    assert len({each.light for each in alone}) == len({each.dark for each in alone}) == 5
    both = series_of(pd.concat([one, one.assign(study="other")]))
    assert len({each.key for each in both}) == 10
    assert len({each.light for each in both}) == 2
    assert len({(each.light, each.dash, each.shape) for each in both}) == 10
    assert main_arm(["b", "ticket"]) == "ticket"
    assert main_arm(["b", "a"]) == "b"


def test_a_table_keeps_numbers_and_leaves_out_what_is_none() -> None:
    frame = pd.DataFrame(
        {"a": [1, 2], "b": [1 / 3, np.nan], "c": ["x", None], "d": [np.inf, 1e-300], "e": [True, False]}
    )
    found = table("t", "", frame)
    assert found.rows == ((1, 0.333333, "x", None, True), (2, None, None, 1e-300, False))
    assert table("t", "", frame, exact=True).rows[0][1] == 1 / 3
    assert json.loads(json.dumps(found.content()["rows"], allow_nan=False))[1] == [2, None, None, 1e-300, False]
    texts = [typeset(text) for text in differences([0.354, -0.1, 0.0], ACCURACY)]
    assert texts == ["+0.35", "−0.10", "+0.00"]


def _ticket(keep: torch.Tensor, name: str = "fc1.weight") -> Ticket:
    mask = Mask({name: keep})
    start = torch.linspace(-1, 1, keep.numel()).reshape(keep.shape)
    start, final = (mask.apply({name: values}) for values in (start, 2 * start))
    return Ticket(mask=mask, weights=start, trained=final, normalisation={"mean": [0.0], "std": [1.0]}, origin={})


def _pixels(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1]))))


def test_the_input_mask_counts_the_weights_of_each_pixel() -> None:
    keep = torch.zeros(4, 2 * 2 * 3, dtype=torch.bool)  # two channels of 2 x 3 pixels
    keep[:, 0] = True  # 4 weights at (0, 0)
    keep[:2, 5] = True  # 2 at (1, 2), and in the other channel one more
    keep[3, 6 + 5] = True
    (picture,) = input_pictures({3: _ticket(keep)}, "fc1.weight", (2, 2, 3), {3: 0.25}).pictures
    assert (picture.width, picture.height, picture.level) == (3, 2, 3)
    assert picture.text == "25.0 % of the weights: 0 to 4 weights per pixel, 4 of 6 pixels unused"  # of the network
    brightness = _pixels(picture.source)[..., :3].astype(int).sum(axis=2)
    assert brightness.shape == (2, 3)
    assert brightness[0, 0] > brightness[1, 2] > brightness[0, 1] == brightness[1, 0]


def test_filters_of_a_convolution_are_tiles() -> None:
    keep = torch.ones(5, 3, 2, 2, dtype=torch.bool)  # five filters over three channels: 3 x 2 tiles of 2 x 2
    keep[1] = False
    keep[4, :2, 1, 0] = False
    (picture,) = input_pictures({1: _ticket(keep)}, "fc1.weight", (3, 8, 8), {1: 0.5}).pictures
    assert picture.text.endswith("0 to 3 weights per place, 1 of 5 filters unused")
    pixels = _pixels(picture.source).astype(int)
    assert pixels.shape == (5, 8, 4)
    opaque = pixels[..., 3] == 255
    assert opaque.sum() == 5 * 4
    assert not opaque[2].any()  # the gap between the rows of tiles
    brightness = pixels[..., :3].sum(axis=2)
    assert (brightness[:2, 3:5] == brightness[opaque].min()).all()
    assert brightness[0, 0] > brightness[4, 3] > brightness[0, 3]


def test_inputs_that_are_no_images_have_no_picture() -> None:
    found = input_pictures({1: _ticket(torch.ones(4, 7, dtype=torch.bool))}, "fc1.weight", (7,), {1: 0.5})
    assert not found.pictures
    assert "not images" in found.about


def test_histograms_hold_every_kept_weight_once() -> None:
    keep = torch.rand(30, 40, generator=torch.Generator().manual_seed(0)) < 0.3
    found = weight_histograms({2: _ticket(keep)}, {2: 0.5})
    assert set(found["density"]) == {0.5}  # of the whole network, not of the mask
    for snapshot, rows in found.groupby("snapshot"):
        assert rows["weights"].sum() == int(keep.sum()), snapshot
        assert rows["share"].sum() == pytest.approx(1)
    wide = found.groupby("snapshot").apply(lambda rows: (rows["left"].abs() * rows["share"]).sum())
    assert wide["final"] == pytest.approx(
        2 * wide["start"], rel=0.1
    )  # bins are shared, so the doubled are twice as wide


COMMANDS = {
    "lenet-mnist": [],
    "demo": ["trials=2", "training.lr=0.02", "arms=[ticket, {reinit: {per_trial: 3}}, {rule: reinit, name: a b}]"],
    "lenet-mnist-global": ["pruning.exclude=[output]", "rewind=500", "network.init=glorot-normal"],
}


@pytest.mark.parametrize("preset", COMMANDS)
def test_the_command_gives_the_same_study(preset: str) -> None:
    import shlex

    study = load_study(preset, assignments=COMMANDS[preset])
    program, run, name, *changes = shlex.split(command(study))
    assert [program, run, name] == ["tombola", "run", preset]
    assert load_study(name, assignments=changes) == study
    assert len(changes) == len(COMMANDS[preset])


def test_a_study_of_ones_own_is_repeated_from_its_file() -> None:
    assert command(load_study("demo", {"name": "mine"})) == "tombola run study.yaml"


def test_a_page_names_a_data_file_without_its_folder(tmp_path) -> None:
    from tombola.studies import load_study

    data = {"source": "npz", "path": str(tmp_path / "secret" / "my.npz"), "validation": 5}
    for name in ("mine", "demo"):
        study = load_study("demo", {"data": data, "name": name})
        assert "secret" not in command(study)
        assert study.without_folder().data.path == "my.npz"
    assert "data.path=my.npz" in command(study)
    preset = load_study("conv2-cifar10-10k")
    assert command(preset) == "tombola run conv2-cifar10-10k"


def test_of_several_rewinds_the_first_ticket_is_what_others_are_compared_with() -> None:
    assert main_arm(["snip", "ticket@50", "ticket@0"]) == "ticket@50"
    assert main_arm(["reinit", "ticket"]) == "ticket"
    assert main_arm(["snip", "ticketed"]) == "snip"
