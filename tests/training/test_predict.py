"""Test-time augmentation (TTA), and that the stand-alone submission/model.py computes the same as training.predict."""

import keras
import numpy as np
import pytest
from helpers import NAMES, ROOT, load_module, tiny_network, tiny_submission

from common.errors import UserError
from competition.synthetic import draw_images
from training.config.recipe import Prediction
from training.predict import TTA_TRANSFORMS, needs_square, predict_proba, transform

ALL = tuple(TTA_TRANSFORMS)
IMAGES = draw_images(40, seed=3)  # more than one batch of 32


class Network:
    """A stand-in for a model: the first pixel decides the probabilities of two classes. It counts its images."""

    def __init__(self):
        self.calls = []

    def predict(self, batches, **_):
        images = np.concatenate([batch for (batch,) in batches])
        self.calls.append(len(images))
        share = images[:, 0, 0, 0] / 10
        return np.stack([share, 1 - share], axis=1)


@pytest.fixture
def shares():
    """Four images whose first pixels and those of their vertical mirror images differ."""
    images = np.zeros((4, 2, 2, 1))
    images[:, 0, 0, 0], images[:, 1, 0, 0] = [9, 8, 6, 1], [0, 2, 4, 6]
    return images


@pytest.mark.unit
def test_only_images_of_low_confidence_are_averaged(shares):
    network = Network()
    found = predict_proba(network, shares, Prediction(("none", "vertical"), 0.8))
    np.testing.assert_allclose(found[:, 0], [0.9, 0.5, 0.5, 0.1])
    assert network.calls == [4, 2]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("transforms", "threshold", "expected", "calls"),
    [
        (("none", "vertical"), 1.0, [0.45, 0.5, 0.5, 0.35], [4, 4]),
        (("none", "vertical"), 0.0, [0.9, 0.8, 0.6, 0.1], [4]),
        (("none",), 1.0, [0.9, 0.8, 0.6, 0.1], [4]),
        (("vertical",), 1.0, [0.0, 0.2, 0.4, 0.6], [4]),
    ],
)
def test_threshold_decides_how_many_images_are_averaged(shares, transforms, threshold, expected, calls):
    network = Network()
    found = predict_proba(network, shares, Prediction(transforms, threshold))
    np.testing.assert_allclose(found[:, 0], expected)
    assert network.calls == calls


@pytest.mark.unit
def test_transforms_are_the_eight_symmetries_of_the_square():
    image = np.arange(9).reshape(1, 3, 3, 1)
    symmetries = {np.rot90(mirror, turns).tobytes() for mirror in (image[0], image[0, ::-1]) for turns in range(4)}
    assert len(ALL) == 8
    assert {transform(image, name)[0].tobytes() for name in ALL} == symmetries
    assert transform(image, "none").tolist() == image.tolist()
    np.testing.assert_array_equal(transform(image, "horizontal"), image[:, :, ::-1])
    np.testing.assert_array_equal(transform(image, "vertical"), image[:, ::-1])


@pytest.mark.unit
@pytest.mark.parametrize("name", ALL)
def test_transforms_that_need_square_images_are_those_that_change_the_shape(name):
    images = np.zeros((5, 2, 3, 1), np.uint8)
    assert (transform(images, name).shape != images.shape) == needs_square(name)
    assert transform(images, name).shape == ((5, 3, 2, 1) if needs_square(name) else (5, 2, 3, 1))


@pytest.mark.unit
def test_submission_has_the_same_transforms():
    assert load_module(ROOT / "submission" / "model.py").TTA_TRANSFORMS == TTA_TRANSFORMS


@pytest.fixture(scope="module")
def trained_network():
    """The network of `tiny_submission`."""
    keras.utils.set_random_seed(0)
    return tiny_network()


@pytest.mark.integration
@pytest.mark.parametrize(
    "prediction",
    [*(Prediction((name,)) for name in ALL), Prediction(ALL), Prediction(ALL, 0.6), Prediction(ALL[::-1], 0.6)],
    ids=lambda prediction: f"{'-'.join(prediction.tta_transforms)}-{prediction.tta_threshold}",
)
def test_submission_gives_the_same_probabilities(trained_network, prediction):
    folder = tiny_submission(prediction.tta_transforms, prediction.tta_threshold)
    submission = load_module(folder / "model.py").model(folder)
    expected = predict_proba(trained_network, IMAGES, prediction)
    assert submission.tta_transforms == prediction.tta_transforms
    assert submission.tta_threshold == pytest.approx(prediction.tta_threshold)
    np.testing.assert_allclose(submission.predict_proba(IMAGES), expected, atol=2e-3)  # weights are stored in float16
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-5)
    assert expected.shape == (len(IMAGES), len(NAMES))


@pytest.mark.integration
def test_threshold_averages_some_images_and_not_others(trained_network):
    """Otherwise, the comparison with a threshold would compare nothing new."""
    first, averaged, mixed = (
        predict_proba(trained_network, IMAGES, prediction)
        for prediction in (Prediction(("none",)), Prediction(ALL), Prediction(ALL, 0.6))
    )
    uncertain = first.max(axis=1) <= 0.6
    assert 0 < uncertain.sum() < len(IMAGES)
    np.testing.assert_allclose(mixed, np.where(uncertain[:, None], averaged, first), atol=1e-5)
    assert np.abs(averaged - first).max() > 0.05


def test_probabilities_that_are_nan_are_refused():
    """Their class would be 0."""
    pixels = keras.Input((4, 4, 3))
    output = keras.layers.Lambda(lambda x: keras.ops.mean(x, axis=(1, 2)) * np.nan)(pixels)
    with pytest.raises(UserError, match="probabilities must be finite, and some are NaN"):
        predict_proba(keras.Model(pixels, output), np.zeros((2, 4, 4, 3), np.uint8), Prediction())
