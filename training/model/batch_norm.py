"""BatchNormalization with one operation for the forward pass and one for the gradient, on TensorFlow."""

import functools
from typing import Any

import keras


class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization`, up to rounding.

    In training, Keras computes it with a dozen elementwise operations, which take about as long as half of the
    convolutions. TensorFlow's fused kernel reads the activations twice. Its variance is that of a sample; the moving
    variance gets that of the batch, as in Keras. The class has Keras' name because the groups of a weights file are
    named after the classes of the layers.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalizes [b, h, w, c] by the statistics of the batch in training, else by the moving ones."""
        if self.synchronized or mask is not None or len(inputs.shape) != 4:
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        channels = inputs.shape[-1]
        scale = tf.cast(self.gamma, tf.float32) if self.scale else tf.ones([channels])
        offset = tf.cast(self.beta, tf.float32) if self.center else tf.zeros([channels])
        fused = functools.partial(tf.compat.v1.nn.fused_batch_norm, inputs, scale, offset, epsilon=self.epsilon)
        if not training or not self.trainable:
            moving = (tf.convert_to_tensor(self.moving_mean), tf.convert_to_tensor(self.moving_variance))
            return fused(*moving, is_training=False)[0]
        outputs, mean, variance = fused()
        count = tf.cast(tf.size(inputs) // channels, tf.float32)
        self._follow(self.moving_mean, mean)
        self._follow(self.moving_variance, variance * (count - 1) / count)
        return outputs

    def _follow(self, moving: keras.Variable, statistic: Any) -> None:
        moving.assign(moving * self.momentum + statistic * (1 - self.momentum))


def fuse(model: keras.Model) -> keras.Model:
    """Makes every BatchNormalization of a model a fused one, in place, if Keras runs on TensorFlow.

    Only the class of the layers changes: a copy of InceptionV3 would take seconds.

    Returns:
        The model.
    """
    if keras.backend.backend() == "tensorflow":
        for layer in model.layers:
            if type(layer) is keras.layers.BatchNormalization and layer.axis in (-1, 3):
                layer.__class__ = BatchNormalization
    return model
