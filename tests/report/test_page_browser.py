"""The report in a real browser: it draws, asks for nothing, reacts to its controls, and does not run what names say."""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_names import HOSTILE, HOSTILE_ARM
from page_tables import tables_of

import tombola
from tombola.formatting import plain
from tombola.html.write import write_comparison

selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install 'tombola[test]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="no Chromium with its driver here: apt-get install chromium chromium-driver"
    ),
]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run --disable-dev-shm-usage --window-size=1280,900"
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("browser")
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={folder / 'profile'}"]:
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(folder / "downloads")})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = selenium.Chrome(options=options, service=selenium.ChromeService(DRIVER))
    browser.downloads = folder / "downloads"
    yield browser
    browser.quit()


@pytest.fixture
def page(driver: Any, hostile_page: Path) -> Any:
    """The report of the hostile study, drawn."""
    opened(driver, hostile_page)
    return driver


def opened(driver: Any, path: Path) -> None:
    driver.get_log("browser")
    driver.get_log("performance")
    driver.get(path.as_uri())
    wait(lambda: driver.execute_script("return document.documentElement.classList.contains('drawn')"))


def wait(done: Callable[[], object], seconds: float = 15) -> Any:
    until = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < until, "it does not happen"
        time.sleep(0.05)
    return found


def messages(driver: Any) -> list[str]:
    return [entry["message"] for entry in driver.get_log("browser")]


def requests(driver: Any, page: str) -> list[str]:
    """Return what a page has asked for, itself included."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [request["request"]["url"] for request in sent if request["documentURL"] == page]


def svg(driver: Any, plot: str) -> list[str]:
    """Return the elements of a plot; after a change and back, Vega has them in another order."""
    text = driver.execute_script("return document.querySelector(arguments[0]).outerHTML", f"[data-plot={plot}] svg")
    return sorted(text.split("<"))


def click(driver: Any, selector: str) -> None:
    driver.execute_script("document.querySelector(arguments[0]).click()", selector)


def plots(driver: Any) -> list[str]:
    return driver.execute_script("return [...document.querySelectorAll('[data-plot]')].map(e => e.dataset.plot)")


def test_every_plot_is_drawn_without_an_error_or_a_request(page: Any, hostile_page: Path) -> None:
    drawn = plots(page)
    assert {"early-stop-test-accuracy", "early-stop-iteration", "gains", "curves-at-level", "layers"} <= set(drawn)
    for plot in drawn:
        marks = "return document.querySelectorAll(arguments[0]).length"
        selector = f"[data-plot={plot}] svg .mark-line path, [data-plot={plot}] svg .mark-symbol path"
        assert page.execute_script(marks, selector) > 0, plot
    assert messages(page) == []
    asked = requests(page, hostile_page.as_uri())
    assert [address for address in asked if not address.startswith("data:")] == [hostile_page.as_uri()]


def test_names_are_shown_and_not_run(page: Any) -> None:
    assert page.title.startswith(plain(HOSTILE))
    assert page.execute_script("return document.querySelector('h1').textContent") == plain(HOSTILE)
    labels = page.execute_script(
        "return [...document.querySelectorAll('#controls .chip')].map(e => e.textContent.trim())"
    )
    assert plain(HOSTILE_ARM) in labels
    for plot in plots(page):  # an arm's name in the tooltip of each of its points too
        page.execute_script(
            "document.querySelectorAll(arguments[0]).forEach(e => e.dispatchEvent(new MouseEvent('pointermove', "
            "{bubbles: true, clientX: e.getBoundingClientRect().x, clientY: e.getBoundingClientRect().y})))",
            f"[data-plot={plot}] svg .mark-symbol path",
        )
    assert page.execute_script("return window.hacked") is None
    assert page.execute_script("return document.querySelectorAll('img[src=x], b').length") == 0
    assert messages(page) == []


def test_a_tooltip_tells_the_values(page: Any) -> None:
    page.execute_script(
        "const e = document.querySelector('[data-plot=early-stop-test-accuracy] svg .mark-symbol path');"
        "const r = e.getBoundingClientRect();"
        "e.dispatchEvent(new MouseEvent('pointermove', {bubbles: true, clientX: r.x, clientY: r.y}))"
    )
    text = wait(
        lambda: page.execute_script("return document.querySelector('#vg-tooltip-element.visible')?.textContent")
    )
    assert "trials2" in text
    assert "95 % interval" in text


def test_an_arm_is_taken_out_of_every_plot_and_put_back(page: Any) -> None:
    first = {plot: svg(page, plot) for plot in ("early-stop-test-accuracy", "early-stop-iteration", "curves-at-level")}
    box = "#controls input[value=s1]"
    click(page, box)
    for plot, before in first.items():
        wait(lambda plot=plot, before=before: svg(page, plot) != before)
        assert "var(--s1)" not in "".join(svg(page, plot))
        assert "var(--s0)" in "".join(svg(page, plot))
    click(page, box)
    for plot, before in first.items():
        wait(lambda plot=plot, before=before: svg(page, plot) == before)
    assert messages(page) == []


def test_zoom_and_choices_change_their_plot(page: Any) -> None:
    for control, plot in (("#layers [data-zoom=in]", "layers"), ("#gains [data-zoom=in]", "gains")):
        before = svg(page, plot)
        click(page, control)
        wait(lambda plot=plot, before=before: svg(page, plot) != before)
        click(page, control.replace("=in", "=reset"))
        wait(lambda plot=plot, before=before: svg(page, plot) == before)
    before = svg(page, "curves-at-level")
    page.execute_script(
        "const s = document.querySelector('#curves-at-level [data-signal=level]');"
        "s.selectedIndex = (s.selectedIndex + 1) % s.options.length; s.dispatchEvent(new Event('change'))"
    )
    wait(lambda: svg(page, "curves-at-level") != before)
    assert messages(page) == []


def test_the_results_can_be_saved_as_csv(page: Any, hostile: Path) -> None:
    expected = tombola.Results.open(hostile).frame()
    click(page, "[data-download=results]")
    path = page.downloads / "results.csv"
    wait(path.exists)
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == list(expected.columns)
    assert len(rows) == len(expected) > 0
    assert [row[0] for row in rows] == [HOSTILE] * len(rows)
    for column in ("density", "early_stop_test_accuracy", "seconds"):
        saved = [float(row[header.index(column)]) for row in rows]
        assert saved == expected[column].astype(float).tolist()  # to the last digit


def test_it_fits_a_phone(driver: Any, hostile_page: Path) -> None:
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        opened(driver, hostile_page)
        assert driver.execute_script("return document.documentElement.scrollWidth") == 390
        widest = (
            "return Math.max(...[...document.querySelectorAll('.plot svg')].map(e => e.getBoundingClientRect().right))"
        )
        assert driver.execute_script(widest) <= 390
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_comparison_is_drawn(driver: Any, hostile: Path, tmp_path: Path) -> None:
    shutil.copytree(hostile, tmp_path / "other")
    studies = [tombola.Results.open(folder) for folder in (hostile, tmp_path / "other")]
    opened(driver, write_comparison(studies, tmp_path / "comparison.html"))
    assert driver.execute_script("return document.querySelectorAll('#controls input[name=series]').length") == 4
    drawn = "".join(svg(driver, "early-stop-test-accuracy"))
    assert all(f"var(--s{number})" in drawn for number in range(4))
    assert driver.execute_script("return window.hacked") is None
    assert messages(driver) == []


def test_the_answer_and_its_chart_are_above_the_fold(driver: Any, hostile_page: Path) -> None:
    size = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        opened(driver, hostile_page)
        bottom = "return document.querySelector(arguments[0]).getBoundingClientRect().bottom"
        for part in (".answer", ".numbers", "[data-plot=answer] svg", "#reason"):
            assert 0 < driver.execute_script(bottom, part) <= 800, part
        # The same page with a name and a description of usual lengths has room for the links below the chart.
        short = "document.querySelector(arguments[0]).textContent = arguments[1]"
        driver.execute_script(short, "h1", "lenet-mnist")
        driver.execute_script(short, ".lead", "A small network on scikit-learn's 8x8 digits; minutes on a laptop")
        driver.execute_script(short, ".legend", "ticket, reinit, random-mask, one-shot, one-shot-reinit")
        assert 700 < driver.execute_script(bottom, "nav") <= 800
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_reason_of_a_verdict_appears_by_keyboard_and_by_pointer(page: Any, hostile_page: Path) -> None:
    rows = tables_of(hostile_page.read_text(encoding="utf-8"))["verdicts"]
    place = {name: rows["columns"].index(name) for name in ("arm", "level", "verdict", "reason")}
    reasons = {row[place["level"]]: row[place["reason"]] for row in rows["rows"] if row[place["arm"]] == "ticket"}
    text = "return document.getElementById('reason').textContent"
    page.execute_script("document.querySelector('.steps').focus()")
    press = "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0], bubbles: true}))"
    for key, level in (("Home", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 3)):
        page.execute_script(press, key)
        said = page.execute_script(text)
        assert (reasons[level][1:] in said) if level else ("the dense network" in said), key
    page.execute_script(
        "const tiles = document.querySelectorAll('[data-plot=answer] svg .mark-rect');"
        "const bar = tiles[tiles.length - 1].querySelectorAll('path')[2], r = bar.getBoundingClientRect();"
        "bar.dispatchEvent(new PointerEvent('pointermove', {bubbles: true, clientX: r.x + 3, clientY: r.y + 3}))"
    )
    wait(lambda: reasons[2][1:] in page.execute_script(text))
    assert messages(page) == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(driver: Any, hostile_page: Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_core_python", reason="axe-core is not installed: pip install 'tombola[test]'")
    scheme_of = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme_of)
    driver.set_script_timeout(60)
    try:
        opened(driver, hostile_page)
        driver.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
        driver.execute_script((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
        found = driver.execute_async_script("axe.run(document).then(arguments[0])")
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
    assert len(found["passes"]) > 30
