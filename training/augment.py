"""Random views of images: one geometric warp and one change of light for each image; and Keras' own mixing layers.

The random numbers are drawn by numpy before the epoch starts and travel with the images, so a view depends on
nothing but the seed and the epoch: not on threads, batch borders, backend or an interruption. All geometric changes
are composed into one matrix and resampled once, because every further interpolation blurs a 96×96 photograph.
"""

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from training.balance import check_classes
from training.data import Images

# Luma weights of ITU-R BT.601: what a grey version of an RGB photograph is made of.
GREY = np.array([0.299, 0.587, 0.114], np.float32)


BLOCK = 256  # images that are warped at once, before training

# The eight symmetries of the square, averaged at prediction: whether rows become columns, and the axes of [n, h, w, 3]
# that are then turned round. Never 0, the batch.
FLIPS = {
    "none": (False, ()),
    "horizontal": (False, (2,)),
    "vertical": (False, (1,)),
    "both": (False, (1, 2)),
    "diagonal": (True, ()),
    "right": (True, (2,)),  # a quarter turn
    "left": (True, (1,)),
    "antidiagonal": (True, (1, 2)),
}


@dataclass(frozen=True)
class Augmentation:
    """How far a random view may be from its image; zeros and False leave it as it is."""

    flips: bool = True  # mirror along either axis, each with probability 1/2
    quarter_turns: bool = False  # with flips: all eight symmetries of the square
    rotation: float = 20.0  # degrees, uniform within ±
    zoom: float = 0.15  # natural logarithm of the zoom factor, uniform within ±
    shift: float = 0.1  # share of the side, uniform within ± along each axis
    brightness: float = 0.0  # logarithm of the gain, uniform within ±
    contrast: float = 0.0  # logarithm of the gain about the image's mean, uniform within ±
    saturation: float = 0.0  # logarithm of the gain about the pixel's grey, uniform within ±
    tint: float = 0.0  # logarithm of a gain for each colour channel, uniform within ±


NO_CHANGE = Augmentation(flips=False, rotation=0.0, zoom=0.0, shift=0.0)


@dataclass(frozen=True)
class Views:
    """The random numbers of n views.

    warp: float32 [n, 8], rows of a projective transform (output pixel → input pixel, as `affine_transform` takes it).
    gain: float32 [n, 3], a factor for each colour channel.
    contrast, saturation: float32 [n].
    """

    warp: np.ndarray
    gain: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray

    def arrays(self):
        return self.warp, self.gain, self.contrast, self.saturation


def draw_views(augmentation, count, image_shape, rng):
    """Draws `count` random views.

    Args:
        augmentation: `Augmentation`.
        count: number of views.
        image_shape: (height, width, …) of the images, in pixels.
        rng: `numpy.random.Generator`.

    Returns:
        `Views`.
    """
    a = augmentation

    def within(limit, *shape):
        return rng.uniform(-limit, limit, (count, *shape))

    angle = np.deg2rad(within(a.rotation)) + (np.pi / 2) * rng.integers(0, 4 if a.quarter_turns else 1, count)
    mirror = rng.choice([-1.0, 1.0], (count, 2)) if a.flips else np.ones((count, 2))
    linear = np.empty((count, 2, 2))
    linear[:, 0, 0], linear[:, 0, 1] = np.cos(angle), -np.sin(angle)
    linear[:, 1, 0], linear[:, 1, 1] = np.sin(angle), np.cos(angle)
    linear *= mirror[:, None, :] * np.exp(-within(a.zoom))[:, None, None]

    size = np.array([image_shape[1], image_shape[0]], float)  # x, y
    centre = (size - 1) / 2
    offset = centre + within(a.shift, 2) * size - linear @ centre
    warp = np.zeros((count, 8), np.float32)
    warp[:, 0:2], warp[:, 2] = linear[:, 0], offset[:, 0]
    warp[:, 3:5], warp[:, 5] = linear[:, 1], offset[:, 1]

    gain = np.exp(within(a.brightness, 1) + within(a.tint, 3)).astype(np.float32)
    contrast, saturation = (np.exp(within(x)).astype(np.float32) for x in (a.contrast, a.saturation))
    return Views(warp, gain, contrast, saturation)


def flip(images, name):
    """One of the `FLIPS` of images [n, h, w, c] of any dtype; [n, w, h, c] where rows become columns."""
    transposed, axes = FLIPS[name]
    return np.flip(np.swapaxes(images, 1, 2) if transposed else images, axes)


def apply_views(images, warp, gain, contrast, saturation):
    """Makes the views of a batch.

    Args:
        images: [b, h, w, 3], values 0 to 255, any dtype.
        warp, gain, contrast, saturation: rows of `Views`, b of each.

    Returns:
        float32 [b, h, w, 3], values 0 to 255. Outside the picture its mirror image is seen.
    """
    x = ops.cast(images, "float32")
    x = ops.image.affine_transform(x, warp, interpolation="bilinear", fill_mode="reflect")
    x = x * ops.reshape(gain, (-1, 1, 1, 3))
    mean = ops.mean(x, axis=(1, 2, 3), keepdims=True)
    x = mean + (x - mean) * ops.reshape(contrast, (-1, 1, 1, 1))
    grey = ops.sum(x * GREY, axis=-1, keepdims=True)
    x = grey + (x - grey) * ops.reshape(saturation, (-1, 1, 1, 1))
    return ops.clip(x, 0.0, 255.0)


def augment_offline(images, rounds, augmentation, seed):
    """Copies made once, before training: a network then sees the same views in every epoch.

    Args:
        images: `Images`.
        rounds: one after another, each (class names, copies): of every image there is by then, or of those of the named
            classes if any are named, that many random views are added.
        augmentation: `Augmentation` of the copies.
        seed: integer.

    Returns:
        `Images`, the given ones first.

    Raises:
        UserError: a class that does not exist.
    """
    rng = np.random.default_rng(seed)
    for names, copies in rounds:
        check_classes("offline", names, images.names)
        wanted = [images.names.index(name) for name in names] if names else range(len(images.names))
        rows = np.repeat(np.flatnonzero(np.isin(images.labels, wanted)), copies)
        source = images.rows(rows)
        views = draw_views(augmentation, len(rows), images.images.shape[1:], rng).arrays()
        made = [images.images]
        for start in range(0, len(rows), BLOCK):
            part = slice(start, start + BLOCK)
            view = keras.ops.convert_to_numpy(apply_views(source.images[part], *(array[part] for array in views)))
            made.append(np.rint(view).astype(np.uint8))
        images = Images(np.concatenate(made), np.concatenate([images.labels, source.labels]), images.names, images.paths + source.paths)
    return images


def rand_augment(seed):
    """Two random operations of light, colour or geometry (E. D. Cubuk et al., "RandAugment", CVPR workshops 2020)."""
    return keras.layers.RandAugment(value_range=(0, 255), num_ops=2, factor=0.3, seed=seed)


def cut_mix(seed):
    """A rectangle of another image, labels mixed by area (S. Yun et al., "CutMix", ICCV 2019)."""
    return keras.layers.CutMix(factor=1.0, seed=seed)


def mix_up(seed):
    """A weighted mean of two images and of their labels (H. Zhang et al., "mixup", ICLR 2018)."""
    return keras.layers.MixUp(alpha=0.2, seed=seed)


MIXING = (cut_mix, mix_up)  # those that give an image several labels
