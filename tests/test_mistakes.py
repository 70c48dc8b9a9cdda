"""The worst mistakes as thumbnails, of a run and of a cross-validation."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import tiny
from PIL import Image

from competition.drawings import draw_folder
from training import __main__ as cli
from training import crossval, run
from training.data import load_folder
from training.mistakes import worst_mistakes
from training.recipe import Recipe

RECIPE = Recipe(validation=0.25, backbone=tiny, head="softmax", phases=((1, 32),), batch=8, warmup=0.0, learning_rate=1e-5)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(images, folder of a run, folder of a cross-validation); both learned next to nothing."""
    folder = tmp_path_factory.mktemp("mistakes")
    draw_folder(folder / "leaves", 8, classes=3, side=32)
    run.train(RECIPE, "small", folder / "leaves", "none", folder / "run")
    crossval.crossval(RECIPE, "small", folder / "leaves", "none", folder / "folds", 2)
    return folder / "leaves", folder / "run", folder / "folds"


def test_the_worst_are_those_whose_truth_was_least_probable():
    labels = np.array([0, 1, 2, 0, 1])
    probabilities = np.array([[0.9, 0.1, 0], [0.6, 0.3, 0.1], [0.5, 0.5, 0], [0.2, 0.1, 0.7], [0, 1, 0]])
    assert worst_mistakes(labels, probabilities, 15).tolist() == [2, 3, 1]
    assert worst_mistakes(labels, probabilities, 2).tolist() == [2, 3]
    assert worst_mistakes(labels[[0, 4]], probabilities[[0, 4]], 15).tolist() == []


@pytest.mark.parametrize("kind", [1, 2], ids=["run", "crossval"])
def test_they_are_drawn_and_named(made, kind, tmp_path, capsys):
    out = tmp_path / "mistakes.png"
    assert cli.main(["mistakes", str(made[kind]), "--data", str(made[0]), "--out", str(out), "--count", "6"]) == 0
    lines = capsys.readouterr().out.splitlines()[:-1]
    images = load_folder(made[0])
    with np.load(made[kind] / (run.HELD if kind == 1 else crossval.OUT_OF_FOLD)) as file:
        labels, probabilities = file["labels"], file["probabilities"] if kind == 1 else file["probabilities"][0]
    rows = run.held_out(RECIPE, images)[1] if kind == 1 else np.arange(len(images))
    expected = worst_mistakes(labels, probabilities, 6)
    assert 0 < len(lines) == len(expected)
    for line, place in zip(lines, expected, strict=True):
        path, rest = line.split(": ")
        assert images.paths[rows[place]].endswith(path)
        assert f"is {images.names[labels[place]]} " in rest and f"said {images.names[probabilities[place].argmax()]} " in rest
        assert path.split("/")[0] == images.names[labels[place]]  # the folder's name is the truth
    with Image.open(out) as picture:
        width, height = picture.size
        assert width > height > 200 and len(picture.convert("RGB").getcolors(1 << 24)) > 500


def test_other_images_and_runs_without_held_images_are_refused(made, tmp_path, capsys):
    other = tmp_path / "other"
    draw_folder(other, 9, classes=3, side=32)
    changed = shutil.copytree(made[0], tmp_path / "changed")  # as many images of each class, one of them another
    shutil.copyfile(other / "Species1" / "00008.jpg", changed / "Species1" / "00000.jpg")
    damaged = shutil.copytree(made[1], tmp_path / "damaged")
    (damaged / run.HELD).write_bytes(b"PK\x03\x04nothing")
    run.train(replace(RECIPE, validation=0.0), "whole", made[0], "none", tmp_path / "whole")
    for folder, data, named in (
        (made[1], other, "made of other images"),
        (made[2], other, "made of other images"),
        (made[1], changed, "made of other images"),
        (made[2], changed, "made of other images"),
        (damaged, made[0], "is damaged"),
        (tmp_path / "whole", made[0], "held images out"),
        (tmp_path / "nothing", made[0], "held images out"),
    ):
        capsys.readouterr()
        assert cli.main(["mistakes", str(folder), "--data", str(data), "--out", str(tmp_path / "m.png")]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and named in error and error.count("\n") == 1
    for count in ("0", "-1", "501"):
        assert cli.main(["mistakes", str(made[1]), "--data", str(made[0]), "--out", str(tmp_path / "m.png"), "--count", count]) == 2
        assert f"--count {count}: expected" in capsys.readouterr().err
    assert not (tmp_path / "m.png").exists()
    assert cli.main(["mistakes", str(made[1]), "--data", str(made[0]), "--out", str(tmp_path / "named")]) == 0  # a PNG by any name
    assert Image.open(tmp_path / "named").format == "PNG"
