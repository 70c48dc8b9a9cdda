"""Compares three ways to make images of different aspect ratios equally large: stretching, cropping and padding.

  python -m benchmarks.aspect --data DIR
  python -m benchmarks.aspect --data DIR --shapes landscape --backbone-weights FILE

A random or fixed part of each image is cut out, so that the shapes are "mixed" (width to height log-uniform from 1:1.6
to 1.6:1), "turned" (3:2 or 2:3 at random) or "landscape" (all 3:2). Each part is then brought to 192×192. Logistic
regression on features of a frozen InceptionV3 is measured in four folds that keep similar images together.
"""

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from benchmarks import benchmark_parser, run_benchmark
from common.images import load_folder

SIZE = 192  # pixels
WIDEST = 1.6
FOLDS = 4


def stretch(image: Image.Image) -> Image.Image:
    """The whole image, distorted."""
    return image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def crop(image: Image.Image) -> Image.Image:
    """The square in the center."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return stretch(image.crop((left, top, left + side, top + side)))


def pad(image: Image.Image) -> Image.Image:
    """The whole image in a square of its mean color."""
    side = max(image.size)
    color = tuple(int(value) for value in np.asarray(image).mean(axis=(0, 1)))
    square = Image.new("RGB", (side, side), color)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return stretch(square)


WAYS = {"stretch": stretch, "crop": crop, "pad": pad}
SHAPES = ("mixed", "turned", "landscape")


def cut(images: np.ndarray, shapes: str) -> Iterator[Image.Image]:
    """Cuts the largest part of a random aspect out of each image: at a random place if mixed, else in the center.

    Args:
        images: uint8 [n, h, w, 3].
        shapes: one of `SHAPES`.
    """
    rng = np.random.default_rng(0)
    for pixels in images:
        height, width = pixels.shape[:2]
        aspect = {"mixed": np.exp(rng.uniform(-1, 1) * np.log(WIDEST)), "turned": rng.choice([1.5, 1 / 1.5])}.get(
            shapes, 1.5
        )
        h, w = min(height, int(width / aspect)), min(width, int(height * aspect))
        place = rng.uniform(size=2) if shapes == "mixed" else np.full(2, 0.5)
        top, left = (place * (height - h, width - w)).astype(int)
        yield Image.fromarray(pixels[top : top + h, left : left + w])


def measure(options: argparse.Namespace) -> dict:
    """The accuracy of each way, for each kind of shapes, and in each fold."""
    from training.auto.choices import LAYERS
    from training.auto.heldout import similar_groups
    from training.fit.features import FeatureSpec, extract_features
    from training.fit.precision import fastest
    from training.model.backbones import inception_v3_frozen, pooled_layers

    images = load_folder(options.data)
    network = pooled_layers(inception_v3_frozen(options.backbone_weights), LAYERS[1:])
    spec, groups = FeatureSpec(SIZE, precision=fastest()), None
    result: dict = {}
    for shapes in options.shapes:
        parts = list(cut(images.images, shapes))
        result[shapes] = {}
        for name, way in WAYS.items():
            pixels = np.stack([np.asarray(way(part)) for part in parts])
            views = [extract_features(network, view, spec)[0] for view in (pixels, pixels[:, :, ::-1])]
            groups = similar_groups(images.labels, views[0])[0] if groups is None else groups
            folds = in_folds(views, images.labels, groups)
            result[shapes][name] = {"accuracy": float(np.mean(folds)), "folds": folds}
            print(f"{shapes}, {name}: {np.mean(folds):.1%}", flush=True)
    return result


def in_folds(views: list[np.ndarray], labels: np.ndarray, groups: np.ndarray) -> list[float]:
    """The held-out accuracy in each fold of logistic regression, averaged over the views."""
    splits: Any = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    accuracies = []
    for train, val in splits.split(views[0], labels, groups):
        scaler = StandardScaler().fit(np.concatenate([view[train] for view in views]))
        x = scaler.transform(np.concatenate([view[train] for view in views]))
        model = LogisticRegression(C=0.01, max_iter=200, tol=1e-3).fit(x, np.tile(labels[train], len(views)))
        probabilities = np.mean([model.predict_proba(scaler.transform(view[val])) for view in views], axis=0)
        accuracies.append(float((model.classes_[probabilities.argmax(axis=1)] == labels[val]).mean()))
    return accuracies


def main(arguments: list[str] | None = None) -> int:
    """Measures. Returns the exit code."""
    parser = benchmark_parser("aspect", __doc__)
    parser.add_argument("--data", required=True, help="class folders, best with images as high as wide")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=SHAPES, help="default: all")
    parser.add_argument("--backbone-weights", default="imagenet", help="imagenet, none, or a .weights.h5 file")
    return run_benchmark(parser.parse_args(arguments), measure)


if __name__ == "__main__":
    sys.exit(main())
