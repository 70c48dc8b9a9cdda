"""The fused AdamW takes the steps of Keras' own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.fit.optimizer import FusedAdamW, adamw

pytestmark = pytest.mark.integration


def trained(optimizer, steps=5):
    """Some variables after steps with gradients that are the same at each call."""
    rng = np.random.default_rng(0)
    variables = [keras.Variable(rng.normal(size=shape).astype(np.float32)) for shape in ((3, 4), (7,))]
    optimizer.build(variables)
    for _ in range(steps):
        optimizer.apply([tf.constant(rng.normal(size=v.shape).astype(np.float32)) for v in variables], variables)
    return [variable.numpy() for variable in variables]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_are_those_of_keras(decay):
    rates = [keras.optimizers.schedules.CosineDecay(0.1, 10) for _ in range(2)]
    found = trained(adamw(rates[0], decay))
    expected = trained(keras.optimizers.AdamW(rates[1], weight_decay=decay))
    for value, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, other, atol=1e-5)


def test_tensorflow_has_the_fused_optimizer_and_its_state_can_be_restored():
    optimizer = adamw(0.1, 0.1)
    assert isinstance(optimizer, FusedAdamW)
    before = trained(optimizer)
    assert len(optimizer.variables) == len(keras.optimizers.AdamW(0.1).variables) + 2 * len(before)


def test_weights_decay_without_a_gradient():
    optimizer, variable = FusedAdamW(0.5, 0.1), keras.Variable([2.0])
    optimizer.build([variable])
    optimizer.apply([tf.zeros(1)], [variable])
    np.testing.assert_allclose(variable.numpy(), [2.0 * (1 - 0.5 * 0.1)])
