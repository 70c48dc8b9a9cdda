"""Backbones: functions that take pretrained weights and return a `keras.Model` from pixels to features."""

import functools
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

from common.errors import UserError

SCRATCH_CHANNELS = (8, 16, 32, 48, 64)  # of the networks trained from scratch, one for each resolution
SMALL_INIT = 0.01


def inception_v3(weights: str) -> keras.Model:
    """InceptionV3 without its top, for images of any size from 75×75 pixels, values -1 to 1.

    Convolutions whose kernels are all zero are initialized, see `initialize_zero_kernels`.

    Source: C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016.

    Args:
        weights: "imagenet", "none", or the path of a weights file of the same architecture.

    Returns:
        `keras.Model`, [b, h, w, 3] → [b, 2048], global average pooling included.

    Raises:
        UserError: the file is missing or does not fit, or the download fails.
    """
    backbone = _pretrained(keras.applications.InceptionV3, weights)
    initialize_zero_kernels(backbone)
    return backbone


def inception_v3_frozen(weights: str) -> keras.Model:
    """`inception_v3` with the weights as they are, for features of a backbone that is not fine-tuned.

    Kernels that the weights file lacks stay zero: untrained ones would only add noise to the features.

    Args, returns, raises: see `inception_v3`.
    """
    return _pretrained(keras.applications.InceptionV3, weights)


def inception_v3_small_init(weights: str) -> keras.Model:
    """`inception_v3` with a hundredth of the usual initialization for kernels that the weights file lacks.

    The layers behind such a kernel were trained on constant channels. BatchNormalization scales the noise of a full
    random initialization to the same variance as any other channel. At a hundredth of it, the variance is far below
    BatchNormalization's epsilon of 1e-3, so that the noise stays at about an eighth until the kernel has learned
    something.

    Args, returns, raises: see `inception_v3`.
    """
    backbone = _pretrained(keras.applications.InceptionV3, weights)
    initialize_zero_kernels(backbone, scale=SMALL_INIT)
    return backbone


def vgg19(weights: str) -> keras.Model:
    """VGG19 without its top, for images of any size from 32×32 pixels, values -1 to 1.

    The first layers are VGG19's own preprocessing: channels in the order blue, green, red, minus ImageNet's mean.

    Source: K. Simonyan and A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR
    2015.

    Args, raises: see `inception_v3`.

    Returns:
        `keras.Model`, [b, h, w, 3] → [b, 512], global average pooling included.
    """
    pixels = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(127.5, offset=127.5, name="to_255")(pixels)
    x = keras.layers.Normalization(mean=[123.68, 116.779, 103.939], variance=[1.0, 1.0, 1.0], name="less_mean")(x)
    model = _pretrained(keras.applications.VGG19, weights, input_tensor=keras.ops.flip(x, axis=-1))
    return keras.Model(pixels, model.output, name="backbone")


def scratch_vgg(weights: str) -> keras.Model:
    """A small network in the style of VGG: pairs of 3×3 convolutions and pooling, up to 64 channels.

    Each image is standardized by its own mean and variance. This removes differences in lighting and needs no data
    statistics.

    Args:
        weights: not used; the network starts from random weights.

    Returns:
        `keras.Model`, [b, h, w, 3] of any range → [b, 64], global average pooling included.
    """
    pixels = keras.Input((None, None, 3))
    x = keras.layers.GroupNormalization(groups=1, center=False, scale=False, name="z_score")(pixels)
    for number, channels in enumerate(SCRATCH_CHANNELS):
        x = keras.layers.MaxPooling2D()(x) if number else x
        for _ in range(2):
            x = _convolution(x, channels)
    return _pooled(pixels, x)


def scratch_resnet(weights: str) -> keras.Model:
    """`scratch_vgg` with twice the depth and skip connections around pairs of convolutions.

    Source: K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.

    Args, returns: see `scratch_vgg`.
    """
    pixels = keras.Input((None, None, 3))
    x = keras.layers.GroupNormalization(groups=1, center=False, scale=False, name="z_score")(pixels)
    x = _convolution(x, SCRATCH_CHANNELS[0])
    for number, channels in enumerate(SCRATCH_CHANNELS):
        x = keras.layers.MaxPooling2D()(x) if number else x
        for _ in range(2 if number else 1):
            shortcut = x if x.shape[-1] == channels else keras.layers.Conv2D(channels, 1)(x)
            x = keras.layers.Add()([_convolution(_convolution(x, channels), channels), shortcut])
    return _pooled(pixels, x)


PRETRAINED = (inception_v3, inception_v3_frozen, inception_v3_small_init, vgg19)
# The smallest input sizes in pixels of backbones that need more than 32.
MIN_SIZES = dict.fromkeys((inception_v3, inception_v3_frozen, inception_v3_small_init), 75)


@functools.lru_cache(maxsize=4)  # a new model would be compiled again, which takes seconds
def pooled_layers(backbone: keras.Model, layers: tuple) -> keras.Model:
    """A backbone with other outputs: the global average pooling of some of its layers, concatenated.

    Args:
        backbone: `keras.Model`.
        layers: names of layers with outputs [b, h, w, c]; () returns the backbone unchanged.

    Raises:
        UserError: no such layer.
    """
    if not layers:
        return backbone
    known = {layer.name: layer for layer in backbone.layers if len(layer.output.shape) == 4}
    if unknown := [name for name in layers if name not in known]:
        near = [name for name in known if name.startswith("mixed")] or list(known)
        raise UserError(
            f"head.feature_layers must be layers of the backbone, {', '.join(near)}, got {', '.join(unknown)}"
        )
    outputs = [keras.layers.GlobalAveragePooling2D()(known[name].output) for name in layers]
    output = outputs[0] if len(outputs) == 1 else keras.layers.Concatenate()(outputs)
    return keras.Model(backbone.input, output, name="backbone")


def initialize_zero_kernels(backbone: keras.Model, scale: float = 1.0, seed: int = 0) -> list[str]:
    """Initializes convolutions whose kernels are all zero (He normal, times `scale`).

    A zero kernel passes no gradient to the layers before it. A weights file may lack kernels; docs/model_card.md names
    two.

    Returns:
        The names of the initialized layers.
    """
    names = []
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Conv2D) and not np.any(keras.ops.convert_to_numpy(layer.kernel)):
            layer.kernel.assign(scale * keras.initializers.HeNormal(seed=seed)(layer.kernel.shape))
            names.append(layer.name)
    return names


def _pretrained(application: Any, weights: str, **arguments: Any) -> keras.Model:
    if weights not in ("imagenet", "none") and not Path(weights).is_file():
        raise UserError(f"--backbone-weights must be imagenet, none, or the path of a .h5 file; no file at {weights}")
    source = None if weights == "none" else str(weights)
    try:
        return application(include_top=False, weights=source, pooling="avg", name="backbone", **arguments)
    except Exception as error:  # h5py, Keras and the download each raise their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        fix = "give imagenet, none, or another file"
        if weights == "imagenet":
            url = sys.modules[application.__module__].WEIGHTS_PATH_NO_TOP
            reason = f"cannot be downloaded ({reason.split(f'{url}: ')[-1].removeprefix('None -- ')})"
            fix = f"download {url} by hand and give the file: --backbone-weights {Path(url).name}"
        raise UserError(f"--backbone-weights {weights}: {reason}; {fix}") from error


def _pooled(pixels: Any, x: Any) -> keras.Model:
    return keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x), name="backbone")


def _convolution(x: Any, channels: int) -> Any:
    x = keras.layers.Conv2D(channels, 3, padding="same", use_bias=False)(x)
    # the runs are too short for Keras' 0.99
    return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
