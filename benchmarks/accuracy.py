"""What the choices after fine-tuning contribute to accuracy: TTA, input size, and the fields of the quasi-SVM.

  python -m benchmarks.accuracy --run runs/released --data data/leaves/train
  python -m benchmarks.accuracy --run runs/released --data data/leaves/train --picture docs/img/accuracy.png

The fine-tuned backbone stays the same, and everything is evaluated on the run's validation images. Heads are trained
again on cached features, with one field of the recipe changed at a time. The run must have kept its last epoch, so that
the validation images have selected nothing.
"""

import argparse
import sys
import tempfile
import time
from operator import attrgetter
from pathlib import Path
from typing import Any

from common.tensorflow_log import hide_tensorflow_log

hide_tensorflow_log()

import keras
import numpy as np
from sklearn.metrics import log_loss

from benchmarks import benchmark_parser, read_features, require_folder, run_benchmark
from common.errors import UserError
from common.files import digest
from common.images import Images, load_folder
from common.progress import progress
from training.config.override import change
from training.config.recipe import QUASI_SVM, Prediction, Recipe
from training.data.split import split_rows
from training.evaluate.metrics import calibration_error, wilson
from training.evaluate.plots import plot_ranges
from training.fit.head import Features, fit_head
from training.model.build import build_model
from training.predict import TTA_TRANSFORMS, needs_square, predict_proba
from training.recipes import RENAMED, load_recipe
from training.run import finetuned_model, load_run
from training.run_folder import Record, read_metrics, read_record

# Row → the changed fields of the recipe.
HEADS: dict[str, dict[str, Any]] = {
    "quasi-SVM as in the recipe": {},
    "per-feature standardization": {"head.shared_feature_scale": False},
    "no logit adjustment": {"head.logit_adjustment": 0.0},
    "no class repeats": {"data.class_repeats": {}},
    "1 view of each training image": {"head.views": 1},
    "256 random Fourier features": {"head.fourier_features": 256},
    "kernel scale 2": {"head.kernel_scale": 2.0},
    "learning rate 1e-3": {"head.learning_rate": 1e-3},
}
SIZES = (160, 192, 224)  # input sizes in pixels
TRANSFORMS = {
    "no TTA": ("none",),
    "2 transforms": ("none", "both"),
    "4 transforms": tuple(TTA_TRANSFORMS)[:4],
    "8 transforms": tuple(TTA_TRANSFORMS),
}
THRESHOLDS = (0.8, 0.85, 0.9, 0.95)  # of TTA with eight transforms


def prediction_rows(recipe: Recipe, run: Path, val: Images) -> dict[str, dict]:
    """Evaluates the finished model with each input size and test-time augmentation.

    Args:
        recipe: of the run.
        run: folder of a finished run with a quasi-SVM.
        val: its validation images.

    Returns:
        Row → accuracy, interval, calibration error, log loss and seconds; with a threshold also the mean number of
        transforms of an image.
    """
    size, shape = recipe.finetune.input_size, val.images.shape[1:3]
    names = [name for name in TTA_TRANSFORMS if not needs_square(name) or shape[0] == shape[1]]
    rows: dict[str, dict] = {}
    for title, model in progress(_models(recipe, run, val).items(), "predicting", unit="model"):
        began = time.monotonic()
        probabilities = {name: predict_proba(model, val.images, Prediction((name,))) for name in names}
        seconds = (time.monotonic() - began) / len(names)
        for label, transforms in TRANSFORMS.items():
            if set(transforms) <= set(names):
                mean = np.mean([probabilities[name] for name in transforms], axis=0)
                rows[f"{title}, {label}"] = _row([mean], val.labels, seconds * len(transforms))
        if title == f"quasi-SVM, {size}×{size}" and len(names) == len(TTA_TRANSFORMS):
            for threshold in THRESHOLDS:
                row = _threshold_row(probabilities, threshold, val.labels, seconds)
                rows[f"{title}, 8 transforms, threshold {threshold:g}"] = row
    return rows


def head_rows(recipe: Recipe, features: Features, tta_features: np.ndarray, seeds: int) -> dict[str, dict]:
    """Trains and evaluates each head of `HEADS`, with the recipe's TTA transforms of every image averaged.

    Args:
        recipe: of the run.
        features: of the training images, and of the validation images under the first transform.
        tta_features: float32 [transforms, m, d], of the validation images.
        seeds: number of heads of each row.

    Returns:
        Row → mean accuracy, accuracy of each seed, interval, calibration error, log loss and seconds.
    """
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, changes in progress(HEADS.items(), "training heads", unit="head"):
            began, results = time.monotonic(), []
            for seed in range(seeds):
                changed = change(recipe, {"seed": seed, **changes})
                views = features.train[: changed.head.views]
                part = Features(views, features.train_labels, features.val, features.val_labels, features.names)
                head = fit_head(changed, part, Path(folder))
                results.append(np.mean([head.predict(view, verbose=0) for view in tta_features], axis=0))
            rows[name] = _row(results, features.val_labels, (time.monotonic() - began) / seeds)
    return rows


def _models(recipe: Recipe, run: Path, val: Images) -> dict[str, keras.Model]:
    """The model of the run at each input size, and the softmax that its backbone was fine-tuned under."""
    size, shape = recipe.finetune.input_size, val.images.shape[1:3]
    model = load_run(run).model
    backbone, head = model.get_layer("backbone"), model.get_layer(QUASI_SVM)
    models = {f"softmax, {size}×{size}": finetuned_model(recipe, val.names, shape, run)}
    for other in SIZES:
        models[f"quasi-SVM, {other}×{other}"] = build_model(backbone, head, shape, other)
    return models


def _threshold_row(probabilities: dict, threshold: float, labels: np.ndarray, seconds: float) -> dict:
    """The row of TTA with a threshold, from the probabilities and the seconds of each transform."""
    first, mean = probabilities["none"], np.mean(list(probabilities.values()), axis=0)
    uncertain = first.max(axis=1, keepdims=True) <= threshold
    count = 1 + float(uncertain.mean()) * (len(probabilities) - 1)
    row = _row([np.where(uncertain, mean, first)], labels, seconds * count)
    return {**row, "transforms_per_image": round(count, 2)}


def _row(results: list[np.ndarray], labels: np.ndarray, seconds: float) -> dict:
    """The values of one row, from the probabilities of each seed."""
    accuracies = [float((one.argmax(axis=1) == labels).mean()) for one in results]
    accuracy = float(np.mean(accuracies))
    classes = range(results[0].shape[1])
    return {
        "accuracy": accuracy,
        "seeds": accuracies,
        "interval95": wilson(accuracy * len(labels), len(labels)),
        "calibration_error": float(np.mean([calibration_error(labels, one) for one in results])),
        "log_loss": float(np.mean([log_loss(labels, one, labels=classes) for one in results])),
        "seconds": round(seconds, 1),
    }


def _check_run(run: Path, record: Record, images: Images) -> None:
    """Raises a UserError unless the rows are valid for the run's recipe and these images."""
    recipe, name = record.recipe, RENAMED.get(record.name, record.name)
    usable = recipe.head.kind == QUASI_SVM and recipe.checkpoint == "last" and read_metrics(run)["images"]
    if not usable:
        raise UserError(f"--run must have a quasi-SVM, a validation part and checkpoint=last; {run} does not")
    fields = attrgetter("head", "data", "checkpoint", "finetune.dense_units", "finetune.dropout")
    if fields(recipe) != fields(load_recipe(name)):
        raise UserError(
            f"--run must be a run of the recipe {name} as it is now; {run} has other fields, train it again"
        )
    if record.data_sha256 != digest(images.images, images.labels):
        raise UserError(f"--data must be the folder that {run} was trained on; this one has other images")


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints. Returns the exit code."""
    parser = benchmark_parser("accuracy", __doc__)
    parser.add_argument(
        "--run", type=Path, required=True, help="a finished run with a quasi-SVM, a validation part and checkpoint=last"
    )
    parser.add_argument("--data", required=True, help="the class folders that it was trained on")
    parser.add_argument("--seeds", type=int, default=2, help="heads of each row (default: %(default)s)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also plot the rows to this PNG file")
    return run_benchmark(parser.parse_args(arguments), _run)


def _run(options: argparse.Namespace) -> dict:
    if options.seeds < 1:
        raise UserError(f"--seeds must be a whole number from 1, got {options.seeds}")
    if options.picture:
        require_folder(options.picture)
    record, images = read_record(options.run), load_folder(options.data)
    _check_run(options.run, record, images)
    val = images.rows(split_rows(record.recipe.data, images)[1])
    arrays = read_features(options.run)
    features = Features(arrays["train"], arrays["train_labels"], arrays["val"][0], val.labels, val.names)
    rows = prediction_rows(record.recipe, options.run, val)
    rows.update(head_rows(record.recipe, features, arrays["val"], options.seeds))
    for name, row in rows.items():
        seeds = f"{min(row['seeds']):.1%} to {max(row['seeds']):.1%}"
        print(f"{name:44} {row['accuracy']:.1%} ({seeds}), {row['seconds']:.0f} s")
    if options.picture:
        _plot(rows, len(val), options.picture)
    return {"recipe": RENAMED.get(record.name, record.name), "images": len(val), "rows": rows}


def _plot(rows: dict[str, dict], images: int, path: Path) -> None:
    spans = [(row["accuracy"], *row["interval95"]) for row in rows.values()]
    title = f"accuracy on {images} validation images\n95 % interval; dots: seeds"
    plot_ranges(list(rows), {title: (spans, [row["seeds"] for row in rows.values()])}, path)


if __name__ == "__main__":
    sys.exit(main())
