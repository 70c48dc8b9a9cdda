"""benchmarks.own_data: digits as images, its options, what it takes from each contestant, and the results' curve."""

import argparse
import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from benchmarks import Failed, own_data
from benchmarks.result import read_result
from common.errors import UserError
from docs import curve

pytestmark = pytest.mark.unit


def test_digits_are_class_folders_with_the_pixels_of_scikit_learn(tmp_path):
    own_data.write_digits(tmp_path)
    digits = load_digits()
    files = sorted(tmp_path.glob("*/*/*.png"), key=lambda path: path.name)
    assert len(files) == len(digits.images)
    assert len(list((tmp_path / "test").glob("*/*.png"))) == len(files) // 3
    for row in (0, 1, 500):
        assert files[row].parent.name == str(digits.target[row])
        pixels = np.asarray(Image.open(files[row]))
        np.testing.assert_allclose(pixels, digits.images[row] * 255 / 16, atol=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "either --data and --test, or --digits"),
        (["--digits", "--data", "."], "either --data and --test, or --digits"),
        (["--data", "."], "there is no folder None"),
        (["--data", ".", "--test", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_wrong_options_are_errors(tmp_path, capsys, options, message):
    assert own_data.main([*options, "--json", str(tmp_path / "own.json")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "test" / "3"), "folders of the same classes"),
        (lambda folder: (folder / "train" / "__MACOSX").mkdir(), "and no other folders"),
        (lambda folder: next(folder.glob("test/4/*")).rename(folder / "test" / "4" / "a.webp"), "got .webp"),
    ],
)
def test_images_that_the_scripts_would_read_otherwise_are_refused(tmp_path, change, message):
    own_data.write_digits(tmp_path)
    own_data.require_same_images(str(tmp_path / "train"), str(tmp_path / "test"))
    change(tmp_path)
    with pytest.raises(UserError, match=message):
        own_data.require_same_images(str(tmp_path / "train"), str(tmp_path / "test"))


def test_contestants_are_measured_in_order_and_written(tmp_path, monkeypatch):
    row = {"test_accuracy": 0.5, "seconds": 60.0}
    monkeypatch.setattr(own_data, "baseline", lambda options, script, *arguments: row)
    monkeypatch.setattr(own_data, "auto", lambda options, minutes: {**row, "steps": {}})
    options = ["--digits", "--minutes", "1", "3", "--epochs", "8", "--json", str(tmp_path / "own.json")]
    assert own_data.main(options) == 0
    written = read_result(tmp_path / "own.json")
    assert list(written) == ["twenty lines", "auto, 1 minutes", "auto, 3 minutes", "forty lines, 8 epochs"]


OPTIONS = argparse.Namespace(data="my train", test="my test", backbone_weights="none")


@pytest.fixture
def started(monkeypatch):
    """The commands that were started. `answer` is called with each, and returns its exit code and what it prints."""
    started = SimpleNamespace(commands=[], answer=lambda command: (0, ""))

    def run(command, **options):
        started.commands.append(command[1:])
        code, out = started.answer(command)
        return subprocess.CompletedProcess(command, code, out)

    monkeypatch.setattr(own_data.subprocess, "run", run)
    return started


def test_auto_is_measured_by_its_plan_and_the_metrics_of_its_runs(started):
    def answer(command):
        out = Path(command[command.index("--out") + 1])
        for name, accuracy in {"quick": 0.5, "finetuned": 0.75, "refused": 0.9, "best": 0.75}.items():
            (out / name).mkdir(parents=True)
            (out / name / "metrics.json").write_text(json.dumps({"accuracy": 0.1, "test": {"accuracy": accuracy}}))
        steps = {"quick": {"held_out_accuracy": 0.4}, "finetuned": {"held_out_accuracy": 0.6}}
        (out / "plan.json").write_text(json.dumps({"steps": steps, "decisions": ["first", f"kept as {out / 'best'}"]}))
        return 0, None

    started.answer = answer
    result = own_data.auto(OPTIONS, 3)
    (command,) = started.commands
    assert command[:7] == ["-m", "training", "auto", "--data", "my train", "--test", "my test"]
    assert command[7] == "--out" and command[9:] == ["--minutes", "3", "--backbone-weights", "none"]
    assert not Path(command[8]).exists()
    assert result.pop("seconds") >= 0
    assert result == {
        "test_accuracy": 0.75,
        "steps": {
            "quick": {"held_out_accuracy": 0.4, "test_accuracy": 0.5},
            "finetuned": {"held_out_accuracy": 0.6, "test_accuracy": 0.75},
        },
        "decisions": ["first", "kept as OUT/auto/best"],
    }


def test_a_baseline_is_measured_by_the_last_word_that_it_prints(started):
    started.answer = lambda command: (0, "Found 9 files\n0.625\n")
    result = own_data.baseline(OPTIONS, "forty_lines.py", "8")
    assert result.pop("seconds") >= 0
    assert result == {"test_accuracy": 0.625}
    assert started.commands == [[str(own_data.BASELINES / "forty_lines.py"), "my train", "my test", "none", "8"]]


def test_a_contestant_that_fails_is_named(started):
    started.answer = lambda command: (3, "")
    with pytest.raises(Failed, match="^twenty_lines.py ended with exit code 3"):
        own_data.baseline(OPTIONS, "twenty_lines.py")
    with pytest.raises(Failed, match="^auto failed"):
        own_data.auto(OPTIONS, 1)


@pytest.fixture
def result(tmp_path, monkeypatch):
    """A result of two contestants, the only one of the curve."""
    monkeypatch.setattr(curve, "ROOT", tmp_path)
    monkeypatch.setattr(curve, "RESULTS", {"leaves": ("own_data_leaves",)})
    path = tmp_path / "results" / "benchmarks" / "own_data_leaves.json"
    path.parent.mkdir(parents=True)
    rows = {
        "auto, 10 minutes": {"seconds": 600, "test_accuracy": 0.9},
        "twenty lines": {"seconds": 30, "test_accuracy": 0.7},
    }
    path.write_text(json.dumps(rows), "utf-8")
    return path


def test_points_of_the_curve_are_minutes_and_percent(result):
    assert curve.points(("own_data_leaves",)) == [("twenty lines", 0.5, 70.0), ("auto", 10.0, 90.0)]


def test_the_curve_is_drawn(result, tmp_path):
    curve.draw(tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.width > 500
        assert len(picture.convert("RGB").getcolors(100_000)) > 10


def test_a_missing_result_is_named(result):
    with pytest.raises(UserError, match="own_data_digits"):
        curve.points(("own_data_digits",))
