"""The page in a real browser: what it draws, asks for, complains about and how wide it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.report.browser import Browser
from tests.report.samples import make_snapshot
from tests.report.test_page import hostile_snapshot
from tuner.report import write_report

pytestmark = pytest.mark.slow

DRAWN = "Number(document.documentElement.dataset.drawn) === document.querySelectorAll('.canvas').length"


@pytest.fixture(scope="module")
def browser(require_tool: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = require_tool("chromium", "chromium-browser", "google-chrome")
    with Browser(executable, profile=tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(make_snapshot(), tmp_path_factory.mktemp("report") / "report.html")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_is_drawn_without_a_complaint_or_a_request(browser: Browser, report: Path, width: int, dark: bool) -> None:
    browser.view(width=width, dark=dark)
    browser.open(report.as_uri(), until=DRAWN)
    assert browser.errors() == []
    assert browser.requests() == []
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    # Every figure has its marks: scatter points, lines, bars or cells.
    marks = "[...document.querySelectorAll('.canvas')].map(c => c.querySelectorAll('.point, .js-line, .hm image, .shapelayer path').length)"
    counts = browser.evaluate(marks)
    assert len(counts) == 13
    assert min(counts) > 0
    inside = "[...document.querySelectorAll('.canvas')].every(c => c.querySelector('.main-svg').getBoundingClientRect().width <= c.clientWidth + 1)"
    assert browser.evaluate(inside)
    background = browser.evaluate("getComputedStyle(document.querySelector('section')).backgroundColor")
    assert background == ("rgb(20, 25, 31)" if dark else "rgb(255, 255, 255)")
    ink = browser.evaluate("document.querySelector('.canvas .legendtext').style.fill")
    assert ink == ("rgb(232, 235, 238)" if dark else "rgb(28, 33, 39)")


def test_the_figures_follow_a_change_of_scheme(browser: Browser, report: Path) -> None:
    browser.view(width=1280)
    browser.open(report.as_uri(), until=DRAWN)
    browser.view(width=1280, dark=True)
    browser.wait("document.querySelector('.canvas .legendtext').style.fill === 'rgb(232, 235, 238)'")
    assert browser.errors() == []


def test_tables_are_sorted_by_mouse_and_keyboard(browser: Browser, report: Path) -> None:
    browser.view(width=1280)
    browser.open(report.as_uri(), until=DRAWN)
    read = "[...document.querySelectorAll('#trials tbody tr')].map(row => row.cells[3].dataset.key).filter(key => key !== '').map(Number)"
    button = "document.querySelectorAll('#trials th button')[3]"
    browser.evaluate(f"{button}.click()")
    falling = browser.evaluate(read)
    assert falling == sorted(falling, reverse=True)
    browser.evaluate(f"{button}.focus()")
    for kind in ("keyDown", "keyUp"):
        key = {"type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        browser.send("Input.dispatchKeyEvent", key)
    rising = browser.evaluate(read)
    assert rising == sorted(falling)
    assert browser.evaluate(f"{button}.parentNode.getAttribute('aria-sort')") == "ascending"
    last = browser.evaluate("[...document.querySelectorAll('#trials tbody tr')].at(-1).cells[3].dataset.key")
    assert last == ""  # rows without a value stay at the end


def test_hostile_texts_run_nothing(browser: Browser, tmp_path: Path) -> None:
    report = write_report(hostile_snapshot(), tmp_path / "hostile.html")
    browser.view(width=390)
    browser.open(report.as_uri(), until=DRAWN)
    assert browser.errors() == []
    assert browser.requests() == []
    assert not [event for event in browser.events if event["method"] == "Page.javascriptDialogOpening"]
    assert browser.evaluate("document.querySelectorAll('img, a').length") == 0
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_it_prints_light_and_inside_the_paper(browser: Browser, report: Path) -> None:
    browser.view(width=1280, dark=True)
    browser.open(report.as_uri(), until=DRAWN)
    browser.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    browser.wait("document.querySelector('.canvas .legendtext').style.fill === 'rgb(28, 33, 39)'")
    widths = browser.evaluate("[...document.querySelectorAll('.canvas .main-svg')].map(svg => svg.clientWidth)")
    assert max(widths) <= 640
    browser.evaluate("window.dispatchEvent(new Event('afterprint'))")
    browser.wait("document.querySelector('.canvas .legendtext').style.fill === 'rgb(232, 235, 238)'")
