"""The detailed results: its numbers, its text, and what it shows of a refused submission."""

import base64
import io
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import NAMES, load_module
from PIL import Image
from sklearn.calibration import calibration_curve

pytestmark = pytest.mark.unit

stages = load_module(Path(__file__).with_name("stages.py"), "stages")
CASES, HOSTILE, MISTAKES = stages.CASES, stages.HOSTILE, stages.MISTAKES
CHECKS, FAILED_CHECK, USED = stages.CHECKS, stages.FAILED_CHECK, stages.USED
Submitted, lay_out, synthetic = stages.Submitted, stages.lay_out, stages.synthetic


@pytest.mark.parametrize("case", CASES)
def test_numbers_are_those_of_scores_json(score, tmp_path, case):
    stage = lay_out(tmp_path, Submitted(*CASES[case]))
    numbers, scores = stage.run(score).numbers(), stage.scores
    pairs = [(row, column) for row in range(8) for column in range(8)]
    counts = {key for key in (f"confusion_{row}_{column}" for row, column in pairs) if scores[key]}
    keys = {"accuracy", "images", "macro_f1", *counts}
    assert set(numbers) == keys | {f"{name}_{row}" for name in ("precision", "recall", "f1") for row in range(8)}
    assert {key: value for key, (value, _) in numbers.items()} == {key: scores[key] for key in numbers}
    assert numbers["accuracy"][1] == f"{100 * scores['accuracy']:.2f}%"
    assert numbers["images"][1] == f"{scores['images']:,}"
    for key, (_, text) in numbers.items():
        if key.startswith("confusion"):
            assert text == str(scores[key])
        elif re.search("precision|recall|f1", key):
            assert text == f"{scores[key]:.3f}"


@pytest.mark.parametrize("case", CASES)
def test_page_refers_to_no_external_resource(score, tmp_path, case):
    page = lay_out(tmp_path, Submitted(*CASES[case])).run(score)
    text = re.sub(r"data:image/jpeg;base64,[\w+/=]+", "", page.source)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|javascript:", text, re.IGNORECASE)
    for element in page.elements:
        assert element.tag not in ("script", "iframe", "object", "embed", "form", "base", "a")
        assert not any(name.startswith("on") for name in element.attributes)
        for name in ("src", "href", "srcset", "poster", "data"):
            assert element.attributes.get(name, "data:").startswith("data:")
    policy = next(e for e in page.all("meta") if e.attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy.attributes["content"].startswith("default-src 'none'")


def test_interval_time_and_memory_are_shown(score, tmp_path):
    stage = lay_out(tmp_path, Submitted(*synthetic()))
    text = stage.run(score).text
    assert f"{stage.scores['accuracy_low']:.1%} to {stage.scores['accuracy_high']:.1%}" in text
    for said in ("16.1 ms", "3.2 s", "1,234 MB"):
        assert said in text


@pytest.mark.parametrize(
    ("precision", "shown"), [("bfloat16", True), ("<b>x</b>", False), ("x" * 21, False), (16, False), (["a"], False)]
)
def test_precision_is_shown_if_it_is_the_name_of_a_type(score, tmp_path, precision, shown):
    stage = lay_out(tmp_path, Submitted(*synthetic(), used={**USED, "precision": precision}))
    page = stage.run(score)
    assert (f"computed in{precision}" in page.text) == shown
    assert ("computed in" in page.text) == shown
    assert "1,234 MB" in page.text


@pytest.mark.parametrize("failed", [[], [FAILED_CHECK]], ids=["scored", "refused"])
def test_checks_are_shown(score, tmp_path, failed):
    page = lay_out(tmp_path, Submitted(*synthetic(), checks=[*CHECKS, *failed])).run(score, code=len(failed))
    rows = [row for row in page.all("tr") if row.children[1].tag == "td"]
    assert rows[0].text == "size✓ pass43.7 of 300 MB"
    assert rows[1].children[1].attributes["class"] == "pass"
    if failed:
        assert rows[2].text == (
            "repeatability✗ faila second call returns other predictions→ predict each row on its own"
        )
        assert rows[2].children[1].attributes["class"] == "fail"


def test_missing_checks_are_refused_and_left_out(score, tmp_path):
    page = lay_out(tmp_path, Submitted(*synthetic(), checks=None)).run(score, code=1)
    assert "Not scored: there is no valid checks.json." in page.text
    assert "Checks" not in [element.text for element in page.all("h2")]
    assert "memory" not in page.text


# --- escaping


def test_class_names_are_escaped(score, tmp_path):
    labels, predictions = np.repeat(np.arange(8), 2), np.repeat((np.arange(8) + 1) % 8, 2)
    plain = lay_out(tmp_path / "plain", Submitted(labels, predictions)).run(score)
    page = lay_out(tmp_path / "hostile", Submitted(labels, predictions, names=HOSTILE)).run(score)
    assert page.shape() == plain.shape()
    table = next(table for table in page.all("table") if table.attributes["class"] == "classes")
    assert [row.children[0].text for row in table.children[1:]] == list(HOSTILE)
    for name in HOSTILE:
        assert f"true {name}" in page.text
        assert f"predicted {name}" in page.text


def test_texts_of_checks_are_escaped(score, tmp_path):
    def checks(texts):
        return [
            {"name": text[:100], "passed": number % 2 == 0, "reason": text, "fix": text}
            for number, text in enumerate(texts)
        ]

    plain = lay_out(tmp_path / "plain", Submitted(*synthetic(), checks=checks(["x"] * 8))).run(score, code=1)
    page = lay_out(tmp_path / "hostile", Submitted(*synthetic(), checks=checks(HOSTILE))).run(score, code=1)
    assert page.shape() == plain.shape()
    assert all(text in page.text for text in HOSTILE)


def test_refusal_is_escaped(score, tmp_path):
    labels = np.zeros(40, int)
    pages = {}
    for name, line in {"plain": "x", "hostile": "<b>&amp;</b><i>'\"</i>"}.items():
        stage = lay_out(tmp_path / name, Submitted(labels, labels))
        (stage.result / "predictions.txt").write_text("\n".join([line, *["0"] * 39]))
        pages[name] = stage.run(score, code=1)
    assert pages["hostile"].shape() == pages["plain"].shape()
    assert (
        'line 1 is "<b>&amp;</b><i>' in pages["hostile"].text or "line 1 is '<b>&amp;</b><i>" in pages["hostile"].text
    )


# --- refused


REFUSED = {
    "too few": ("1\n" * 199, "199 predictions for 200 images"),
    "no number": ("rose\n" + "1\n" * 199, "line 1 is 'rose', expected 0 to 7"),
    "none": (None, "there is no predictions.txt"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusal_is_shown_with_the_checks(score, tmp_path, case):
    stage = lay_out(tmp_path, Submitted(*synthetic()))
    (stage.result / "predictions.txt").unlink()
    if REFUSED[case][0]:
        (stage.result / "predictions.txt").write_text(REFUSED[case][0])
    page = stage.run(score, code=1)
    assert f"Not scored: {REFUSED[case][1]}." in page.text
    assert page.numbers() == {}
    assert "row permutation" in page.text  # the checks are shown too
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["detailed_results.html"]
    assert "Mistakes" not in page.text


def test_failed_prediction_stage_is_shown(score, tmp_path):
    stage = lay_out(tmp_path, Submitted(*synthetic()))
    (stage.result / "metadata").write_text("elapsedTime: 2\nexitCode: 137\n")
    assert "the prediction stage ended with exit code 137" in stage.run(score, code=1).text


# --- confusions


def table_of(page, label):
    """The rows of the table in the area of this label, each the texts of its cells."""
    area = next(element for element in page.all("div") if element.attributes.get("aria-label") == label)
    return [[cell.text for cell in row.children] for row in area.children[0].children]


def many(classes, seed=0, per_class=8):
    """Labels, predictions and names of many classes; a fifth of the images is wrong."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    wrong = (labels + rng.integers(1, 4, len(labels))) % classes
    return labels, np.where(rng.random(len(labels)) < 0.8, labels, wrong), [f"Kind {n + 1}" for n in range(classes)]


@pytest.mark.parametrize("classes", [8, 31, 200])
def test_largest_confusions_are_a_table_above_the_matrix(score, tmp_path, classes):
    labels, predictions, names = many(classes)
    page = lay_out(tmp_path, Submitted(labels, predictions, names=names, show_mistakes=False)).run(score)
    counts = score.confusion(labels, predictions, classes)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:15]
    pairs = [divmod(int(place), classes) for place in order if counts.flat[place]]
    rows = table_of(page, "confusions")
    assert rows[0] == ["true class", "predicted class", "images", "share"]
    expected = [[names[a], names[b], str(counts[a, b]), f"{counts[a, b] / 8:.0%}"] for a, b in pairs]
    assert rows[1:] == expected
    assert f"The largest {len(pairs)} of {(counts > 0).sum()} pairs" in page.text
    assert page.source.index('aria-label="confusions"') < page.source.index('aria-label="confusion matrix"')


@pytest.mark.parametrize("classes", [8, 31, 200])
def test_matrix_has_all_counts_under_the_names(score, tmp_path, classes):
    labels, predictions, names = many(classes)
    page = lay_out(tmp_path, Submitted(labels, predictions, names=names)).run(score)
    rows = table_of(page, "confusion matrix")
    heads = [f"{number} {name}" for number, name in enumerate(names)]
    assert rows[0][1:] == heads
    assert [row[0] for row in rows[1:]] == heads
    shown = np.array([[int(text or 0) for text in row[1:]] for row in rows[1:]])
    np.testing.assert_array_equal(shown, score.confusion(labels, predictions, classes))
    assert len(page.source) < 1_000_000


def test_scores_and_page_of_many_classes_stay_small(score, tmp_path):
    labels, predictions, names = many(700, per_class=3)
    stage = lay_out(tmp_path, Submitted(labels, predictions, names=names))
    page = stage.run(score)
    scores = stage.scores
    counts = score.confusion(labels, predictions, 700)
    found = {key: value for key, value in scores.items() if key.startswith("confusion")}
    assert found == {f"confusion_{row}_{column}": counts[row, column] for row, column in np.argwhere(counts)}
    assert scores["accuracy"] == (labels == predictions).mean()
    assert len(table_of(page, "confusions")) == 16
    assert "there are too many classes" in page.text
    assert 'aria-label="confusion matrix"' not in page.source


# --- calibration


def test_missing_probabilities_are_mentioned(score, tmp_path):
    page = lay_out(tmp_path, Submitted(*synthetic()[:2])).run(score)
    assert "keeps no probabilities" in page.text
    assert page.all("circle") == []
    assert not re.search(r"confidence \d", page.text)


@pytest.mark.parametrize("seed", range(3))
def test_calibration_diagram_is_that_of_scikit_learn(score, tmp_path, seed):
    labels, predictions, probabilities = synthetic(500, seed)
    page = lay_out(tmp_path, Submitted(labels, predictions, probabilities)).run(score)
    confidence, correct = probabilities.max(1).astype(float), predictions == labels
    shares, means = calibration_curve(correct, confidence, n_bins=10, strategy="uniform")
    counts, edges = np.histogram(confidence, 10, (0, 1))
    filled = counts > 0
    dots = page.all("circle")
    said = [re.fullmatch(r"([\d,]+) .* (\d+)% to (\d+)%: ([\d.]+)% correct", dot.text).groups() for dot in dots]
    assert [int(count) for count, *_ in said] == counts[filled].tolist()
    np.testing.assert_allclose([float(low) / 100 for _, low, _, _ in said], edges[:-1][filled], atol=1e-9)
    np.testing.assert_allclose([float(high) / 100 for _, _, high, _ in said], edges[1:][filled], atol=1e-9)
    np.testing.assert_allclose([float(share) / 100 for *_, share in said], shares, atol=6e-4)
    lines = [line for line in page.all("line") if "stroke-dasharray" in line.attributes]
    left, bottom, right_edge, top = (float(lines[0].attributes[key]) for key in ("x1", "y1", "x2", "y2"))
    np.testing.assert_allclose(
        [float(dot.attributes["cx"]) for dot in dots], left + (right_edge - left) * means, atol=0.06
    )
    np.testing.assert_allclose(
        [float(dot.attributes["cy"]) for dot in dots], bottom + (top - bottom) * shares, atol=0.06
    )
    error = (counts[filled] * np.abs(shares - means)).sum() / len(labels)
    assert float(re.search(r"calibration error: ([\d.]+)%", page.text)[1]) == pytest.approx(100 * error, abs=0.06)


def test_expected_calibration_error(score):
    """By hand: confidence 0.9 four times, three correct; 0.55 twice, none correct; and both ends."""
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.55, 0.55, 1.0, 0.0])
    correct = np.array([True, True, True, False, False, False, True, False])
    rows, error = score.details.calibration(confidence, correct)
    assert [(low, count) for low, _, count, _, _ in rows] == [(0.0, 1), (0.5, 2), (0.9, 5)]
    assert error == pytest.approx((1 * 0 + 2 * 0.55 + 5 * abs(4.6 / 5 - 4 / 5)) / 8)


# --- mistakes


@pytest.mark.parametrize("known", [True, False], ids=["with probabilities", "without"])
def test_most_confident_mistakes_are_shown(score, tmp_path, known):
    labels, predictions, probabilities = synthetic(300, 4, share=0.6)
    wrong = np.flatnonzero(labels != predictions)
    assert len(wrong) > 2 * MISTAKES
    stage = lay_out(tmp_path, Submitted(labels, predictions, probabilities if known else None))
    page = stage.run(score)
    expected = wrong[np.argsort(-probabilities.max(1)[wrong], kind="stable")] if known else wrong
    items = page.mistakes()
    assert len(items) == MISTAKES
    for item, row in zip(items, expected, strict=False):
        image, text = item.children
        confidence = f", confidence {probabilities[row].max():.0%}" if known else ""
        assert text.text == f"true {NAMES[labels[row]]}predicted {NAMES[predictions[row]]}{confidence}"
        kind, data = image.attributes["src"].split(",")
        assert kind == "data:image/jpeg;base64"
        assert base64.b64decode(data, validate=True) == (stage.thumbnails / f"{row:05d}.jpg").read_bytes()
        with Image.open(io.BytesIO(base64.b64decode(data))) as thumbnail:
            thumbnail.load()
            assert (thumbnail.format, thumbnail.size) == ("JPEG", (48, 48))
        assert image.attributes["alt"]
    assert f"{'The most confident' if known else 'The first'} {MISTAKES} of {len(wrong)}." in page.text


def write_files(stage, count):
    names = [f"kind/<b>{row:05d}&.jpg" for row in range(count)]
    (stage.thumbnails.parent / "files.txt").write_text("".join(f"{name}\n" for name in names))
    return names


@pytest.mark.parametrize("known", [True, False], ids=["with probabilities", "without"])
def test_mistakes_are_listed_with_their_files_if_these_are_known(score, tmp_path, known):
    labels, predictions, probabilities = synthetic(3000, 4, share=0.6)
    stage = lay_out(tmp_path, Submitted(labels, predictions, probabilities if known else None))
    files = write_files(stage, 3000)
    page = stage.run(score)
    wrong = np.flatnonzero(labels != predictions)
    expected = wrong[np.argsort(-probabilities.max(1)[wrong], kind="stable")] if known else wrong
    assert len(wrong) > 500
    rows = table_of(page, "files of mistakes")[1:]
    assert len(rows) == 500
    for cells, row in zip(rows, expected, strict=False):
        confidence = [f"{probabilities[row].max():.0%}"] if known else []
        assert cells == [files[row], NAMES[labels[row]], NAMES[predictions[row]], *confidence]
    for item, row in zip(page.mistakes(), expected, strict=False):
        assert item.text.endswith(files[row])
    assert f"The files of 500 of {len(wrong):,} mistakes" in page.text


def test_files_are_not_shown_where_no_single_image_may_be(score, tmp_path):
    stage = lay_out(tmp_path, Submitted(*synthetic(), show_mistakes=False))
    write_files(stage, 200)
    assert "kind/" not in stage.run(score).source


def test_few_mistakes_are_all_shown(score, tmp_path):
    labels = np.arange(40) % 8
    predictions = labels.copy()
    predictions[[3, 17]] = 0
    page = lay_out(tmp_path, Submitted(labels, predictions)).run(score)
    assert len(page.mistakes()) == 2
    assert "2 of 2." in page.text


def test_absence_of_mistakes_is_shown(score, tmp_path):
    page = lay_out(tmp_path, Submitted(*CASES["all right"])).run(score)
    assert page.mistakes() == []
    assert "Mistakes\nNone." in page.text


def test_missing_thumbnails_are_left_out(score, tmp_path):
    stage = lay_out(tmp_path, Submitted(*synthetic()))
    shutil.rmtree(stage.thumbnails)
    page = stage.run(score)
    assert len(page.mistakes()) == MISTAKES
    assert page.all("img") == []


def test_page_of_ten_thousand_images_is_small_and_fast(score, tmp_path):
    stage = lay_out(tmp_path, Submitted(*synthetic(10_000, 6, share=0.99)))
    began = time.process_time()
    page = stage.run(score)
    assert time.process_time() - began < 5
    assert stage.page.stat().st_size < 200_000
    assert page.numbers()["images"] == (10_000, "10,000")
    assert len(page.mistakes()) == MISTAKES
