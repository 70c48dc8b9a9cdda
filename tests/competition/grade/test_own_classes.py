"""A zip with another number of classes is graded on synthetic images with its own class names."""

import zipfile

import pytest
from helpers import stub, stub_zip

from competition.grade.grade import Rules, grade
from competition.package.build import build
from training.config.recipe import Prediction
from training.export import export
from training.run import TrainedModel

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
