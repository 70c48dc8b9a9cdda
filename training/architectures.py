"""The networks: a pretrained backbone between the pixels and a classifier."""

from pathlib import Path

import keras
import numpy as np

from training.errors import UserError
from training.layers import RandomFourierFeatures


def inception_v3(weights):
    """InceptionV3 without its top, for images of any size from 75×75, values -1 to 1.

    Source: C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016.

    Args:
        weights: "imagenet", "none", or the path of a weights file of the same architecture.

    Returns:
        `keras.Model`, [b, h, w, 3] → [b, 2048], global average pooling included.

    Raises:
        UserError: the file is missing or does not fit, or the download fails.
    """
    if weights not in ("imagenet", "none") and not Path(weights).is_file():
        raise UserError(f"--backbone-weights: no file at {weights}; give imagenet, none, or the path of a .weights.h5 file")
    try:
        backbone = keras.applications.InceptionV3(
            include_top=False, weights=None if weights == "none" else str(weights), pooling="avg", name="backbone"
        )
    except Exception as error:  # h5py, Keras and the download each raise their own
        raise UserError(f"--backbone-weights {weights}: {_first_line(error)}; give imagenet, none, or another file") from error
    start_empty_kernels(backbone)
    return backbone


def start_empty_kernels(backbone, seed=0):
    """Gives convolutions whose kernels are all zero a fresh start (He normal), for such a kernel passes no gradient
    to the layers before it. Returns the names of those layers."""
    names = []
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Conv2D) and not np.any(keras.ops.convert_to_numpy(layer.kernel)):
            layer.kernel.assign(keras.initializers.HeNormal(seed=seed)(layer.kernel.shape))
            names.append(layer.name)
    return names


def classifier(backbone, image_shape, size, classes, dropout=0.0):
    """Photographs → enlarging → backbone → softmax: the network that fine-tunes the backbone.

    Args:
        backbone: a model [b, size, size, 3] of -1 to 1 → [b, d].
        image_shape: (height, width) of the photographs, in pixels.
        size: side of the square that the backbone sees, in pixels.
        classes: number of classes.
        dropout: share of features dropped in training.

    Returns:
        `keras.Model`, [b, height, width, 3] of 0 to 255 → float32 probabilities [b, classes].
    """
    pixels = keras.Input((*image_shape, 3), name="pixels")
    x = backbone(preprocessing(size, image_shape)(pixels))
    x = keras.layers.Dropout(dropout, seed=0)(x)
    x = keras.layers.Dense(classes, activation="softmax", dtype="float32", name="softmax")(x)
    return keras.Model(pixels, x)


def quasi_svm_head(recipe, features, scale, classes):
    """Features → standardised → random Fourier features → softmax: a kernel machine that is linear in its weights.

    Args:
        recipe: `Recipe`, its `head_…` fields.
        features: number of features d.
        scale: width of the kernel, in units of the standardised features.
        classes: number of classes.

    Returns:
        `keras.Model`, float32 [b, d] → probabilities [b, classes]. Adapt its layer `standardise` before training.
    """
    return keras.Sequential(
        [
            keras.Input((features,)),
            keras.layers.Normalization(name="standardise"),
            RandomFourierFeatures(recipe.head_features, recipe.head_kernel, scale, seed=recipe.seed, name="fourier"),
            keras.layers.Dropout(recipe.head_dropout, seed=recipe.seed),
            keras.layers.Dense(classes, activation="softmax", kernel_regularizer=keras.regularizers.L2(recipe.head_l2), name="softmax"),
        ],
        name="quasi_svm",
    )


def quasi_svm(backbone, head, image_shape, size):
    """Photographs → enlarging → backbone → quasi-SVM: the network that ships, [b, h, w, 3] of 0 to 255 → [b, classes]."""
    pixels = keras.Input((*image_shape, 3), name="pixels")
    return keras.Model(pixels, head(backbone(preprocessing(size, image_shape)(pixels))))


def preprocessing(size, image_shape=None):
    """Pixels 0 to 255 of any size → float32 [b, size, size, 3] of -1 to 1. The one copy: training and export share it.

    Args:
        size: side of the square that comes out, in pixels.
        image_shape: (height, width) of what goes in; a larger image is smoothed as it shrinks.
    """
    smooth = {"antialias": True} if image_shape and max(image_shape) > size else {}
    return keras.Sequential(
        [
            keras.layers.Resizing(size, size, interpolation="bicubic", dtype="float32", **smooth),
            keras.layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32"),
        ],
        name="preprocessing",
    )


def _first_line(error):
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
