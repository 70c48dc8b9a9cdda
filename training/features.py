"""A frozen backbone's features of many views, computed once and kept: a head is then trained in minutes, or seconds."""

import dataclasses
import json
import zipfile
from pathlib import Path

import keras
import numpy as np

from training.architectures import preprocessing
from training.augment import apply_views, draw_views
from training.files import digest, locked, write_arrays
from training.progress import progress

FORMAT = 1  # counts up whenever the same arguments give other features


def cached_features(cache, backbone, images, size, augmentation=None, views=1, seed=0):
    """`extract`, or what an earlier call with the same arguments kept.

    The key of a cached file is a digest of everything the features depend on: the backbone's layers and weights, the
    pixels, the size, the augmentation, the number of views, the seed and Keras' version. A damaged file is computed
    again. Of several processes that want the same features, one computes them and the others wait for it.

    Args:
        cache: folder of the cached files, made if it does not exist.
        Others, returns: see `extract`.
    """
    key = _key(backbone, images, size, augmentation, views, seed)
    path = Path(cache) / f"{key}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock"), f"the features {path}", wait=True):
        kept = _read(path, (views, len(images)))
        if kept is None:
            kept = extract(backbone, images, size, augmentation, views, seed)
            write_arrays(path, features=kept)
    return kept


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
    blocks = []
    with progress(total=views * len(images), desc="computing features", unit="image") as bar:
        for view in range(views):
            for pixels in view_batches(images, size, augmentation, seed, view, batch):
                blocks.append(keras.ops.convert_to_numpy(backbone.predict_on_batch(pixels)))
                bar.update(len(pixels))
    if not blocks:
        return np.zeros((views, 0, backbone.output_shape[-1]), np.float32)
    return np.concatenate(blocks).reshape(views, len(images), -1).astype(np.float32)


def view_batches(images, size, augmentation, seed, view, batch):
    """One view of each image as a backbone takes it, batch by batch.

    Args:
        images, size, augmentation, seed, batch: see `extract`.
        view: number of the view, from 0; with the seed it decides what is drawn.

    Yields:
        float32 [b, size, size, 3], values -1 to 1.
    """
    prepare = preprocessing(size, images.shape[1:3])
    if augmentation is not None:
        drawn = draw_views(augmentation, len(images), images.shape[1:], np.random.default_rng((seed, view)))
    for start in range(0, len(images), batch):
        part = slice(start, start + batch)
        pixels = images[part].astype(np.float32)
        if augmentation is not None:
            pixels = apply_views(pixels, *(array[part] for array in drawn.arrays()))
        yield prepare(pixels)


def _key(backbone, images, size, augmentation, views, seed):
    layers = [[type(layer).__name__, {**layer.get_config(), "name": ""}] for layer in backbone.layers]
    weights = [keras.ops.convert_to_numpy(v) for v in backbone.weights]
    views = [None if augmentation is None else dataclasses.asdict(augmentation), views, seed, size]
    return digest(FORMAT, keras.__version__, keras.backend.backend(), json.dumps(layers, default=str), *weights, images, views)[:32]


def _read(path, shape):
    if not path.exists():
        return None
    try:
        with np.load(path) as file:
            features = file["features"]
        if features.shape[:2] == shape and features.ndim == 3:
            return features
        reason = f"its shape is {features.shape}"
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error)
    print(f"the cached features {path} are damaged ({reason}); computing them again")
    return None
