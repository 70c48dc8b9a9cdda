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
    backbone = _pretrained(keras.applications.InceptionV3, weights)
    start_empty_kernels(backbone)
    return backbone


def inception_v3_quiet(weights):
    """`inception_v3` whose empty kernels start so small that what was learned behind them stays as it is.

    A copy of the weights may lack kernels (docs/model_card.md names two), and the channels behind them are then constant in all
    that was learned. BatchNormalization makes noise as loud as any other channel of a full random start. Of a hundredth
    of it, it makes about an eighth, for its variance is then far below the epsilon of 1e-3; the kernel is soon as
    large as what it learns.

    Args, returns, raises: see `inception_v3`.
    """
    backbone = _pretrained(keras.applications.InceptionV3, weights)
    start_empty_kernels(backbone, scale=0.01)
    return backbone


def vgg19(weights):
    """VGG19 without its top, for images of any size from 32×32, values -1 to 1.

    Its own preprocessing (blue, green, red, each less ImageNet's mean) is its first layers.
    Source: K. Simonyan and A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.

    Args, raises: see `inception_v3`.

    Returns:
        `keras.Model`, [b, h, w, 3] → [b, 512], global average pooling included.
    """
    pixels = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(127.5, offset=127.5, name="to_255")(pixels)
    x = keras.layers.Normalization(mean=[123.68, 116.779, 103.939], variance=[1.0, 1.0, 1.0], name="less_mean")(x)
    network = _pretrained(keras.applications.VGG19, weights, input_tensor=keras.ops.flip(x, axis=-1))
    return keras.Model(pixels, network.output, name="backbone")


def scratch_vgg(weights):
    """A small network after VGG: pairs of 3×3 convolutions and pooling, channels growing to 64.

    The z-score is taken of each image, so it takes out the light of the day and needs no statistics of the data.

    Args:
        weights: not used, for there are none: it starts at random.

    Returns:
        `keras.Model`, [b, h, w, 3] of any range → [b, 64], global average pooling included.
    """
    pixels = keras.Input((None, None, 3))
    x = keras.layers.GroupNormalization(groups=1, center=False, scale=False, name="z_score")(pixels)
    for number, channels in enumerate(CHANNELS):
        x = keras.layers.MaxPooling2D()(x) if number else x
        for _ in range(2):
            x = _convolution(x, channels)
    return _from_scratch(pixels, x)


def scratch_resnet(weights):
    """`scratch_vgg` twice as deep, with skip connections around pairs of convolutions.

    Source: K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.

    Args, returns: see `scratch_vgg`.
    """
    pixels = keras.Input((None, None, 3))
    x = keras.layers.GroupNormalization(groups=1, center=False, scale=False, name="z_score")(pixels)
    x = _convolution(x, CHANNELS[0])
    for number, channels in enumerate(CHANNELS):
        x = keras.layers.MaxPooling2D()(x) if number else x
        for _ in range(2 if number else 1):
            shortcut = x if x.shape[-1] == channels else keras.layers.Conv2D(channels, 1)(x)
            x = keras.layers.Add()([_convolution(_convolution(x, channels), channels), shortcut])
    return _from_scratch(pixels, x)


CHANNELS = (8, 16, 32, 48, 64)  # of the networks from scratch, one for each size of the picture
PRETRAINED = (inception_v3, inception_v3_quiet, vgg19)


def start_empty_kernels(backbone, scale=1.0, seed=0):
    """Gives convolutions whose kernels are all zero a fresh start (He normal, times `scale`), for such a kernel passes no
    gradient to the layers before it. Returns the names of those layers."""
    names = []
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Conv2D) and not np.any(keras.ops.convert_to_numpy(layer.kernel)):
            layer.kernel.assign(scale * keras.initializers.HeNormal(seed=seed)(layer.kernel.shape))
            names.append(layer.name)
    return names


def whole_network(backbone, head, image_shape, size):
    """Photographs → enlarging → backbone → head.

    Args:
        backbone: a model [b, size, size, 3] of -1 to 1 → [b, d].
        head: a model [b, d] → float32 probabilities [b, classes].
        image_shape: (height, width) of the photographs, in pixels.
        size: side of the square that the backbone sees, in pixels.

    Returns:
        `keras.Model`, [b, height, width, 3] of 0 to 255 → float32 probabilities [b, classes].
    """
    pixels = keras.Input((*image_shape, 3), name="pixels")
    return keras.Model(pixels, head(backbone(preprocessing(size, image_shape)(pixels))))


def softmax_head(recipe, features, classes):
    """Features → dense layers, each between two dropouts → softmax: what the backbone is fine-tuned below.

    Args:
        recipe: `Recipe`, its `dense`, `activation`, `dense_l2`, `dropout` and `dense_dropout`.
        features: number of features d.
        classes: number of classes.

    Returns:
        `keras.Model`, float32 [b, d] → probabilities [b, classes].
    """
    layers = [keras.Input((features,)), keras.layers.Dropout(recipe.dropout, seed=0)]
    for width in recipe.dense:
        ridge = keras.regularizers.L2(recipe.dense_l2) if recipe.dense_l2 else None
        layers.append(keras.layers.Dense(width, recipe.activation, kernel_regularizer=ridge))
        layers.append(keras.layers.Dropout(recipe.dense_dropout, seed=0))
    layers.append(keras.layers.Dense(classes, activation="softmax", dtype="float32", name="softmax"))
    return keras.Sequential(layers, name="softmax_head")


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
            keras.layers.Normalization(axis=None if recipe.head_common_scale else -1, name="standardise"),
            RandomFourierFeatures(recipe.head_features, recipe.head_kernel, scale, seed=recipe.seed, name="fourier"),
            keras.layers.Dropout(recipe.head_dropout, seed=recipe.seed),
            keras.layers.Dense(classes, activation="softmax", kernel_regularizer=keras.regularizers.L2(recipe.head_l2), name="softmax"),
        ],
        name="quasi_svm",
    )


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


def _pretrained(application, weights, **arguments):
    if weights not in ("imagenet", "none") and not Path(weights).is_file():
        raise UserError(f"--backbone-weights: no file at {weights}; give imagenet, none, or the path of a .weights.h5 file")
    try:
        return application(
            include_top=False, weights=None if weights == "none" else str(weights), pooling="avg", name="backbone", **arguments
        )
    except Exception as error:  # h5py, Keras and the download each raise their own
        raise UserError(f"--backbone-weights {weights}: {_first_line(error)}; give imagenet, none, or another file") from error


def _from_scratch(pixels, x):
    return keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x), name="backbone")


def _convolution(x, channels):
    x = keras.layers.Conv2D(channels, 3, padding="same", use_bias=False)(x)
    return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))  # runs are too short for Keras' 0.99


def _first_line(error):
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
