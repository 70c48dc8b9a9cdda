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

from common.errors import UserError
from common.files import digest, locked, write_arrays
from common.progress import progress
from training.data.augment import RandomTransforms, apply_views, draw_views
from training.fit.precision import precision
from training.model.backbones import pooled_layers
from training.model.build import preprocessing
from training.predict import transform

FORMAT = 2  # increase it whenever the same arguments give other features


@dataclass(frozen=True)
class FeatureSpec:
    """Which features: the input size, the augmentation, the number of views and the precision.

    input_size: side in pixels that the backbone takes.
    transforms: random transforms of each view, or None for the images as they are.
    views: number of random views of each image; 1 without transforms.
    seed: with the number of the view, it decides the random numbers.
    precision: "float32" or "bfloat16", of the matrix products (TensorFlow only).
    tta_transform: one of `training.predict.TTA_TRANSFORMS`, applied to the images first.
    """

    input_size: int
    transforms: RandomTransforms | None = None
    views: int = 1
    seed: int = 0
    precision: str = "float32"
    tta_transform: str = "none"


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
    return layer_features(cache, backbone, (), images, spec)


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
    return _cached(Path(cache), _Source(backbone, layers, images), spec)


def tta_features(
    cache: Path, backbone: keras.Model, layers: tuple, images: np.ndarray, spec: FeatureSpec, transforms: tuple
) -> np.ndarray:
    """`layer_features` of images under the transforms of test-time augmentation.

    Args:
        transforms: their names, see `training.predict.TTA_TRANSFORMS`.
        cache, backbone, layers, images: see `layer_features`.
        spec: without random transforms.

    Returns:
        float32 [transforms, n, d], d of all layers together.
    """
    source = _Source(backbone, layers, images)
    specs = [dataclasses.replace(spec, tta_transform=name) for name in transforms]
    return np.concatenate([_cached(Path(cache), source, one) for one in specs])


class _Source:
    """A backbone with its layers and images, whose digests are computed once."""

    def __init__(self, backbone: keras.Model, layers: tuple, images: np.ndarray) -> None:
        self.backbone, self.images = backbone, images
        self.models = {name: pooled_layers(backbone, (name,)) for name in layers} or {"": backbone}
        pixels = digest(images)
        self._digests = {name: digest(pixels, _digest(model)) for name, model in self.models.items()}

    def path(self, cache: Path, layer: str, spec: FeatureSpec) -> Path:
        """The cached file of a layer."""
        # JSON of None is not that of a dictionary, so features without transforms have keys of their own.
        software = FORMAT, keras.__version__, keras.backend.backend()
        return cache / f"{digest(self._digests[layer], dataclasses.asdict(spec), *software)[:32]}.npz"

    def network(self, layers: tuple) -> keras.Model:
        """The model of the features of some layers."""
        return self.backbone if "" in layers else pooled_layers(self.backbone, layers)


def _digest(model: keras.Model) -> str:
    """SHA-256 of the layers and weights of a model."""
    layers = [[type(layer).__name__, {**layer.get_config(), "name": ""}] for layer in model.layers]
    return digest(json.dumps(layers, default=str), *[keras.ops.convert_to_numpy(v) for v in model.weights])


def _cached(cache: Path, source: _Source, spec: FeatureSpec) -> np.ndarray:
    """The features of all layers, float32 [views, n, d], from the cache or computed now."""
    cache.mkdir(parents=True, exist_ok=True)
    paths = {layer: source.path(cache, layer, spec) for layer in source.models}
    lock = cache / f"{digest(sorted(path.stem for path in paths.values()))[:32]}.lock"
    with locked(lock, f"the features in {cache}", wait=True):
        parts = {layer: _read(path, (spec.views, len(source.images))) for layer, path in paths.items()}
        missing = tuple(layer for layer, part in parts.items() if part is None)
        if missing:
            features = extract_features(source.network(missing), source.images, spec)
            ends = np.cumsum([source.models[layer].output_shape[-1] for layer in missing])
            for layer, part in zip(missing, np.split(features, ends[:-1], axis=-1), strict=True):
                write_arrays(paths[layer], features=part)
                parts[layer] = part
    return np.concatenate([part for part in parts.values() if part is not None], axis=-1)


def extract_features(backbone: keras.Model, images: np.ndarray, spec: FeatureSpec, batch_size: int = 32) -> np.ndarray:
    """Computes the features of images or of random views of them.

    Args:
        backbone: `keras.Model`, [b, input_size, input_size, 3] of -1 to 1 → [b, d].
        images: uint8 [n, h, w, 3].
        spec: see `FeatureSpec`.
        batch_size: images per batch.

    Returns:
        float32 [views, n, d].

    Raises:
        UserError: a feature is NaN or infinite.
    """
    blocks = []
    with (
        progress(total=spec.views * len(images), desc="computing features", unit="image") as bar,
        precision(spec.precision),
    ):
        for view in range(spec.views):
            for pixels in view_batches(images, spec, view, batch_size):
                missing = batch_size - len(pixels) if len(images) > batch_size else 0  # another shape is compiled anew
                full = keras.ops.pad(pixels, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else pixels
                blocks.append(keras.ops.convert_to_numpy(backbone.predict_on_batch(full))[: len(pixels)])
                bar.update(len(pixels))
    if not blocks:
        return np.zeros((spec.views, 0, backbone.output_shape[-1]), np.float32)
    features = np.concatenate(blocks).reshape(spec.views, len(images), -1).astype(np.float32)
    if wrong := int((~np.isfinite(features).all(axis=(0, 2))).sum()):
        raise UserError(
            f"the features must be finite, and those of {wrong} of {len(images)} images are not; check the weights of "
            "the backbone, or --set head.feature_precision=float32"
        )
    return features


def view_batches(images: np.ndarray, spec: FeatureSpec, view: int, batch_size: int) -> Iterator[Any]:
    """One view of each image as input of a backbone, batch by batch.

    Args:
        images, spec, batch_size: see `extract_features`.
        view: number of the view, from 0.

    Yields:
        float32 [b, input_size, input_size, 3], values -1 to 1.
    """
    prepare = preprocessing(spec.input_size, transform(images[:1], spec.tta_transform).shape[1:3])
    drawn: tuple = ()
    if spec.transforms is not None:
        rng = np.random.default_rng((spec.seed, view))
        drawn = draw_views(spec.transforms, len(images), images.shape[1:], rng).arrays()
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        pixels = transform(images[part], spec.tta_transform).astype(np.float32)
        yield prepare(apply_views(pixels, *(array[part] for array in drawn)) if drawn else pixels)


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
