"""Accuracy of random Fourier features compared with the exact kernel machine, on the features of a finished run.

  python -m benchmarks.kernels --run runs/released
  python -m benchmarks.kernels --run runs/released --views 4 --json kernels.json

Each classifier is trained on the features of the training images and evaluated on the validation images, averaged over
the run's TTA transforms. The classifiers are scikit-learn's SVC with the Gaussian kernel (C=3, gamma="scale"), softmax
regression, and softmax regression on random Fourier features whose kernel width is the run's `head.kernel_scale` times
the median distance.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.tensorflow_log import hide_tensorflow_log

hide_tensorflow_log()

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from benchmarks import benchmark_parser, read_features, run_benchmark
from common.cli import whole_number
from common.errors import UserError
from training.evaluate.metrics import wilson
from training.fit.head import median_distance
from training.model.fourier_features import RandomFourierFeatures
from training.run_folder import read_record

FOURIER_FEATURES = (256, 1024, 4096)
BLOCKS = 16  # into which the rows are divided, to limit the memory


def measure(run: Path, views: int) -> dict:
    """Trains and evaluates each classifier.

    Args:
        run: folder of a finished run with a quasi-SVM and a validation part.
        views: views of each training image to train on: random ones, or with `head.views=0` the TTA transforms.

    Returns:
        Classifier → its accuracy on the validation images with the 95 % interval, as plain values.

    Raises:
        UserError: no such run, or it has fewer views; see `read_features`.
    """
    arrays = read_features(run)
    kernel_scale = read_record(run).recipe.head.kernel_scale
    train, truth = arrays["train"][:views], arrays["val_labels"]
    if len(train) < views:
        raise UserError(f"--views must be from 1 to {len(train)}, the views of {run}; got {views}")
    if not len(truth):
        raise UserError(f"--run must have a validation part; {run} was trained on all images")
    rows = train.reshape(-1, train.shape[-1])
    scaler = StandardScaler().fit(rows)
    x, y = scaler.transform(rows), np.tile(arrays["train_labels"], len(train))
    val = [scaler.transform(features) for features in arrays["val"]]
    results: dict[str, Any] = {"views": views, "images": len(truth)}
    for name, fit in _classifiers(kernel_scale * median_distance(x, 0)).items():
        began = time.monotonic()
        decide = fit(x, y)
        predicted = np.mean([decide(features) for features in val], axis=0).argmax(axis=-1)
        correct = int((predicted == truth).sum())
        low, high = wilson(correct, len(truth))
        results[name] = {"accuracy": correct / len(truth), "interval95": [low, high]}
        share = f"{correct / len(truth):.1%} ({low:.1%} to {high:.1%})"
        print(f"{name:32} {share} of {len(truth)} images, {time.monotonic() - began:.0f} s", flush=True)
    return results


def _classifiers(width: float) -> dict[str, Callable]:
    """Name → function (x, y) → function x → scores [n, classes]."""
    fourier = {f"{count} random Fourier features": _fourier(count, width) for count in FOURIER_FEATURES}
    return {"softmax, no kernel": _linear, "exact Gaussian kernel (SVC)": _exact, **fourier}


def _linear(x: np.ndarray, y: np.ndarray) -> Callable:
    return LogisticRegression(C=0.001, max_iter=500).fit(x, y).predict_proba


def _exact(x: np.ndarray, y: np.ndarray) -> Callable:
    decide = SVC(C=3, gamma="scale").fit(x, y).decision_function

    def scores(rows: np.ndarray) -> np.ndarray:
        found = decide(rows)
        return np.stack([-found, found], axis=-1) if found.ndim == 1 else found  # two classes have one score

    return scores


def _fourier(count: int, width: float) -> Callable:
    def fit(x: np.ndarray, y: np.ndarray) -> Callable:
        layer = RandomFourierFeatures(count, scale=width)

        def features(rows: np.ndarray) -> np.ndarray:
            blocks = np.array_split(rows.astype(np.float32), BLOCKS)
            return np.concatenate([keras.ops.convert_to_numpy(layer(block)) for block in blocks])

        model = LogisticRegression(C=30, max_iter=300).fit(features(x), y)
        return lambda rows: model.predict_proba(features(rows))

    return fit


def main(arguments: list[str] | None = None) -> int:
    """Compares and prints. Returns the exit code."""
    parser = benchmark_parser("kernels", __doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished run with a quasi-SVM")
    parser.add_argument(
        "--views", type=whole_number, default=2, help="views of each training image to train on (default: %(default)s)"
    )
    return run_benchmark(parser.parse_args(arguments), _run)


def _run(options: argparse.Namespace) -> dict:
    return measure(options.run, options.views)


if __name__ == "__main__":
    sys.exit(main())
