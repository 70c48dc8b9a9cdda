"""What the choices after fine-tuning contribute to accuracy: TTA, input size, the head, and its mean with the softmax.

  python -m benchmarks.accuracy --run runs/released --data data/leaves/train
  python -m benchmarks.accuracy --run runs/crossval-released --data data/leaves/train --json folds.json
  python -m benchmarks.accuracy --run runs/released --data data/leaves/train --picture docs/img/accuracy.png

The fine-tuned backbone stays the same, and everything is evaluated on the run's validation images, or on those of a
cross-validation's finished folds together. Heads are trained again on cached features, with one field of the recipe
changed at a time. `difference` compares a row with the recipe's head on the same images. The run must have kept its
last epoch, so that the validation images have selected nothing.
"""

import argparse
import sys
import time
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from common.tensorflow_log import hide_tensorflow_log

hide_tensorflow_log()

import keras
import numpy as np
from sklearn.metrics import log_loss

from benchmarks import benchmark_parser, read_features, require_folder, run_benchmark
from common.cli import whole_number
from common.errors import UserError
from common.files import digest
from common.images import Images, load_folder
from common.progress import progress
from training.config.override import change, in_bfloat16
from training.config.recipe import LINEAR, QUASI_SVM, Prediction, Recipe
from training.data.split import TrainVal
from training.data.teacher import with_teacher
from training.evaluate.class_bias import cross_fitted
from training.evaluate.metrics import calibration_error, wilson
from training.evaluate.paired import finished_folds, paired_difference
from training.evaluate.plots import plot_ranges
from training.fit.head import Features, fit_head
from training.model.build import build_model
from training.model.trainable import freeze
from training.predict import TTA_TRANSFORMS, needs_square, predict_proba
from training.recipes import RENAMED, load_recipe
from training.run import head_features, split_and_balance
from training.run_folder import CACHE, Record, read_metrics, read_record, teacher_sha256
from training.trained import finetuned_model, load_run

# Logistic regression has neither soft targets nor class biases.
LOGISTIC = {"head.kind": LINEAR, "head.teacher_share": 0.0, "head.class_bias": {}}
# Row → the changed fields of the recipe.
HEADS: dict[str, dict[str, Any]] = {
    "quasi-SVM as in the recipe": {},
    "per-feature standardization": {"head.shared_feature_scale": False},
    "no logit adjustment": {"head.logit_adjustment": 0.0},
    "logit adjustment 2": {"head.logit_adjustment": 2.0},
    "no class repeats": {"data.class_repeats": {}},
    "1 view of each training image": {"head.views": 1},
    "256 random Fourier features": {"head.fourier_features": 256},
    "kernel scale 0.5": {"head.kernel_scale": 0.5},
    "kernel scale 2": {"head.kernel_scale": 2.0},
    "Laplacian kernel": {"head.kernel": "laplacian"},
    "L2 penalty 1e-4": {"head.l2": 1e-4},
    "L2 penalty 1e-6": {"head.l2": 1e-6},
    "learning rate 1e-3": {"head.learning_rate": 1e-3},
    **{f"logistic regression, C {c:g}": {**LOGISTIC, "head.c": c} for c in (0.001, 0.01, 0.1)},
}
REFERENCE = "quasi-SVM as in the recipe"  # what the other rows are compared with
# Row → layers whose pooled outputs are the features.
LAYERS: dict[str, tuple[str, ...]] = {
    "features of the last two blocks": ("mixed9", "mixed10"),
    "features of the last four blocks": ("mixed7", "mixed8", "mixed9", "mixed10"),
}
SIZES = (160, 192, 224)  # input sizes in pixels
SHARES = (0.25, 0.5, 0.75)  # of the softmax in a mean with the quasi-SVM
TRANSFORMS = {
    "no TTA": ("none",),
    "2 transforms": ("none", "both"),
    "4 transforms": tuple(TTA_TRANSFORMS)[:4],
    "8 transforms": tuple(TTA_TRANSFORMS),
}
THRESHOLDS = (0.8, 0.85, 0.9, 0.95)  # of TTA with eight transforms


@dataclass(frozen=True)
class Predicted:
    """The predictions of one row.

    seeds: float32 [m, classes] of each head that was trained; one if none was.
    seconds: for one head.
    transforms: mean number of transforms of an image, of TTA with a threshold; else None.
    """

    seeds: list[np.ndarray]
    seconds: float
    transforms: float | None = None


@dataclass(frozen=True)
class Fold:
    """A finished run and its images.

    recipe: of the run.
    run: its folder.
    data: its training and validation images.
    features: see `read_features`.
    """

    recipe: Recipe
    run: Path
    data: TrainVal
    features: dict[str, np.ndarray]

    @property
    def val(self) -> Images:
        return self.data.val


def prediction_rows(fold: Fold) -> dict[str, Predicted]:
    """Predicts with each input size and test-time augmentation, and with means of quasi-SVM and softmax."""
    recipe, val = fold.recipe, fold.val
    size, shape = recipe.finetune.input_size, val.images.shape[1:3]
    names = [name for name in TTA_TRANSFORMS if not needs_square(name) or shape[0] == shape[1]]
    rows: dict[str, Predicted] = {}
    for title, model in progress(_models(fold).items(), "predicting", unit="model"):
        began = time.monotonic()
        probabilities = {name: predict_proba(model, val.images, Prediction((name,))) for name in names}
        seconds = (time.monotonic() - began) / len(names)
        for label, transforms in TRANSFORMS.items():
            if set(transforms) <= set(names):
                mean = np.mean([probabilities[name] for name in transforms], axis=0)
                rows[f"{title}, {label}"] = Predicted([mean], seconds * len(transforms))
        if title == f"quasi-SVM, {size}×{size}" and len(names) == len(TTA_TRANSFORMS):
            for threshold in THRESHOLDS:
                row = _with_threshold(probabilities, threshold, seconds)
                rows[f"{title}, 8 transforms, threshold {threshold:g}"] = row
    label = [label for label in TRANSFORMS if f"softmax, {size}×{size}, {label}" in rows][-1]
    softmax, svm = (rows[f"{title}, {size}×{size}, {label}"] for title in ("softmax", "quasi-SVM"))
    for share in SHARES:
        mean = share * softmax.seeds[0] + (1 - share) * svm.seeds[0]
        rows[f"{share:.0%} softmax, {label}"] = Predicted([mean], softmax.seconds + svm.seconds)
    return rows


def head_rows(fold: Fold, seeds: int) -> dict[str, Predicted]:
    """Trains each head of `HEADS` and `LAYERS`, and predicts with the recipe's TTA transforms of every image averaged.

    Args:
        fold: `Fold`.
        seeds: number of heads of each row.
    """
    rows = {}
    for name, changes in progress(HEADS.items(), "training heads", unit="head"):
        rows[name] = _fitted(change(fold.recipe, changes), fold, fold.features, seeds)
    names = {layer.name for layer in _backbone(fold).layers}
    for title, layers in progress(LAYERS.items(), "heads on other layers", unit="head"):
        if set(layers) <= names:
            rows[title] = _fitted(fold.recipe, fold, _layer_arrays(fold, layers), seeds)
    return rows


def bias_rows(rows: dict[str, Predicted], labels: np.ndarray) -> dict[str, Predicted]:
    """The recipe's head, and its mean with the softmax, with class biases that were fitted on other images."""
    if np.bincount(labels).min() < 2:
        print("class biases were not measured: they need 2 validation images of each class")
        return {}
    means = [name for name in rows if name.startswith(f"{SHARES[1]:.0%} softmax")]
    return {
        f"{name}, class biases": Predicted([cross_fitted(labels, one) for one in rows[name].seeds], rows[name].seconds)
        for name in (REFERENCE, *means)
    }


def _fitted(recipe: Recipe, fold: Fold, arrays: dict[str, np.ndarray], seeds: int) -> Predicted:
    """The predictions of a head that is trained with each seed. `arrays` are those of `read_features`."""
    train, val, data = arrays["train"][: recipe.head.views or None], arrays["val"], fold.data
    features = Features(train, arrays["train_labels"], val[0], data.val.labels, data.val.names, data.train.teacher)
    began, results = time.monotonic(), []
    for seed in range(seeds):
        head = fit_head(replace(recipe, seed=seed), features)
        results.append(np.mean([head.predict(view, verbose=0) for view in val], axis=0))
    return Predicted(results, (time.monotonic() - began) / seeds)


def _layer_arrays(fold: Fold, layers: tuple[str, ...]) -> dict[str, np.ndarray]:
    """What `read_features` reads, of other layers of the fine-tuned backbone."""
    train, val = head_features(fold.recipe, _backbone(fold), layers, fold.data, fold.run.parent / CACHE)
    return {"train": train, "train_labels": fold.data.train.labels, "val": val}


def _backbone(fold: Fold) -> keras.Model:
    model = finetuned_model(fold.recipe, fold.val.names, fold.val.images.shape[1:3], fold.run)
    backbone = model.get_layer("backbone")
    freeze(backbone)
    return backbone


def _models(fold: Fold) -> dict[str, keras.Model]:
    """The model of the run at each input size, and the softmax that its backbone was fine-tuned under."""
    size, shape = fold.recipe.finetune.input_size, fold.val.images.shape[1:3]
    model = load_run(fold.run).model
    backbone, head = model.get_layer("backbone"), model.get_layer(QUASI_SVM)
    models = {f"softmax, {size}×{size}": finetuned_model(fold.recipe, fold.val.names, shape, fold.run)}
    for other in sorted({*SIZES, size}):
        models[f"quasi-SVM, {other}×{other}"] = build_model(backbone, head, shape, other)
    return models


def _with_threshold(probabilities: dict, threshold: float, seconds: float) -> Predicted:
    """TTA with a threshold, from the probabilities and the seconds of each transform."""
    first, mean = probabilities["none"], np.mean(list(probabilities.values()), axis=0)
    uncertain = first.max(axis=1, keepdims=True) <= threshold
    count = 1 + float(uncertain.mean()) * (len(probabilities) - 1)
    return Predicted([np.where(uncertain, mean, first)], seconds * count, count)


def _pooled(folds: list[dict[str, Predicted]]) -> dict[str, Predicted]:
    """The rows of several folds, one after another."""
    return {
        name: Predicted(
            [np.concatenate(parts) for parts in zip(*(fold[name].seeds for fold in folds), strict=True)],
            sum(fold[name].seconds for fold in folds),
            None if row.transforms is None else float(np.mean([fold[name].transforms for fold in folds])),
        )
        for name, row in folds[0].items()
    }


def _row(row: Predicted, labels: np.ndarray, reference: Predicted) -> dict:
    """The values of one row, and its difference to the reference, both with their first seed."""
    accuracies = [float((one.argmax(axis=1) == labels).mean()) for one in row.seeds]
    accuracy = float(np.mean(accuracies))
    classes = range(row.seeds[0].shape[1])
    values = {
        "accuracy": accuracy,
        "seeds": accuracies,
        "interval95": wilson(accuracy * len(labels), len(labels)),
        "calibration_error": float(np.mean([calibration_error(labels, one) for one in row.seeds])),
        "log_loss": float(np.mean([log_loss(labels, one, labels=classes) for one in row.seeds])),
        "difference": vars(paired_difference(labels, reference.seeds[0], row.seeds[0])),
        "seconds": round(row.seconds, 1),
    }
    return values if row.transforms is None else {**values, "transforms_per_image": round(row.transforms, 2)}


def _check_run(run: Path, record: Record, images: Images) -> None:
    """Raises a UserError unless the rows are valid for the run's recipe and these images."""
    recipe, name = record.recipe, RENAMED.get(record.name, record.name)
    usable = recipe.head.kind == QUASI_SVM and recipe.checkpoint == "last" and read_metrics(run)["images"]
    if not usable:
        raise UserError(f"--run must have a quasi-SVM, a validation part and checkpoint=last; {run} does not")
    fields = attrgetter("head", "data", "finetune.dense_units", "finetune.dropout")
    own_fields = ("data.folds", "data.fold", "head.views", "head.teacher_share", "head.class_bias")
    own = {name: attrgetter(name)(recipe) for name in own_fields}
    planned = change(load_recipe(name), own)
    if fields(recipe) not in (fields(planned), fields(in_bfloat16(planned))):
        raise UserError(
            f"--run must be a run of the recipe {name} as it is now; {run} has other fields, train it again"
        )
    if record.groups_sha256:
        raise UserError(f"--run must be trained without --groups and --validation; {run} was not, train it again")
    if record.data_sha256 != digest(images.images, images.labels):
        raise UserError(f"--data must be the folder that {run} was trained on; this one has other images")


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints. Returns the exit code."""
    parser = benchmark_parser("accuracy", __doc__)
    parser.add_argument(
        "--run",
        type=Path,
        required=True,
        help="a finished run with a quasi-SVM, a validation part and checkpoint=last, or a cross-validation",
    )
    parser.add_argument("--data", required=True, help="the class folders that it was trained on")
    parser.add_argument("--seeds", type=whole_number, default=2, help="heads of each row (default: %(default)s)")
    parser.add_argument("--teacher", type=Path, metavar="CROSSVAL", help="the teacher that it was trained with, if any")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also plot the rows to this PNG file")
    return run_benchmark(parser.parse_args(arguments), _run)


def _run(options: argparse.Namespace) -> dict:
    if options.picture:
        require_folder(options.picture)
    runs = finished_folds(options.run) or [options.run]
    name, images = read_record(runs[0]).name, load_folder(options.data)
    folds = [_fold(run, images, options.teacher) for run in runs]
    rows = _pooled([{**prediction_rows(fold), **head_rows(fold, options.seeds)} for fold in folds])
    labels = np.concatenate([fold.val.labels for fold in folds])
    rows.update(bias_rows(rows, labels))
    result = {name: _row(row, labels, rows[REFERENCE]) for name, row in rows.items()}
    for title, row in result.items():
        seeds = f"{min(row['seeds']):.1%} to {max(row['seeds']):.1%}"
        print(f"{title:44} {row['accuracy']:.1%} ({seeds}), {row['seconds']:.0f} s")
    if options.picture:
        _plot(result, len(labels), options.picture)
    return {"recipe": RENAMED.get(name, name), "images": len(labels), "folds": len(folds), "rows": result}


def _fold(run: Path, images: Images, teacher: Path | None) -> Fold:
    record = read_record(run)
    _check_run(run, record, images)
    images = with_teacher(images, record.recipe, teacher)
    if record.teacher_sha256 != teacher_sha256(images):
        raise UserError(f"--teacher must be the one that {run} was trained with; give another --teacher")
    data, features = split_and_balance(record.recipe, images), read_features(run)
    for name, part in (("train_labels", data.train), ("val_labels", data.val)):
        if not np.array_equal(features[name], part.labels):
            raise UserError(f"{run} must hold out what its recipe does, and has other {name}; train it again")
    return Fold(record.recipe, run, data, features)


def _plot(rows: dict[str, dict], images: int, path: Path) -> None:
    spans = [(row["accuracy"], *row["interval95"]) for row in rows.values()]
    title = f"accuracy on {images} validation images\n95 % interval; dots: seeds"
    plot_ranges(list(rows), {title: (spans, [row["seeds"] for row in rows.values()])}, path)


if __name__ == "__main__":
    sys.exit(main())
