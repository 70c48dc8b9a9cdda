"""Averaged weights: the mean is a mean, and batch statistics are those of the averaged network."""

import keras
import numpy as np
import pytest

from competition.drawings import draw_images
from training.architectures import preprocessing
from training.augment import Augmentation
from training.averaging import add_to_mean, recalibrate
from training.features import view_batches

VIEWS = Augmentation(quarter_turns=True, brightness=0.3)


@pytest.fixture(scope="module")
def images():
    return draw_images(20, classes=2, side=24)


@pytest.fixture
def backbone():
    """A convolution between two normalisations, all statistics wrong."""
    keras.utils.set_random_seed(0)
    norms = [keras.layers.BatchNormalization(name=name) for name in ("first", "second")]
    network = keras.Sequential([keras.Input((None, None, 3)), norms[0], keras.layers.Conv2D(4, 3), norms[1]])
    for norm in norms:
        norm.moving_mean.assign(norm.moving_mean + 7)
        norm.moving_variance.assign(norm.moving_variance * 5)
    return network


def statistics(norm):
    return norm.moving_mean.numpy(), norm.moving_variance.numpy()


def test_the_mean_of_any_number_of_networks():
    rng = np.random.default_rng(0)
    networks = [[rng.normal(size=(3, 4)), rng.normal(size=5).astype(np.float32)] for _ in range(7)]
    mean = []
    for count, weights in enumerate(networks):
        mean = add_to_mean(mean, weights, count)
        for found, expected in zip(mean, zip(*networks[: count + 1], strict=True), strict=True):
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, np.mean(expected, axis=0), atol=1e-6)


@pytest.mark.parametrize("batch", [5, 6, 20, 64])
def test_batch_statistics_are_measured_anew(images, backbone, batch):
    recalibrate(backbone, images, 32, VIEWS, seed=3, batch=batch)
    whole = len(images) // batch * batch or len(images)
    order = np.random.default_rng(3).permutation(len(images))[:whole]
    parts = [np.array(part) for part in view_batches(images[order], 32, VIEWS, 3, 0, batch)]
    mean, variance = statistics(backbone.get_layer("first"))
    np.testing.assert_allclose(mean, np.mean([part.mean(axis=(0, 1, 2)) for part in parts], axis=0), atol=1e-5)
    np.testing.assert_allclose(variance, np.mean([part.var(axis=(0, 1, 2)) for part in parts], axis=0), atol=1e-5)
    # The second sees what the first, normalised by its batch, lets through: nothing is left of the wrong statistics.
    first, convolution, second = backbone.layers
    parts = [(part - part.mean(axis=(0, 1, 2))) / np.sqrt(part.var(axis=(0, 1, 2)) + first.epsilon) for part in parts]
    inside = [np.array(convolution(part)) for part in parts]
    mean, variance = statistics(second)
    np.testing.assert_allclose(mean, np.mean([part.mean(axis=(0, 1, 2)) for part in inside], axis=0), atol=1e-3)
    np.testing.assert_allclose(variance, np.mean([part.var(axis=(0, 1, 2)) for part in inside], axis=0), rtol=1e-3)
    assert [norm.momentum for norm in (backbone.get_layer("first"), backbone.get_layer("second"))] == [0.99, 0.99]


def test_a_frozen_layer_keeps_its_statistics(images, backbone):
    backbone.get_layer("first").trainable = False
    kept, other = statistics(backbone.get_layer("first")), statistics(backbone.get_layer("second"))
    recalibrate(backbone, images, 32, VIEWS, seed=0, batch=8)
    np.testing.assert_array_equal(statistics(backbone.get_layer("first")), kept)
    assert not np.allclose(statistics(backbone.get_layer("second")), other)


def test_weights_are_left_as_they_are(images, backbone):
    before = [variable.numpy() for variable in backbone.trainable_variables]
    recalibrate(backbone, images, 32, None, seed=0, batch=8)
    for variable, array in zip(backbone.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), array)


def test_views_come_in_batches_as_a_backbone_takes_them(images):
    whole = np.concatenate([np.array(part) for part in view_batches(images, 32, None, 0, 0, 7)])
    np.testing.assert_allclose(whole, np.array(preprocessing(32)(images.astype(np.float32))), atol=1e-5)
    assert whole.min() >= -1.2 and whole.max() <= 1.2 and whole.shape == (20, 32, 32, 3)
    one, again, other = (np.concatenate([np.array(p) for p in view_batches(images, 32, VIEWS, seed, 1, 7)]) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)
