"""benchmarks.own_data: scikit-learn's digits as images, wrong options, and the curve of the results."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from benchmarks import own_data
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


def test_contestants_are_measured_in_order_and_written(tmp_path, monkeypatch):
    row = {"test_accuracy": 0.5, "seconds": 60.0}
    monkeypatch.setattr(own_data, "baseline", lambda options, script, *arguments: row)
    monkeypatch.setattr(own_data, "auto", lambda options, minutes: {**row, "steps": {}})
    options = ["--digits", "--minutes", "1", "3", "--epochs", "8", "--json", str(tmp_path / "own.json")]
    assert own_data.main(options) == 0
    written = json.loads((tmp_path / "own.json").read_text("utf-8"))
    assert list(written) == ["twenty lines", "auto, 1 minutes", "auto, 3 minutes", "forty lines, 8 epochs"]


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
