"""Arrays → batches: shuffled, augmented in parallel, prefetched, so that the network never waits for an image."""

import numpy as np
import tensorflow as tf

from training.augment import apply_views, draw_views


def training_batches(images, labels, rows, augmentation, batch, seed):
    """One epoch of augmented batches.

    Args:
        images: uint8 [n, h, w, 3], decoded once and kept in memory.
        labels: int [n].
        rows: int [m], the rows of one epoch (see `balance.oversample`).
        augmentation: `Augmentation`.
        batch: images in a batch; the last one is filled up from the epoch's beginning, since a batch of one or
            two images would spoil the batch statistics.
        seed: integer or sequence of integers; the same seed gives the same batches.

    Returns:
        `tf.data.Dataset` of (float32 [batch, h, w, 3] of 0 to 255, int64 [batch]).
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(rows)
    order = np.resize(order, -(-len(order) // batch) * batch)
    views = draw_views(augmentation, len(order), images.shape[1:], rng)
    store, targets = tf.constant(images), tf.constant(labels, tf.int64)

    def make(rows, *view):
        return apply_views(tf.gather(store, rows), *view), tf.gather(targets, rows)

    return (
        tf.data.Dataset.from_tensor_slices((order, *views.arrays()))
        .batch(batch, drop_remainder=True)
        .map(make, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def plain_batches(images, labels, batch):
    """The images as they are, in order, for validation: (uint8 [b, h, w, 3], int64 [b])."""
    data = tf.data.Dataset.from_tensor_slices((images, np.asarray(labels, np.int64)))
    return data.batch(batch).prefetch(tf.data.AUTOTUNE)
