"""The report in a real browser: it is whole, it answers, and it fits every screen."""

import dataclasses
import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from alexnet_jax import recipes, report
from alexnet_jax.mesh import make_mesh
from alexnet_jax.networks import network

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no chromium here (Debian: apt install chromium)"
)


@pytest.fixture(scope="module")
def file(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page about two runs: one, and the same under other names."""
    first = report.gather(digits_run, make_mesh(network("digits"), devices=1))
    other = recipes.load("digits", {"optimizer.learning_rate": 0.5})
    rows = [{**row, "top1_error": 0.5} if "loss" in row else row for row in first.rows]
    second = dataclasses.replace(
        first, path=Path("runs/second"), recipe=other, rows=rows
    )
    folder = tmp_path_factory.mktemp("page")
    return report.write([first, second], folder / "report.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield browser
        browser.close()


@pytest.fixture
def said() -> list[str]:
    """What the browser complained of or asked for."""
    return []


@pytest.fixture
def page(browser: Browser, file: Path, said: list[str]) -> Iterator[Page]:
    """The page, its charts drawn; whatever it asks for is told."""
    context = browser.new_context(viewport={"width": 1100, "height": 800})
    page = context.new_page()
    page.on("console", lambda told: said.append(f"{told.type}: {told.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("request", lambda asked: said.append(f"request: {asked.url[:100]}"))
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-charts='2']")
    yield page
    context.close()


def until(page: Page, condition: Callable[[], bool]) -> None:
    """Wait a moment for what the page does in its own time."""
    for _ in range(100):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it never came")


def tips(page: Page) -> str:
    """Return what all tooltips say."""
    return " ".join(page.locator(".tip:not([hidden])").all_inner_texts())


def point_at(page: Page, chart: str, across: float) -> str:
    """Point into a chart; return what its tooltip says, once it says something."""
    place = page.locator(chart)
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    assert box is not None
    y, nudges = box["y"] + 0.5 * box["height"], itertools.count()

    def answers() -> bool:  # not before it is drawn
        x = box["x"] + across * box["width"] + next(nudges) % 2
        page.mouse.move(x, y)
        return bool(tips(page))

    until(page, answers)
    return tips(page)


def shown(page: Page) -> list[list[bool]]:
    """Tell of each chart which curves are to be seen."""
    found: Any = page.evaluate(
        "Bokeh.documents.flatMap(d => d.roots())"
        ".map(chart => chart.renderers.map(curve => curve.visible))"
    )
    return found


def test_it_is_whole_and_quiet(page: Page, said: list[str], file: Path):
    for details in page.locator("details").all():
        details.evaluate("folded => folded.open = true")
    page.mouse.wheel(0, 20_000)
    page.wait_for_timeout(200)
    asked = [line for line in said if line.startswith("request: ")]
    told = [line for line in said if line.startswith(("error", "warning"))]
    inside = ("request: data:", f"request: {file.as_uri()}")
    assert not told
    assert [line for line in asked if not line.startswith(inside)] == []
    assert asked
    # Nor could it: what it asks another host for is refused.
    refused = page.evaluate(
        """() => new Promise(told => {
            document.addEventListener(
                'securitypolicyviolation', event => told(event.effectiveDirective));
            fetch('https://example.com').catch(() => setTimeout(told, 500));
        })"""
    )
    assert refused == "connect-src"
    broken = page.evaluate(
        "[...document.images].filter(image => !image.naturalWidth).length"
    )
    assert broken == 0


def test_curves_answer_and_can_be_hidden(page: Page):
    told = point_at(page, "#chart-errors", 0.9)
    for words in ("digits-1, training", "second, training", "digits-1, test", "epoch"):
        assert words in told
    assert "50%" in told  # the second run's, as it was made
    everything = shown(page)
    assert all(map(all, everything))
    page.get_by_label("second").first.uncheck()
    hidden = shown(page)
    assert [sum(curves) * 2 for curves in hidden] == list(map(len, everything))
    told = point_at(page, "#chart-errors", 0.8)
    assert "digits-1, training" in told
    assert "second" not in told
    page.get_by_label("training", exact=True).uncheck()
    assert sum(map(sum, shown(page))) < sum(map(sum, hidden))
    page.get_by_label("second").first.check()
    page.get_by_label("training", exact=True).check()
    assert shown(page) == everything


def test_a_finger_gets_the_values_too(browser: Browser, file: Path):
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True
    )
    page = context.new_page()
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-charts='2']")

    def answers() -> bool:
        page.locator("#chart-losses").tap()
        return bool(tips(page))

    until(page, answers)
    assert "second, training" in tips(page)
    context.close()


def test_the_keyboard_reaches_everything(page: Page):
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "(e => e.dataset.run ?? e.dataset.kind ?? e.getAttribute('href')"
                " ?? e.tagName)(document.activeElement)"
            )
        )
        if reached[-1] == "0" and reached.count("0") == 1:  # the first run's box
            page.keyboard.press("Space")
    for control in ("#result", "#curves", "0", "1", "evaluation", "training"):
        assert control in reached
    assert "SUMMARY" in reached  # the numbers as a table, what is folded away
    assert not page.get_by_label("digits-1").first.is_checked()
    assert not all(map(all, shown(page)))
    assert "DIV" in reached  # the charts, whose values the arrow keys read
    page.locator("#chart-errors .bk-events").focus()
    page.keyboard.press("ArrowRight")
    assert "second, test" in tips(page)


@pytest.mark.parametrize("width", [360, 1400])
def test_nothing_is_wider_than_the_screen(page: Page, width: int):
    page.set_viewport_size({"width": width, "height": 740})
    for details in page.locator("details").all():
        details.evaluate("folded => folded.open = true")
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    chart = page.locator("#chart-errors canvas").first.bounding_box()
    assert chart is not None
    assert 200 < chart["width"] <= width


def test_dark_and_light(page: Page):
    axis = "Bokeh.documents[0].roots()[0].below[0].major_label_text_color"
    body = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    light: Any = page.evaluate(f"[{body}, {axis}]")
    page.emulate_media(color_scheme="dark")
    until(page, lambda: page.evaluate(axis) != light[1])
    assert page.evaluate(body) != light[0]
