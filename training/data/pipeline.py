"""Arrays → batches: shuffled, augmented in parallel and prefetched.

Labels are one-hot, because CutMix and MixUp give an image a share of several classes. Under TensorFlow the batches come
from `tf.data`, under JAX the same batches come from a `keras.utils.PyDataset`.
"""

import contextlib
import functools
import io
import os
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np

from common.errors import UserError
from common.images import Images
from training.data.augment import apply_views, draw_views

PREFETCHED = 4  # batches
WORKERS = 2  # threads that make batches under JAX; TensorFlow uses all processors


def array_batches(images: Images, rows: np.ndarray, recipe: Any, epoch: int, folder: Path | None = None) -> Any:
    """One epoch of augmented batches from arrays in memory.

    Args:
        images: `Images`.
        rows: int [m], the rows of one epoch (see `balance.repeat_classes`).
        recipe: a `Recipe`; its `augmentation`, `finetune` and `seed` are used.
        epoch: integer from 0. With the recipe's seed it decides everything random.
        folder: not used.

    Returns:
        Data for `fit`: (float32 [b, h, w, 3] of 0 to 255, float32 [b, classes]). The last batch is filled up with the
        first images of the epoch, because a batch of one or two images would distort the batch statistics.
    """
    rng = np.random.default_rng((recipe.seed, recipe.finetune.earlier_epochs + epoch))
    order = _whole_batches(rng.permutation(rows), recipe.finetune.batch_size)
    views = draw_views(recipe.augmentation.transforms, len(order), images.images.shape[1:], rng).arrays()
    targets = soft_targets(one_hot(images.labels, len(images.names)), images.teacher, recipe.finetune.teacher_share)
    layers = recipe.finetune.batch_augmentations
    mixing = [(layer, int(rng.integers(2**31)) + number) for number, layer in enumerate(layers)]
    batches = _graph_batches if keras.backend.backend() == "tensorflow" else _ArrayBatches
    return batches(images.images, targets, order, views, mixing, recipe.finetune.batch_size)


def _graph_batches(images, targets, order, views, mixing, batch_size):
    import tensorflow as tf

    with tf.device("CPU"):  # where they are read; a GPU may not have the memory
        images, targets = tf.constant(images), tf.constant(targets)

    def make(rows, *view):
        return apply_views(tf.gather(images, rows), *view), tf.gather(targets, rows)

    data = tf.data.Dataset.from_tensor_slices((order, *views)).batch(batch_size, drop_remainder=True)
    data = data.map(make, num_parallel_calls=os.cpu_count())
    for layer, seed in mixing:
        data = data.map(_mixing(layer(seed=seed)))  # not in parallel: its random state depends on the order
    return _ready(data)


def plain_batches(batch_size: int, *arrays: np.ndarray) -> Any:
    """Batches of arrays, unchanged and in order.

    Args:
        batch_size: rows in a batch. The last one may be smaller.
        arrays: inputs [n, …], or inputs and targets [n, …].

    Returns:
        Data for `predict` or `fit`.
    """
    if keras.backend.backend() != "tensorflow":
        return _PlainBatches(batch_size, arrays)
    import tensorflow as tf

    with tf.device("CPU"):  # as in `_graph_batches`
        data = tf.data.Dataset.from_tensor_slices(arrays)
    return _ready(data.batch(batch_size))


def _ready(data):
    """A `tf.data` pipeline that prefetches a few batches.

    Autotuning, which Keras enables for plain arrays, is off: its thread sleeps for up to a minute, and the end of the
    pipeline waits for it.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return data.prefetch(PREFETCHED).with_options(options)


@functools.cache  # compiled once for all epochs
def _compiled_views():
    import jax

    return jax.jit(apply_views)


class _PlainBatches(keras.utils.PyDataset):
    def __init__(self, batch_size, arrays):
        super().__init__()
        self.batch_size, self.arrays = batch_size, arrays

    def __len__(self):
        return -(-len(self.arrays[0]) // self.batch_size)

    def __getitem__(self, number):
        part = slice(number * self.batch_size, (number + 1) * self.batch_size)
        return tuple(array[part] for array in self.arrays)


class _ArrayBatches(keras.utils.PyDataset):
    def __init__(self, images, targets, order, views, mixing, batch_size):
        super().__init__(workers=WORKERS, max_queue_size=PREFETCHED)  # threads, which keep the order
        self.images, self.targets, self.order, self.views = images, targets, order, views
        self.mixing, self.batch_size = mixing, batch_size
        self.apply_views = _compiled_views()

    def __len__(self):
        return len(self.order) // self.batch_size

    def __getitem__(self, number):
        part = slice(number * self.batch_size, (number + 1) * self.batch_size)
        rows = self.order[part]
        batch = self.apply_views(self.images[rows], *(array[part] for array in self.views)), self.targets[rows]
        for layer, seed in self.mixing:  # built for each batch, so that a batch requested twice is the same
            batch = _mixing(layer(seed=seed + 1000 * number))(*batch)
        return tuple(map(keras.ops.convert_to_numpy, batch))


def folder_batches(images: Images, rows: np.ndarray, recipe: Any, epoch: int, folder: Path) -> Any:
    """One epoch from files with Keras' ImageDataGenerator.flow_from_directory.

    It decodes and transforms each image in Python. The report replaced it by `tf.data`, because it could
    not keep the GPU busy. It has no color transforms, stretches images of another aspect ratio, and ignores EXIF
    rotation.

    Args:
        images, rows, recipe, epoch: see `array_batches`.
        folder: replaced by links to the images of this epoch, one folder for each class.

    Returns:
        An iterator of (float32 [b, h, w, 3] of 0 to 255, float32 [b, classes]) with a length.

    Raises:
        UserError: images made by SMOTE, which are not files, or formats that Keras' generator does not read.
    """
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    if "synthetic" in images.paths:
        raise UserError(
            "data.pipeline=folder_batches reads files, not images made by SMOTE; choose another data.resampling"
        )
    batch_size = recipe.finetune.batch_size
    rng = np.random.default_rng((recipe.seed, recipe.finetune.earlier_epochs + epoch))
    seed = int(rng.integers(2**31))
    whole = _whole_batches(rng.permutation(rows), batch_size)  # others fill the last batch in each epoch
    _link(images, whole, Path(folder))
    t = recipe.augmentation.transforms
    generator = ImageDataGenerator(
        rotation_range=t.rotation,
        width_shift_range=t.shift,
        height_shift_range=t.shift,
        zoom_range=t.zoom,
        horizontal_flip=t.flips,
        vertical_flip=t.flips and t.vertical_flips,
        fill_mode="reflect",
    )
    with contextlib.redirect_stdout(io.StringIO()):  # it reports the number of images in each epoch
        batches = generator.flow_from_directory(
            folder,
            images.images.shape[1:3],
            classes=list(images.names),
            batch_size=batch_size,
            class_mode="categorical",
            seed=seed,
            interpolation="bicubic",
        )
    if batches.samples < len(whole):
        raise UserError(
            f"data.pipeline=folder_batches reads PNG, JPEG, BMP, PPM and TIFF files by their names, and only "
            f"{batches.samples} of {len(whole)} are; convert the others, or set data.pipeline=array_batches"
        )
    return batches


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """int [n] → float32 [n, classes]."""
    return np.eye(classes, dtype=np.float32)[labels]


def soft_targets(targets: np.ndarray, teacher: np.ndarray | None, share: float) -> np.ndarray:
    """A weighted mean of the labels and of a teacher's probabilities.

    Source: G. Hinton, O. Vinyals and J. Dean, "Distilling the Knowledge in a Neural Network", 2015.

    Args:
        targets: float32 [n, classes], one-hot.
        teacher: float32 [n, classes], or None if `share` is 0.
        share: weight of the teacher, 0 to below 1.

    Raises:
        UserError: there is no teacher, and `share` is not 0.
    """
    if not share:
        return targets
    if teacher is None:
        raise UserError(f"teacher_share={share:g} needs a teacher, which run and crossval take; set it to 0")
    return (1 - share) * targets + share * teacher


def _whole_batches(order, batch_size):
    return np.resize(order, -(-len(order) // batch_size) * batch_size)


def _mixing(layer):
    def mix(images, labels):
        if isinstance(layer, keras.layers.RandAugment):
            return keras.ops.clip(layer(images, training=True), 0.0, 255.0), labels
        mixed = layer({"images": images, "labels": labels}, training=True)
        return mixed["images"], mixed["labels"]

    return mix


def _link(images, rows, folder):
    shutil.rmtree(folder, ignore_errors=True)
    for name in images.names:
        (folder / name).mkdir(parents=True)
    for number, row in enumerate(rows):
        source = Path(images.paths[row]).resolve()
        (folder / images.names[images.labels[row]] / f"{number:06d}{source.suffix}").symlink_to(source)
