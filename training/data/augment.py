"""Augmentation: one affine transform and one color change per image, and Keras' layers that mix a batch.

numpy draws the random numbers before the epoch starts. A view therefore depends only on the seed and the epoch, not on
threads, batch boundaries, the backend or an interruption. All geometric changes are composed into one matrix and
resampled once, because each interpolation blurs a 96×96 photograph.
"""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from common.images import Images
from training.data.balance import check_classes

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # weights of ITU-R BT.601 for a grey version of RGB
BLOCK_SIZE = 256  # images transformed at once before training


@dataclass(frozen=True)
class RandomTransforms:
    """Ranges of the random transforms of one image. With zeros and False, the image stays as it is."""

    flips: bool = True  # mirror along either axis, each with probability 1/2
    vertical_flips: bool = True  # False: `flips` mirrors left and right only, for photographs with an up and a down
    quarter_turns: bool = False  # with flips: all eight symmetries of the square
    rotation: float = 20.0  # degrees, uniform within ±
    zoom: float = 0.15  # natural logarithm of the zoom factor, uniform within ±
    shift: float = 0.1  # share of the side, uniform within ± along each axis
    brightness: float = 0.0  # logarithm of the gain, uniform within ±
    contrast: float = 0.0  # logarithm of the gain about the image's mean, uniform within ±
    saturation: float = 0.0  # logarithm of the gain about the pixel's grey, uniform within ±
    tint: float = 0.0  # logarithm of a gain for each color channel, uniform within ±


NO_TRANSFORMS = RandomTransforms(flips=False, rotation=0.0, zoom=0.0, shift=0.0)


@dataclass(frozen=True)
class Views:
    """The random numbers of n views.

    warp: float32 [n, 8], rows of a projective transform (output pixel → input pixel, as `affine_transform` takes it).
    gain: float32 [n, 3], a factor for each color channel.
    contrast, saturation: float32 [n].
    """

    warp: np.ndarray
    gain: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray

    def arrays(self) -> tuple[np.ndarray, ...]:
        return self.warp, self.gain, self.contrast, self.saturation


def draw_views(transforms: RandomTransforms, count: int, image_shape: tuple, rng: np.random.Generator) -> Views:
    """Draws the random numbers of `count` views.

    Args:
        transforms: their ranges.
        count: number of views.
        image_shape: (height, width, …) of the images, in pixels.
        rng: numpy's random generator.
    """
    t = transforms

    def within(limit: float, *shape: int) -> np.ndarray:
        return rng.uniform(-limit, limit, (count, *shape))

    angle = np.deg2rad(within(t.rotation)) + (np.pi / 2) * rng.integers(0, 4 if t.quarter_turns else 1, count)
    mirror = rng.choice([-1.0, 1.0], (count, 2)) if t.flips else np.ones((count, 2))
    mirror[:, 1] = mirror[:, 1] if t.vertical_flips else 1.0
    linear = np.empty((count, 2, 2))
    linear[:, 0, 0], linear[:, 0, 1] = np.cos(angle), -np.sin(angle)
    linear[:, 1, 0], linear[:, 1, 1] = np.sin(angle), np.cos(angle)
    linear *= mirror[:, None, :] * np.exp(-within(t.zoom))[:, None, None]

    size = np.array([image_shape[1], image_shape[0]], float)  # x, y
    center = (size - 1) / 2
    offset = center + within(t.shift, 2) * size - linear @ center
    warp = np.zeros((count, 8), np.float32)
    warp[:, 0:2], warp[:, 2] = linear[:, 0], offset[:, 0]
    warp[:, 3:5], warp[:, 5] = linear[:, 1], offset[:, 1]

    gain = np.exp(within(t.brightness, 1) + within(t.tint, 3)).astype(np.float32)
    contrast, saturation = (np.exp(within(x)).astype(np.float32) for x in (t.contrast, t.saturation))
    return Views(warp, gain, contrast, saturation)


def apply_views(images: Any, warp: Any, gain: Any, contrast: Any, saturation: Any) -> Any:
    """Transforms a batch of images.

    Args:
        images: [b, h, w, 3], values 0 to 255, any dtype.
        warp, gain, contrast, saturation: rows of `Views`, b of each.

    Returns:
        float32 [b, h, w, 3], values 0 to 255. Outside its borders an image continues as its mirror image.
    """
    x = ops.cast(images, "float32")
    x = ops.image.affine_transform(x, warp, interpolation="bilinear", fill_mode="reflect")
    x = x * ops.reshape(gain, (-1, 1, 1, 3))
    mean = ops.mean(x, axis=(1, 2, 3), keepdims=True)
    x = mean + (x - mean) * ops.reshape(contrast, (-1, 1, 1, 1))
    grey = ops.sum(x * LUMA, axis=-1, keepdims=True)
    x = grey + (x - grey) * ops.reshape(saturation, (-1, 1, 1, 1))
    return ops.clip(x, 0.0, 255.0)


def precompute_augmentation(images: Images, rounds: tuple, transforms: RandomTransforms, seed: int) -> Images:
    """Adds transformed copies once, before training. The network then sees the same copies in every epoch.

    Args:
        images: the training part.
        rounds: one after another, each (class names, copies): that many copies are added of each image present by then,
            or of the images of the named classes if any are named.
        transforms: ranges of the random transforms.
        seed: integer.

    Returns:
        `Images`, the given ones first.

    Raises:
        UserError: a class that does not exist.
    """
    rng = np.random.default_rng(seed)
    check_classes("augmentation.precomputed", rounds, images.names)
    for names, copies in rounds:
        classes = [images.names.index(name) for name in names] or list(range(len(images.names)))
        rows = np.repeat(np.flatnonzero(np.isin(images.labels, classes)), copies)
        images = _with_copies(
            images, images.rows(rows), draw_views(transforms, len(rows), images.images.shape[1:], rng)
        )
    return images


def _with_copies(images: Images, source: Images, views: Views) -> Images:
    blocks = [images.images]
    for start in range(0, len(source), BLOCK_SIZE):
        part = slice(start, start + BLOCK_SIZE)
        transformed = apply_views(source.images[part], *(array[part] for array in views.arrays()))
        blocks.append(np.rint(keras.ops.convert_to_numpy(transformed)).astype(np.uint8))
    labels = np.concatenate([images.labels, source.labels])
    return Images(np.concatenate(blocks), labels, images.names, images.paths + source.paths)


def rand_augment(seed: int) -> keras.Layer:
    """Two random color or geometric operations, as Keras' `RandAugment` draws them.

    Unlike E. D. Cubuk et al. ("RandAugment", CVPR workshops 2020), the operations are the same for all images of a
    batch, and their strengths have one sign: images are rotated by 0 to 108 degrees in one direction, for example.
    """
    return keras.layers.RandAugment(value_range=(0, 255), num_ops=2, factor=0.3, seed=seed)


def cut_mix(seed: int) -> keras.Layer:
    """A rectangle of another image, labels mixed by area (S. Yun et al., "CutMix", ICCV 2019).

    Keras draws the parameter of the Beta distribution from 0 to `factor` for each batch, where the paper has 1. So more
    of the rectangles are very small or very large.
    """
    return keras.layers.CutMix(factor=1.0, seed=seed)


def mix_up(seed: int) -> keras.Layer:
    """A weighted mean of two images and of their labels (H. Zhang et al., "mixup", ICLR 2018)."""
    return keras.layers.MixUp(alpha=0.2, seed=seed)


def cut_mix_or_mix_up(seed: int) -> keras.Layer:
    """For each batch, one of `cut_mix` and `mix_up`, each with probability 1/2."""
    return OneOf((cut_mix(seed), mix_up(seed)), seed)


class OneOf(keras.layers.Layer):
    """Applies one of several layers that mix a batch, drawn anew for each batch."""

    def __init__(self, layers: tuple, seed: int) -> None:
        super().__init__()
        self.layers, self.generator = layers, keras.random.SeedGenerator(seed)

    def call(self, batch: dict, training: bool = True) -> dict:
        """Mixes {"images": [b, h, w, 3], "labels": [b, classes]}."""
        drawn = keras.random.randint((), 0, len(self.layers), seed=self.generator)
        mixed = [layer(batch, training=training) for layer in self.layers]
        return {key: ops.take(ops.stack([one[key] for one in mixed]), drawn, axis=0) for key in batch}


MIXING = (cut_mix, mix_up, cut_mix_or_mix_up)  # these give an image several labels
