"""One run: load → split → balance → fine-tune → head → evaluate, all in one folder.

A run that was interrupted continues when its command is repeated.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from common.errors import UserError
from common.files import atomically, write_arrays, write_json
from common.images import Images
from training.config.override import in_bfloat16
from training.config.recipe import LINEAR, QUASI_SVM, SOFTMAX, Prediction, Recipe
from training.data.augment import precompute_augmentation
from training.data.balance import natural, svmsmote
from training.data.split import TrainVal, not_held_out, split_rows
from training.data.teacher import with_teacher
from training.evaluate.metrics import metrics, summary
from training.evaluate.plots import plot_confusion, plot_curves
from training.fit.checkpoint import read_history
from training.fit.features import FeatureSpec, layer_features, tta_features
from training.fit.finetune import CHECKPOINT, FINETUNED, WARMUP_HISTORY, before, finetune
from training.fit.head import HEAD_HISTORY, Features, fit_head, fit_linear
from training.fit.soup import finetune_soup
from training.inputs import Inputs, load_inputs
from training.model.backbones import PRETRAINED, pooled_layers
from training.model.build import build_model
from training.model.heads import averaged_head, linear_head, quasi_svm_head, softmax_head
from training.model.trainable import freeze
from training.predict import predict_proba
from training.reuse import reuse_finetuning
from training.run_folder import (
    BEST,
    CACHE,
    FEATURES,
    HEAD_WEIGHTS,
    INIT,
    METRICS,
    SAMPLES,
    VAL,
    Record,
    make_record,
    open_run,
    read_metrics,
    read_record,
    read_whole_history,
    run_file,
)

SAMPLE_COUNT = 32


def train(
    recipe: Recipe, name: str, inputs: Inputs, out: Path, loaded: tuple[Images, Images | None] | None = None
) -> dict:
    """Trains one recipe, or continues an interrupted run.

    Args:
        recipe: `Recipe`.
        name: its name.
        inputs: `Inputs`.
        out: folder of the run. Gets `run.json`, `history.csv`, `finetuned.weights.h5`, `metrics.json`, `curves.png`,
            `confusion.png` and `val.npz` (probabilities and labels of the validation part). With a quasi-SVM also
            `head_history.csv`, `head_curves.png`, `features.npz` and `quasi_svm.weights.h5`.
        loaded: what `load_inputs` returns for `inputs`, so that it is not read again; None reads it.

    Returns:
        The metrics of the validation part, as in `metrics.json`; {"images": 0, …} if nothing is held out.

    Raises:
        UserError: see `load_inputs`, `with_teacher`, `finetune` and `open_run`.
    """
    out = Path(out)
    images, test = loaded or load_inputs(inputs)
    images = with_teacher(images, recipe, inputs.teacher)
    recipe.prediction.check_image_shape(images.images.shape[1:3])
    weights = used_weights(recipe, inputs.backbone_weights)
    if weights != inputs.backbone_weights:
        given = Path(inputs.backbone_weights).name
        print(f"{recipe.finetune.backbone.__name__} starts from random weights; --backbone-weights {given} is not used")
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
        data = split_and_balance(recipe, images)
        counts = f"{len(data.train)} training images, {len(data.val)} validation images, {len(images.names)} classes"
        print(f"{name}: {counts}, computed in {recipe.finetune.precision}", flush=True)
        parameters = _finetuned(recipe, data, weights, out, out.parent / CACHE)
        model = _with_head(recipe, data, out)
        _save_samples(data, out)
        result = _evaluate(recipe, model, data, test, out)
        result.update(
            trainable_parameters=parameters, training_images=len(data.train), finished=time.strftime("%Y-%m-%d")
        )
        if test:
            result["test_images_in_training"] = test.count_in(images)
        write_json(out / METRICS, result)  # last, because it marks the run as finished
    return result


def planned_record(recipe: Recipe, name: str, images: Images, inputs: Inputs) -> Record:
    """The record that a run of a recipe would have. Raises a UserError; see `with_teacher`."""
    images = with_teacher(images, recipe, inputs.teacher)
    return make_record(name, recipe, images, used_weights(recipe, inputs.backbone_weights))


def outdated(runs: dict[Path, tuple[str, Recipe]], inputs: Inputs) -> dict[Path, str]:
    """Finds the finished runs that are not those that would be trained now.

    The precision is no difference, because `run` chooses it for the processor.

    Args:
        runs: folder → name and recipe.
        inputs: `Inputs`.

    Returns:
        Folder → what is wrong with its run.

    Raises:
        UserError: see `load_inputs`.
    """
    if not runs:
        return {}
    images, _ = load_inputs(replace(inputs, test=None), say=lambda line: None)
    found = {}
    for folder, (name, recipe) in runs.items():
        try:
            there, planned = read_record(folder), planned_record(recipe, name, images, inputs)
        except UserError as error:
            found[folder] = str(error)
            continue
        there, planned = (replace(one, recipe=in_bfloat16(one.recipe)) for one in (there, planned))
        for what in there.differences(planned)[:1]:
            found[folder] = f"holds a finished run with another {what}; give another --runs"
    return found


def used_weights(recipe: Recipe, backbone_weights: str) -> str:
    """The backbone weights that a recipe starts from: the given ones, or none if its backbone has none."""
    return backbone_weights if recipe.finetune.backbone in PRETRAINED else "none"


def split_and_balance(recipe: Recipe, images: Images) -> TrainVal:
    """Splits first, then balances and augments the training part only, as a run of the recipe does."""
    train_rows, val_rows = split_rows(recipe.data, images)
    if not images.held_out:
        for warning in not_held_out(images.labels, images.names, train_rows, val_rows):
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
        _finetuned(before(recipe), data, weights, first, cache)
        init = run_file(first, FINETUNED)
    fit = finetune_soup if recipe.finetune.soup > 1 else finetune
    return fit(recipe, data, weights, folder, cache, init)


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
    layers = recipe.head.feature_layers
    features, val_features = head_features(recipe, backbone, layers, data, cache)
    arrays = {"train": features, "train_labels": train.labels, "val": val_features, "val_labels": val.labels}
    write_arrays(out / FEATURES, **arrays)
    fit = fit_linear if recipe.head.kind == LINEAR else fit_head
    head = fit(recipe, Features(features, train.labels, val_features[0], val.labels, train.names, train.teacher), out)
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


def _save_samples(data: TrainVal, out: Path) -> None:
    """Saves some photographs, of the validation part if there is one."""
    images = (data.val if len(data.val) else data.train).images
    rows = np.linspace(0, len(images) - 1, min(SAMPLE_COUNT, len(images))).astype(int)
    write_arrays(out / SAMPLES, images=images[rows])


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


def _head(recipe: Recipe, width: int, classes: int) -> keras.Model:
    """A quasi-SVM or linear head without its weights, averaged with a softmax if the recipe says so."""
    if recipe.head.kind == LINEAR:
        head = linear_head(width, classes)
    else:
        head = quasi_svm_head(recipe.head, width, classes, 1.0, recipe.seed)
    return averaged_head(head, softmax_head(recipe.finetune, width, classes), recipe.head.softmax_share)


@dataclass(frozen=True)
class TrainedModel:
    """What a finished run ships.

    model: the model in float32, [b, h, w, 3] of 0 to 255 → probabilities [b, classes].
    names: class names.
    prediction: test-time augmentation.
    samples: some photographs, uint8 [n, h, w, 3], on which an export is checked; None if there are none.
    """

    model: keras.Model
    names: tuple
    prediction: Prediction
    samples: np.ndarray | None = None


def load_run(out: Path) -> TrainedModel:
    """Loads the trained model of a finished run, or of the best run of `training.auto`.

    Raises:
        UserError: no run, an unfinished one, or damaged weights.
    """
    out = Path(out)
    out = out / BEST if (out / BEST).is_dir() else out
    record = read_record(out)
    read_metrics(out)  # raises if the run is not finished
    recipe, tune, classes = record.recipe, record.recipe.finetune, len(record.classes)
    backbone = tune.backbone("none")
    width = backbone.output_shape[-1]
    if recipe.head.kind == SOFTMAX:
        head, weights = softmax_head(tune, width, classes), run_file(out, FINETUNED)
    else:
        backbone = pooled_layers(backbone, recipe.head.feature_layers)
        head, weights = _head(recipe, backbone.output_shape[-1], classes), out / HEAD_WEIGHTS[recipe.head.kind]
    model = build_model(backbone, head, record.image_shape, tune.input_size)
    try:
        model.load_weights(weights)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{weights} does not hold this recipe's weights ({error}); train the run again") from error
    samples = None
    if (out / SAMPLES).is_file():
        with np.load(out / SAMPLES) as file:
            samples = file["images"]
    return TrainedModel(model, record.classes, recipe.prediction, samples)
