"""Layers that compute what Keras' own do, up to rounding, with faster operations of TensorFlow."""

import functools
from typing import Any

import keras

MAX_POSITIONS = 64  # of an output; with more, copying the slices of the inputs costs what is saved


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


class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D`, up to rounding, with a faster gradient of the kernel in bfloat16 on a processor.

    With AMX, oneDNN's gradient of the kernel takes longer than the convolution and the gradient of its inputs together.
    Matrix products, one for each position of the kernel, are faster if the kernel is 1×1 or the output is small.
    Elsewhere the gradient is oneDNN's.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolves [b, h, w, c] with a kernel [kh, kw, c, d]."""
        if not self._has_fast_products(inputs.shape):
            return super().convolution_op(inputs, kernel)
        return _with_products(self.padding.upper())(inputs, keras.ops.cast(kernel, inputs.dtype))

    def _has_fast_products(self, shape: tuple) -> bool:
        plain = self.strides == self.dilation_rate == (1, 1) and self.groups == 1
        if not plain or self.data_format != "channels_last" or self.compute_dtype != "bfloat16":
            return False
        if self.kernel_size == (1, 1):
            return True
        height, width = self.compute_output_shape(shape)[1:3]
        return None not in (height, width) and height * width <= MAX_POSITIONS


@functools.cache
def _with_products(padding: str) -> Any:
    """A convolution [b, h, w, c], [kh, kw, c, d] → [b, h', w', d] with stride 1 and the gradient of `Conv2D`."""
    import tensorflow as tf

    options = {"strides": [1, 1, 1, 1], "padding": padding}

    @tf.custom_gradient
    def convolve(inputs: Any, kernel: Any) -> tuple:
        def gradients(outer: Any) -> tuple:
            inner = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(inputs), filter=kernel, out_backprop=outer, **options
            )
            return inner, _kernel_gradient(inputs, outer, kernel.shape, padding)

        return tf.raw_ops.Conv2D(input=inputs, filter=kernel, **options), gradients

    return convolve


def _kernel_gradient(inputs: Any, outer: Any, kernel_shape: tuple, padding: str) -> Any:
    """The gradient [kh, kw, c, d] of a convolution with stride 1, given that of its outputs, [b, h', w', d]."""
    import tensorflow as tf

    rows, columns, channels, filters = kernel_shape
    if padding == "SAME" and rows * columns > 1:
        around = [[(side - 1) // 2, side // 2] for side in (rows, columns)]
        inputs = tf.pad(inputs, [[0, 0], *around, [0, 0]])
    height, width = tf.shape(outer)[1], tf.shape(outer)[2]
    outer = tf.reshape(outer, [-1, filters])
    products = [
        tf.matmul(
            tf.reshape(inputs[:, row : row + height, column : column + width], [-1, channels]), outer, transpose_a=True
        )
        for row in range(rows)
        for column in range(columns)
    ]
    return tf.reshape(tf.stack(products), kernel_shape)


def fuse(model: keras.Model) -> keras.Model:
    """Makes the layers of a model the fast ones, in place, if Keras runs on TensorFlow.

    Only the classes of the layers change: a copy of InceptionV3 would take seconds.

    Returns:
        The model.
    """
    if keras.backend.backend() != "tensorflow":
        return model
    import tensorflow as tf

    on_processor = not tf.config.list_physical_devices("GPU")
    for layer in model.layers:
        if type(layer) is keras.layers.BatchNormalization and layer.axis in (-1, 3):
            layer.__class__ = BatchNormalization
        elif type(layer) is keras.layers.Conv2D and on_processor:
            layer.__class__ = Conv2D
    return model
