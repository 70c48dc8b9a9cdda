"""A zip with another number of classes is graded on synthetic images with its own class names."""

import pytest

from competition.grade.grade import grade
from competition.package.build import build
from training.config.recipe import Prediction
from training.export import export
from training.run import TrainedModel

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("classes", [2, 31])
def test_synthetic_images_have_the_classes_of_the_zip(classes, tmp_path):
    import keras

    keras.utils.set_random_seed(0)
    pixels = keras.Input((96, 96, 3))
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(pixels))
    logits = keras.layers.Dense(
        classes, activation="softmax", kernel_initializer=keras.initializers.RandomNormal(stddev=20)
    )
    names = tuple(f"class {number}" for number in range(classes))
    export(TrainedModel(keras.Model(pixels, logits(features)), names, Prediction()), tmp_path / "SubmissionModel")
    result = grade(build(tmp_path / "SubmissionModel", tmp_path / "own.zip"))
    assert result.passed, [check for check in result.checks if not check.passed]
    assert result.names == names
