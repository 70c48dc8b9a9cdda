"""The fast layers compute what Keras' own do: outputs, gradients and moving statistics."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.model import fast_layers
from training.model.fast_layers import BatchNormalization, Conv2D, fuse

pytestmark = pytest.mark.integration


def network(**options):
    """A convolution and a BatchNormalization with random weights, the same at each call."""
    pixels = keras.Input((9, 9, 3))
    x = keras.layers.Conv2D(5, 3, use_bias=False)(pixels)
    outputs = keras.layers.BatchNormalization(momentum=0.9, **options)(x)
    model = keras.Model(pixels, outputs)
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, weight.shape).astype(np.float32) for weight in model.get_weights()])
    return model


def step(model, training=True):
    """The outputs, the gradients of their squares, and the weights after one call."""
    pixels = np.random.default_rng(1).normal(2, 3, (4, 9, 9, 3)).astype(np.float32)
    with tf.GradientTape() as tape:
        outputs = tf.cast(model(pixels, training=training), tf.float32)
        loss = tf.reduce_sum(outputs * outputs * tf.range(5, dtype=tf.float32))
    gradients = tape.gradient(loss, model.trainable_variables)
    return [outputs.numpy(), *(gradient.numpy() for gradient in gradients), *model.get_weights()]


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}, {"epsilon": 0.1}])
@pytest.mark.parametrize("training", [True, False])
def test_a_step_is_that_of_keras(options, training):
    expected, model = step(network(**options), training), fuse(network(**options))
    assert isinstance(model.layers[-1], BatchNormalization)
    found = step(model, training)
    assert len(found) == len(expected)
    for value, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, other, rtol=2e-4, atol=2e-3)


def test_frozen_layers_keep_their_statistics():
    model = fuse(network())
    model.layers[-1].trainable = False
    before = model.get_weights()
    step(model)
    for value, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, other)


def test_synchronized_layers_are_those_of_keras(monkeypatch):
    model = fuse(network())
    model.layers[-1].synchronized = True
    monkeypatch.setattr(tf.compat.v1.nn, "fused_batch_norm", lambda *rest, **named: pytest.fail("fused"))
    expected = step(network())
    for value, other in zip(step(model), expected, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-4, atol=1e-3)


def test_bfloat16_differs_by_rounding_only():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        expected, model = step(network()), fuse(network())
    finally:
        keras.config.set_dtype_policy("float32")
    found = step(model)
    np.testing.assert_allclose(found[0], expected[0], atol=0.05)
    for value, other in zip(found[-2:], expected[-2:], strict=True):  # moving statistics
        np.testing.assert_allclose(value, other, rtol=0.01)


def test_one_dimensional_and_masked_inputs_are_those_of_keras():
    layer = BatchNormalization()
    rows = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    np.testing.assert_allclose(
        layer(rows, training=True), keras.layers.BatchNormalization()(rows, training=True), atol=1e-5
    )
    rng = np.random.default_rng(1)
    images, mask = rng.normal(size=(4, 3, 3, 2)).astype(np.float32), rng.random((4, 3, 3)) < 0.5
    found, expected, unmasked = (
        one(images, training=True, mask=given)
        for one, given in (
            (BatchNormalization(), mask),
            (keras.layers.BatchNormalization(), mask),
            (BatchNormalization(), None),
        )
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - unmasked).max() > 1e-2


def test_weights_files_are_exchanged_with_keras(tmp_path):
    plain, fused = network(), fuse(network())
    fused.set_weights([2 * weight for weight in plain.get_weights()])
    for source, target in ((plain, fuse(network())), (fused, network())):
        target.set_weights([0 * weight for weight in target.get_weights()])
        source.save_weights(tmp_path / "a.weights.h5")
        target.load_weights(tmp_path / "a.weights.h5")
        for value, other in zip(target.get_weights(), source.get_weights(), strict=True):
            np.testing.assert_array_equal(value, other)


def convolution(size, policy="mixed_bfloat16", **options):
    pixels = keras.Input((size, size, 5))
    layer = keras.layers.Conv2D(6, **options, dtype=policy)
    return keras.Model(pixels, layer(pixels))


def gradients_of(model, size):
    """The outputs and the gradients of their products with fixed numbers: of the inputs and of each variable."""
    rng = np.random.default_rng(0)
    pixels = tf.constant(rng.normal(size=(3, size, size, 5)).astype(np.float32))
    model.set_weights([rng.normal(size=weight.shape).astype(np.float32) for weight in model.get_weights()])

    @tf.function
    def compute():
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            outputs = tf.cast(model(pixels, training=True), tf.float32)
            loss = tf.reduce_sum(outputs * tf.random.stateless_normal(tf.shape(outputs), (0, 1)))
        return outputs, *tape.gradient(loss, [pixels, *model.trainable_variables])

    return [value.numpy() for value in compute()]


SMALL = [
    (20, {"kernel_size": 1}),
    (7, {"kernel_size": 3, "padding": "same"}),
    (10, {"kernel_size": 3}),
    (8, {"kernel_size": (1, 7), "padding": "same", "use_bias": False}),
    (8, {"kernel_size": (2, 4), "padding": "same", "activation": "relu"}),
]
OTHERS = [
    (20, {"kernel_size": 3}, "mixed_bfloat16"),
    (8, {"kernel_size": 3, "strides": 2}, "mixed_bfloat16"),
    (8, {"kernel_size": 3, "dilation_rate": 2}, "mixed_bfloat16"),
    (8, {"kernel_size": 3}, "float32"),
]


@pytest.mark.parametrize(("size", "options"), SMALL)
def test_gradients_of_small_convolutions_are_those_of_keras(monkeypatch, size, options):
    used, gradient = [], fast_layers._kernel_gradient
    monkeypatch.setattr(fast_layers, "_kernel_gradient", lambda *rest: used.append(1) or gradient(*rest))
    expected = gradients_of(convolution(size, **options), size)
    assert not used
    model = fuse(convolution(size, **options))
    assert isinstance(model.layers[-1], Conv2D)
    found = gradients_of(model, size)
    assert used
    for value, other in zip(found, expected, strict=True):
        assert value.dtype == other.dtype
        np.testing.assert_allclose(value, other, rtol=0.02, atol=0.01 * np.abs(other).max())


@pytest.mark.parametrize(("size", "options", "policy"), OTHERS)
def test_other_convolutions_are_those_of_keras(monkeypatch, size, options, policy):
    monkeypatch.setattr(fast_layers, "_with_products", lambda padding: pytest.fail("products"))
    expected = gradients_of(convolution(size, policy, **options), size)
    for value, other in zip(gradients_of(fuse(convolution(size, policy, **options)), size), expected, strict=True):
        np.testing.assert_array_equal(value, other)


def test_convolutions_stay_those_of_keras_on_a_gpu(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["pretended"])
    assert type(fuse(convolution(8, kernel_size=1)).layers[-1]) is keras.layers.Conv2D
