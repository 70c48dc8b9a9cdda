"""Arrays → batches: shuffled, augmented in parallel, prefetched, so that the network never waits for an image.

Labels are one-hot, since CutMix and MixUp give an image a share of several classes. Under TensorFlow the batches come
from `tf.data`; under another backend of Keras the same batches come from a `keras.utils.PyDataset`.
"""

import contextlib
import io
import os
import shutil
from pathlib import Path

import keras
import numpy as np

from training.augment import apply_views, draw_views
from training.errors import UserError

PREFETCHED = 4  # batches that are ready before the network asks for them


def array_batches(images, rows, recipe, epoch, folder=None):
    """One epoch of augmented batches from arrays in memory.

    Args:
        images: `Images`.
        rows: int [m], the rows of one epoch (see `balance.repeat_classes`).
        recipe: `Recipe`, its `augmentation`, `layers`, `batch` and `seed`.
        epoch: integer from 0; with the recipe's seed it decides everything random.
        folder: not used.

    Returns:
        What `fit` takes, of (float32 [batch, h, w, 3] of 0 to 255, float32 [batch, classes]). The last batch is filled
        up from the epoch's beginning, since a batch of one or two images would spoil the batch statistics.
    """
    rng = np.random.default_rng((recipe.seed, recipe.earlier_epochs + epoch))
    order = _whole_batches(rng.permutation(rows), recipe.batch)
    views = draw_views(recipe.augmentation, len(order), images.images.shape[1:], rng).arrays()
    targets = one_hot(images.labels, len(images.names))
    mixing = [(layer, int(rng.integers(2**31)) + number) for number, layer in enumerate(recipe.layers)]
    batches = _graph_batches if keras.backend.backend() == "tensorflow" else _ArrayBatches
    return batches(images.images, targets, order, views, mixing, recipe.batch)


def _graph_batches(images, targets, order, views, mixing, batch):
    import tensorflow as tf

    images, targets = tf.constant(images), tf.constant(targets)

    def make(rows, *view):
        return apply_views(tf.gather(images, rows), *view), tf.gather(targets, rows)

    data = tf.data.Dataset.from_tensor_slices((order, *views)).batch(batch, drop_remainder=True)
    data = data.map(make, num_parallel_calls=os.cpu_count())
    for layer, seed in mixing:
        data = data.map(_mixing(layer(seed=seed)))  # one at a time: its random state has an order
    return _ready(data)


def plain_batches(batch, *arrays):
    """Rows of arrays as they are and in their order.

    Args:
        batch: rows in a batch; the last one may be smaller.
        arrays: inputs [n, …], or inputs and targets [n, …].

    Returns:
        What `predict`, or `fit` as training or validation data, takes.
    """
    if keras.backend.backend() != "tensorflow":
        return _PlainBatches(batch, arrays)
    import tensorflow as tf

    return _ready(tf.data.Dataset.from_tensor_slices(arrays).batch(batch))


def _ready(data):
    """A `tf.data` pipeline that is a few batches ahead.

    Without autotuning, which Keras turns on for plain arrays: its thread sleeps for up to a minute between two looks, and
    whoever has used up the pipeline waits for it to wake.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return data.prefetch(PREFETCHED).with_options(options)


class _PlainBatches(keras.utils.PyDataset):
    def __init__(self, batch, arrays):
        super().__init__()
        self.batch, self.arrays = batch, arrays

    def __len__(self):
        return -(-len(self.arrays[0]) // self.batch)

    def __getitem__(self, number):
        return tuple(array[number * self.batch : (number + 1) * self.batch] for array in self.arrays)


class _ArrayBatches(keras.utils.PyDataset):
    def __init__(self, images, targets, order, views, mixing, batch):
        super().__init__()
        self.images, self.targets, self.order, self.views = images, targets, order, views
        self.mixing, self.batch = mixing, batch

    def __len__(self):
        return len(self.order) // self.batch

    def __getitem__(self, number):
        part = slice(number * self.batch, (number + 1) * self.batch)
        rows = self.order[part]
        batch = apply_views(self.images[rows], *(array[part] for array in self.views)), self.targets[rows]
        for layer, seed in self.mixing:  # made anew, for a batch may be asked for twice, and is then the same
            batch = _mixing(layer(seed=seed + 1000 * number))(*batch)
        return tuple(map(keras.ops.convert_to_numpy, batch))


def folder_batches(images, rows, recipe, epoch, folder):
    """One epoch from files: Keras' ImageDataGenerator.flow_from_directory, which decodes and warps each image in Python.

    The report left it for `tf.data`, because it starved the GPU. Its augmentation knows no views of light.

    Args:
        images, rows, recipe, epoch: see `array_batches`.
        folder: a place for links to the images of this epoch, one folder for each class; made anew.

    Returns:
        An iterator of (float32 [batch, h, w, 3] of 0 to 255, float32 [batch, classes]) with a length.

    Raises:
        UserError: synthetic images, which are no files.
    """
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    if "synthetic" in images.paths:
        raise UserError("pipeline=folder_batches reads files, and synthetic images are none; take another resampling")
    _link(images, _whole_batches(np.asarray(rows), recipe.batch), Path(folder))
    a = recipe.augmentation
    generator = ImageDataGenerator(
        rotation_range=a.rotation,
        width_shift_range=a.shift,
        height_shift_range=a.shift,
        zoom_range=a.zoom,
        horizontal_flip=a.flips,
        vertical_flip=a.flips,
        fill_mode="reflect",
    )
    seed = int(np.random.default_rng((recipe.seed, recipe.earlier_epochs + epoch)).integers(2**31))
    with contextlib.redirect_stdout(io.StringIO()):  # it counts the images again in each epoch
        return generator.flow_from_directory(
            folder, images.images.shape[1:3], classes=list(images.names), batch_size=recipe.batch, class_mode="categorical", seed=seed
        )


def one_hot(labels, classes):
    """int [n] → float32 [n, classes]."""
    return np.eye(classes, dtype=np.float32)[labels]


def _whole_batches(order, batch):
    return np.resize(order, -(-len(order) // batch) * batch)


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
