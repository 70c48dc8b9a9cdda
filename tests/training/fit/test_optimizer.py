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


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_variable_without_a_gradient_is_left_out():
    optimizer, variables = FusedAdamW(0.5, 0.0), [keras.Variable([1.0]), keras.Variable([2.0])]
    optimizer.build(variables)
    optimizer.apply([None, tf.ones(1)], variables)
    assert variables[0].numpy() == [1.0] and variables[1].numpy() < [2.0]


def test_weights_decay_without_a_gradient():
    optimizer, variable = FusedAdamW(0.5, 0.1), keras.Variable([2.0])
    optimizer.build([variable])
    optimizer.apply([tf.zeros(1)], [variable])
    np.testing.assert_allclose(variable.numpy(), [2.0 * (1 - 0.5 * 0.1)])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("graph", [False, True])
def test_a_step_with_a_gradient_that_is_not_finite_is_skipped(bad, graph):
    optimizer, variables = FusedAdamW(0.5, 0.1), [keras.Variable(np.ones((2, 3), np.float32)), keras.Variable([2.0])]
    optimizer.build(variables)

    def step(*gradients):
        optimizer.apply(list(gradients), variables)

    step = tf.function(step) if graph else step
    gradient = np.ones((2, 3), np.float32)
    step(tf.constant(gradient), tf.ones(1))
    before = [variable.numpy() for variable in (*variables, *optimizer.variables)]
    gradient[1, 2] = bad
    step(tf.constant(gradient), tf.ones(1))
    for variable, value in zip((*variables, *optimizer.variables), before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert int(optimizer.iterations) == 1
    step(tf.ones((2, 3)), tf.ones(1))
    assert int(optimizer.iterations) == 2
    assert all((variable.numpy() < value).all() for variable, value in zip(variables, before, strict=False))
