"""The answers of the questions, each from a process of its own on synthetic leaves."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT
from PIL import Image

from competition.synthetic import draw_folder

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CLASSES = [f"Species{number}" for number in range(1, 9)]
COMMON, RARE = 58, {"Species1": 16, "Species6": 18}  # enough for 256 components of the training part of a reduced fold


@pytest.fixture(scope="module")
def rare_leaves(tmp_path_factory):
    """A folder with train, in which two species are rare."""
    folder = tmp_path_factory.mktemp("rare")
    draw_folder(folder / "train", COMMON, side=32)
    for name, count in RARE.items():
        for path in sorted((folder / "train" / name).iterdir())[count:]:
            path.unlink()
    return folder


@pytest.fixture(scope="module")
def feature_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def command(module, *arguments):
    """A command of this project as a process of its own."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    words = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800, check=False)


@pytest.fixture
def answer(feature_cache, tmp_path):
    """A function that answers a question. It checks the output and the picture, and returns the values."""

    def run(name, folder, *more):
        folders = ["--cache", feature_cache, "--out", tmp_path / "out", "--pictures", tmp_path / "img"]
        where = ["--data", folder / "train", "--backbone-weights", "none", *folders]
        done = command(f"training.questions.{name}", *where, *more)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        values, picture = tmp_path / "out" / f"{name}.json", tmp_path / "img" / f"question_{name}.png"
        assert f"done: {values} and {picture}" in done.stdout
        assert [*(tmp_path / "out").iterdir(), *(tmp_path / "img").iterdir()] == [values, picture]
        check_picture(picture)
        result = json.loads(values.read_text())
        assert all(map(math.isfinite, numbers(result)))
        return result

    return run


def check_picture(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width > 800
        assert picture.height > 300
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 50


def numbers(value):
    """All numbers in plain values, at any depth."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for part in value for number in numbers(part)]
    return [value] if isinstance(value, (int, float)) else []


def are_shares(values):
    return all(0 <= value <= 1 for value in values)


def test_two_devices_agree_with_one_if_they_are_synchronized(rare_leaves, answer):
    result = answer("two_devices", rare_leaves)
    difference = result["difference"]
    assert difference["two devices, synchronized"]["largest"] < 1e-9  # rounding errors in double precision
    assert difference["two devices, synchronized"]["agreeing_steps"] == result["steps"]
    assert difference["two devices, not synchronized"]["largest"] > 1e-3
    assert difference["two devices, batch size 64"]["largest"] < 1e-9
    assert {name: len(losses) for name, losses in result["losses"].items()} == {
        "one device": 12,
        "two devices, synchronized": 12,
        "two devices, not synchronized": 12,
        "one device, batch size 64": 6,
        "two devices, batch size 64": 6,
        "one device, single precision": 12,
        "two devices, synchronized, single precision": 12,
    }
    assert result["losses"]["one device"][0] == pytest.approx(math.log(8), abs=1)  # nothing is learned yet
    noise = result["noise_of_statistics"]
    assert noise["16 images"] > noise["32 images"] > 0


def test_smote(rare_leaves, answer):
    result = answer("smote", rare_leaves)
    assert result["rare"] == ["Species1", "Species6"]
    total = COMMON * 6 + sum(RARE.values())
    assert result["chance"] == pytest.approx({name: RARE.get(name, COMMON) / total for name in CLASSES})
    assert set(result["same_class_neighbor"]) == set(result["support_vectors"]) == {"pixels", "features"}
    for shares in result["same_class_neighbor"].values():
        assert list(shares) == CLASSES
        assert are_shares(shares.values())
    assert are_shares(result["support_vectors"].values())
    assert 0 < result["detail_ratio"] < 1  # a mean of two images is smoother than an image
    assert set(result["folds"]) == {"no balancing", "class weights", "repeated images", "SMOTE", "SVMSMOTE"}
    for cells in result["folds"].values():
        assert list(cells) == ["accuracy", *CLASSES]
        assert are_shares(cell["mean"] for cell in cells.values())
        assert all(cell["std"] >= 0 for cell in cells.values())
    assert result["folds"]["no balancing"]["accuracy"]["mean"] > 1.5 / 8  # it learns


def test_species1(rare_leaves, answer):
    result = answer("species1", rare_leaves)
    assert result["images"] == {name: RARE.get(name, COMMON) for name in CLASSES}
    assert sum(result["predicted_as"].values()) == pytest.approx(1)
    assert sum(result["nearest_neighbor"].values()) == pytest.approx(1)
    f1 = result["f1"]
    assert list(f1) == CLASSES
    assert f1["Species1"]["all_images"] == result["methods"]["no balancing"]["f1"]
    assert f1["Species1"]["as_rare"] == result["f1_by_share_of_images"]["1.00"]  # some folds have one image more
    assert np.mean([cell["as_rare"] - cell["all_images"] for name, cell in f1.items() if name not in RARE]) < 0
    assert set(result["methods"]) == {"no balancing", "class weights", "images three times", "logit adjustment"}
    assert all(are_shares(row.values()) for row in result["methods"].values())
    assert list(result["f1_by_share_of_images"]) == ["0.25", "0.50", "0.75", "1.00"]


def test_everything(answer, tmp_path):
    draw_folder(tmp_path / "leaves" / "train", 6, side=32)  # all eight species, because the recipe repeats two of them
    draw_folder(tmp_path / "leaves" / "test", 4, side=32, seed=5)
    result = answer("everything", tmp_path / "leaves", "--test", tmp_path / "leaves" / "test")
    assert 1 <= result["epochs"] <= 40 == len(result["val_loss"])
    assert result["val_loss"][result["epochs"] - 1] == min(result["val_loss"])
    assert (result["out_of_fold"]["images"], result["test"]["images"]) == (48, 32)
    assert len(result["single_folds"]) == 5
    assert are_shares(result["single_folds"])
    for part in (result["out_of_fold"], result["test"]):
        low, high = part["interval95"]
        assert 0 <= low < part["accuracy"] < high <= 1 or part["accuracy"] in (0, 1)


@pytest.fixture(scope="module")
def finished_search(small_leaves, tmp_path_factory):
    """The folder of a search of three trials."""
    out = tmp_path_factory.mktemp("tune") / "search"
    images = ["--data", small_leaves / "train", "--test", small_leaves / "test", "--backbone-weights", "none"]
    done = command("training", "tune", "tuned", *images, "--out", out, "--trials", 3)
    assert done.returncode == 0, done.stderr
    return out


def test_selection(small_leaves, answer, finished_search):
    result = answer("selection", small_leaves, "--test", small_leaves / "test", "--search", finished_search)
    lines = [line.split(",") for line in (finished_search / "trials.csv").read_text().splitlines()]
    assert lines[0][:3] == ["trial", "val_accuracy", "test_accuracy"]
    assert result["trials"] == len(result["rows"]) == 3
    assert [row["val"] for row in result["rows"]] == [float(line[1]) for line in lines[1:]]
    assert [row["test"] for row in result["rows"]] == [float(line[2]) for line in lines[1:]]
    assert result["val_images"] == 6
    assert result["best_val"] == float(lines[1][1])
    assert result["best_test"] == float(lines[1][2])
    p = result["best_val"]
    assert result["standard_error"] == pytest.approx(math.sqrt(p * (1 - p) / 6))
    for row in result["rows"]:  # a whole number of 30 images
        assert row["folds"] * 30 == pytest.approx(round(row["folds"] * 30), abs=1e-9)
    assert result["ten_best_in_folds"] == pytest.approx(np.mean([row["folds"] for row in result["rows"]]))
