"""The scoring program: its numbers are scikit-learn's, and it refuses predictions that are not plain class numbers."""

import html
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, load_module, python
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

stages = load_module(Path(__file__).with_name("stages.py"), "stages")
Submitted, lay_out = stages.Submitted, stages.lay_out
PROGRAM = ROOT / "competition" / "scoring_program" / "score.py"


def labels_and_predictions(seed, count=200, kinds=8):
    """Random labels of the first `kinds` classes, and predictions of eight classes, most of them right."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, kinds, count)
    return labels, np.where(rng.random(count) < 0.6, labels, rng.integers(0, 8, count))


CASES = {
    "mixed": labels_and_predictions(0),
    "a class that is never right, one never predicted, one without images": (
        np.array([0, 0, 1, 2, 2, 3]),
        np.array([0, 1, 0, 2, 4, 3]),
    ),
    "all right": (labels_and_predictions(1)[0],) * 2,
    "all wrong": (labels_and_predictions(2)[0], (labels_and_predictions(2)[0] + 1) % 8),
    "one image": (np.array([3]), np.array([3])),
    "five of eight classes": labels_and_predictions(3, kinds=5),
}


@pytest.mark.unit
@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_scikit_learn(score, tmp_path, case):
    labels, predictions = CASES[case]
    stage = lay_out(tmp_path, Submitted(labels, predictions))
    stage.run(score)
    every = list(range(8))
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predictions, labels=every, zero_division=0)
    interval = binomtest(int((labels == predictions).sum()), len(labels)).proportion_ci(0.95, "wilson")
    expected = {
        "accuracy": accuracy_score(labels, predictions),
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
        "macro_f1": f1_score(labels, predictions, average="macro", zero_division=0),
        "images": len(labels),
    }
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        expected.update({f"{name}_{number}": value for number, value in enumerate(values)})
    table = confusion_matrix(labels, predictions, labels=every)
    expected.update({f"confusion_{row}_{column}": table[row, column] for row in every for column in every})
    assert stage.scores == pytest.approx(expected, abs=1e-6)
    assert list(stage.scores)[0] == "accuracy"  # the leaderboard's column
    assert all(math.isfinite(value) for value in stage.scores.values())


@pytest.mark.unit
def test_interval_is_within_0_and_1(score):
    """Rounding led to -0.0 % and to more than 1."""
    bounds = [score.wilson(correct, total) for total in range(1, 500) for correct in (0, total)]
    assert all(0 <= low < high <= 1 for low, high in bounds)
    assert not any(math.copysign(1, low) < 0 for low, _ in bounds)


@pytest.mark.unit
def test_scores_txt_and_scores_json_are_equal(score, tmp_path):
    stage = lay_out(tmp_path, Submitted(*CASES["mixed"]))
    stage.run(score)
    lines = (tmp_path / "output" / "scores.txt").read_text().splitlines()
    parsed = dict(line.split(":") for line in lines)  # raises unless each line has two parts
    assert {key: float(value) for key, value in parsed.items()} == stage.scores
    assert stage.written == ["detailed_results.html", "scores.json", "scores.txt"]


@pytest.mark.integration
def test_program_scores_in_a_process_of_its_own(tmp_path):
    stage = lay_out(tmp_path, Submitted(*CASES["mixed"], metadata="exitCode: 0\nelapsedTime: 3.2\n"))
    done = python(PROGRAM, *stage.arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert stage.scores["images"] == 200


@pytest.mark.integration
def test_program_refuses_in_a_process_of_its_own(tmp_path):
    done = python(PROGRAM, *lay_out(tmp_path, Submitted([0, 1], [0])).arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "refused: 1 predictions for 2 images\n"


def refused(score, capsys, stage):
    """The reason why the program did not score. It writes the detailed results with the reason, and no scores."""
    assert score.main(*stage.arguments) == 1
    assert stage.written == ["detailed_results.html"]
    error = capsys.readouterr().err
    assert error.startswith("refused: ")
    assert error.count("\n") == 1
    reason = error.removeprefix("refused: ").strip()
    assert f"Not scored: {html.escape(reason)}." in stage.page.read_text("utf-8")
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


@pytest.mark.unit
@pytest.mark.parametrize("case", LINES)
def test_line_that_is_no_class_number_is_refused(score, tmp_path, capsys, case):
    stage = lay_out(tmp_path, Submitted([0, 1, 2], f"0\n{LINES[case]}\n2\n"))
    assert refused(score, capsys, stage).startswith("line 2 is ")


@pytest.mark.unit
@pytest.mark.parametrize("predictions", [[0], [0, 1, 2, 3], []], ids=["too few", "too many", "none"])
def test_wrong_number_of_predictions_is_refused(score, tmp_path, capsys, predictions):
    reason = refused(score, capsys, lay_out(tmp_path, Submitted([0, 1, 2], predictions)))
    assert reason == f"{len(predictions)} predictions for 3 images"


@pytest.mark.unit
def test_missing_file_is_refused(score, tmp_path, capsys):
    reason = refused(score, capsys, lay_out(tmp_path, Submitted([0, 1], None)))
    assert reason == "there is no predictions.txt"


@pytest.mark.unit
@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe"])
def test_predictions_that_are_no_regular_file_are_refused(score, tmp_path, capsys, kind):
    """A link could lead to the labels, and reading a pipe would never end."""
    stage = lay_out(tmp_path, Submitted([0, 1], None))
    path = stage.result / "predictions.txt"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("../ref/labels.txt" if kind == "link" else "nowhere")
    assert refused(score, capsys, stage) == "there is no predictions.txt"


@pytest.mark.unit
def test_file_that_is_too_large_is_refused(score, tmp_path, capsys):
    assert "too large" in refused(score, capsys, lay_out(tmp_path, Submitted([0, 1], "0\n" * 1000)))


FAILED = [
    "exitCode: 1\n",
    "elapsedTime: 2\nexitCode: 137\n",
    "exitCode: -9\n",
    "ingestionExitCode: 1\n",
    "exitCode: 0\ningestionExitCode: 2\n",
    "exitCode: null\ningestionExitCode: !!python/object/apply:requests.exceptions.ReadTimeout\n  args: []\n",
    "exitCode: '0'\n",
]


@pytest.mark.unit
@pytest.mark.parametrize("metadata", FAILED)
def test_failed_prediction_stage_is_refused(score, tmp_path, capsys, metadata):
    """The worker runs the scoring all the same, with whatever predictions there are."""
    reason = refused(score, capsys, lay_out(tmp_path, Submitted([0, 1], [0, 1], metadata=metadata)))
    assert reason.startswith("the prediction stage ended with exit code ")


PASSED = ["", "exitCode: 0\n", "exitCode: null\ningestionExitCode: 0 \n", "exitCode:\n", "description: exitCode: 1\n"]


@pytest.mark.unit
@pytest.mark.parametrize("metadata", PASSED)
def test_prediction_stage_that_did_not_fail_is_scored(score, tmp_path, metadata):
    lay_out(tmp_path, Submitted([0, 1], [0, 1], metadata=metadata)).run(score)


@pytest.mark.unit
def test_line_endings_of_windows_are_accepted(score, tmp_path):
    stage = lay_out(tmp_path, Submitted([0, 1], "0\r\n1\r\n"))
    stage.run(score)
    assert json.loads((tmp_path / "output" / "scores.json").read_text())["accuracy"] == 1
