"""The scoring program: its numbers against scikit-learn's, and what it refuses to score."""

import html
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from helpers import NAMES, ROOT, load_module, python
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

PROGRAM = ROOT / "competition" / "scoring_program" / "score.py"


@pytest.fixture(scope="module")
def score():
    return load_module(PROGRAM, "score")


def lay_out(folder, labels, predictions, names=NAMES, metadata=None):
    """The folders that the server gives to the program: (input, output)."""
    reference, result, output = folder / "input" / "ref", folder / "input" / "res", folder / "output"
    for path in (reference, result, output):
        path.mkdir(parents=True)
    (reference / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
    (reference / "classes.txt").write_text("".join(f"{name}\n" for name in names), "utf-8")
    if predictions is not None:
        text = predictions if isinstance(predictions, str) else "".join(f"{answer}\n" for answer in predictions)
        (result / "predictions.txt").write_text(text, "utf-8")
    if metadata is not None:
        (result / "metadata").write_text(metadata)
    return str(folder / "input"), str(output)


def drawn(seed, count=200, classes=8, kinds=8):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, kinds, count)
    predictions = np.where(rng.random(count) < 0.6, labels, rng.integers(0, classes, count))
    return labels, predictions


CASES = {
    "mixed": drawn(0),
    "a class that is never right, one never predicted, one without images": (np.array([0, 0, 1, 2, 2, 3]), np.array([0, 1, 0, 2, 4, 3])),
    "all right": (drawn(1)[0],) * 2,
    "all wrong": (drawn(2)[0], (drawn(2)[0] + 1) % 8),
    "one image": (np.array([3]), np.array([3])),
    "five of eight classes": drawn(3, kinds=5),
}


@pytest.mark.parametrize("case", CASES)
def test_numbers_are_those_of_scikit_learn(score, tmp_path, case):
    labels, predictions = CASES[case]
    source, output = lay_out(tmp_path, labels, predictions)
    assert score.main(source, output) == 0
    got = json.loads((tmp_path / "output" / "scores.json").read_text())
    every = list(range(8))
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predictions, labels=every, zero_division=0)
    interval = binomtest(int((labels == predictions).sum()), len(labels)).proportion_ci(0.95, "wilson")
    expected = {
        "accuracy": accuracy_score(labels, predictions),
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
        "macro_f1": f1_score(labels, predictions, labels=every, average="macro", zero_division=0),
        "images": len(labels),
    }
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        expected.update({f"{name}_{number}": value for number, value in enumerate(values)})
    table = confusion_matrix(labels, predictions, labels=every)
    expected.update({f"confusion_{row}_{column}": table[row, column] for row in every for column in every})
    assert got == pytest.approx(expected, abs=1e-6)
    assert list(got)[0] == "accuracy"  # the leaderboard's column
    assert all(math.isfinite(value) for value in got.values())


def test_both_files_say_the_same(score, tmp_path):
    source, output = lay_out(tmp_path, *CASES["mixed"])
    assert score.main(source, output) == 0
    lines = (tmp_path / "output" / "scores.txt").read_text().splitlines()
    parsed = dict(line.split(":") for line in lines)  # two parts each, or it raises
    assert {key: float(value) for key, value in parsed.items()} == json.loads((tmp_path / "output" / "scores.json").read_text())
    assert sorted(path.name for path in (tmp_path / "output").iterdir()) == ["detailed_results.html", "scores.json", "scores.txt"]


def test_the_program_itself(tmp_path):
    source, output = lay_out(tmp_path, *CASES["mixed"], metadata="exitCode: 0\nelapsedTime: 3.2\n")
    done = python(PROGRAM, source, output, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "output" / "scores.json").read_text())["images"] == 200


def test_the_program_itself_refuses(tmp_path):
    done = python(PROGRAM, *lay_out(tmp_path, [0, 1], [0]), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "refused: 1 predictions for 2 images\n"


def refused(score, capsys, source, output):
    """The reason why the program did not score."""
    assert score.main(source, output) == 1
    assert [path.name for path in Path(output).iterdir()] == ["detailed_results.html"]  # no scores, but the reason
    error = capsys.readouterr().err
    assert error.startswith("refused: ")
    assert error.count("\n") == 1
    reason = error.removeprefix("refused: ").strip()
    assert f"Not scored: {html.escape(reason)}." in Path(output, "detailed_results.html").read_text("utf-8")
    return reason


LINES = {
    "text": "rose",
    "empty": "",
    "float": "1.0",
    "exponent": "1e0",
    "negative": "-1",
    "plus": "+1",
    "blanks": " 1",
    "two numbers": "1 2",
    "other digits": "１",
    "underscore": "0_1",
    "hexadecimal": "0x1",
    "nan": "nan",
    "one too large": "8",
    "far too large": "9" * 15,
    "nul": "1\0",
    "no text": "é",
}


@pytest.mark.parametrize("case", LINES)
def test_lines_that_are_no_class_number(score, tmp_path, capsys, case):
    source, output = lay_out(tmp_path, [0, 1, 2], f"0\n{LINES[case]}\n2\n")
    assert refused(score, capsys, source, output).startswith("line 2 is ")


@pytest.mark.parametrize("predictions", [[0], [0, 1, 2, 3], []], ids=["too few", "too many", "none"])
def test_wrong_count(score, tmp_path, capsys, predictions):
    reason = refused(score, capsys, *lay_out(tmp_path, [0, 1, 2], predictions))
    assert reason == f"{len(predictions)} predictions for 3 images"


def test_missing_file(score, tmp_path, capsys):
    assert refused(score, capsys, *lay_out(tmp_path, [0, 1], None)) == "there is no predictions.txt"


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe"])
def test_what_is_no_plain_file(score, tmp_path, capsys, kind):
    """A link could lead to the labels, and a pipe would never end."""
    source, output = lay_out(tmp_path, [0, 1], None)
    path = tmp_path / "input" / "res" / "predictions.txt"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("../ref/labels.txt" if kind == "link" else "nowhere")
    assert refused(score, capsys, source, output) == "there is no predictions.txt"


def test_file_that_is_too_large(score, tmp_path, capsys):
    assert "too large" in refused(score, capsys, *lay_out(tmp_path, [0, 1], "0\n" * 1000))


FAILED = [
    "exitCode: 1\n",
    "elapsedTime: 2\nexitCode: 137\n",
    "exitCode: -9\n",
    "ingestionExitCode: 1\n",
    "exitCode: 0\ningestionExitCode: 2\n",
]


@pytest.mark.parametrize("metadata", FAILED)
def test_failed_prediction_stage(score, tmp_path, capsys, metadata):
    """The worker starts the scoring all the same, with whatever predictions there are."""
    reason = refused(score, capsys, *lay_out(tmp_path, [0, 1], [0, 1], metadata=metadata))
    assert reason.startswith("the prediction stage ended with exit code ")


@pytest.mark.parametrize("metadata", ["", "exitCode: 0\n", "exitCode: null\ningestionExitCode: 0\n", "description: exitCode: 1\n"])
def test_prediction_stage_that_did_not_fail(score, tmp_path, metadata):
    assert score.main(*lay_out(tmp_path, [0, 1], [0, 1], metadata=metadata)) == 0


def test_line_endings_of_windows(score, tmp_path):
    assert score.main(*lay_out(tmp_path, [0, 1], "0\r\n1\r\n")) == 0
    assert json.loads((tmp_path / "output" / "scores.json").read_text())["accuracy"] == 1
