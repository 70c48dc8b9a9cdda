"""Preprocessing, and the model that joins preprocessing, backbone and head."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from helpers import tiny

from common.errors import UserError
from training.config.recipe import Finetune
from training.data.pipeline import plain_batches
from training.model.build import build_model, compile_classifier, load_weights, preprocessing
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


@pytest.mark.parametrize(
    ("place", "bad"), [(0, np.nan), (1, np.inf), (-1, -np.inf)], ids=["kernel", "gamma", "bias of the softmax"]
)
def test_weights_that_are_not_finite_are_refused(tmp_path, place, bad):
    path = tmp_path / "run.weights.h5"
    model, other = (build_model(tiny("none"), softmax_head(Finetune(), 8, 3), (32, 32), 48) for _ in range(2))
    model.save_weights(path)
    load_weights(other, path)
    weights = model.get_weights()
    weights[place].reshape(-1)[-1] = bad
    model.set_weights(weights)
    model.save_weights(path)
    with pytest.raises(UserError, match=r"run\.weights\.h5 must be finite, and some are not; train the run again"):
        load_weights(other, path)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"no weights"), lambda path: path.unlink()])
def test_weights_that_cannot_be_read_are_refused(tmp_path, damage):
    path = tmp_path / "run.weights.h5"
    model = build_model(tiny("none"), softmax_head(Finetune(), 8, 3), (32, 32), 48)
    model.save_weights(path)
    damage(path)
    with pytest.raises(UserError, match="does not hold this recipe's weights"):
        load_weights(model, path)


def test_a_training_step_is_traced_once_and_metrics_start_from_zero():
    class Counted(keras.Model):
        traces = 0

        def train_step(self, data):
            Counted.traces += 1
            return super().train_step(data)

    pixels = keras.Input((8,))
    model = Counted(pixels, keras.layers.Dense(3, activation="softmax")(pixels))
    compile_classifier(model, keras.optimizers.SGD(0.0), "categorical_crossentropy")
    images, labels = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32), np.array([0, 1, 2, 0, 1, 2])
    logs = model.fit(plain_batches(2, images, np.eye(3, dtype=np.float32)[labels]), shuffle=False, verbose=0).history
    assert Counted.traces == 1
    predicted = keras.ops.convert_to_numpy(model(images)).argmax(axis=1)
    assert logs["accuracy"] == pytest.approx([(predicted == labels).mean()])
