"""The detailed results in Chromium: it fits a phone, is readable in light and dark, and requests nothing."""

import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers import load_module

pytestmark = pytest.mark.integration

stages = load_module(Path(__file__).with_name("stages.py"), "stages")
CASES, HOSTILE, MISTAKES = stages.CASES, stages.HOSTILE, stages.MISTAKES
CHECKS, FAILED_CHECK = stages.CHECKS, stages.FAILED_CHECK
Submitted, lay_out, synthetic = stages.Submitted, stages.lay_out, stages.synthetic


def chromium():
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """Chromium without a window, controlled over two pipes. Each command and answer is JSON that ends with NUL."""

    def __init__(self, program, folder):
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        high = [fcntl.fcntl(number, fcntl.F_DUPFD, 100) for number in (theirs_in, theirs_out)]

        def connect_pipes():
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        flags = [
            *(
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--mute-audio",
            ),
            *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--remote-debugging-pipe", f"--user-data-dir={folder}"),
        ]
        self.process = subprocess.Popen(
            [program, *flags, "about:blank"],
            preexec_fn=connect_pipes,
            pass_fds=(3, 4),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(folder)},  # also for its folder of certificates
            start_new_session=True,
        )
        for number in (theirs_in, theirs_out, *high):
            os.close(number)
        self._kept, self._number, self._session, self.events = b"", 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{part}.enable")

    def call(self, method, **parameters):
        """Sends a command and waits for its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            self.events.append(answer)
        assert "result" in answer, answer
        return answer["result"]

    def _read(self):
        while b"\0" not in self._kept:
            ready, _, _ = select.select([self._from], [], [], 30)
            data = os.read(self._from, 1 << 20) if ready else b""
            assert data, "the browser does not answer"
            self._kept += data
        message, self._kept = self._kept.split(b"\0", 1)
        return json.loads(message)

    def show(self, path, width, scheme="light"):
        """Loads a file and waits for its load event. `events` then has what happened meanwhile."""
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=phone)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events = []
        self.call("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def value(self, expression):
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"]["value"]

    def requests(self):
        """Addresses of everything that the page requested, except data in the page itself."""
        urls = [
            event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith("data:")]

    def messages(self):
        """What the browser would print to its console."""
        kinds = (
            "Log.entryAdded",
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Page.javascriptDialogOpening",
        )
        return [event for event in self.events if event["method"] in kinds]

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._to)
        os.close(self._from)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = chromium()
    if not program:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH")
    browser = Browser(program, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def luminance(color):
    """Relative luminance of "rgb(r, g, b)" (WCAG 2)."""
    parts = np.array([int(number) for number in re.findall(r"\d+", color)[:3]]) / 255
    return float(np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


# Elements beyond the page's right edge that are not inside of something that scrolls.
BEYOND = """
[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') && !e.closest('svg')
  && e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map(e => e.tagName + ' ' + e.textContent.slice(0, 60))
"""

# Texts of diagrams that are cut off at the diagram's edge.
CUT_OFF = """
[...document.querySelectorAll('svg text')].filter(e => e.textContent && (e.getBBox().x < 0
  || e.getBBox().x + e.getBBox().width > e.ownerSVGElement.viewBox.baseVal.width
  || e.getBBox().y + e.getBBox().height > e.ownerSVGElement.viewBox.baseVal.height)).map(e => e.textContent)
"""


def assert_fits(browser, width):
    """Asserts that the page requests nothing, logs nothing, and is not wider than the screen."""
    assert [url for url in browser.requests() if not url.startswith("file:")] == []
    assert len(browser.requests()) == 1
    assert browser.messages() == []
    assert browser.value("innerWidth") == width
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(BEYOND) == []


@pytest.mark.parametrize("width", [390, 1000])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_and_is_readable(score, tmp_path, browser, scheme, width):
    stage = lay_out(tmp_path, Submitted(*synthetic()))
    page = stage.run(score)
    browser.show(stage.page, width, scheme)
    assert_fits(browser, width)
    assert browser.value("document.querySelectorAll('[data-score]').length") == len(page.numbers())
    assert browser.value("[...document.images].every(i => i.complete && i.naturalWidth == 48)")
    assert browser.value("document.images.length") == MISTAKES
    paper = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (luminance(paper) > 0.5) == (scheme == "light")
    for selector in ("body", ".big", ".pass", "th", ".soft"):
        ink = browser.value(f"getComputedStyle(document.querySelector('{selector}')).color")
        assert contrast(ink, paper) >= 4.5, selector


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_failed_check_is_readable(score, tmp_path, browser, scheme):
    stage = lay_out(tmp_path, Submitted(*synthetic(), checks=[*CHECKS, FAILED_CHECK]))
    stage.run(score, code=1)
    browser.show(stage.page, 390, scheme)
    assert_fits(browser, 390)
    paper = browser.value("getComputedStyle(document.body).backgroundColor")
    for selector in (".refusal", ".pass", ".fail"):
        ink = browser.value(f"getComputedStyle(document.querySelector('{selector}')).color")
        assert contrast(ink, paper) >= 4.5, selector


@pytest.mark.parametrize("width", [390, 1000])
def test_page_without_single_images_fits(score, tmp_path, browser, width):
    stage = lay_out(tmp_path, Submitted(*synthetic(), show_mistakes=False))
    stage.run(score)
    browser.show(stage.page, width)
    assert_fits(browser, width)
    assert browser.value("document.images.length") == 0


# The number of lines of each verdict.
LINES_OF_VERDICTS = """
[...document.querySelectorAll('.pass, .fail')].map(e => {
  const range = document.createRange()
  range.selectNodeContents(e)
  return range.getClientRects().length
})
"""

# For each cell of the confusion matrix with a number in it: its color with opacity, and the color of the number.
CELLS = """
[...document.querySelectorAll('.matrix td')].filter(cell => cell.textContent).map(cell => {
  const style = getComputedStyle(cell)
  return [style.backgroundColor, style.color]
})
"""


def blended(color, paper):
    """A color "rgba(r, g, b, a)" over one "rgb(r, g, b)"."""
    *_, opacity = map(float, re.findall(r"[\d.]+", color))
    both = zip(re.findall(r"\d+", color)[:3], re.findall(r"\d+", paper)[:3], strict=True)
    return "rgb({:.0f}, {:.0f}, {:.0f})".format(
        *(opacity * int(over) + (1 - opacity) * int(under) for over, under in both)
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("case", ["mixed", "all right", "all wrong"])
def test_numbers_of_the_confusion_matrix_are_readable(score, tmp_path, browser, scheme, case):
    """Also on the darkest cells, which have all images of a class."""
    stage = lay_out(tmp_path, Submitted(*CASES[case]))
    stage.run(score)
    browser.show(stage.page, 1000, scheme)
    paper = browser.value("getComputedStyle(document.body).backgroundColor")
    cells = browser.value(CELLS)
    assert len(cells) >= 8
    assert all(color.startswith("rgba(") for color, _ in cells)
    assert min(contrast(ink, blended(color, paper)) for color, ink in cells) >= 4.5


@pytest.mark.parametrize("classes", [2, 8, 12])
def test_diagrams_are_not_cut_off(score, tmp_path, browser, classes):
    labels = np.arange(60) % classes
    probabilities = np.eye(classes, dtype=np.float32)[labels]
    stage = lay_out(
        tmp_path, Submitted(labels, labels, probabilities, names=[f"Species {number + 1}" for number in range(classes)])
    )
    stage.run(score)
    browser.show(stage.page, 1000)
    assert browser.value(CUT_OFF) == []


LONG_NAMES = "God-Morgon-Orange-Red-Grapefruit-Juice-{}"

# Of the area of the matrix: its width and height, and those of what scrolls in it.
SIZES = """
(() => { const area = document.querySelector('.matrix').parentElement
  return [area.clientWidth, area.clientHeight, area.scrollWidth, area.scrollHeight] })()
"""

# After scrolling to the last cell: how far the heads of its row and column, and the cell, are from the area's edges.
SCROLLED = """
(() => { const table = document.querySelector('.matrix'), area = table.parentElement, last = table.rows.length - 1
  area.scrollTo(area.scrollWidth, area.scrollHeight)
  const box = e => e.getBoundingClientRect(), outer = box(area)
  const right = outer.left + area.clientWidth, bottom = outer.top + area.clientHeight
  const row = box(table.rows[last].cells[0]), column = box(table.rows[0].cells[last])
  const cell = box(table.rows[last].cells[last])
  return [row.left - outer.left, column.top - outer.top, right - cell.right, bottom - cell.bottom,
    cell.left - row.right, cell.top - column.bottom] })()
"""

# Texts of the table of confusions, of the classes and of the mistakes that stick out of their areas.
STICK_OUT = """
[...document.querySelectorAll('.classes th, .classes td, .texts th, .texts td')].filter(e => {
  const area = e.closest('.scroll').getBoundingClientRect(), cell = e.getBoundingClientRect()
  return cell.left < area.left - 0.5 || cell.right > area.right + 0.5 || e.scrollWidth > e.clientWidth + 1
}).map(e => e.textContent)
"""


def many(classes):
    """A submission of many classes with long names, with files, mistakes and probabilities."""
    labels = np.arange(classes * 5) % classes
    predictions = np.where(np.arange(len(labels)) % 4 == 0, (labels + 7) % classes, labels)
    probabilities = np.full((len(labels), classes), 0.2 / (classes - 1), np.float32)
    probabilities[np.arange(len(labels)), predictions] = 0.8
    return Submitted(labels, predictions, probabilities, [LONG_NAMES.format(number) for number in range(classes)])


@pytest.mark.parametrize("width", [390, 1000])
@pytest.mark.parametrize("classes", [8, 31, 200])
def test_many_classes_fit_and_the_matrix_scrolls_below_its_heads(score, tmp_path, browser, classes, width):
    stage = lay_out(tmp_path, many(classes))
    files = [f"{LONG_NAMES.format(0)}/a_photograph_{number:05d}.jpg" for number in range(classes * 5)]
    (stage.thumbnails.parent / "files.txt").write_text("".join(f"{name}\n" for name in files))
    stage.run(score)
    browser.show(stage.page, width)
    assert_fits(browser, width)
    assert browser.value(STICK_OUT) == []
    wide, high, scroll_wide, scroll_high = browser.value(SIZES)
    assert wide <= width
    assert high <= 0.85 * 800
    assert (scroll_wide > wide) == (classes > 8)
    assert (scroll_high > high) == (classes > 8)
    left, top, right, bottom, beside, below = browser.value(SCROLLED)
    assert max(map(abs, (left, top))) <= 1  # the heads stay
    assert min(right, bottom, beside, below) >= -1  # the last cell is reached, and is not below the heads


def test_verdict_is_one_line(score, tmp_path, browser):
    checks = [
        {"name": "independence of neighbors", "passed": passed, "reason": "a reason " * 30, "fix": ""}
        for passed in (True, False)
    ]
    stage = lay_out(tmp_path, Submitted(*synthetic(), checks=checks))
    stage.run(score, code=1)
    browser.show(stage.page, 390)
    assert browser.value(LINES_OF_VERDICTS) == [1, 1]
    assert_fits(browser, 390)


@pytest.mark.parametrize("width", [390, 1000])
def test_hostile_names_are_shown_as_text(score, tmp_path, browser, width):
    stage = lay_out(tmp_path, Submitted(*synthetic(share=0.5), names=HOSTILE))
    stage.run(score)
    browser.show(stage.page, width)
    assert browser.value("document.title") == "Detailed results"
    assert browser.value("document.scripts.length") == 0
    assert browser.value("document.querySelectorAll('li img').length") == MISTAKES
    assert_fits(browser, width)


def test_refusal_is_shown(score, tmp_path, browser):
    long = "a_reason_without_a_blank_" * 30
    stage = lay_out(
        tmp_path, Submitted(*synthetic(), checks=[{"name": "n" * 100, "passed": False, "reason": long, "fix": long}])
    )
    (stage.result / "predictions.txt").unlink()
    stage.run(score, code=1)
    browser.show(stage.page, 390, "dark")
    assert f"Not scored: failed checks: {'n' * 100}." in browser.value("document.body.innerText")
    assert_fits(browser, 390)
