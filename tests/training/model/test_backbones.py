"""Backbones: shapes, preprocessing, weights files, and the initialization of zero kernels."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny

from common.errors import UserError
from training.model.backbones import (
    inception_v3,
    inception_v3_small_init,
    initialize_zero_kernels,
    scratch_resnet,
    scratch_vgg,
    vgg19,
)

pytestmark = pytest.mark.integration


def test_inception_accepts_any_size_and_has_2048_features(inception):
    assert inception.input_shape == (None, None, None, 3)
    assert inception.output_shape == (None, 2048)
    assert inception.count_params() == 21_802_784


def test_zero_kernel_is_initialized_and_passes_gradients():
    backbone = tiny("none")
    first, second = (layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D))
    second.kernel.assign(np.zeros(second.kernel.shape))
    untouched = np.array(first.kernel)
    images = np.random.default_rng(0).uniform(-1, 1, (4, 75, 75, 3)).astype(np.float32)

    def gradient():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(backbone(images, training=True) ** 2)
        return np.abs(tape.gradient(loss, first.kernel.value)).max()

    assert gradient() == 0
    assert initialize_zero_kernels(backbone) == [second.name]
    assert gradient() > 0
    np.testing.assert_array_equal(first.kernel, untouched)
    initialized = np.array(second.kernel)
    assert np.std(initialized) == pytest.approx(np.sqrt(2 / (3 * 3 * 8)), rel=0.2)
    assert initialize_zero_kernels(backbone) == []
    second.kernel.assign(np.zeros(second.kernel.shape))
    initialize_zero_kernels(backbone)
    np.testing.assert_array_equal(second.kernel, initialized)
    second.kernel.assign(np.zeros(second.kernel.shape))
    initialize_zero_kernels(backbone, scale=0.01)
    np.testing.assert_allclose(second.kernel, 0.01 * initialized, rtol=1e-6)


def test_small_init_initializes_zero_kernels_with_a_hundredth(inception, tmp_path):
    def last(backbone):
        return [layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D)][-1]

    kernel, path = np.array(last(inception).kernel), tmp_path / "zero_kernel.weights.h5"
    last(inception).kernel.assign(np.zeros(kernel.shape))
    inception.save_weights(path)
    last(inception).kernel.assign(kernel)
    full, small = (np.array(last(build(str(path))).kernel) for build in (inception_v3, inception_v3_small_init))
    np.testing.assert_allclose(small, 0.01 * full, rtol=1e-6)
    assert np.any(small)


def test_no_kernel_of_inception_is_zero(inception):
    assert all(np.any(np.array(layer.kernel)) for layer in inception.layers if isinstance(layer, keras.layers.Conv2D))


@pytest.mark.parametrize("build", [scratch_vgg, scratch_resnet])
def test_network_from_scratch_is_invariant_to_brightness_and_contrast(build):
    keras.utils.set_random_seed(0)
    backbone = build("none")
    image = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 48, 48, 3)).astype(np.float32)
    np.testing.assert_allclose(backbone(image * 1.7 + 0.2), backbone(image), rtol=5e-3, atol=2e-2)  # epsilon: 0.4 %
    assert np.abs(backbone(image[:1]) - backbone(image[1:])).max() > 1e-3


def test_vgg19_has_its_own_preprocessing():
    backbone = vgg19("none")
    first = next(layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D))
    before = keras.Model(backbone.input, first.input)
    images = np.random.default_rng(0).uniform(0, 255, (3, 40, 50, 3)).astype(np.float32)
    expected = keras.applications.vgg19.preprocess_input(images.copy())
    np.testing.assert_allclose(before(images / 127.5 - 1), expected, atol=1e-3)


def test_missing_backbone_weights_are_named(tmp_path):
    with pytest.raises(UserError, match=r"imagenet, none.*nowhere\.weights\.h5"):
        inception_v3(str(tmp_path / "nowhere.weights.h5"))


def test_file_without_weights_is_named(tmp_path):
    path = tmp_path / "wrong.weights.h5"
    path.write_text("no weights")
    with pytest.raises(UserError, match=r"wrong\.weights\.h5") as error:
        inception_v3(str(path))
    assert "\n" not in str(error.value)
