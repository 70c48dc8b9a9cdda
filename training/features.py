"""A frozen backbone's features of many views, computed once: the head is then trained in minutes."""

import keras
import numpy as np

from training.architectures import preprocessing
from training.augment import apply_views, draw_views
from training.progress import progress


def extract(backbone, images, size, augmentation=None, views=1, seed=0, batch=32):
    """Features of images or of random views of them.

    Args:
        backbone: `keras.Model`, [b, size, size, 3] of -1 to 1 → [b, d].
        images: uint8 [n, h, w, 3].
        size: side in pixels that the backbone sees.
        augmentation: `Augmentation`, or None for the images as they are.
        views: number of random views of each image (1 without augmentation).
        seed: integer; the same seed gives the same views.
        batch: images in a batch.

    Returns:
        float32 [views, n, d].
    """
    prepare = preprocessing(size, images.shape[1:3])
    blocks = []
    with progress(total=views * len(images), desc="computing features", unit="image") as bar:
        for view in range(views):
            if augmentation is not None:
                drawn = draw_views(augmentation, len(images), images.shape[1:], np.random.default_rng((seed, view)))
            for start in range(0, len(images), batch):
                part = slice(start, start + batch)
                pixels = images[part].astype(np.float32)
                if augmentation is not None:
                    pixels = apply_views(pixels, *(array[part] for array in drawn.arrays()))
                blocks.append(keras.ops.convert_to_numpy(backbone.predict_on_batch(prepare(pixels))))
                bar.update(len(pixels))
    if not blocks:
        return np.zeros((views, 0, backbone.output_shape[-1]), np.float32)
    return np.concatenate(blocks).reshape(views, len(images), -1).astype(np.float32)
