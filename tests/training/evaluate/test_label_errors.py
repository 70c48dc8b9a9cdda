"""`python -m training label-errors`: images in the wrong class folder are listed, with a page of thumbnails."""

import base64
import csv
import io
import os
import re
import shutil

import numpy as np
import pytest
from helpers import tiny, tiny_recipe
from PIL import Image

from common.errors import UserError
from common.files import write_json
from training.auto import choices
from training.evaluate.label_errors import label_errors
from training.inputs import Inputs, load_inputs
from training.run_folder import FIRST_FOLD, OUT_OF_FOLD, RECORD, VAL, make_record

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


@pytest.mark.parametrize("kind", ["run", "crossval"])
def test_the_predictions_of_a_run_are_used_for_their_own_images(swapped, tmp_path, kind):
    """Every other image is held out in the run, so that a prediction's place is not the row of its image.

    The model is sure of each image's label, but of one: it is sure that green/red0.png is red.
    """
    images, folder = load_inputs(Inputs(swapped, "none"))[0], tmp_path / kind
    wrong = [path.endswith("red0.png") for path in images.paths].index(True)
    rows = np.arange(wrong % 2, len(images), 2) if kind == "run" else np.arange(len(images))
    sure = images.labels.copy()
    sure[wrong] = images.names.index("red <b>")
    probabilities = (0.01 + 0.97 * np.eye(3))[sure[rows]]
    run = folder / FIRST_FOLD if kind == "crossval" else folder
    run.mkdir(parents=True)
    write_json(run / RECORD, make_record("tiny", tiny_recipe(), images, "none").to_json())
    if kind == "run":
        np.savez(folder / VAL, labels=images.labels[rows], probabilities=probabilities, rows=rows)
    else:
        np.savez(folder / OUT_OF_FOLD, labels=images.labels, probabilities=probabilities[None])
    lines = label_errors(Inputs(swapped, "none"), folder, tmp_path / "errors.html", tmp_path / "cache")
    assert lines == ["green/red0.png: given green, likely red <b> (98%)"]
    with open(tmp_path / "errors.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row == {
        "path": "green/red0.png",
        "given": "green",
        "likely": "red <b>",
        "probability_of_given": "0.01",
        "probability_of_likely": "0.98",
    }
    assert shown_color(tmp_path / "errors.html") == pytest.approx(COLORS["red <b>"], abs=20)
    assert not (tmp_path / "cache").exists()


def shown_color(page):
    """The mean color of the page's only thumbnail."""
    (data,) = re.findall('data:image/jpeg;base64,([^"]+)"', page.read_text("utf-8"))
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.asarray(image.convert("RGB")).mean((0, 1))


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
