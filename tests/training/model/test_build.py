"""Preprocessing, and the model that joins preprocessing, backbone and head."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from helpers import tiny

from training.config.recipe import Finetune
from training.model.build import build_model, preprocessing
from training.model.heads import softmax_head

pytestmark = pytest.mark.unit


def test_preprocessing_gives_the_range_and_size_of_the_backbone():
    pixels = np.zeros((2, 20, 30, 3), np.uint8)
    pixels[1] = 255
    x = keras.ops.convert_to_numpy(preprocessing(75)(pixels))
    assert x.shape == (2, 75, 75, 3)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x[0], -1, atol=1e-5)
    np.testing.assert_allclose(x[1], 1, atol=1e-5)


def test_preprocessing_antialiases_larger_images():
    stripes = np.zeros((1, 300, 300, 3), np.uint8)
    stripes[:, :, ::2] = 255
    x = keras.ops.convert_to_numpy(preprocessing(75, (300, 300))(stripes))
    np.testing.assert_allclose(
        x[:, :, 3:-3], 0, atol=0.05
    )  # grey; without antialiasing, pixels would be black or white


def test_model_is_preprocessing_backbone_and_head():
    backbone, head = tiny("none"), softmax_head(Finetune(), 8, 3)
    model = build_model(backbone, head, (32, 40), 48)
    pixels = np.random.default_rng(0).uniform(0, 255, (5, 32, 40, 3)).astype(np.float32)
    found = keras.ops.convert_to_numpy(model(pixels, training=False))
    np.testing.assert_allclose(found, head(backbone(preprocessing(48, (32, 40))(pixels))), atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert model.input_shape == (None, 32, 40, 3)
    assert model.output_shape == (None, 3)
    assert found.dtype == np.float32


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="XLA is optional in TensorFlow only")
@pytest.mark.parametrize("image_shape", [(32, 32), (64, 64)], ids=["smaller", "larger"])
def test_a_model_is_not_compiled_with_xla_on_a_gpu(monkeypatch, image_shape):
    """Keras would do that for each device but processors, and TensorFlow's bicubic resizing has no such kernel."""
    import tensorflow as tf

    device = SimpleNamespace(device_type="GPU", name="GPU:0")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [device])
    model = build_model(tiny("none"), softmax_head(Finetune(), 8, 3), image_shape, 48)
    model.compile("sgd", "categorical_crossentropy")
    assert model.jit_compile is False
    plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    plain.compile("sgd", "mse")
    assert plain.jit_compile is True  # so this Keras would have done it
