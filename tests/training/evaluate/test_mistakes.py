"""The worst mistakes as thumbnails, of a run and of a cross-validation."""

import re
import shutil

import numpy as np
import pytest
from helpers import change, tiny_recipe
from PIL import Image

from common.images import load_folder
from competition.synthetic import draw_folder
from training import __main__ as cli
from training.data.split import split_rows
from training.evaluate.crossval import crossval
from training.evaluate.mistakes import worst_mistakes
from training.run import Inputs, train
from training.run_folder import OUT_OF_FOLD, VAL

pytestmark = pytest.mark.integration
RECIPE = tiny_recipe(learning_rate=1e-5)


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory):
    """The folders of images, of a run and of a cross-validation. Both have hardly learned anything."""
    folder = tmp_path_factory.mktemp("mistakes")
    draw_folder(folder / "leaves", 8, classes=3, side=32)
    inputs = Inputs(folder / "leaves", "none")
    train(RECIPE, "small", inputs, folder / "run")
    crossval(RECIPE, "small", inputs, folder / "folds", 2)
    return {"images": folder / "leaves", "run": folder / "run", "crossval": folder / "folds"}


def draw(folder, data, out, *arguments):
    return cli.main(["mistakes", str(folder), "--data", str(data), "--out", str(out), *arguments])


@pytest.mark.parametrize(
    ("rows", "count", "worst"),
    [(slice(None), 15, [2, 3, 1]), (slice(None), 2, [2, 3]), ([0, 4], 15, [])],
    ids=["all", "two", "no mistake"],
)
def test_the_worst_mistakes_have_the_lowest_probability_of_the_true_class(rows, count, worst):
    labels = np.array([0, 1, 2, 0, 1])
    probabilities = np.array([[0.9, 0.1, 0], [0.6, 0.3, 0.1], [0.5, 0.5, 0], [0.2, 0.1, 0.7], [0, 1, 0]])
    assert worst_mistakes(labels[rows], probabilities[rows], count).tolist() == worst


def test_names_with_dollar_signs_are_drawn(mistaken, tmp_path):
    shutil.copytree(mistaken["images"], tmp_path / "prices")
    for number, name in enumerate(("$1_to_$5", "$5_to_$10", "100 $")):
        (tmp_path / "prices" / f"Species{number + 1}").rename(tmp_path / "prices" / name)
    train(RECIPE, "small", Inputs(tmp_path / "prices", "none"), tmp_path / "run")
    assert draw(tmp_path / "run", tmp_path / "prices", tmp_path / "out.png") == 0


@pytest.mark.parametrize("kind", ["run", "crossval"])
def test_mistakes_are_drawn_and_named(mistaken, kind, tmp_path, capsys):
    out = tmp_path / "mistakes.png"
    assert draw(mistaken[kind], mistaken["images"], out, "--count", "6") == 0
    lines = capsys.readouterr().out.splitlines()[:-1]
    images = load_folder(mistaken["images"])
    with np.load(mistaken[kind] / (VAL if kind == "run" else OUT_OF_FOLD)) as file:
        labels, probabilities = file["labels"], file["probabilities"]
    rows = split_rows(RECIPE.data, images)[1] if kind == "run" else np.arange(len(images))
    probabilities = probabilities if kind == "run" else probabilities[0]
    expected = worst_mistakes(labels, probabilities, 6)
    assert 0 < len(lines) == len(expected)
    for line, place in zip(lines, expected, strict=True):
        path, rest = line.split(": ")
        true, predicted = images.names[labels[place]], images.names[probabilities[place].argmax()]
        assert images.paths[rows[place]].endswith(path)
        assert f"true {true} " in rest and f"predicted {predicted} " in rest
        assert path.split("/")[0] == true  # the folder's name
    with Image.open(out) as picture:
        width, height = picture.size
        assert width > height > 200 and len(picture.convert("RGB").getcolors(1 << 24)) > 500


@pytest.fixture(scope="module")
def unfit(mistaken, tmp_path_factory):
    """Folders that do not fit, by name."""
    folder = tmp_path_factory.mktemp("unfit")
    draw_folder(folder / "other", 9, classes=3, side=32)
    changed = shutil.copytree(mistaken["images"], folder / "changed")  # the same number of images, one is another
    shutil.copyfile(folder / "other" / "Species1" / "00008.jpg", changed / "Species1" / "00000.jpg")
    damaged = shutil.copytree(mistaken["run"], folder / "damaged")
    (damaged / VAL).write_bytes(b"PK\x03\x04nothing")
    train(change(RECIPE, validation_split=0.0), "full", Inputs(mistaken["images"], "none"), folder / "full")
    return {**mistaken, **{name: folder / name for name in ("other", "changed", "damaged", "full", "missing")}}


@pytest.mark.parametrize(
    ("folder", "data", "named"),
    [
        ("run", "other", "images that .* was trained on"),
        ("crossval", "other", "images that .* was trained on"),
        ("run", "changed", "images that .* was trained on"),
        ("crossval", "changed", "images that .* was trained on"),
        ("damaged", "images", "is damaged"),
        ("full", "images", "validation set"),
        ("missing", "images", "there is no folder"),
    ],
)
def test_wrong_images_and_folders_are_refused(unfit, folder, data, named, tmp_path, capsys):
    assert draw(unfit[folder], unfit[data], tmp_path / "m.png") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and re.search(named, error) and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["run", "crossval"])
def test_other_class_names_are_refused_naming_both(mistaken, kind, tmp_path, capsys):
    """The images and the labels are the same, only one folder is called otherwise."""
    renamed = shutil.copytree(mistaken["images"], tmp_path / "renamed")
    (renamed / "Species3").rename(renamed / "Species9")
    assert draw(mistaken[kind], renamed, tmp_path / "m.png") == 2
    error = capsys.readouterr().err
    assert "Species1, Species2, Species3" in error and "Species1, Species2, Species9" in error
    assert not (tmp_path / "m.png").exists()


def test_a_count_above_the_largest_is_refused(mistaken, tmp_path, capsys):
    assert draw(mistaken["run"], mistaken["images"], tmp_path / "m.png", "--count", "501") == 2
    assert re.search("--count must be .*1 to 500, got 501", capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_the_picture_is_a_png_whatever_its_name(mistaken, tmp_path):
    assert draw(mistaken["run"], mistaken["images"], tmp_path / "named") == 0
    assert Image.open(tmp_path / "named").format == "PNG"


def test_the_folder_of_auto_stands_for_its_best_run(mistaken, tmp_path):
    shutil.copytree(mistaken["run"], tmp_path / "auto" / "best")
    assert draw(tmp_path / "auto", mistaken["images"], tmp_path / "best.png") == 0
    assert draw(mistaken["run"], mistaken["images"], tmp_path / "run.png") == 0
    assert (tmp_path / "best.png").read_bytes() == (tmp_path / "run.png").read_bytes()


def test_a_run_on_a_part_of_the_images_reads_the_same_part_again(mistaken, tmp_path):
    train(RECIPE, "small", Inputs(mistaken["images"], "none", max_images=15), tmp_path / "run")
    assert draw(tmp_path / "run", mistaken["images"], tmp_path / "out.png") == 0


def test_if_the_best_run_was_trained_on_all_images_the_predictions_of_before_are_drawn(mistaken, tmp_path, capsys):
    shutil.copytree(mistaken["run"], tmp_path / "auto" / "best")
    (tmp_path / "auto" / "best" / VAL).rename(tmp_path / "auto" / VAL)
    assert draw(tmp_path / "auto", mistaken["images"], tmp_path / "auto.png") == 0
    assert draw(mistaken["run"], mistaken["images"], tmp_path / "run.png") == 0
    assert (tmp_path / "auto.png").read_bytes() == (tmp_path / "run.png").read_bytes()
