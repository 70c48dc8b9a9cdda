"""Preprocessing, backbone and head as one model."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from common.errors import UserError


def build_model(backbone: keras.Model, head: keras.Model, image_shape: tuple, input_size: int) -> keras.Model:
    """Photographs → resizing → backbone → head.

    Args:
        backbone: a model [b, input_size, input_size, 3] of -1 to 1 → [b, d].
        head: a model [b, d] → float32 probabilities [b, classes].
        image_shape: (height, width) of the photographs, in pixels.
        input_size: side of the square that the backbone takes, in pixels.

    Returns:
        `keras.Model`, [b, height, width, 3] of 0 to 255 → float32 probabilities [b, classes].
    """
    pixels = keras.Input((*image_shape, 3), name="pixels")
    return keras.Model(pixels, head(backbone(preprocessing(input_size, image_shape)(pixels))))


def compile_classifier(model: keras.Model, optimizer: keras.optimizers.Optimizer, loss: Any) -> None:
    """Compiles a model for `fit`, with accuracy as its metric.

    The variables of optimizer and metric are created now. If `fit` created them, TensorFlow would trace the training
    step twice, which takes seconds for a deep network. On several devices `fit` creates those of the metric itself.

    Args:
        model: `keras.Model` [b, …] → probabilities [b, classes].
        optimizer, loss: see `keras.Model.compile`.
    """
    model.compile(optimizer, loss, metrics=["accuracy"])
    optimizer.build(model.trainable_variables)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if not tf.distribute.has_strategy():
            nothing = keras.ops.zeros((1, model.output_shape[-1]))
            model.compute_metrics(None, nothing, nothing)
            model.reset_metrics()


def load_weights(model: keras.Model, path: Path) -> None:
    """Loads the weights of a run.

    Args:
        model: `keras.Model` with the layers that the weights are of; changed in place.
        path: a .weights.h5 file.

    Raises:
        UserError: the file is damaged or of other layers; a weight is NaN or infinite.
    """
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} does not hold this recipe's weights ({error}); train the run again") from error
    # ReLU turns NaN into 0, so that a network with NaN predicts the same for all images.
    if not all(np.isfinite(keras.ops.convert_to_numpy(weight).sum()) for weight in model.weights):
        raise UserError(f"the weights in {path} must be finite, and some are not; train the run again")


def preprocessing(input_size: int, image_shape: tuple | None = None) -> keras.Model:
    """Pixels 0 to 255 of any size → float32 [b, input_size, input_size, 3] of -1 to 1. Training and export share it.

    Args:
        input_size: side of the square that comes out, in pixels.
        image_shape: (height, width) of the images. Larger images are resized with antialiasing.
    """
    antialias = image_shape is not None and max(image_shape) > input_size
    pixels = keras.Input((*(image_shape or (None, None)), 3))
    # the operation, because the layer `Resizing` has no antialiasing before Keras 3.10
    resized = keras.ops.image.resize(pixels, (input_size, input_size), interpolation="bicubic", antialias=antialias)
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32")(resized)
    model = keras.Model(pixels, scaled, name="preprocessing")
    # On a GPU, Keras compiles a model with XLA if all its layers support that. TensorFlow's bicubic resizing does not.
    model.supports_jit = keras.backend.backend() != "tensorflow"
    return model
