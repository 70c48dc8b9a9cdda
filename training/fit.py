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

from training.architectures import classifier, quasi_svm_head
from training.balance import oversample
from training.errors import UserError
from training.files import atomically, write_arrays
from training.pipeline import plain_batches, training_batches
from training.progress import progress
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

    Raises:
        UserError: the loss became NaN or infinite.
    """
    out = Path(out)
    rows = oversample(train.labels, train.names, recipe.repeats)
    steps = math.ceil(len(rows) / recipe.batch)
    state = _read_checkpoint(out / "checkpoint.npz")
    history = state["history"] if state else []
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
            atomically(out / "best.weights.h5", backbone.save_weights)
        write_history(out / "history.csv", history)
        _write_checkpoint(out / "checkpoint.npz", snapshot(network), history)  # last: what it holds is done


def make_backbone(recipe, weights):
    """The recipe's backbone under its dtype policy, thawed."""
    keras.utils.set_random_seed(recipe.seed)
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

    atomically(path, save)


def read_history(path):
    """What `write_history` wrote: a list of dictionaries of numbers, columns that stayed empty left out."""
    with open(path, newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def _compiled(recipe, backbone, train, size, steps):
    keras.utils.set_random_seed(recipe.seed)
    network = classifier(backbone, train.images.shape[1:3], size, len(train.names), recipe.dropout)
    total, warmup = recipe.epochs * steps, round(recipe.warmup * steps)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else recipe.learning_rate,
        max(1, total - warmup),
        warmup_target=recipe.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay)
    if recipe.precision == "mixed_float16":  # small gradients would vanish
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
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
    return {"size": size, **_row(epoch, logs, began, recipe, "learning_rate")}


def _row(epoch, logs, began, recipe, rate):
    """One epoch's line of the history. Raises a UserError where the loss is no longer a number."""
    row = {"epoch": epoch + 1, **{name: float(values[-1]) for name, values in logs.items()}, "seconds": round(time.monotonic() - began, 1)}
    if not all(math.isfinite(value) for value in row.values()):
        lower = f"--set {rate}={getattr(recipe, rate) / 3:.1g}"
        raise UserError(f"the loss is no longer a number in epoch {epoch + 1}; the epochs before are kept: start a new run with {lower}")
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
    write_arrays(path, *arrays, history=np.array(json.dumps(history)))


def _read_checkpoint(path):
    if not path.exists():
        return None
    try:
        with np.load(path) as file:
            return {"arrays": [file[f"arr_{i}"] for i in range(len(file.files) - 1)], "history": json.loads(str(file["history"]))}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}); delete the run's folder and start again") from error


def fit_head(recipe, train_features, train_labels, held_features, held_labels, names, out):
    """Trains the quasi-SVM on a frozen backbone's features; each epoch sees one random view of each image.

    Args:
        recipe: `Recipe`, its `head_…` fields and `repeats`.
        train_features: float32 [views, n, d].
        train_labels: int [n].
        held_features: float32 [m, d]; m may be 0.
        held_labels: int [m].
        names: class names.
        out: run folder. Gets `head_history.csv`.

    Returns:
        The trained head, `keras.Model` [b, d] → [b, classes], with the weights of its lowest validation loss, or of
        the last epoch where nothing is held out.

    Raises:
        UserError: the loss became NaN or infinite.
    """
    views, _, width = train_features.shape
    rows = oversample(train_labels, names, recipe.repeats)
    keras.utils.set_random_seed(recipe.seed)
    centre = train_features.mean(axis=(0, 1))
    spread = train_features.std(axis=(0, 1))
    scale = recipe.head_scale * median_distance((train_features[0] - centre) / np.maximum(spread, 1e-7), recipe.seed)
    if not scale > 0:
        raise UserError("all training images have the same features; is the backbone trained, are the images readable?")
    head = quasi_svm_head(recipe, width, scale, len(names))
    head.get_layer("standardise").adapt(train_features.reshape(-1, width))
    steps = math.ceil(len(rows) / recipe.head_batch)
    rate = keras.optimizers.schedules.CosineDecay(recipe.head_learning_rate, recipe.head_epochs * steps)
    head.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    rng, history, best = np.random.default_rng(recipe.seed), [], None
    for epoch in progress(range(recipe.head_epochs), "training the quasi-SVM", unit="epoch"):
        order = rng.permutation(rows)
        began = time.monotonic()
        logs = head.fit(
            train_features[rng.integers(views, size=len(order)), order],
            train_labels[order],
            validation_data=(held_features, held_labels) if len(held_labels) else None,
            batch_size=recipe.head_batch,
            shuffle=False,
            callbacks=[keras.callbacks.TerminateOnNaN()],
            verbose=0,
        ).history
        history.append(_row(epoch, logs, began, recipe, "head_learning_rate"))
        if not len(held_labels) or history[-1]["val_loss"] <= min(row["val_loss"] for row in history):
            best = head.get_weights()
    write_history(Path(out) / "head_history.csv", history)
    head.set_weights(best)
    return head


def median_distance(features, seed, pairs=20_000):
    """Median Euclidean distance between two different rows of [n, d], from a seeded sample of pairs.

    The usual first guess for a Gaussian kernel's width (A. Gretton et al., "A Kernel Two-Sample Test", JMLR 13, 2012).
    """
    rng = np.random.default_rng(seed)
    first = rng.integers(len(features), size=pairs)
    second = (first + rng.integers(1, len(features), size=pairs)) % len(features)
    return float(np.median(np.linalg.norm(features[first] - features[second], axis=1)))
