"""Fine-tuning of a backbone under a softmax head, with a checkpoint after each epoch."""

import itertools
import math
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from common.errors import Diverged, UserError
from common.files import atomically
from common.images import Images
from training.config.recipe import Finetune, Recipe
from training.data.balance import class_weights, repeat_classes
from training.data.pipeline import one_hot, plain_batches
from training.data.split import TrainVal
from training.fit.checkpoint import TrainState, history_row, is_kept, require_finite, restore, snapshot, write_history
from training.fit.distribute import require_same_progress, scope, synchronize
from training.fit.features import FeatureSpec, cached_features
from training.fit.head import Features, HeadSchedule, fit_on_features
from training.fit.optimizer import adamw
from training.fit.swa import add_to_mean, update_batch_norm
from training.model.backbones import pooled_layers
from training.model.build import build_model, compile_classifier, load_weights
from training.model.fast_layers import fuse
from training.model.heads import softmax_head
from training.model.trainable import count_parameters, set_trainable

CHECKPOINT = "checkpoint.npz"
FINETUNED_WEIGHTS = "finetuned.weights.h5"
HISTORY = "history.csv"
WARMUP_HISTORY = "head_warmup_history.csv"
MAX_TIMED_STEPS, MIN_TIMED_STEPS, MIN_TIMED_SECONDS = 60, 4, 2.0  # on which the speed is measured, after the first step
LINKS = ".links"  # a pipeline that reads files puts links to an epoch's images there


@dataclass
class _Job:
    """One fine-tuning, as it is passed from epoch to epoch."""

    recipe: Recipe
    data: TrainVal
    folder: Path
    state: TrainState
    backbone: keras.Model
    head: keras.Model
    tracing_seconds: float = 0.0  # of the first steps so far, which the estimate of the time left leaves out

    def __post_init__(self) -> None:
        train = self.data.train
        self.rows = repeat_classes(train.labels, train.names, self.recipe.data.class_repeats)
        stages = self.recipe.finetune.resolution_schedule
        self.sizes = [size for epochs, size in stages for _ in range(epochs)]

    @property
    def history(self) -> list[dict]:
        return self.state.history

    def model(self, input_size: int) -> keras.Model:
        return build_model(self.backbone, self.head, self.data.train.images.shape[1:3], input_size)

    def save(self, model: keras.Model) -> None:
        atomically(self.folder / FINETUNED_WEIGHTS, model.save_weights)


def finetune(
    recipe: Recipe, data: TrainVal, backbone_weights: str, folder: Path, cache: Path, init: Path | None = None
) -> int:
    """Fine-tunes the backbone under a softmax head, or continues where it was interrupted.

    Args:
        recipe: its `head` is used for a warm-up only (views, precision of the features), its `prediction` not at all.
        data: the two parts of the images; `val` may be empty.
        backbone_weights: see `training.model.backbones`.
        folder: gets `checkpoint.npz`, `history.csv` and `finetuned.weights.h5` (backbone and softmax of the epoch that
            is kept, or SWA's mean). With `head_warmup_epochs` also `head_warmup_history.csv`.
        cache: folder of cached features.
        init: weights of a model with the same layers to continue from, or None to start from `backbone_weights`.

    Returns:
        Number of trainable parameters, those of the softmax head included.

    Raises:
        Diverged: the loss, most gradients or a weight are not finite.
        UserError: SWA on several machines; no such layer of features; see `training.model.build.load_weights`.
    """
    tune = recipe.finetune
    if tune.swa_epochs and os.environ.get("TF_CONFIG"):
        raise UserError(
            "finetune.swa_epochs must be 0 on several machines; unset TF_CONFIG, or --set finetune.swa_epochs=0"
        )
    state = TrainState.load(folder / CHECKPOINT)
    fresh = not state.history
    require_same_progress(len(state.history))
    with scope(tune.replicas):
        backbone = make_backbone(recipe, backbone_weights if fresh and init is None else "none")
        pooled_layers(backbone, recipe.head.feature_layers)  # raises now, not after the fine-tuning
        head = softmax_head(tune, backbone.output_shape[-1], len(data.train.names), recipe.seed)
        job = _Job(recipe, data, folder, state, backbone, head)
        if init and fresh:
            load_weights(job.model(tune.input_size), init)
        parameters = count_parameters(backbone.trainable_variables) + count_parameters(head.trainable_variables)
        if tune.head_warmup_epochs and fresh:
            _warm_up_head(job, cache)
        if not tune.epochs:
            job.save(job.model(tune.input_size))
            write_history(folder / HISTORY, [])
            return count_parameters(head.trainable_variables)
        _run_epochs(job)
    shutil.rmtree(folder / LINKS, ignore_errors=True)
    return parameters


def make_backbone(recipe: Recipe, weights: str) -> keras.Model:
    """The recipe's backbone under its dtype policy, with the layers to train set trainable."""
    tune = recipe.finetune
    keras.utils.set_random_seed(recipe.seed)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(tune.precision)
    try:
        backbone = fuse(tune.backbone(weights))
    finally:
        keras.config.set_dtype_policy(before)
    set_trainable(backbone, tune.trainable, tune.train_batch_norm)
    synchronize(backbone)
    return backbone


def seconds_per_image(recipe: Recipe, images: Images, backbone_weights: str) -> float:
    """Measures how long a training step takes, per image, with its batch and without its compilation.

    Args:
        recipe: its fine-tuning is measured at its last input size.
        images: some images; the weights that they train are thrown away.
        backbone_weights: see `training.model.backbones`.
    """
    backbone = make_backbone(recipe, backbone_weights)
    head = softmax_head(recipe.finetune, backbone.output_shape[-1], len(images.names))
    job = _Job(recipe, TrainVal(images, images), Path(), TrainState(), backbone, head)
    model = _compiled(job, recipe.finetune.input_size)
    times: list[float] = []
    with tempfile.TemporaryDirectory() as links:
        epochs = (
            recipe.data.pipeline(images, job.rows, recipe, epoch, Path(links)) for epoch in range(MAX_TIMED_STEPS)
        )
        began = time.monotonic()
        for pixels, targets in itertools.islice(itertools.chain.from_iterable(epochs), MAX_TIMED_STEPS):
            model.train_on_batch(pixels, targets)
            times.append(time.monotonic() - began)
            began = time.monotonic()
            if len(times) > MIN_TIMED_STEPS and sum(times[1:]) > MIN_TIMED_SECONDS:
                break
    later = times[(len(times) + 1) // 2 :]
    return float(np.median(later)) / recipe.finetune.batch_size


class _Steps(keras.callbacks.Callback):
    """Counts the steps of an epoch, and measures the first one, which is mostly tracing if the model is new.

    skipped: how many the optimizer skipped, because their gradients were not finite.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer) -> None:
        super().__init__()
        self.optimizer, self.earlier = optimizer, _iterations(optimizer)
        self.began, self.first_seconds, self.count = time.monotonic(), 0.0, 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.count += 1
        if self.count == 1:
            self.first_seconds = time.monotonic() - self.began

    @property
    def skipped(self) -> int:
        return self.count - (_iterations(self.optimizer) - self.earlier)


def _iterations(optimizer: keras.optimizers.Optimizer) -> int:
    """The steps that an optimizer has taken, also on several devices."""
    return int(keras.ops.convert_to_numpy(optimizer.iterations))


def _run_epochs(job: _Job) -> None:
    """Runs the remaining epochs. The model is built again when the input size changes."""
    model, arrays = None, job.state.arrays
    for epoch in range(len(job.history), len(job.sizes)):
        if model is None or job.sizes[epoch] != job.sizes[epoch - 1]:
            arrays = snapshot(model) if model is not None else arrays
            model = _compiled(job, job.sizes[epoch])
            restore(model, arrays)
            arrays = None
        job.history.append(_one_epoch(job, model, epoch))
        _save_epoch(job, model)


def _compiled(job: _Job, input_size: int) -> keras.Model:
    tune, steps = job.recipe.finetune, math.ceil(len(job.rows) / job.recipe.finetune.batch_size)
    keras.utils.set_random_seed(job.recipe.seed)
    model = job.model(input_size)
    rate = tune.schedule(tune.learning_rate, tune.epochs * steps, round(tune.warmup_epochs * steps))
    optimizer = adamw(rate, tune.weight_decay)
    if tune.precision == "mixed_float16":  # small gradients would underflow
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=tune.label_smoothing)
    compile_classifier(model, optimizer, loss)
    return model


def _one_epoch(job: _Job, model: keras.Model, epoch: int) -> dict:
    """Trains and validates one epoch. Returns its line of the history."""
    recipe, train, val = job.recipe, job.data.train, job.data.val
    batch_size, size = recipe.finetune.batch_size, job.sizes[epoch]
    batches = recipe.data.pipeline(train, job.rows, recipe, epoch, job.folder / LINKS)
    validation = plain_batches(batch_size, val.images, one_hot(val.labels, len(val.names))) if len(val) else None
    began = time.monotonic()
    print(f"epoch {epoch + 1}/{len(job.sizes)} at {size}×{size}{_time_left(job)}", flush=True)
    steps = _Steps(model.optimizer)
    logs = model.fit(
        batches,
        validation_data=validation,
        class_weight=class_weights(train.labels[job.rows]) if recipe.data.class_weights else None,
        shuffle=False,
        callbacks=[keras.callbacks.TerminateOnNaN(), steps],
        verbose="auto" if os.isatty(1) else 2,
    ).history
    job.tracing_seconds += steps.first_seconds
    images = -(-len(job.rows) // batch_size) * batch_size
    row = history_row(epoch, logs, began, _lower_rate(recipe.finetune))
    _report_skipped(epoch, steps.skipped, steps.count, recipe.finetune)
    return {"size": size, "images": images, **row}


def _lower_rate(tune: Finetune) -> str:
    """The setting of a third of the learning rate, for errors."""
    return f"finetune.learning_rate={tune.learning_rate / 3:.1g}"


def _report_skipped(epoch: int, skipped: int, steps: int, tune: Finetune) -> None:
    """Prints how many steps of an epoch the optimizer skipped. Raises `Diverged` if it skipped more than half.

    In mixed_float16, it skips steps until it has found a scale for the loss, so there is no error.
    """
    if not skipped:
        return
    print(f"skipped {skipped} of {steps} steps, because their gradients were not finite", flush=True)
    if skipped > steps / 2 and tune.precision != "mixed_float16":
        raise Diverged(
            f"at least half of the gradients must be finite, and {skipped} of {steps} were not in epoch {epoch + 1}; "
            f"start again with --set {_safer(tune)} and another --out"
        )


def _safer(tune: Finetune) -> str:
    """The setting that can prevent values that are not finite, for errors."""
    return _lower_rate(tune) if tune.precision == "float32" else "finetune.precision=float32"


def _save_epoch(job: _Job, model: keras.Model) -> None:
    """Writes an epoch's files. After the last epoch, the weights that are kept are SWA's mean if there is one."""
    recipe, tune = job.recipe, job.recipe.finetune
    arrays = snapshot(model)
    require_finite(arrays, len(job.history) - 1, _safer(tune))
    averaged = len(job.history) - 1 - (tune.epochs - tune.swa_epochs)  # epochs that are in the mean already
    if averaged >= 0:
        job.state.swa_weights = add_to_mean(job.state.swa_weights, model.get_weights(), averaged)
        if len(job.history) == tune.epochs:
            model.set_weights(job.state.swa_weights)
            spec = FeatureSpec(tune.input_size, recipe.augmentation.transforms, seed=recipe.seed)
            update_batch_norm(job.backbone, job.data.train.images, spec, tune.batch_size)
    if is_kept(recipe.checkpoint, job.history):
        job.save(model)
    write_history(job.folder / HISTORY, job.history)
    job.state.arrays = arrays
    job.state.save(job.folder / CHECKPOINT)  # last, because an epoch that it contains is not repeated


def _warm_up_head(job: _Job, cache: Path) -> None:
    """Trains the softmax head alone on features of the pretrained backbone."""
    recipe, tune, train, val = job.recipe, job.recipe.finetune, job.data.train, job.data.val
    size, head = tune.resolution_schedule[0][1], recipe.head
    spec = FeatureSpec(size, recipe.augmentation.transforms, head.views, recipe.seed, head.feature_precision)
    features = Features(
        cached_features(cache, job.backbone, train.images, spec),
        train.labels,
        cached_features(cache, job.backbone, val.images, FeatureSpec(size, precision=head.feature_precision))[0],
        val.labels,
        train.names,
        train.teacher,
    )
    write_history(job.folder / WARMUP_HISTORY, fit_on_features(job.head, warmup_schedule(tune), recipe, features))


def warmup_schedule(tune: Finetune) -> HeadSchedule:
    """How the softmax head is trained before fine-tuning."""
    rate, field = tune.head_warmup_learning_rate, "finetune.head_warmup_learning_rate"
    return HeadSchedule(tune.head_warmup_epochs, rate, tune.batch_size, field, tune.teacher_share)


def _time_left(job: _Job) -> str:
    """The time left, from the time per epoch and pixel so far without tracing."""
    if not job.history:
        return ""
    pixels = [size * size for size in job.sizes]
    done = len(job.history)
    so_far = sum(row["seconds"] for row in job.history) - job.tracing_seconds
    return f", about {math.ceil(so_far / sum(pixels[:done]) * sum(pixels[done:]) / 60)} min of fine-tuning left"


def init_recipe(recipe: Recipe) -> Recipe:
    """The recipe of the fine-tuning that this one starts from."""
    first: Any = recipe.finetune.init_from
    return replace(recipe, finetune=first)
