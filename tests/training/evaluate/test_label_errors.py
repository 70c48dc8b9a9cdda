"""`python -m training label-errors`: images in the wrong class folder are listed, with a page of thumbnails."""

import csv
import os
import shutil

import numpy as np
import pytest
from helpers import tiny
from PIL import Image

from common.errors import UserError
from training.auto import choices
from training.evaluate.label_errors import label_errors
from training.inputs import Inputs

pytest.importorskip("cleanlab", reason="cleanlab is an optional package")
pytestmark = pytest.mark.integration

COLORS = {"red <b>": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch):
    monkeypatch.setattr(choices, "FROZEN_BACKBONE", tiny)
    monkeypatch.setattr(choices, "LAYERS", ())
    monkeypatch.setattr(choices, "INPUT_SIZE", 32)


@pytest.fixture
def swapped(tmp_path):
    """Sixty noisy images of three colors; one red and one blue image are in the folder of green ones."""
    rng = np.random.default_rng(0)
    for name, color in COLORS.items():
        for number in range(20):
            pixels = np.clip(rng.normal(color, 15, (32, 32, 3)), 0, 255).astype(np.uint8)
            wrong = number == 0 and name != "green"
            path = tmp_path / "data" / ("green" if wrong else name) / f"{name[:3]}{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return tmp_path / "data"


def test_images_in_the_wrong_folder_are_listed(swapped, tmp_path):
    page = tmp_path / "errors.html"
    lines = label_errors(Inputs(swapped, "none"), None, page, tmp_path / "cache")
    with open(tmp_path / "errors.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"] for row in rows} == {"green/red0.png", "green/blu0.png"}
    assert {(row["given"], row["likely"]) for row in rows} == {("green", "red <b>"), ("green", "blue")}
    assert len(lines) == len(rows) == page.read_text("utf-8").count("data:image/jpeg")


def test_no_process_is_forked_beside_tensorflow(swapped, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fork", None)
    assert len(label_errors(Inputs(swapped, "none"), None, tmp_path / "errors.html", tmp_path / "cache")) == 2


def test_names_are_escaped_in_the_page(swapped, tmp_path):
    label_errors(Inputs(swapped, "none"), None, tmp_path / "errors.html", tmp_path / "cache")
    assert "red &lt;b&gt;" in (tmp_path / "errors.html").read_text("utf-8")


def test_a_wrong_image_that_is_there_twice_is_listed_twice(swapped, tmp_path):
    """With the copy in another fold, a model would learn the wrong label."""
    shutil.copy(swapped / "green" / "red0.png", swapped / "green" / "red0 copy.png")
    label_errors(Inputs(swapped, "none"), None, tmp_path / "errors.html", tmp_path / "cache")
    with open(tmp_path / "errors.csv", newline="") as file:
        assert {row["path"] for row in csv.DictReader(file)} == {
            "green/red0.png",
            "green/red0 copy.png",
            "green/blu0.png",
        }


def test_no_file_is_replaced_by_another_kind(swapped, tmp_path):
    labels = tmp_path / "train.csv"
    labels.write_text("the labels")
    with pytest.raises(UserError, match="would replace --labels .*train.csv by its table"):
        label_errors(Inputs(swapped, "none", labels=labels), None, tmp_path / "train.html", tmp_path / "cache")
    with pytest.raises(UserError, match="must be the name of a page"):
        label_errors(Inputs(swapped, "none"), None, labels, tmp_path / "cache")
    assert labels.read_text() == "the labels"


def test_one_image_of_a_class_is_an_error(swapped, tmp_path):
    for path in sorted((swapped / "blue").iterdir())[1:]:
        path.unlink()
    with pytest.raises(UserError, match="at least two different images"):
        label_errors(Inputs(swapped, "none"), None, tmp_path / "errors.html", tmp_path / "cache")


def test_the_folder_of_no_run_is_an_error(swapped, tmp_path):
    with pytest.raises(UserError, match="must be a finished run"):
        label_errors(Inputs(swapped, "none"), tmp_path, tmp_path / "errors.html", tmp_path / "cache")
