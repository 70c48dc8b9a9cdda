"""Features of a frozen backbone, computed once and cached on disk. A head is then trained in seconds to minutes."""

import dataclasses
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from common.files import digest, locked, write_arrays
from common.progress import progress
from training.data.augment import RandomTransforms, apply_views, draw_views
from training.fit.precision import precision
from training.model.backbones import pooled_layers
from training.model.build import preprocessing

FORMAT = 1  # increase it whenever the same arguments give other features


@dataclass(frozen=True)
class FeatureSpec:
    """What features are computed of.

    input_size: side in pixels that the backbone takes.
    transforms: random transforms of each view, or None for the images as they are.
    views: number of random views of each image; 1 without transforms.
    seed: with the number of the view, it decides the random numbers.
    precision: "float32" or "bfloat16", of the matrix products (TensorFlow only).
    """

    input_size: int
    transforms: RandomTransforms | None = None
    views: int = 1
    seed: int = 0
    precision: str = "float32"


def cached_features(cache: Path, backbone: keras.Model, images: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """`extract_features`, or the features that an earlier call with the same arguments has cached.

    The key is a digest of everything the features depend on: layers and weights of the backbone, pixels, `spec` and
    Keras' version. A damaged file is computed again. If several processes need the same features, one computes them.

    Args:
        cache: folder of the cached features; created if it does not exist.
        backbone, images, spec: see `extract_features`.

    Returns:
        float32 [views, n, d].
    """
    path = _path(cache, backbone, images, spec)
    with locked(path.with_suffix(".lock"), f"the features {path}", wait=True):
        features = _read(path, (spec.views, len(images)))
        if features is None:
            features = extract_features(backbone, images, spec)
            write_arrays(path, features=features)
    return features


def layer_features(
    cache: Path, backbone: keras.Model, layers: tuple, images: np.ndarray, spec: FeatureSpec
) -> np.ndarray:
    """`cached_features` of several layers of a backbone, concatenated.

    Each layer has a cached file of its own. Layers that are missing are computed in one pass.

    Args:
        layers: see `training.model.backbones.pooled_layers`.
        cache, backbone, images, spec: see `cached_features`.

    Returns:
        float32 [views, n, d], d of all layers together.
    """
    models = [pooled_layers(backbone, (name,)) for name in layers] or [backbone]
    missing = [
        (name, model)
        for name, model in zip(layers, models, strict=False)
        if not _path(cache, model, images, spec).exists()
    ]
    if len(missing) > 1:
        features = extract_features(pooled_layers(backbone, tuple(name for name, _ in missing)), images, spec)
        ends = np.cumsum([model.output_shape[-1] for _, model in missing])
        for (_, model), part in zip(missing, np.split(features, ends[:-1], axis=-1), strict=True):
            write_arrays(_path(cache, model, images, spec), features=part)
    return np.concatenate([cached_features(cache, model, images, spec) for model in models], axis=-1)


def extract_features(backbone: keras.Model, images: np.ndarray, spec: FeatureSpec, batch_size: int = 32) -> np.ndarray:
    """Computes the features of images or of random views of them.

    Args:
        backbone: `keras.Model`, [b, input_size, input_size, 3] of -1 to 1 → [b, d].
        images: uint8 [n, h, w, 3].
        spec: see `FeatureSpec`.
        batch_size: images per batch.

    Returns:
        float32 [views, n, d].
    """
    blocks = []
    with (
        progress(total=spec.views * len(images), desc="computing features", unit="image") as bar,
        precision(spec.precision),
    ):
        for view in range(spec.views):
            for pixels in view_batches(images, spec, view, batch_size):
                blocks.append(keras.ops.convert_to_numpy(backbone.predict_on_batch(pixels)))
                bar.update(len(pixels))
    if not blocks:
        return np.zeros((spec.views, 0, backbone.output_shape[-1]), np.float32)
    return np.concatenate(blocks).reshape(spec.views, len(images), -1).astype(np.float32)


def view_batches(images: np.ndarray, spec: FeatureSpec, view: int, batch_size: int) -> Iterator[Any]:
    """One view of each image as input of a backbone, batch by batch.

    Args:
        images, spec, batch_size: see `extract_features`.
        view: number of the view, from 0.

    Yields:
        float32 [b, input_size, input_size, 3], values -1 to 1.
    """
    prepare = preprocessing(spec.input_size, images.shape[1:3])
    drawn: tuple = ()
    if spec.transforms is not None:
        rng = np.random.default_rng((spec.seed, view))
        drawn = draw_views(spec.transforms, len(images), images.shape[1:], rng).arrays()
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        pixels = images[part].astype(np.float32)
        yield prepare(apply_views(pixels, *(array[part] for array in drawn)) if drawn else pixels)


def _path(cache: Path, backbone: keras.Model, images: np.ndarray, spec: FeatureSpec) -> Path:
    """The cached file of some features. Creates its folder."""
    Path(cache).mkdir(parents=True, exist_ok=True)
    return Path(cache) / f"{_key(backbone, images, spec)}.npz"


def _key(backbone: keras.Model, images: np.ndarray, spec: FeatureSpec) -> str:
    layers = [[type(layer).__name__, {**layer.get_config(), "name": ""}] for layer in backbone.layers]
    weights = [keras.ops.convert_to_numpy(v) for v in backbone.weights]
    transforms = None if spec.transforms is None else dataclasses.asdict(spec.transforms)
    views: list = [transforms, spec.views, spec.seed, spec.input_size]
    views += [] if spec.precision == "float32" else [spec.precision]
    software = (FORMAT, keras.__version__, keras.backend.backend())
    return digest(*software, json.dumps(layers, default=str), *weights, images, views)[:32]


def _read(path: Path, shape: tuple) -> np.ndarray | None:
    if not path.exists():
        return None
    try:
        with np.load(path) as file:
            features = file["features"]
        if features.shape[:2] == shape and features.ndim == 3:
            return features
        reason = f"the shape is {features.shape}"
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error)
    print(f"the cached features {path} are damaged ({reason}); they are computed again")
    return None
