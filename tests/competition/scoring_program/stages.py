"""What the scoring program's tests share: synthetic predictions, the stage's folders, and a parsed page of results."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from helpers import NAMES
from PIL import Image

MISTAKES = 15  # shown on the page
VOID = {"meta", "link", "br", "img"}
CHECKS = [
    {"name": "size", "passed": True, "reason": "43.7 of 300 MB", "fix": ""},
    {"name": "row permutation", "passed": True, "reason": "0.2 s", "fix": ""},
]
FAILED_CHECK = {
    "name": "repeatability",
    "passed": False,
    "reason": "a second call returns other predictions",
    "fix": "predict each row on its own",
}
USED = {"images": 200, "seconds": 3.21, "peak_mb": 1234}
HOSTILE = (
    '<script>document.title = "owned"</script>',
    "\"quoted\" & 'quoted' &amp; <b>bold</b>",
    "<img src=http://example.com/a.png onerror=alert(1)>",
    "</svg></table></ul></body></html>",
    "<!-- no end",
    "Very_long_name_without_a_blank_" * 8,
    "Rosa × canina – “Æ”",
    "{0} {accuracy} %s",
)


def synthetic(count=200, seed=0, share=0.8):
    """Labels, predictions and their probabilities, with more confidence than accuracy."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 8, count)
    evidence = rng.normal(0, 1, (count, 8)) + (rng.random((count, 1)) < share) * 3.0 * np.eye(8)[labels]
    powers = np.exp(1.5 * evidence)
    probabilities = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
    return labels, probabilities.argmax(1), probabilities


@dataclass
class Submitted:
    """What the two stages are given.

    predictions: class numbers, or the text of predictions.txt, or None for no file.
    checks: for checks.json; None for no file.
    metadata: the worker's note; None for no file.
    show_mistakes: the organizer lets the page show single images, as the local grader does.
    """

    labels: Any
    predictions: Any
    probabilities: Any = None
    names: Any = NAMES
    checks: Any = field(default_factory=lambda: CHECKS)
    used: Any = field(default_factory=lambda: USED)
    metadata: Any = None
    show_mistakes: bool = True


def _lines(values):
    return values if isinstance(values, str) else "".join(f"{value}\n" for value in values)


@dataclass
class Stage:
    """The folders of the scoring stage."""

    folder: Path

    @property
    def arguments(self):
        """The scoring program's arguments."""
        return str(self.folder / "input"), str(self.folder / "output")

    @property
    def result(self):
        return self.folder / "input" / "res"

    @property
    def thumbnails(self):
        return self.folder / "input" / "ref" / "images"

    @property
    def scores(self):
        return json.loads((self.folder / "output" / "scores.json").read_text())

    @property
    def page(self):
        return self.folder / "output" / "detailed_results.html"

    @property
    def written(self):
        """The names of the output files."""
        return sorted(path.name for path in (self.folder / "output").iterdir())

    def run(self, score, code=0):
        """Scores; the exit code must be `code`. Returns the page as `Page`."""
        assert score.main(*self.arguments) == code
        return Page(self.page.read_text("utf-8"))


def lay_out(folder, submitted):
    """Creates the folders as the server does. Returns the `Stage`."""
    stage = Stage(folder)
    for path in (stage.thumbnails, stage.result, folder / "output"):
        path.mkdir(parents=True)
    reference = stage.thumbnails.parent
    (reference / "labels.txt").write_text(_lines(submitted.labels))
    (reference / "classes.txt").write_text(_lines(submitted.names), "utf-8")
    if submitted.predictions is not None:
        (stage.result / "predictions.txt").write_text(_lines(submitted.predictions), "utf-8")
    if submitted.probabilities is not None:
        np.save(stage.result / "probabilities.npy", submitted.probabilities)
    if submitted.checks is not None:
        saved = {"checks": submitted.checks, "used": submitted.used}
        (stage.result / "checks.json").write_text(json.dumps(saved))
    if submitted.metadata is not None:
        (stage.result / "metadata").write_text(submitted.metadata)
    if submitted.show_mistakes:
        (reference / "details.json").write_text('{"mistakes": true}')
    if submitted.predictions is not None and not isinstance(submitted.predictions, str):
        _write_thumbnails(stage.thumbnails, submitted)
    return stage


def _write_thumbnails(folder, submitted):
    """Writes a thumbnail for each wrong prediction, of which each has another colour."""
    pairs = zip(submitted.labels, submitted.predictions, strict=False)
    for row, (label, prediction) in enumerate(pairs):
        if label != prediction:
            image = Image.new("RGB", (48, 48), (row % 256, 40 * (row // 256), 99))
            image.save(folder / f"{row:05d}.jpg", quality=95)


@dataclass
class Element:
    """One element of a page. `text` includes the text of its children."""

    tag: str
    attributes: dict
    text: str = ""
    children: list = field(default_factory=list)


class Page(HTMLParser):
    """A page as a list of elements. Asserts that each is closed in the order in which they were opened."""

    def __init__(self, text):
        super().__init__()
        self.source, self.open, self.elements, self.text = text, [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self._add(tag, attributes)
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_startendtag(self, tag, attributes):
        self._add(tag, attributes)

    def _add(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes), "an attribute twice"
        self.elements.append(Element(tag, dict(attributes)))
        if self.open:
            self.open[-1].children.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        for element in self.open:
            element.text += data
        if not any(element.tag in ("style", "title") for element in self.open):
            self.text += data

    def handle_comment(self, data):
        raise AssertionError("a comment")

    def all(self, tag):
        """All elements of a tag."""
        return [element for element in self.elements if element.tag == tag]

    def shape(self):
        """Sorted tags with the names of their attributes: the structure without the text."""
        return sorted((element.tag, *sorted(element.attributes)) for element in self.elements)

    def numbers(self):
        """Key → (number, text) of all elements that carry a score."""
        carriers = [element for element in self.elements if "data-score" in element.attributes]
        found = {e.attributes["data-score"]: (float(e.attributes["data-value"]), e.text) for e in carriers}
        assert len(found) == len(carriers), "a score twice"
        return found

    def mistakes(self):
        """The elements of the wrong predictions, each an image and a text."""
        return self.all("li")


CASES = {
    "mixed": synthetic(),
    "few": synthetic(9, 1),
    "all right": (np.arange(40) % 8, np.arange(40) % 8, np.eye(8, dtype=np.float32)[np.arange(40) % 8]),
    "all wrong": (np.arange(40) % 8, (np.arange(40) + 3) % 8, np.eye(8, dtype=np.float32)[(np.arange(40) + 3) % 8]),
    "one class never predicted": (np.arange(40) % 8, np.arange(40) % 8 % 7, None),
    "one class only": (np.zeros(12, int), np.zeros(12, int), None),
}
