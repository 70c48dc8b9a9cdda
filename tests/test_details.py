"""The page of details: its numbers, what it shows of hostile input, and how a browser draws it."""

import base64
import contextlib
import fcntl
import io
import json
import os
import pickle
import re
import select
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from helpers import NAMES, ROOT, load_module
from PIL import Image
from sklearn.calibration import calibration_curve

PROGRAM = ROOT / "competition" / "scoring_program" / "score.py"
VOID = {"meta", "link", "br", "img"}
MISTAKES = 15
CHECKS = [
    {"name": "size", "passed": True, "reason": "43.7 of 300 MB", "mend": ""},
    {"name": "row permutation", "passed": False, "reason": "the answers change with the order", "mend": "predict each row on its own"},
]
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


@pytest.fixture(scope="module")
def score():
    return load_module(PROGRAM, "score_of_details")


# --- pages of drawn answers


def drawn(count=200, seed=0, share=0.8):
    """Labels, answers and the probabilities that they come of, surer than they should be."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 8, count)
    evidence = rng.normal(0, 1, (count, 8)) + (rng.random((count, 1)) < share) * 3.0 * np.eye(8)[labels]
    powers = np.exp(1.5 * evidence)
    probabilities = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
    return labels, probabilities.argmax(1), probabilities


@dataclass
class Stage:
    """The folders of the scoring stage."""

    folder: Path

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

    def run(self, score, code=0):
        """Scores, which must end with a code. Returns the page as `Page`."""
        assert score.main(str(self.folder / "input"), str(self.folder / "output")) == code
        return Page(self.page.read_text("utf-8"))


def lay_out(folder, labels, predictions, probabilities=None, names=NAMES, checks=CHECKS, used=USED):
    stage = Stage(folder)
    for path in (stage.thumbnails, stage.result, folder / "output"):
        path.mkdir(parents=True)
    reference = stage.thumbnails.parent
    (reference / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
    (reference / "classes.txt").write_text("".join(f"{name}\n" for name in names), "utf-8")
    (stage.result / "predictions.txt").write_text("".join(f"{answer}\n" for answer in predictions))
    if probabilities is not None:
        np.save(stage.result / "probabilities.npy", probabilities)
    if checks is not None:
        (stage.result / "checks.json").write_text(json.dumps({"checks": checks, "used": used}))
    for row in np.flatnonzero(labels != predictions):
        Image.new("RGB", (48, 48), (row % 256, 40 * (row // 256), 99)).save(stage.thumbnails / f"{row:05d}.jpg", quality=95)
    return stage


@dataclass
class Element:
    tag: str
    attributes: dict
    text: str = ""
    children: list = field(default_factory=list)


class Page(HTMLParser):
    """A page as a list of elements; asserts that each is closed in the order in which they were opened."""

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
        return [element for element in self.elements if element.tag == tag]

    def shape(self):
        """Tags with the names of their attributes, sorted: what it is made of, whatever it says."""
        return sorted((element.tag, *sorted(element.attributes)) for element in self.elements)

    def numbers(self):
        """Key → (number, text) of all elements that carry a score."""
        carriers = [element for element in self.elements if "data-score" in element.attributes]
        found = {e.attributes["data-score"]: (float(e.attributes["data-value"]), e.text) for e in carriers}
        assert len(found) == len(carriers), "a score twice"
        return found

    def mistakes(self):
        """The elements of the wrong answers that are shown, each an image and a text."""
        return self.all("li")


CASES = {
    "mixed": drawn(),
    "few": drawn(9, 1),
    "all right": (np.arange(40) % 8, np.arange(40) % 8, np.eye(8, dtype=np.float32)[np.arange(40) % 8]),
    "all wrong": (np.arange(40) % 8, (np.arange(40) + 3) % 8, np.eye(8, dtype=np.float32)[(np.arange(40) + 3) % 8]),
    "one class never predicted": (np.arange(40) % 8, np.arange(40) % 8 % 7, None),
    "one class only": (np.zeros(12, int), np.zeros(12, int), None),
}


@pytest.mark.parametrize("case", CASES)
def test_numbers_are_those_of_scores_json(score, tmp_path, case):
    stage = lay_out(tmp_path, *CASES[case])
    numbers, scores = stage.run(score).numbers(), stage.scores
    pairs = [(row, column) for row in range(8) for column in range(8)]
    keys = {"accuracy", "images", "macro_f1", *(f"confusion_{row}_{column}" for row, column in pairs)}
    assert set(numbers) == keys | {f"{name}_{row}" for name in ("precision", "recall", "f1") for row in range(8)}
    assert {key: value for key, (value, _) in numbers.items()} == {key: scores[key] for key in numbers}
    assert numbers["accuracy"][1] == f"{100 * scores['accuracy']:.2f}%"
    assert numbers["images"][1] == f"{scores['images']:,}"
    for key, (_, text) in numbers.items():
        if key.startswith("confusion"):
            assert text == (str(scores[key]) if scores[key] else "")
        elif re.search("precision|recall|f1", key):
            assert text == f"{scores[key]:.3f}"


@pytest.mark.parametrize("case", CASES)
def test_nothing_comes_from_outside(score, tmp_path, case):
    page = lay_out(tmp_path, *CASES[case]).run(score)
    text = re.sub(r"data:image/jpeg;base64,[\w+/=]+", "", page.source)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|javascript:", text, re.IGNORECASE)
    for element in page.elements:
        assert element.tag not in ("script", "iframe", "object", "embed", "form", "base", "a")
        assert not any(name.startswith("on") for name in element.attributes)
        for name in ("src", "href", "srcset", "poster", "data"):
            assert element.attributes.get(name, "data:").startswith("data:")
    policy = next(e for e in page.all("meta") if e.attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy.attributes["content"].startswith("default-src 'none'")


def test_the_interval_and_the_use_of_time_and_memory(score, tmp_path):
    stage = lay_out(tmp_path, *drawn())
    text = stage.run(score).text
    assert f"{stage.scores['accuracy_low']:.1%} to {stage.scores['accuracy_high']:.1%}" in text
    for said in ("16.1 ms", "3.2 s", "1,234 MB"):
        assert said in text


def test_checks(score, tmp_path):
    rows = [row for row in lay_out(tmp_path, *drawn()).run(score).all("tr") if row.children[1].tag == "td"]
    assert rows[0].text == "size✓ pass43.7 of 300 MB"
    assert rows[1].text == "row permutation✗ failthe answers change with the order→ predict each row on its own"
    assert rows[1].children[1].attributes["class"] == "fail"


def test_without_checks(score, tmp_path):
    page = lay_out(tmp_path, *drawn(), checks=None).run(score)
    assert "Checks" not in [element.text for element in page.all("h2")]
    assert "memory" not in page.text


# --- text that would be HTML


def test_names_of_classes_are_only_text(score, tmp_path):
    labels, predictions = np.repeat(np.arange(8), 2), np.repeat((np.arange(8) + 1) % 8, 2)
    plain = lay_out(tmp_path / "plain", labels, predictions).run(score)
    page = lay_out(tmp_path / "hostile", labels, predictions, names=HOSTILE).run(score)
    assert page.shape() == plain.shape()
    first_cells = [row.children[0].text for row in page.all("tr") if row.children[0].tag == "td"]
    assert first_cells[-8:] == list(HOSTILE)
    for name in HOSTILE:
        assert f"true {name}" in page.text
        assert f"taken for {name}" in page.text


def test_texts_of_checks_are_only_text(score, tmp_path):
    def checks(texts):
        return [{"name": text[:100], "passed": number % 2 == 0, "reason": text, "mend": text} for number, text in enumerate(texts)]

    plain = lay_out(tmp_path / "plain", *drawn(), checks=checks(["x"] * 8)).run(score)
    page = lay_out(tmp_path / "hostile", *drawn(), checks=checks(HOSTILE)).run(score)
    assert page.shape() == plain.shape()
    assert all(text in page.text for text in HOSTILE)


def test_a_refusal_is_only_text(score, tmp_path):
    labels = np.zeros(40, int)
    pages = {}
    for name, line in {"plain": "x", "hostile": "<b>&amp;</b><i>'\"</i>"}.items():
        stage = lay_out(tmp_path / name, labels, labels)
        (stage.result / "predictions.txt").write_text("\n".join([line, *["0"] * 39]))
        pages[name] = stage.run(score, code=1)
    assert pages["hostile"].shape() == pages["plain"].shape()
    assert 'line 1 is "<b>&amp;</b><i>' in pages["hostile"].text or "line 1 is '<b>&amp;</b><i>" in pages["hostile"].text


# --- refused


REFUSED = {
    "too few": ("1\n" * 199, "199 predictions for 200 images"),
    "no number": ("rose\n" + "1\n" * 199, "line 1 is 'rose', expected 0 to 7"),
    "none": (None, "there is no predictions.txt"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_submission_is_told_why(score, tmp_path, case):
    stage = lay_out(tmp_path, *drawn())
    (stage.result / "predictions.txt").unlink()
    if REFUSED[case][0]:
        (stage.result / "predictions.txt").write_text(REFUSED[case][0])
    page = stage.run(score, code=1)
    assert f"Not scored: {REFUSED[case][1]}." in page.text
    assert page.numbers() == {}
    assert "row permutation" in page.text  # the checks say more
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["detailed_results.html"]
    assert "Mistakes" not in page.text


def test_a_failed_prediction_stage_is_told(score, tmp_path):
    stage = lay_out(tmp_path, *drawn())
    (stage.result / "metadata").write_text("elapsedTime: 2\nexitCode: 137\n")
    assert "the prediction stage ended with exit code 137" in stage.run(score, code=1).text


# --- calibration


def test_without_probabilities_it_says_so(score, tmp_path):
    page = lay_out(tmp_path, *drawn()[:2]).run(score)
    assert "does not tell how sure it is" in page.text
    assert page.all("circle") == []
    assert "% sure" not in page.text


@pytest.mark.parametrize("seed", range(3))
def test_calibration_is_that_of_scikit_learn(score, tmp_path, seed):
    labels, predictions, probabilities = drawn(500, seed)
    page = lay_out(tmp_path, labels, predictions, probabilities).run(score)
    sure, right = probabilities.max(1).astype(float), predictions == labels
    shares, means = calibration_curve(right, sure, n_bins=10, strategy="uniform")
    counts, edges = np.histogram(sure, 10, (0, 1))
    filled = counts > 0
    dots = page.all("circle")
    said = [re.fullmatch(r"([\d,]+) answers (\d+)% to (\d+)% sure: ([\d.]+)% right", dot.text).groups() for dot in dots]
    assert [int(count) for count, *_ in said] == counts[filled].tolist()
    np.testing.assert_allclose([float(low) / 100 for _, low, _, _ in said], edges[:-1][filled], atol=1e-9)
    np.testing.assert_allclose([float(high) / 100 for _, _, high, _ in said], edges[1:][filled], atol=1e-9)
    np.testing.assert_allclose([float(share) / 100 for *_, share in said], shares, atol=6e-4)
    lines = [line for line in page.all("line") if "stroke-dasharray" in line.attributes]
    left, bottom, right_edge, top = (float(lines[0].attributes[key]) for key in ("x1", "y1", "x2", "y2"))
    np.testing.assert_allclose([float(dot.attributes["cx"]) for dot in dots], left + (right_edge - left) * means, atol=0.06)
    np.testing.assert_allclose([float(dot.attributes["cy"]) for dot in dots], bottom + (top - bottom) * shares, atol=0.06)
    error = (counts[filled] * np.abs(shares - means)).sum() / len(labels)
    assert float(re.search(r"Mean distance ([\d.]+)%", page.text)[1]) == pytest.approx(100 * error, abs=0.06)


def test_expected_calibration_error(score):
    """By hand: 4 answers 0.9 sure of which 3 are right, 2 answers 0.55 sure of which none is, and the two ends."""
    sure = np.array([0.9, 0.9, 0.9, 0.9, 0.55, 0.55, 1.0, 0.0])
    right = np.array([True, True, True, False, False, False, True, False])
    rows, error = score.details.calibration(sure, right)
    assert [(low, count) for low, _, count, _, _ in rows] == [(0.0, 1), (0.5, 2), (0.9, 5)]
    assert error == pytest.approx((1 * 0 + 2 * 0.55 + 5 * abs(4.6 / 5 - 4 / 5)) / 8)


# --- mistakes


@pytest.mark.parametrize("known", [True, False], ids=["with probabilities", "without"])
def test_the_worst_mistakes(score, tmp_path, known):
    labels, predictions, probabilities = drawn(300, 4, share=0.6)
    wrong = np.flatnonzero(labels != predictions)
    assert len(wrong) > 2 * MISTAKES
    stage = lay_out(tmp_path, labels, predictions, probabilities if known else None)
    page = stage.run(score)
    expected = wrong[np.argsort(-probabilities.max(1)[wrong], kind="stable")] if known else wrong
    items = page.mistakes()
    assert len(items) == MISTAKES
    for item, row in zip(items, expected, strict=False):
        image, text = item.children
        how_sure = f", {probabilities[row].max():.0%} sure" if known else ""
        assert text.text == f"true {NAMES[labels[row]]}taken for {NAMES[predictions[row]]}{how_sure}"
        kind, data = image.attributes["src"].split(",")
        assert kind == "data:image/jpeg;base64"
        assert base64.b64decode(data, validate=True) == (stage.thumbnails / f"{row:05d}.jpg").read_bytes()
        with Image.open(io.BytesIO(base64.b64decode(data))) as thumbnail:
            thumbnail.load()
            assert (thumbnail.format, thumbnail.size) == ("JPEG", (48, 48))
        assert image.attributes["alt"]
    assert f"{'The surest' if known else 'The first'} {MISTAKES} of {len(wrong)}." in page.text


def test_fewer_mistakes_than_there_is_room_for(score, tmp_path):
    labels = np.arange(40) % 8
    predictions = labels.copy()
    predictions[[3, 17]] = 0
    page = lay_out(tmp_path, labels, predictions).run(score)
    assert len(page.mistakes()) == 2
    assert "2 of 2." in page.text


def test_no_mistakes(score, tmp_path):
    page = lay_out(tmp_path, *CASES["all right"]).run(score)
    assert page.mistakes() == []
    assert "Mistakes\nNone." in page.text


def test_without_thumbnails(score, tmp_path):
    stage = lay_out(tmp_path, *drawn())
    shutil.rmtree(stage.thumbnails)
    page = stage.run(score)
    assert len(page.mistakes()) == MISTAKES
    assert page.all("img") == []


def test_ten_thousand_images(score, tmp_path):
    stage = lay_out(tmp_path, *drawn(10_000, 6, share=0.99))
    began = time.process_time()
    page = stage.run(score)
    assert time.process_time() - began < 5
    assert stage.page.stat().st_size < 200_000
    assert page.numbers()["images"] == (10_000, "10,000")
    assert len(page.mistakes()) == MISTAKES


# --- what a submission might have left in the prediction's output


def one_check(**changes):
    return json.dumps({"checks": [{"name": "n", "passed": True, "reason": "", "mend": "", **changes}], "used": {}})


def used(text):
    return '{"checks": [], "used": {"images": 10, "seconds": %s}}' % text  # noqa: UP031


BAD_CHECKS = {
    "huge": '{"checks": [' + " " * 2_000_000 + '], "used": {}}',
    "empty": "",
    "no JSON": "checks: none",
    "deeply nested": "[" * 200_000,
    "deeply nested, closed": "[" * 5_000 + "]" * 5_000,
    "deeply nested name": '{"checks": [{"name": ' + "[" * 900 + "]" * 900 + ', "passed": true, "reason": "", "mend": ""}], "used": {}}',
    "a number": "3",
    "null": "null",
    "a list": "[]",
    "no used": '{"checks": []}',
    "no checks": '{"used": {}}',
    "checks are a text": '{"checks": "abc", "used": {}}',
    "checks are numbers": '{"checks": [1, 2], "used": {}}',
    "checks are an object": '{"checks": {"name": 1}, "used": {}}',
    "used is a list": '{"checks": [], "used": [1]}',
    "a check without name": '{"checks": [{"passed": true}], "used": {}}',
    "name is a list": one_check(name=["<b>"]),
    "name is null": one_check(name=None),
    "passed is a text": one_check(passed="true"),
    "reason is an object": one_check(reason={"<i>": 1}),
    "reason is long": one_check(reason="x" * 900_000),
    "half of a character": one_check(reason="\ud800"),
    "control characters": one_check(reason="a\0b\x1b[31m\u202e\x85"),
    "seconds are text": used('"soon"'),
    "seconds are null": used("null"),
    "seconds are a list": used("[1]"),
    "seconds are NaN": used("NaN"),
    "seconds are infinite": used("1e999"),
    "seconds are negative": used("-5"),
    "seconds are vast": used("1" + "0" * 400),
    "images are none": '{"checks": [], "used": {"images": 0, "seconds": 1}}',
    "images are tiny": '{"checks": [], "used": {"images": 1e-320, "seconds": 1e300}}',
    "not UTF-8": b'{"checks": [{"name": "\xff\xfe", "passed": true, "reason": "", "mend": ""}], "used": {}}',
}


@pytest.mark.parametrize("case", BAD_CHECKS)
def test_checks_that_are_not_what_they_should_be(score, tmp_path, case):
    """They may be left out or shown as text; the scores and the rest of the page stay."""
    stage = lay_out(tmp_path, *drawn())
    data = BAD_CHECKS[case]
    (stage.result / "checks.json").write_bytes(data if isinstance(data, bytes) else data.encode())
    page = stage.run(score)
    assert page.numbers()["images"][0] == 200
    assert stage.scores["images"] == 200
    assert len(page.source) < 150_000
    assert not {element.tag for element in page.elements} & {"i", "script"}


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe"])
@pytest.mark.parametrize("name", ["checks.json", "probabilities.npy"])
def test_what_is_no_plain_file(score, tmp_path, kind, name):
    stage = lay_out(tmp_path, *drawn())
    path = stage.result / name
    path.rename(tmp_path / "moved")
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "moved" if kind == "link" else "nowhere")
    page = stage.run(score)
    assert ("does not tell how sure" if name == "probabilities.npy" else "Confusion") in page.text
    assert name == "probabilities.npy" or "row permutation" not in page.text


class Trap:
    """An object whose unpickling makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def npy(header, data=b"\0" * 6400, version=b"\x01\x00"):
    """The bytes of a .npy file with any header."""
    header = header.encode()
    return b"\x93NUMPY" + version + len(header).to_bytes(2 if version[0] == 1 else 4, "little") + header + data


def saved(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(descr="'<f4'", order="False", shape="(200, 8)"):
    return "{'descr': %s, 'fortran_order': %s, 'shape': %s, }\n" % (descr, order, shape)  # noqa: UP031


def changed(row, column, value):
    probabilities = drawn()[2].copy()
    probabilities[row, column] = value
    return saved(probabilities)


GOOD = drawn()[2]
BAD_PROBABILITIES = {
    "empty": b"",
    "text": b"0.5 0.5\n",
    "too few rows": saved(GOOD[:-1]),
    "too many rows": saved(np.concatenate([GOOD, GOOD[:1]])),
    "too few columns": saved(GOOD[:, :-1]),
    "one dimension": saved(GOOD.ravel()),
    "three dimensions": saved(GOOD[..., None]),
    "no dimension": saved(GOOD[0, 0]),
    "float64": saved(GOOD.astype(np.float64)),
    "float16": saved(GOOD.astype(np.float16)),
    "integers": saved(np.eye(8, dtype=np.int32)[drawn()[1]]),
    "records": saved(np.zeros((200, 8), [("a", "<f4")])),
    "NaN": changed(3, 3, np.nan),
    "infinite": changed(3, 3, np.inf),
    "negative": changed(3, 3, -0.5),
    "sum is not 1": saved(GOOD * 0.9),
    "cut off": saved(GOOD)[:-100],
    "cut off in the header": saved(GOOD)[:40],
    "several arrays": b"PK\x03\x04" + b"\0" * 100,
    "far too large": saved(np.zeros((20_000, 8), np.float32)),
    "shape is a lie": npy(header(shape="(100, 16)")),
    "shape is vast": npy(header(shape="(1000000000000000, 8)")),
    "shape overflows": npy(header(shape="(4611686018427387904, 8)")),
    "shape overflows to the right size": npy(header(shape="(9223372036854775808, 2)")),
    "shape is negative": npy(header(shape="(-1, 8)")),
    "shape of truth values": npy(header(shape="(True, 8)")),
    "shape is no tuple": npy(header(shape="200")),
    "objects": npy(header("'|O'")),
    "objects within records": npy(header("[('a', '|O')]")),
    "no such type": npy(header("'<f3'")),
    "type of no size": npy(header("'|V0'")),
    "type of a vast size": npy(header("'|V2147483647'")),
    "type is a lie": npy(header("[('a',)]")),
    "type is a number": npy(header("5")),
    "header without end": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (200, 8)"),
    "header of brackets": npy("(" * 3_000),
    "header of signs": npy("-" * 3_000 + "1"),
    "header of code": npy("__import__('os').getcwd()"),
    "header is a list": npy("[1, 2]"),
    "header with other keys": npy("{'descr': '<f4'}"),
    "header with keys of other types": npy("{1: 2, 'descr': 3}"),
    "header with NUL": npy("{'descr'\0"),
    "header with a broken text": npy("{'descr': '<f4"),
    "header is longer than the file": b"\x93NUMPY\x01\x00\xff\xff{",
    "header in version 2": npy("{'descr': (", version=b"\x02\x00"),
    "header in version 3, not UTF-8": b"\x93NUMPY\x03\x00\x04\x00\x00\x00\xff\xfe\xfd\xfc",
    "version 9": npy(header(), version=b"\x09\x00"),
}


@pytest.mark.parametrize("case", BAD_PROBABILITIES)
def test_probabilities_that_are_not_what_they_should_be(score, tmp_path, case):
    stage = lay_out(tmp_path, *drawn()[:2])
    (stage.result / "probabilities.npy").write_bytes(BAD_PROBABILITIES[case])
    page = stage.run(score)
    assert "does not tell how sure it is" in page.text
    assert page.numbers()["images"][0] == 200


@pytest.mark.parametrize("kind", ["pickle", "array of objects", "several arrays"])
def test_probabilities_are_never_unpickled(score, tmp_path, kind):
    trap = Trap(tmp_path / "sprung")
    file = io.BytesIO()
    if kind == "pickle":
        pickle.dump(trap, file)
    elif kind == "array of objects":
        np.save(file, np.array([trap], object))
    else:
        np.savez(file, np.array([trap], object))
    stage = lay_out(tmp_path, *drawn()[:2])
    (stage.result / "probabilities.npy").write_bytes(file.getvalue())
    assert "does not tell how sure it is" in stage.run(score).text
    assert not (tmp_path / "sprung").exists()
    with contextlib.suppress(Exception):
        np.load(io.BytesIO(file.getvalue()), allow_pickle=True)["arr_0"]
    assert (tmp_path / "sprung").exists()  # so it was a trap


def test_the_header_of_any_bytes(score, tmp_path):
    """Damage at random places of a good file: it is ignored, or taken for what it still says."""
    rng, path, good = np.random.default_rng(0), tmp_path / "probabilities.npy", saved(GOOD)
    for _ in range(400):
        data = bytearray(good)
        for place in rng.integers(6, 128, rng.integers(1, 4)):
            data[place] = rng.choice(list(b"{}()[]'\",:\\-\0\n 09<|fiOV\xff"))
        path.write_bytes(data)
        got = score.read_probabilities(str(path), 200, 8)
        assert got is None or (got.dtype == np.float32 and got.shape == (200, 8))


# --- in a browser


def chromium():
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """Chromium without a window, driven over two pipes; each command and answer is JSON with a NUL at its end."""

    def __init__(self, program, folder):
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        high = [fcntl.fcntl(number, fcntl.F_DUPFD, 100) for number in (theirs_in, theirs_out)]

        def wire():
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        flags = [
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--mute-audio"),
            *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--remote-debugging-pipe", f"--user-data-dir={folder}"),
        ]
        self.process = subprocess.Popen(
            [program, *flags, "about:blank"],
            preexec_fn=wire,
            pass_fds=(3, 4),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(folder)},  # its certificates' folder goes there as well
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
        """Loads a file and waits for the end of it; `events` holds what happened meanwhile."""
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
        """Addresses of everything that the page asked for, what lies in itself left out."""
        urls = [event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith("data:")]

    def complaints(self):
        """What the browser would print to its console."""
        kinds = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Page.javascriptDialogOpening")
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


def luminance(colour):
    """Relative luminance of "rgb(r, g, b)" (WCAG 2)."""
    parts = np.array([int(number) for number in re.findall(r"\d+", colour)[:3]]) / 255
    return float(np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


# Elements that reach beyond the page's right edge and are not inside of something that scrolls.
BEYOND = """
[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') && !e.closest('svg')
  && e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5).map(e => e.tagName + ' ' + e.textContent.slice(0, 60))
"""

# Texts of drawings that are cut off at the drawing's edge.
CUT_OFF = """
[...document.querySelectorAll('svg text')].filter(e => e.textContent && (e.getBBox().x < 0
  || e.getBBox().x + e.getBBox().width > e.ownerSVGElement.viewBox.baseVal.width
  || e.getBBox().y + e.getBBox().height > e.ownerSVGElement.viewBox.baseVal.height)).map(e => e.textContent)
"""


def fits(browser, width):
    """The page asks for nothing, complains of nothing, and is not wider than the screen."""
    assert [url for url in browser.requests() if not url.startswith("file:")] == []
    assert len(browser.requests()) == 1
    assert browser.complaints() == []
    assert browser.value("innerWidth") == width
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(BEYOND) == []


@pytest.mark.parametrize("width", [390, 1000])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_browser(score, tmp_path, browser, scheme, width):
    stage = lay_out(tmp_path, *drawn())
    page = stage.run(score)
    browser.show(stage.page, width, scheme)
    fits(browser, width)
    assert browser.value("document.querySelectorAll('[data-score]').length") == len(page.numbers())
    assert browser.value("[...document.images].every(i => i.complete && i.naturalWidth == 48)")
    assert browser.value("document.images.length") == MISTAKES
    paper = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (luminance(paper) > 0.5) == (scheme == "light")
    for selector in ("body", ".big", ".pass", ".fail", "th"):
        ink = browser.value(f"getComputedStyle(document.querySelector('{selector}')).color")
        assert contrast(ink, paper) >= 4.5, selector


# For each square of the confusion with a number in it: its colour, its opacity, and the colour of the number.
SQUARES = """
[...document.querySelectorAll('svg g')].filter(g => g.querySelector('text').textContent).map(g => {
  const square = getComputedStyle(g.querySelector('rect'))
  return [square.fill, +square.fillOpacity, getComputedStyle(g.querySelector('text')).fill]
})
"""


def laid_over(colour, opacity, paper):
    both = zip(re.findall(r"\d+", colour)[:3], re.findall(r"\d+", paper)[:3], strict=True)
    return "rgb({:.0f}, {:.0f}, {:.0f})".format(*(opacity * int(over) + (1 - opacity) * int(under) for over, under in both))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("case", ["mixed", "all right", "all wrong"])
def test_browser_numbers_of_the_confusion_can_be_read(score, tmp_path, browser, scheme, case):
    """On the darkest squares too, where all images of a class are."""
    stage = lay_out(tmp_path, *CASES[case])
    stage.run(score)
    browser.show(stage.page, 1000, scheme)
    paper = browser.value("getComputedStyle(document.body).backgroundColor")
    squares = browser.value(SQUARES)
    assert len(squares) >= 8
    assert min(contrast(ink, laid_over(colour, opacity, paper)) for colour, opacity, ink in squares) >= 4.5


@pytest.mark.parametrize("classes", [2, 8, 12])
def test_browser_drawings_are_whole(score, tmp_path, browser, classes):
    labels = np.arange(60) % classes
    probabilities = np.eye(classes, dtype=np.float32)[labels]
    stage = lay_out(tmp_path, labels, labels, probabilities, names=[f"Species {number + 1}" for number in range(classes)])
    stage.run(score)
    browser.show(stage.page, 1000)
    assert browser.value(CUT_OFF) == []


def test_browser_a_verdict_is_one_line(score, tmp_path, browser):
    checks = [{"name": "independence of neighbours", "passed": passed, "reason": "a reason " * 30, "mend": ""} for passed in (True, False)]
    stage = lay_out(tmp_path, *drawn(), checks=checks)
    stage.run(score)
    browser.show(stage.page, 390)
    lines = "[...document.querySelectorAll('.pass, .fail')].map(e => (r => (r.selectNodeContents(e), r.getClientRects().length))"
    assert browser.value(lines + "(document.createRange()))") == [1, 1]
    fits(browser, 390)


@pytest.mark.parametrize("width", [390, 1000])
def test_browser_hostile_names(score, tmp_path, browser, width):
    stage = lay_out(tmp_path, *drawn(share=0.5), names=HOSTILE)
    stage.run(score)
    browser.show(stage.page, width)
    assert browser.value("document.title") == "Detailed results"
    assert browser.value("document.scripts.length") == 0
    assert browser.value("document.querySelectorAll('li img').length") == MISTAKES
    fits(browser, width)


def test_browser_refused(score, tmp_path, browser):
    long = "a_reason_without_a_blank_" * 30
    stage = lay_out(tmp_path, *drawn(), checks=[{"name": "n" * 100, "passed": False, "reason": long, "mend": long}])
    (stage.result / "predictions.txt").unlink()
    stage.run(score, code=1)
    browser.show(stage.page, 390, "dark")
    assert "Not scored: there is no predictions.txt." in browser.value("document.body.innerText")
    fits(browser, 390)
