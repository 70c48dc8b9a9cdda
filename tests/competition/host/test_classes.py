"""The classes of a hosted competition are numbered as the participants' training images are."""

import json
import shutil
import unicodedata
import zipfile

import pytest

from common.errors import UserError
from common.images import load_folder
from competition import __main__ as command_line
from competition.host.classes import require_training_classes, with_classes_of
from competition.synthetic import draw_folder
from training.data.copy_split import copy_split
from training.inputs import Inputs

pytestmark = pytest.mark.unit
NAMES = ["Species1", "Species2", "Species3", "Species4"]


@pytest.fixture
def parts(tmp_path):
    """train and validation as `split` writes them. Species2 has one image, which is trained on."""
    data = tmp_path / "data"
    draw_folder(data, 6, classes=len(NAMES), side=32)
    for path in sorted((data / "Species2").iterdir())[1:]:
        path.unlink()
    copy_split(Inputs(data), tmp_path / "parts", 0.5, 0)
    return tmp_path / "parts"


def built(arguments, folder):
    """The class names in the pages' order, in both data folders, and the labels that occur."""
    out = folder / "competition.zip"
    assert command_line.main([*map(str, arguments), "--out", str(out)]) == 0
    with zipfile.ZipFile(out) as archive:
        named = [archive.read(f"{part}/classes.txt").decode().split() for part in ("input_data", "reference_data")]
        labels = {int(line) for line in archive.read("reference_data/labels.txt").split()}
        page = archive.read("data.md").decode()
    assert named[0] == named[1]
    assert all(f"{number}. {name}" in page for number, name in enumerate(named[0]))
    return named[0], labels


@pytest.mark.parametrize("source", ["folder", "file"])
def test_a_class_without_hidden_images_keeps_its_number(parts, tmp_path, capsys, source):
    classes = parts / "train"
    if source == "file":
        classes = tmp_path / "classes.txt"
        classes.write_text("".join(f"{name}\n" for name in NAMES), "utf-8")
    assert built([parts / "validation", "--classes", classes], tmp_path) == (NAMES, {0, 2, 3})
    assert "classes: 0 = Species1, 1 = Species2, 2 = Species3, 3 = Species4\n" in capsys.readouterr().out


def test_fewer_hidden_classes_than_training_classes_beside_them_are_refused(parts, tmp_path, capsys):
    arguments = [str(parts / "validation"), "--out", str(tmp_path / "competition.zip")]
    assert command_line.main(arguments) == 2
    assert "has no image of Species2, which" in capsys.readouterr().err
    assert not (tmp_path / "competition.zip").exists()
    own = parts / "validation"
    assert built([own, "--classes", own], tmp_path) == (["Species1", "Species3", "Species4"], {0, 1, 2})


@pytest.mark.parametrize("missing", [False, True])
def test_names_in_two_unicode_forms_are_the_same_class(tmp_path, missing):
    for part, form, names in (("train", "NFD", ("Aé", "B", "C")), ("validation", "NFC", ("Aé", "C"))):
        draw_folder(tmp_path / "drawn", 1, classes=3, side=32)
        for number, name in enumerate(names if part == "train" or missing else ("Aé", "B", "C"), 1):
            place = tmp_path / part / unicodedata.normalize(form, name)
            shutil.copytree(tmp_path / "drawn" / f"Species{number}", place)
        shutil.rmtree(tmp_path / "drawn")
    hidden = tmp_path / "validation"
    if not missing:
        require_training_classes(load_folder(hidden), hidden)
        return
    with pytest.raises(UserError, match="has no image of B, which"):
        require_training_classes(load_folder(hidden), hidden)


def test_training_images_that_cannot_be_listed_are_compared_all_the_same(parts):
    (parts / "train" / "Species9").mkdir()  # an empty class folder is an error of the training
    (parts / "train" / "Species8").symlink_to("/nowhere/Species8")
    with pytest.raises(UserError, match="has no image of Species2, which"):
        require_training_classes(load_folder(parts / "validation"), parts / "validation")


def test_other_classes_beside_the_hidden_images_are_no_error(parts):
    images = load_folder(parts / "validation")
    shutil.rmtree(parts / "train")
    require_training_classes(images, parts / "validation")  # there are none
    draw_folder(parts / "train", 1, classes=2, side=32)
    require_training_classes(images, parts / "validation")


def test_a_file_decides_the_order(parts, tmp_path):
    listed = tmp_path / "classes.txt"
    listed.write_text("".join(f"{name}\n" for name in reversed(NAMES)), "utf-8")
    images = load_folder(parts / "validation")
    numbered = with_classes_of(images, listed)
    assert numbered.names == tuple(reversed(NAMES))
    assert [numbered.names[label] for label in numbered.labels] == [images.names[label] for label in images.labels]


@pytest.mark.parametrize("text", [None, "", "Species1\n", "Species1\nSpecies1\n", json.dumps(NAMES)])
def test_a_file_without_classes_is_refused(parts, tmp_path, text):
    if text is not None:
        (tmp_path / "classes.txt").write_text(text, "utf-8")
    with pytest.raises(UserError, match="--classes must be a folder of class folders, or a UTF-8 text file"):
        with_classes_of(load_folder(parts / "validation"), tmp_path / "classes.txt")


def test_a_hidden_image_of_another_class_is_refused(parts, tmp_path):
    (tmp_path / "classes.txt").write_text("Species1\nSpecies3\n", "utf-8")
    with pytest.raises(UserError, match="the hidden images must have the classes of --classes.*got also Species4"):
        with_classes_of(load_folder(parts / "validation"), tmp_path / "classes.txt")
