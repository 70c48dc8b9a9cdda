"""What a run reads: the size of the images, and test images, which are matched by name and searched for copies."""

import argparse
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from training.__main__ import _size, main
from training.run import Inputs, _load, train
from training.run_folder import METRICS, read_record

pytestmark = pytest.mark.integration


@pytest.fixture
def test_folder(leaf_folder, tmp_path):
    """The same classes with other images."""
    shutil.copytree(leaf_folder, tmp_path / "test")
    for path in (tmp_path / "test").glob("*/*.jpg"):
        Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
    return tmp_path / "test"


def test_other_test_images_of_the_same_classes_need_no_word(leaf_folder, test_folder, capsys):
    images, test = _load(Inputs(leaf_folder, "none", test_folder))
    assert test.count_in(images) == 0
    assert np.array_equal(test.labels, images.labels)
    assert capsys.readouterr().out == ""


def test_missing_test_class_is_warned_of_and_the_others_keep_their_labels(leaf_folder, test_folder, capsys):
    shutil.rmtree(test_folder / "Species1")
    images, test = _load(Inputs(leaf_folder, "none", test_folder))
    assert test.names == images.names
    assert test.labels.tolist() == [1] * 8 + [2] * 8
    assert "warning: --test has no images of Species1" in capsys.readouterr().out


def test_renamed_test_class_is_refused_by_name(leaf_folder, test_folder):
    (test_folder / "Species1").rename(test_folder / "Species9")
    with pytest.raises(UserError, match="--data, Species1, Species2, Species3; got also Species9"):
        _load(Inputs(leaf_folder, "none", test_folder))


def test_test_images_in_training_are_warned_of_and_stated_in_the_metrics(
    leaf_folder, test_folder, small, tmp_path, capsys
):
    for number in range(3):
        source = leaf_folder / "Species2" / f"{number:05d}.jpg"
        Image.open(source).save(test_folder / "Species2" / f"copy{number}.png")  # other bytes, the same pixels
    train(small, "leaky", Inputs(leaf_folder, "none", test_folder), tmp_path / "leaky")
    assert "warning: 3 of the 27 --test images are also in --data" in capsys.readouterr().out
    assert json.loads((tmp_path / "leaky" / METRICS).read_text("utf-8"))["test_images_in_training"] == 3


def test_run_without_test_images_states_nothing_of_them(leaf_folder, small, tmp_path):
    result = train(small, "plain", Inputs(leaf_folder, "none", size=(24, 28)), tmp_path / "plain")
    assert "test_images_in_training" not in result
    assert read_record(tmp_path / "plain").image_shape == (24, 28)


@pytest.mark.parametrize(("text", "size"), [("128", (128, 128)), ("96x128", (96, 128)), ("96×128", (96, 128))])
def test_size_is_one_side_or_height_and_width(text, size):
    assert _size(text) == size


@pytest.mark.parametrize("text", ["0", "-1", "96x", "x96", "96x96x3", "1.5", "", "5000", "10²", "①", "a"])
def test_other_sizes_are_refused(text, capsys):
    with pytest.raises(argparse.ArgumentTypeError, match="N or HEIGHTxWIDTH"):
        _size(text)
    with pytest.raises(SystemExit) as error:
        main(["run", "released", "--data", "nowhere", f"--size={text}"])
    assert error.value.code == 2
    assert "--size" in capsys.readouterr().err
