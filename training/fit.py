"""Training: the backbone below a plain softmax, epoch by epoch, so that an interrupted run goes on where it was."""

import csv
import json
import math
import os
import time
import zipfile
from pathlib import Path

import keras
import numpy as np

from training.architectures import classifier
from training.balance import oversample
from training.errors import UserError
from training.pipeline import plain_batches, training_batches
from training.thaw import thaw

COLUMNS = ("epoch", "size", "loss", "accuracy", "val_loss", "val_accuracy", "seconds")


def finetune(recipe, train, held, backbone_weights, out):
    """Fine-tunes the backbone below a softmax. Every epoch ends with a checkpoint; a run that finds one goes on from it.

    Args:
        recipe: `Recipe`.
        train, held: `Images`; `held` may be empty.
        backbone_weights: see `architectures`.
        out: run folder. Gets `checkpoint.npz`, `history.csv` and `best.weights.h5` (lowest validation loss; the last
            epoch where nothing is held out).

    Returns:
        The fine-tuned backbone with its best weights, dtype policy of the recipe.

    Raises:
        UserError: the loss became NaN or infinite.
    """
    out = Path(out)
    rows = oversample(train.labels, train.names, recipe.repeats)
    steps = math.ceil(len(rows) / recipe.batch)
    state = _read_checkpoint(out / "checkpoint.npz")
    history = state["history"] if state else []
    if state and len(history) == recipe.epochs:
        backbone_weights = "none"  # nothing is left to train: the best weights are read below
    sizes = [size for epochs, size in recipe.phases for _ in range(epochs)]
    network, arrays = None, state["arrays"] if state else None
    backbone = make_backbone(recipe, backbone_weights if not state else "none")
    for epoch in range(len(history), recipe.epochs):
        if network is None or sizes[epoch] != sizes[epoch - 1]:
            arrays = snapshot(network) if network is not None else arrays
            network = _compiled(recipe, backbone, train, sizes[epoch], steps)
            restore(network, arrays)
        history.append(_one_epoch(recipe, network, train, held, rows, epoch, sizes[epoch], history))
        if not len(held) or history[-1]["val_loss"] <= min(row["val_loss"] for row in history):
            _atomically(out / "best.weights.h5", backbone.save_weights)
        _write_checkpoint(out / "checkpoint.npz", snapshot(network), history)
        write_history(out / "history.csv", history)
    backbone.load_weights(out / "best.weights.h5")
    return backbone


def make_backbone(recipe, weights):
    """The recipe's backbone under its dtype policy, thawed."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(recipe.precision)
    try:
        backbone = recipe.backbone(weights)
    finally:
        keras.config.set_dtype_policy(before)
    thaw(backbone, recipe.thaw, recipe.batch_norm)
    return backbone


def snapshot(network):
    """Everything that the next step depends on: weights, moving averages, the optimizer, random states."""
    return [keras.ops.convert_to_numpy(v) for v in _variables(network)]


def restore(network, arrays):
    """Puts back what `snapshot` took; None leaves the network as it is."""
    if arrays is None:
        return
    for variable, array in zip(_variables(network), arrays, strict=True):
        variable.assign(array)


def write_history(path, history):
    """One line an epoch, as CSV."""

    def save(temporary):
        with open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            writer.writeheader()
            writer.writerows(history)

    _atomically(path, save)


def _compiled(recipe, backbone, train, size, steps):
    keras.utils.set_random_seed(recipe.seed)
    network = classifier(backbone, train.images.shape[1:3], size, len(train.names), recipe.dropout)
    total, warmup = recipe.epochs * steps, round(recipe.warmup * steps)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else recipe.learning_rate, total - warmup, warmup_target=recipe.learning_rate if warmup else None, warmup_steps=warmup
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay)
    network.compile(optimizer, _loss(recipe, len(train.names)), metrics=["accuracy"])
    optimizer.build(network.trainable_variables)
    return network


def _loss(recipe, classes):
    """Cross-entropy of integer labels with label smoothing, which Keras has for one-hot labels only."""
    smooth = recipe.label_smoothing

    def cross_entropy(labels, probabilities):
        labels = keras.ops.cast(keras.ops.reshape(labels, (-1,)), "int32")
        targets = keras.ops.one_hot(labels, classes) * (1 - smooth) + smooth / classes
        return keras.losses.categorical_crossentropy(targets, probabilities)

    return cross_entropy


def _one_epoch(recipe, network, train, held, rows, epoch, size, history):
    data = training_batches(train.images, train.labels, rows, recipe.augmentation, recipe.batch, (recipe.seed, epoch))
    began = time.monotonic()
    print(f"epoch {epoch + 1}/{recipe.epochs} at {size}×{size}{_time_left(recipe, history)}", flush=True)
    logs = network.fit(
        data,
        validation_data=plain_batches(held.images, held.labels, recipe.batch) if len(held) else None,
        shuffle=False,
        callbacks=[keras.callbacks.TerminateOnNaN()],
        verbose="auto" if os.isatty(1) else 2,
    ).history
    row = {"epoch": epoch + 1, "size": size, **{k: float(v[-1]) for k, v in logs.items()}, "seconds": round(time.monotonic() - began, 1)}
    if not all(math.isfinite(value) for value in row.values()):
        raise UserError(
            f"the loss is no longer a number in epoch {epoch + 1}; the epochs before are kept: "
            f"start again with a lower rate, for example --set learning_rate={recipe.learning_rate / 3:.1g}"
        )
    return row


def _time_left(recipe, history):
    """Seconds still needed, from the time per epoch and pixel so far."""
    if not history:
        return ""
    pixels = [size * size for epochs, size in recipe.phases for _ in range(epochs)]
    speed = sum(row["seconds"] for row in history) / sum(pixels[: len(history)])
    return f", about {math.ceil(speed * sum(pixels[len(history) :]) / 60)} min left"


def _variables(network):
    return [*network.variables, *network.optimizer.variables]


def _write_checkpoint(path, arrays, history):
    def save(temporary):
        with open(temporary, "wb") as file:
            np.savez(file, *arrays, history=np.array(json.dumps(history)))

    _atomically(path, save)


def _read_checkpoint(path):
    if not path.exists():
        return None
    try:
        with np.load(path) as file:
            return {"arrays": [file[f"arr_{i}"] for i in range(len(file.files) - 1)], "history": json.loads(str(file["history"]))}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}); delete the run's folder and start again") from error


def _atomically(path, save):
    """Calls save(temporary path) and renames, so that a half-written file never stands under the real name."""
    temporary = path.with_name(f".tmp-{path.name}")
    save(temporary)
    os.replace(temporary, path)
