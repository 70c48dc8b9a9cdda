"""Random Fourier features: the map into a Gaussian-kernel space that makes a linear softmax a quasi-SVM."""

import math

import keras
import numpy as np
from keras import ops

KERNELS = ("gaussian", "laplacian")


@keras.saving.register_keras_serializable(package="leaves")
class RandomFourierFeatures(keras.layers.Layer):
    """Maps vectors so that inner products approximate a shift-invariant kernel.

    `z(x) = sqrt(2 / output_dim) * cos(x @ frequencies / scale + phase)`, so that `z(x) · z(y) ≈ k(x, y)` with an error
    that falls as `1 / sqrt(output_dim)`, where

    - `gaussian`: `k(x, y) = exp(-‖x - y‖₂² / (2 scale²))`, frequencies drawn from the normal distribution;
    - `laplacian`: `k(x, y) = exp(-‖x - y‖₁ / scale)`, frequencies drawn from the Cauchy distribution.

    Frequencies and phase are drawn once, kept with the weights, and never trained. A linear classifier on top is a
    kernel machine whose cost does not grow with the number of training images.

    Source: A. Rahimi and B. Recht, "Random Features for Large-Scale Kernel Machines", NIPS 2007, algorithm 1. The
    layer of the same name in Keras 2 leaves out the factor `sqrt(2 / output_dim)`.

    Args:
        output_dim: number of features, a positive integer.
        kernel: "gaussian" or "laplacian".
        scale: width of the kernel, a positive number in the inputs' own unit. None takes `sqrt(input_dim / 2)` for the
            Gaussian kernel (right for standardised inputs, as gamma="scale" in scikit-learn) and 1 for the Laplacian.
        seed: integer; the same seed and shapes give the same features on every backend.

    Call arguments:
        inputs: floating-point tensor [batch, input_dim].

    Returns:
        Tensor [batch, output_dim], values within ±sqrt(2 / output_dim).

    Raises:
        ValueError: an argument out of its range, or inputs that are not [batch, input_dim].
    """

    def __init__(self, output_dim, kernel="gaussian", scale=None, seed=0, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(output_dim, (int, np.integer)) or output_dim < 1:
            raise ValueError(f"output_dim must be a positive integer, got {output_dim!r}")
        if kernel not in KERNELS:
            raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {kernel!r}")
        if scale is not None and not (0 < scale < math.inf):
            raise ValueError(f"scale must be a positive number or None, got {scale!r}")
        self.output_dim = int(output_dim)
        self.kernel = kernel
        self.scale = None if scale is None else float(scale)
        self.seed = int(seed)

    def build(self, input_shape):
        if len(input_shape) != 2 or input_shape[-1] is None:
            raise ValueError(f"inputs must have the shape [batch, input_dim], got {tuple(input_shape)}")
        input_dim = int(input_shape[-1])
        rng = np.random.default_rng(self.seed)
        draw = rng.standard_normal if self.kernel == "gaussian" else rng.standard_cauchy
        frequencies = draw((input_dim, self.output_dim))
        phase = rng.uniform(0.0, 2 * np.pi, self.output_dim)
        scale = self.scale
        if scale is None:
            scale = math.sqrt(input_dim / 2) if self.kernel == "gaussian" else 1.0
        self.frequencies = self._constant("frequencies", frequencies)
        self.phase = self._constant("phase", phase)
        self.kernel_scale = self._constant("scale", np.asarray(scale))

    def _constant(self, name, value):
        def initializer(shape, dtype=None):
            return ops.convert_to_tensor(value, dtype=dtype)

        return self.add_weight(name=name, shape=value.shape, initializer=initializer, trainable=False)

    def call(self, inputs):
        projection = ops.matmul(inputs, self.frequencies) / self.kernel_scale + self.phase
        return math.sqrt(2.0 / self.output_dim) * ops.cos(projection)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.output_dim)

    def get_config(self):
        config = super().get_config()
        config.update(output_dim=self.output_dim, kernel=self.kernel, scale=self.scale, seed=self.seed)
        return config
