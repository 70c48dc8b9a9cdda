"""One run: load → split → balance → fine-tune → head → evaluate, all in one folder.

A run that was interrupted continues when its command is repeated.
"""

import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from common.errors import UserError
from common.files import atomically, digest, write_arrays, write_json
from common.images import Images
from training.config.recipe import QUASI_SVM, SOFTMAX, Recipe
from training.data.augment import precompute_augmentation
from training.data.balance import check_classes, natural, svmsmote
from training.data.split import TrainVal, split_rows, split_warnings
from training.data.teacher import with_teacher
from training.evaluate.metrics import metrics, summary
from training.evaluate.plots import plot_confusion, plot_curves
from training.fit.checkpoint import read_history
from training.fit.features import FeatureSpec, layer_features, tta_features
from training.fit.finetune import CHECKPOINT, FINETUNED_WEIGHTS, WARMUP_HISTORY, finetune, init_recipe
from training.fit.head import HEAD_HISTORY, Features, fit_head
from training.fit.soup import finetune_soup
from training.inputs import Inputs, Loaded, load_inputs, require_outside
from training.model.backbones import pooled_layers
from training.model.build import build_model
from training.model.heads import averaged_head
from training.model.trainable import freeze
from training.planned import used_weights
from training.predict import predict_proba
from training.reuse import reuse_finetuning
from training.run_folder import (
    CACHE,
    FEATURES,
    HEAD_WEIGHTS,
    INIT,
    METRICS,
    SAMPLES,
    VAL,
    make_record,
    open_run,
    read_whole_history,
    run_file,
)
from training.trained import finetuned_model

SAMPLE_COUNT = 32


def train(recipe: Recipe, name: str, inputs: Inputs, out: Path, loaded: Loaded | None = None) -> dict:
    """Trains one recipe, or continues an interrupted run.

    Args:
        recipe: `Recipe`.
        name: its name.
        inputs: `Inputs`.
        out: folder of the run. Gets `run.json`, `history.csv`, `finetuned.weights.h5`, `metrics.json`, `curves.png`,
            `confusion.png` and `val.npz` (probabilities and labels of the validation part). With another head
            than the softmax also `features.npz` and its weights, of a quasi-SVM with `head_history.csv` and
            `head_curves.png`.
        loaded: what `load_inputs` returns for `inputs`, so that it is not read again; None reads it.

    Returns:
        The metrics of the validation part, as in `metrics.json`; {"images": 0, …} if nothing is held out.

    Raises:
        UserError: see `load_inputs`, `with_teacher`, `finetune` and `open_run`.
    """
    out = Path(out)
    require_outside(out, inputs)
    images, test = loaded or load_inputs(inputs)
    images = with_teacher(images, recipe, inputs.teacher)
    recipe.prediction.check_image_shape(images.images.shape[1:3])
    _check_names(recipe, images.names)
    weights = used_weights(recipe, inputs.backbone_weights)
    if weights != inputs.backbone_weights:
        given = Path(inputs.backbone_weights).name
        print(f"{recipe.finetune.backbone.__name__} starts from random weights; --backbone-weights {given} is not used")
    record = make_record(name, recipe, images, weights, inputs.max_images)
    rows = split_rows(recipe.data, images)
    record = replace(record, val_sha256=digest(rows[1]))
    with open_run(out, record):
        data = split_and_balance(recipe, images, rows)
        if (
            inputs.reuse
            and not reuse_finetuning(out, record, [Path(run) for run in inputs.reuse], data.val_rows)
            and inputs.require_reuse
        ):
            raise UserError(
                f"--reuse: no run among {', '.join(map(str, inputs.reuse))} has the fine-tuning of {name} on this "
                "data; leave out --reuse, or give a run with the same settings"
            )
        counts = f"{len(data.train)} training images, {len(data.val)} validation images, {len(images.names)} classes"
        print(f"{name}: {counts}, computed in {recipe.finetune.precision}", flush=True)
        parameters = _finetuned(recipe, data, weights, out, out.parent / CACHE)
        model = _with_head(recipe, data, out)
        trained_on = _trained_on(images, data)
        _save_samples(data, [images.file_hashes[row] for row in trained_on], out)
        result = _evaluate(recipe, model, data, test, out)
        result.update(
            trainable_parameters=parameters, training_images=len(data.train), finished=time.strftime("%Y-%m-%d")
        )
        if test:
            result["test_images_in_training"] = test.count_in(images, trained_on)
        write_json(out / METRICS, result)  # last, because it marks the run as finished
    return result


def _check_names(recipe: Recipe, names: tuple) -> None:
    """Raises a UserError, before anything is trained, if classes in the recipe do not exist."""
    check_classes("data.class_repeats", recipe.data.class_repeats, names)
    check_classes("head.class_bias", recipe.head.class_bias, names)
    check_classes("augmentation.precomputed", recipe.augmentation.precomputed, names)


def split_and_balance(recipe: Recipe, images: Images, rows: tuple[np.ndarray, np.ndarray] | None = None) -> TrainVal:
    """Splits first, then balances and augments the training part only, as a run of the recipe does.

    Args:
        recipe: its `data` and `augmentation` are used.
        images: all of them.
        rows: what `split_rows` returns for them; None: it is called.
    """
    train_rows, val_rows = rows or split_rows(recipe.data, images)
    if not images.held_out:
        share = 1 / recipe.data.folds if recipe.data.folds else recipe.data.validation_split
        for warning in split_warnings(images.labels, images.names, train_rows, val_rows, share):
            print(warning)
    resampling, augmentation = recipe.data.resampling, recipe.augmentation
    if resampling is not natural:
        print(f"resampling by {resampling.__name__}" + (", some minutes" if resampling is svmsmote else ""), flush=True)
    train = resampling(images.rows(train_rows), recipe.seed)
    train = precompute_augmentation(train, augmentation.precomputed, augmentation.precomputed_transforms, recipe.seed)
    return TrainVal(train, images.rows(val_rows), val_rows)


def _finetuned(recipe: Recipe, data: TrainVal, weights: str, folder: Path, cache: Path) -> int:
    """Fine-tunes; first what the recipe starts from, in a folder of its own. Returns the trainable parameters."""
    init = None
    if recipe.finetune.init_from and not (folder / CHECKPOINT).exists():
        first = folder / INIT
        first.mkdir(exist_ok=True)
        print(f"first the fine-tuning that this one starts from, in {first}", flush=True)
        _finetuned(init_recipe(recipe), data, weights, first, cache)
        init = run_file(first, FINETUNED_WEIGHTS)
    fit = finetune_soup if recipe.finetune.soup > 1 else finetune
    return fit(recipe, data, weights, folder, cache, init)


def _with_head(recipe: Recipe, data: TrainVal, out: Path) -> keras.Model:
    """The model that ships, in float32: with the softmax head, or one that is trained now on cached features."""
    train, val, size = data.train, data.val, recipe.finetune.input_size
    model = finetuned_model(recipe, train.names, train.images.shape[1:3], out)
    if recipe.head.kind == SOFTMAX:
        return model
    backbone, cache = model.get_layer("backbone"), out.parent / CACHE
    freeze(backbone)
    layers = recipe.head.feature_layers
    features, val_features = head_features(recipe, backbone, layers, data, cache)
    arrays = {"train": features, "train_labels": train.labels, "val": val_features, "val_labels": val.labels}
    write_arrays(out / FEATURES, **arrays)
    split = Features(features, train.labels, val_features[0], val.labels, train.names, train.teacher)
    head = fit_head(recipe, split, out)
    head = averaged_head(head, model.get_layer("softmax_head"), recipe.head.softmax_share)
    model = build_model(pooled_layers(backbone, layers), head, train.images.shape[1:3], size)
    atomically(out / HEAD_WEIGHTS[recipe.head.kind], model.save_weights)
    return model


def head_features(
    recipe: Recipe, backbone: keras.Model, layers: tuple, data: TrainVal, cache: Path
) -> tuple[np.ndarray, np.ndarray]:
    """The features that a head is trained and evaluated on.

    Args:
        recipe: its `head`, `augmentation`, `prediction`, `seed` and input size are used.
        backbone: the fine-tuned backbone, frozen.
        layers: see `training.model.backbones.pooled_layers`.
        data: the training and validation images.
        cache: folder of cached features.

    Returns:
        float32 [views, n, d] of the training images, and float32 [TTA transforms, m, d] of the validation images.
    """
    size, precision = recipe.finetune.input_size, recipe.head.feature_precision
    plain, names = FeatureSpec(size, precision=precision), recipe.prediction.tta_transforms
    if recipe.head.views:
        spec = FeatureSpec(size, recipe.augmentation.transforms, recipe.head.views, recipe.seed, precision)
        features = layer_features(cache, backbone, layers, data.train.images, spec)
    else:
        features = tta_features(cache, backbone, layers, data.train.images, plain, names)
    return features, tta_features(cache, backbone, layers, data.val.images, plain, names)


def _trained_on(images: Images, data: TrainVal) -> list[int]:
    """The rows of the image files that are trained on: neither held out nor left out by resampling."""
    files = set(data.train.paths) if images.file_hashes else set()
    return [row for row, path in enumerate(images.paths) if path in files]


def _save_samples(data: TrainVal, hashes: list[bytes], out: Path) -> None:
    """Saves some photographs, of the validation part if there is one, and the hashes of the training images' files."""
    images = (data.val if len(data.val) else data.train).images
    rows = np.linspace(0, len(images) - 1, min(SAMPLE_COUNT, len(images))).astype(int)
    write_arrays(out / SAMPLES, images=images[rows], trained_on=np.frombuffer(b"".join(hashes), np.uint64))


def _evaluate(recipe: Recipe, model: keras.Model, data: TrainVal, test: Images | None, out: Path) -> dict:
    """The metrics and plots of a run."""
    val = data.val
    result: dict = {"images": 0}
    if len(val):
        probabilities = predict_proba(model, val.images, recipe.prediction)
        rows = np.arange(len(val)) if data.val_rows is None else data.val_rows
        write_arrays(out / VAL, probabilities=probabilities, labels=val.labels, rows=rows)
        result = metrics(val.labels, probabilities, val.names)
        plot_confusion(result, out / "confusion.png")
        print(summary(result))
    if test:
        result["test"] = metrics(test.labels, predict_proba(model, test.images, recipe.prediction), test.names)
        result["test"]["data_sha256"] = digest(test.images, test.labels)
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
    if recipe.head.kind == QUASI_SVM:
        head = read_history(out / HEAD_HISTORY)
        plot_curves(head, out / "head_curves.png")
        head_seconds += sum(row["seconds"] for row in head)
    if recipe.finetune.head_warmup_epochs:
        warmup = read_history(run_file(out, WARMUP_HISTORY))
        effort["head_warmup_epochs"] = len(warmup)
        head_seconds += sum(row["seconds"] for row in warmup)
    if recipe.head.kind == QUASI_SVM or recipe.finetune.head_warmup_epochs:
        effort["head_minutes"] = round(head_seconds / 60, 2)
    return effort
