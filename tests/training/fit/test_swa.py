"""Stochastic weight averaging: the mean of weights, and batch statistics of the averaged model."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from competition.synthetic import draw_images
from training.data.augment import RandomTransforms
from training.fit.features import FeatureSpec, view_batches
from training.fit.swa import add_to_mean, update_batch_norm
from training.model.build import preprocessing

VIEWS = FeatureSpec(32, RandomTransforms(quarter_turns=True, brightness=0.3), seed=3)
PLAIN = FeatureSpec(32)
pytestmark = pytest.mark.unit
IMAGES = draw_images(20, classes=2, side=24)


@pytest.fixture
def wrong_statistics():
    """A convolution between two BatchNormalization layers whose statistics are all wrong."""
    keras.utils.set_random_seed(0)
    norms = [keras.layers.BatchNormalization(name=name) for name in ("first", "second")]
    model = keras.Sequential([keras.Input((None, None, 3)), norms[0], keras.layers.Conv2D(4, 3), norms[1]])
    for norm in norms:
        norm.moving_mean.assign(norm.moving_mean + 7)
        norm.moving_variance.assign(norm.moving_variance * 5)
    return model


def statistics(norm):
    return norm.moving_mean.numpy(), norm.moving_variance.numpy()


def test_mean_of_any_number_of_models():
    rng = np.random.default_rng(0)
    models = [[rng.normal(size=(3, 4)), rng.normal(size=5).astype(np.float32)] for _ in range(7)]
    mean = []
    for count, weights in enumerate(models):
        mean = add_to_mean(mean, weights, count)
        for found, expected in zip(mean, zip(*models[: count + 1], strict=True), strict=True):
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, np.mean(expected, axis=0), atol=1e-6)


@pytest.mark.parametrize("batch_size", [5, 6, 20, 64])
def test_batch_statistics_are_recomputed(wrong_statistics, batch_size):
    backbone = wrong_statistics
    update_batch_norm(backbone, IMAGES, VIEWS, batch_size)
    whole = len(IMAGES) // batch_size * batch_size or len(IMAGES)
    order = np.random.default_rng(3).permutation(len(IMAGES))[:whole]
    parts = [np.array(part) for part in view_batches(IMAGES[order], VIEWS, 0, batch_size)]
    mean, variance = statistics(backbone.get_layer("first"))
    np.testing.assert_allclose(mean, np.mean([part.mean(axis=(0, 1, 2)) for part in parts], axis=0), atol=1e-5)
    np.testing.assert_allclose(variance, np.mean([part.var(axis=(0, 1, 2)) for part in parts], axis=0), atol=1e-5)
    # The second layer's input is normalized by the batch, not by the first layer's wrong statistics.
    first, convolution, second = backbone.layers
    parts = [(part - part.mean(axis=(0, 1, 2))) / np.sqrt(part.var(axis=(0, 1, 2)) + first.epsilon) for part in parts]
    inside = [np.array(convolution(part)) for part in parts]
    mean, variance = statistics(second)
    np.testing.assert_allclose(mean, np.mean([part.mean(axis=(0, 1, 2)) for part in inside], axis=0), atol=1e-3)
    np.testing.assert_allclose(variance, np.mean([part.var(axis=(0, 1, 2)) for part in inside], axis=0), rtol=1e-3)
    assert [norm.momentum for norm in (backbone.get_layer("first"), backbone.get_layer("second"))] == [0.99, 0.99]


def test_frozen_layer_keeps_its_statistics(wrong_statistics):
    backbone = wrong_statistics
    backbone.get_layer("first").trainable = False
    kept, other = statistics(backbone.get_layer("first")), statistics(backbone.get_layer("second"))
    update_batch_norm(backbone, IMAGES, VIEWS, 8)
    np.testing.assert_array_equal(statistics(backbone.get_layer("first")), kept)
    assert not np.allclose(statistics(backbone.get_layer("second")), other)


def test_weights_do_not_change(wrong_statistics):
    backbone = wrong_statistics
    before = [variable.numpy() for variable in backbone.trainable_variables]
    update_batch_norm(backbone, IMAGES, PLAIN, 8)
    for variable, array in zip(backbone.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), array)


def test_view_batches_are_input_of_a_backbone():
    whole = np.concatenate([np.array(part) for part in view_batches(IMAGES, PLAIN, 0, 7)])
    np.testing.assert_allclose(whole, np.array(preprocessing(32)(IMAGES.astype(np.float32))), atol=1e-5)
    assert whole.min() >= -1.2 and whole.max() <= 1.2 and whole.shape == (20, 32, 32, 3)

    def views(seed):
        return np.concatenate([np.array(part) for part in view_batches(IMAGES, replace(VIEWS, seed=seed), 1, 7)])

    one, again, other = map(views, (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)
