"""The random Fourier head beside the exact kernel machine, on the same features of a finished run.

    python -m benchmarks.kernels --run runs/leaves
    python -m benchmarks.kernels --run runs/leaves --views 4 --json docs/benchmarks/kernels.json

Fits on the training images' features and measures on the images that the run held out, with the run's flips averaged:
scikit-learn's SVC with the Gaussian kernel (C=3, gamma="scale"), and softmax regression on random Fourier features of
growing number whose scale is the run's `head_scale` times the median distance.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from training.evaluate import wilson
from training.files import write_json
from training.fit import median_distance
from training.layers import RandomFourierFeatures
from training.run import FEATURES

DIMENSIONS = (256, 1024, 4096)


def main(arguments=None):
    """Compares and prints. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True)
    parser.add_argument("--views", type=int, default=2, help="random views of each training image to fit on (default 2)")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there as well")
    options = parser.parse_args(arguments)
    try:
        with np.load(Path(options.run) / FEATURES) as file:
            train, labels, held, truth = (file[name] for name in ("train", "train_labels", "held", "held_labels"))
        scale = json.loads((Path(options.run) / "recipe.json").read_text("utf-8"))["recipe"]["head_scale"]
    except OSError as error:
        print(f"error: no features of a run in {options.run} ({error}); give the folder of a finished run", file=sys.stderr)
        return 2
    scaler = StandardScaler().fit(train[: options.views].reshape(-1, train.shape[-1]))
    x = scaler.transform(train[: options.views].reshape(-1, train.shape[-1]))
    y = np.tile(labels, min(options.views, len(train)))
    held = [scaler.transform(view) for view in held]
    width = scale * median_distance(x, 0)

    results = {}
    for name, fit in _contestants(width).items():
        began = time.monotonic()
        decide = fit(x, y)
        right = int((np.mean([decide(view) for view in held], axis=0).argmax(axis=-1) == truth).sum())
        results[name] = {"accuracy": right / len(truth), "interval95": list(wilson(right, len(truth)))}
        low, high = results[name]["interval95"]
        print(f"{name:32} {right / len(truth):.1%} ({low:.1%} to {high:.1%}) of {len(truth)}, {time.monotonic() - began:.0f} s", flush=True)
    if options.json:
        write_json(Path(options.json), {"views": options.views, "images": len(truth), **results})
    return 0


def _contestants(width):
    def exact(x, y):
        return SVC(C=3, gamma="scale").fit(x, y).decision_function

    def linear(x, y):
        return LogisticRegression(C=0.001, max_iter=500).fit(x, y).predict_proba

    def fourier(dimension):
        def fit(x, y):
            layer = RandomFourierFeatures(dimension, scale=width)

            def features(part):
                return np.concatenate([keras.ops.convert_to_numpy(layer(block)) for block in np.array_split(part.astype(np.float32), 16)])

            model = LogisticRegression(C=30, max_iter=300).fit(features(x), y)
            return lambda part: model.predict_proba(features(part))

        return fit

    return {
        "softmax, no kernel": linear,
        "exact Gaussian kernel (SVC)": exact,
        **{f"{dimension} random Fourier features": fourier(dimension) for dimension in DIMENSIONS},
    }


if __name__ == "__main__":
    sys.exit(main())
