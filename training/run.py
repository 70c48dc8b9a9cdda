"""One run: load → split → balance → fine-tune → head → evaluate, all in one folder.

A run that was interrupted continues when its command is repeated.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from common.errors import UserError
from common.files import atomically, write_arrays, write_json
from common.images import Images, load_folder
from training.config.recipe import SOFTMAX, Prediction, Recipe
from training.data.augment import precompute_augmentation
from training.data.balance import natural, svmsmote
from training.data.split import TrainVal, split_rows
from training.evaluate.metrics import metrics, summary
from training.evaluate.plots import plot_confusion, plot_curves
from training.fit.checkpoint import read_history
from training.fit.features import FeatureSpec, cached_features
from training.fit.finetune import CHECKPOINT, FINETUNED, WARMUP_HISTORY, before, finetune
from training.fit.head import HEAD_HISTORY, Features, fit_head
from training.model.backbones import PRETRAINED
from training.model.build import build_model
from training.model.heads import quasi_svm_head, softmax_head
from training.model.trainable import freeze
from training.predict import predict_proba, transform
from training.run_folder import (
    CACHE,
    FEATURES,
    INIT,
    METRICS,
    QUASI_SVM_WEIGHTS,
    VAL,
    make_record,
    open_run,
    read_metrics,
    read_record,
    read_whole_history,
    reuse_finetuning,
    run_file,
)


@dataclass(frozen=True)
class Inputs:
    """What a run reads.

    data: folder of class folders.
    backbone_weights: see `training.model.backbones`.
    test: another folder of class folders that is reported on and used for nothing else, or None.
    reuse: folders of finished runs whose fine-tuning is taken over if it made the same choices.
    require_reuse: whether it is an error if none of them did.
    """

    data: Path
    backbone_weights: str = "imagenet"
    test: Path | None = None
    reuse: tuple = ()
    require_reuse: bool = False


def train(recipe: Recipe, name: str, inputs: Inputs, out: Path) -> dict:
    """Trains one recipe, or continues an interrupted run.

    Args:
        recipe: `Recipe`.
        name: its name.
        inputs: `Inputs`.
        out: folder of the run. Gets `run.json`, `history.csv`, `finetuned.weights.h5`, `metrics.json`, `curves.png`,
            `confusion.png` and `val.npz` (probabilities and labels of the validation part). With a quasi-SVM also
            `head_history.csv`, `head_curves.png`, `features.npz` and `quasi_svm.weights.h5`.

    Returns:
        The metrics of the validation part, as in `metrics.json`; {"images": 0, …} if nothing is held out.

    Raises:
        UserError: see `load_folder`, `finetune` and `open_run`.
    """
    out = Path(out)
    images, test = _load(inputs)
    recipe.prediction.check_image_shape(images.images.shape[1:3])
    weights = _usable_weights(recipe, inputs.backbone_weights)
    record = make_record(name, recipe, images, weights)
    with open_run(out, record):
        if (
            inputs.reuse
            and not reuse_finetuning(out, record, [Path(run) for run in inputs.reuse])
            and inputs.require_reuse
        ):
            raise UserError(
                f"--reuse: no run among {', '.join(map(str, inputs.reuse))} has the fine-tuning of {name} on this data"
            )
        data = _split_and_balance(recipe, images)
        counts = f"{len(data.train)} training images, {len(data.val)} validation images, {len(images.names)} classes"
        print(f"{name}: {counts}", flush=True)
        parameters = _finetuned(recipe, data, weights, out, out.parent / CACHE)
        model = _with_head(recipe, data, out)
        result = _evaluate(recipe, model, data.val, test, out)
        result.update(
            trainable_parameters=parameters, training_images=len(data.train), finished=time.strftime("%Y-%m-%d")
        )
        write_json(out / METRICS, result)  # last, because it marks the run as finished
    return result


def _load(inputs: Inputs) -> tuple[Images, Images | None]:
    """The labelled images, and the test images at the same size."""
    images = load_folder(inputs.data)
    test = load_folder(inputs.test, images.images.shape[1:3]) if inputs.test else None
    for note in images.notes + (test.notes if test else ()):
        print(note)
    if test and test.names != images.names:
        raise UserError(
            f"--test must have the classes of --data, {', '.join(images.names)}; "
            f"{inputs.test} has {', '.join(test.names)}"
        )
    return images, test


def _usable_weights(recipe: Recipe, backbone_weights: str) -> str:
    backbone = recipe.finetune.backbone
    if backbone in PRETRAINED or backbone_weights == "none":
        return backbone_weights
    print(
        f"{backbone.__name__} starts from random weights; --backbone-weights {Path(backbone_weights).name} is not used"
    )
    return "none"


def _split_and_balance(recipe: Recipe, images: Images) -> TrainVal:
    """Splits first, then balances and augments the training part only."""
    train_rows, val_rows = split_rows(recipe.data, images)
    resampling, augmentation = recipe.data.resampling, recipe.augmentation
    if resampling is not natural:
        print(f"resampling by {resampling.__name__}" + (", some minutes" if resampling is svmsmote else ""), flush=True)
    train = resampling(images.rows(train_rows), recipe.seed)
    train = precompute_augmentation(train, augmentation.precomputed, augmentation.precomputed_transforms, recipe.seed)
    return TrainVal(train, images.rows(val_rows))


def _finetuned(recipe: Recipe, data: TrainVal, weights: str, folder: Path, cache: Path) -> int:
    """Fine-tunes; first what the recipe starts from, in a folder of its own. Returns the trainable parameters."""
    init = None
    if recipe.finetune.init_from and not (folder / CHECKPOINT).exists():
        first = folder / INIT
        first.mkdir(exist_ok=True)
        print(f"first the fine-tuning that this one starts from, in {first}", flush=True)
        _finetuned(before(recipe), data, weights, first, cache)
        init = run_file(first, FINETUNED)
    return finetune(recipe, data, weights, folder, cache, init)


def finetuned_model(recipe: Recipe, names: tuple, image_shape: tuple, folder: Path) -> keras.Model:
    """The fine-tuned backbone with its softmax head, in float32.

    Args:
        recipe: the run's recipe.
        names: class names.
        image_shape: (height, width) of the images, in pixels.
        folder: the run's folder.

    Returns:
        `keras.Model`, [b, h, w, 3] of 0 to 255 → probabilities [b, classes].
    """
    tune = recipe.finetune
    backbone = tune.backbone("none")
    head = softmax_head(tune, backbone.output_shape[-1], len(names))
    model = build_model(backbone, head, image_shape, tune.input_size)
    model.load_weights(run_file(folder, FINETUNED))
    return model


def _with_head(recipe: Recipe, data: TrainVal, out: Path) -> keras.Model:
    """The model that ships, in float32: with the softmax head, or with a quasi-SVM trained now on cached features."""
    train, val, size = data.train, data.val, recipe.finetune.input_size
    model = finetuned_model(recipe, train.names, train.images.shape[1:3], out)
    if recipe.head.kind == SOFTMAX:
        return model
    backbone, cache = model.get_layer("backbone"), out.parent / CACHE
    freeze(backbone)
    spec = FeatureSpec(size, recipe.augmentation.transforms, recipe.head.views, recipe.seed)
    features = cached_features(cache, backbone, train.images, spec)
    views = [transform(val.images, name) for name in recipe.prediction.tta_transforms]
    val_features = np.concatenate([cached_features(cache, backbone, view, FeatureSpec(size)) for view in views])
    arrays = {"train": features, "train_labels": train.labels, "val": val_features, "val_labels": val.labels}
    write_arrays(out / FEATURES, **arrays)
    head = fit_head(recipe, Features(features, train.labels, val_features[0], val.labels, train.names), out)
    model = build_model(backbone, head, train.images.shape[1:3], size)
    atomically(out / QUASI_SVM_WEIGHTS, model.save_weights)
    return model


def _evaluate(recipe: Recipe, model: keras.Model, val: Images, test: Images | None, out: Path) -> dict:
    """The metrics and plots of a run."""
    result: dict = {"images": 0}
    if len(val):
        probabilities = predict_proba(model, val.images, recipe.prediction)
        write_arrays(out / VAL, probabilities=probabilities, labels=val.labels)
        result = metrics(val.labels, probabilities, val.names)
        plot_confusion(result, out / "confusion.png")
        print(summary(result))
    if test:
        result["test"] = metrics(test.labels, predict_proba(model, test.images, recipe.prediction), test.names)
        print(f"test images, for reporting only: {summary(result['test'])}")
    return {**result, **_effort(recipe, out)}


def _effort(recipe: Recipe, out: Path) -> dict:
    """Epochs and minutes of a run, from its histories; draws the learning curves."""
    history = read_whole_history(recipe, out)
    seconds = sum(row["seconds"] for row in history)
    effort = {
        "epochs": len(history),
        "finetuning_minutes": round(seconds / 60, 1),
        "images_per_second": round(sum(row["images"] for row in history) / seconds, 1) if seconds else None,
    }
    head_seconds = 0.0
    if history:
        plot_curves(history, out / "curves.png")
    if recipe.head.kind != SOFTMAX:
        head = read_history(out / HEAD_HISTORY)
        plot_curves(head, out / "head_curves.png")
        head_seconds += sum(row["seconds"] for row in head)
    if recipe.finetune.head_warmup_epochs:
        warmup = read_history(run_file(out, WARMUP_HISTORY))
        effort["head_warmup_epochs"] = len(warmup)
        head_seconds += sum(row["seconds"] for row in warmup)
    if recipe.head.kind != SOFTMAX or recipe.finetune.head_warmup_epochs:
        effort["head_minutes"] = round(head_seconds / 60, 2)
    return effort


@dataclass(frozen=True)
class TrainedModel:
    """What a finished run ships: the model in float32, its class names, and its test-time augmentation."""

    model: keras.Model
    names: tuple
    prediction: Prediction


def load_run(out: Path) -> TrainedModel:
    """Loads the trained model of a finished run.

    Raises:
        UserError: no run, an unfinished one, or damaged weights.
    """
    out = Path(out)
    record = read_record(out)
    read_metrics(out)  # raises if the run is not finished
    recipe, tune, classes = record.recipe, record.recipe.finetune, len(record.classes)
    backbone = tune.backbone("none")
    width = backbone.output_shape[-1]
    if recipe.head.kind == SOFTMAX:
        head, weights = softmax_head(tune, width, classes), run_file(out, FINETUNED)
    else:
        head, weights = quasi_svm_head(recipe.head, width, classes, 1.0, recipe.seed), out / QUASI_SVM_WEIGHTS
    model = build_model(backbone, head, record.image_shape, tune.input_size)
    try:
        model.load_weights(weights)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{weights} does not hold this recipe's weights ({error}); train the run again") from error
    return TrainedModel(model, record.classes, recipe.prediction)
