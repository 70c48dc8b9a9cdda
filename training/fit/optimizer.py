"""AdamW with one operation per variable on TensorFlow."""

import functools
from typing import Any

import keras


def adamw(learning_rate: Any, weight_decay: float) -> keras.optimizers.Optimizer:
    """AdamW (Loshchilov and Hutter 2019, algorithm 2), fused on TensorFlow.

    Args:
        learning_rate: a number or a schedule.
        weight_decay: decoupled; multiplied by the learning rate.
    """
    if keras.backend.backend() == "tensorflow":
        return FusedAdamW(learning_rate, weight_decay)
    return keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay)


class FusedAdamW(keras.optimizers.Adam):
    """`keras.optimizers.AdamW`, up to rounding.

    Keras computes a step with a dozen elementwise operations, each of which reads and writes as many numbers as the
    variable has. TensorFlow's own kernel reads the variable, its two moments and its gradient once.

    A step whose gradients are not all finite is skipped and not counted in `iterations`, as `LossScaleOptimizer` does
    it. On a processor with AMX, some numbers of a convolution's gradient in bfloat16 were NaN about once in some
    hundred steps. One such step would make the weights NaN for good, and the loss can stay finite, because ReLU turns
    NaN into 0.

    Args:
        learning_rate: a number or a schedule.
        decay: decoupled weight decay.
    """

    def __init__(self, learning_rate: Any, decay: float) -> None:
        super().__init__(learning_rate)
        self.decay = decay

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Updates the variables with their gradients if all of these are finite."""
        import tensorflow as tf

        step = functools.partial(super().apply, grads, trainable_variables)
        if tf.distribute.has_strategy():  # its steps wait for each other, which they cannot do within a condition
            return step()
        given = [gradient for gradient in grads if gradient is not None]
        finite = tf.reduce_all([tf.math.is_finite(tf.reduce_sum(gradient)) for gradient in given])
        return tf.cond(finite, step, lambda: None)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a variable with its gradient."""
        import tensorflow as tf

        index, dtype = self._get_variable_index(variable), variable.dtype
        variable, first, second = (
            tensor.value if isinstance(tensor, keras.Variable) else tensor
            for tensor in (variable, self._momentums[index], self._velocities[index])
        )
        rate, step = tf.cast(learning_rate, dtype), tf.cast(self.iterations + 1, dtype)
        if self.decay:
            variable.assign(variable * (1 - rate * tf.cast(self.decay, dtype)))
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=first.handle,
            v=second.handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, dtype), step),
            lr=rate,
            beta1=tf.cast(self.beta_1, dtype),
            beta2=tf.cast(self.beta_2, dtype),
            epsilon=tf.cast(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )
