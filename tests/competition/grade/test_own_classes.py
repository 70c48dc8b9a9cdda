"""A zip with another number of classes is graded on synthetic images with its own class names."""

import zipfile

import pytest
from helpers import stub, stub_zip
from PIL import Image

from common.errors import UserError
from competition.grade.grade import Rules, grade
from competition.package.build import build
from competition.synthetic import draw_folder, draw_images
from training.config.recipe import Prediction
from training.export import export
from training.trained import TrainedModel

pytestmark = pytest.mark.integration


def exported(classes, folder):
    """A SavedModel of a network that tells its class names. Returns the names."""
    import keras

    keras.utils.set_random_seed(0)
    pixels = keras.Input((96, 96, 3))
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(pixels))
    logits = keras.layers.Dense(
        classes, activation="softmax", kernel_initializer=keras.initializers.RandomNormal(stddev=20)
    )
    names = tuple(f"class {number}" for number in range(classes))
    export(TrainedModel(keras.Model(pixels, logits(features)), names, Prediction()), folder)
    return names


def test_synthetic_images_have_the_classes_of_the_zip(tmp_path):
    names = exported(31, tmp_path / "SubmissionModel")
    result = grade(build(tmp_path / "SubmissionModel", tmp_path / "own.zip"))
    assert result.passed, [check for check in result.checks if not check.passed]
    assert result.names == names


@pytest.mark.parametrize(("answers", "passed"), [("good % 2", True), ("good", False)])
def test_answers_are_compared_with_the_number_of_classes_of_the_zip(tmp_path, answers, passed):
    """A stub that needs no TensorFlow, with the SavedModel of two classes."""
    names = exported(2, tmp_path / "SubmissionModel")
    path = stub_zip(tmp_path / "own.zip", stub(answers))
    with zipfile.ZipFile(path, "a") as archive:
        archive.write(tmp_path / "SubmissionModel" / "saved_model.pb", "SubmissionModel/saved_model.pb")
    result = grade(path, rules=Rules(layout="an2dl2024"))
    assert result.names == names
    assert result.passed == passed
    assert passed or any("there are 2 classes" in check.reason for check in result.checks)


def test_without_class_names_eight_classes_are_assumed_and_said(tmp_path):
    path = stub_zip(tmp_path / "own.zip", stub("good + 4"))
    assumed, told = (grade(path, rules=Rules(layout="an2dl2024", classes=count)) for count in (None, 12))
    assert not assumed.passed and any("8 are assumed; --classes N" in note for note in assumed.notes)
    assert told.passed and len(told.names) == 12
    assert not any("assumed" in note for note in told.notes)


def test_synthetic_and_own_images_have_the_given_size(tmp_path):
    """The submission refuses other sizes, as a network of a fixed input size does."""
    draw_folder(tmp_path / "data", per_class=3, classes=4, side=32)
    code = stub("good % 4").replace(
        "def predict(self, X):", "def predict(self, X):\n        assert X.shape[1:3] == (48, 40)"
    )
    assert "assert" in code
    path = stub_zip(tmp_path / "own.zip", code)
    for data in (None, tmp_path / "data"):
        for size, passed in (((48, 40), True), (None, False)):
            assert grade(path, data, Rules(layout="an2dl2024", size=size, classes=4)).passed == passed


@pytest.mark.parametrize(("printed", "missing"), [("numpy", "numpy"), ("", "these packages")])
def test_an_interpreter_without_the_packages_is_not_blamed_on_the_zip(tmp_path, printed, missing):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {printed}\n")
    python.chmod(0o755)
    with pytest.raises(UserError, match=f"--python .*has numpy.*does not find {missing}.*environment"):
        grade(stub_zip(tmp_path / "own.zip", stub()), rules=Rules(layout="an2dl2024"), python=python)


@pytest.fixture
def several_sizes(tmp_path):
    """Images of two classes, most of them 40×128 and some 64×128."""
    for label in range(2):
        folder = tmp_path / "test" / f"class {label}"
        folder.mkdir(parents=True)
        for number, height in enumerate((40, 40, 40, 64)):
            leaf = draw_images(1, seed=4 * label + number, side=128)[0]
            Image.fromarray(leaf[:height]).save(folder / f"{number}.png")
    return tmp_path / "test"


def graded_at(expected, folder, tmp_path, size=None):
    """The notes on images that a submission, whose model was trained at 64×128, is given at the expected size."""
    import keras

    pixels = keras.Input((64, 128, 3))
    output = keras.layers.Dense(2, activation="softmax")(keras.layers.GlobalAveragePooling2D()(pixels))
    export(
        TrainedModel(keras.Model(pixels, output), ("class 0", "class 1"), Prediction()), tmp_path / "SubmissionModel"
    )
    path = stub_zip(tmp_path / "own.zip", stub(f"good % 2 if x.shape[1:3] == {expected} else 1 / 0"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.write(tmp_path / "SubmissionModel" / "saved_model.pb", "SubmissionModel/saved_model.pb")
    result = grade(path, folder, Rules(layout="an2dl2024", size=size))
    assert result.passed, [check for check in result.checks if not check.passed]
    return " ".join(result.notes)


def test_images_of_several_sizes_are_read_at_the_models(several_sizes, tmp_path):
    """As by `predict`. At the most frequent size, other parts of them could be cropped."""
    notes = graded_at((64, 128), several_sizes, tmp_path)
    assert "several sizes and are read at the model's, 64×128; if the server has others, --size" in notes


@pytest.mark.parametrize("given", [True, False])
def test_other_images_are_read_at_the_given_size_or_at_their_own(several_sizes, tmp_path, given):
    if not given:
        for path in several_sizes.glob("*/3.png"):
            path.unlink()
    assert "several sizes" not in graded_at((40, 128), several_sizes, tmp_path, (40, 128) if given else None)


def test_images_of_several_sizes_are_read_at_the_most_frequent_if_the_zip_names_none(several_sizes, tmp_path):
    path = stub_zip(tmp_path / "own.zip", stub("good % 2 if x.shape[1:3] == (40, 40) else 1 / 0"))
    assert grade(path, several_sizes, Rules(layout="an2dl2024")).passed
