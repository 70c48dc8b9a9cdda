"""Training: the backbone below a plain softmax, epoch by epoch, so that an interrupted run goes on where it was."""

import csv
import json
import math
import os
import shutil
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from training.architectures import quasi_svm_head, softmax_head, whole_network
from training.averaging import add_to_mean, recalibrate
from training.balance import class_weights, repeat_classes
from training.distribute import scope, synchronise
from training.errors import UserError
from training.features import cached_features
from training.files import atomically, write_arrays
from training.pipeline import one_hot, plain_batches
from training.progress import progress
from training.thaw import thaw

COLUMNS = ("epoch", "size", "images", "loss", "accuracy", "val_loss", "val_accuracy", "seconds")
BEST = "best.weights.h5"
LINKS = ".links"  # where a pipeline that reads files finds the images of an epoch


def finetune(recipe, train, held, backbone_weights, out, cache, start=None):
    """Fine-tunes the backbone below a softmax. Every epoch ends with a checkpoint; a run that finds one goes on from it.

    Args:
        recipe: `Recipe`.
        train, held: `Images`; `held` may be empty.
        backbone_weights: see `architectures`.
        out: run folder. Gets `checkpoint.npz`, `history.csv` and `best.weights.h5`, the network with its softmax (of the
            epoch that `is_kept`, or the mean of the `averaged_epochs`). With `frozen_epochs`, `frozen_history.csv`.
        cache: folder of cached features.
        start: the `best.weights.h5` of a network of the same layers to go on from, or None to begin with `backbone_weights`.

    Returns:
        Number of trainable parameters, the softmax's included.

    Raises:
        UserError: the loss became NaN or infinite; averaged weights on several machines.
    """
    if recipe.averaged_epochs and os.environ.get("TF_CONFIG"):
        raise UserError("averaged_epochs: batch statistics are measured on one machine; unset TF_CONFIG, or --set averaged_epochs=0")
    out = Path(out)
    rows = repeat_classes(train.labels, train.names, recipe.repeats)
    steps = math.ceil(len(rows) / recipe.batch)
    state = _read_checkpoint(out / "checkpoint.npz")
    history = state["history"] if state else []
    with scope(recipe.replicas):
        backbone = make_backbone(recipe, "none" if state or start else backbone_weights)
        head = softmax_head(recipe, backbone.output_shape[-1], len(train.names))
        if start and not state:
            whole_network(backbone, head, train.images.shape[1:3], recipe.size).load_weights(start)
        parameters = _count(backbone.trainable_variables) + _count(head.trainable_variables)
        if recipe.frozen_epochs and not state:
            _fit_frozen(recipe, backbone, head, train, held, out, cache)
        if not recipe.epochs:
            atomically(out / BEST, whole_network(backbone, head, train.images.shape[1:3], recipe.size).save_weights)
            write_history(out / "history.csv", [])
            return _count(head.trainable_variables)
        _epochs(recipe, backbone, head, train, held, rows, steps, history, state, out)
    shutil.rmtree(out / LINKS, ignore_errors=True)
    return parameters


def _epochs(recipe, backbone, head, train, held, rows, steps, history, state, out):
    """The epochs that are left, each with its files."""
    sizes = [size for epochs, size in recipe.phases for _ in range(epochs)]
    arrays, mean = (state["arrays"], state["mean"]) if state else (None, [])
    network = None
    for epoch in range(len(history), recipe.epochs):
        if network is None or sizes[epoch] != sizes[epoch - 1]:
            arrays = snapshot(network) if network is not None else arrays
            network = _compiled(recipe, backbone, head, train, sizes[epoch], steps)
            restore(network, arrays)
            arrays = None
        history.append(_one_epoch(recipe, network, train, held, rows, epoch, sizes[epoch], history, out))
        mean = _keep(recipe, network, backbone, train, mean, history, out)


def _keep(recipe, network, backbone, train, mean, history, out):
    """An epoch's files. Returns the mean of the weights so far; at the end of the run, the network has it."""
    live = snapshot(network)
    averaged = len(history) - 1 - (recipe.epochs - recipe.averaged_epochs)  # epochs that are in the mean already
    if averaged >= 0:
        mean = add_to_mean(mean, network.get_weights(), averaged)
        if len(history) == recipe.epochs:
            network.set_weights(mean)
            recalibrate(backbone, train.images, recipe.size, recipe.augmentation, recipe.seed, recipe.batch)
    if is_kept(recipe, history):
        atomically(out / BEST, network.save_weights)
    write_history(out / "history.csv", history)
    _write_checkpoint(out / "checkpoint.npz", live, mean, history)  # last: what it holds is done
    return mean


def is_kept(recipe, history):
    """Whether the last of these epochs is, so far, the one whose weights are kept."""
    if recipe.keep == "last" or "val_loss" not in history[-1]:
        return True
    return history[-1]["val_loss"] <= min(row["val_loss"] for row in history)


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
    synchronise(backbone)
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


def _compiled(recipe, backbone, head, train, size, steps):
    keras.utils.set_random_seed(recipe.seed)
    network = whole_network(backbone, head, train.images.shape[1:3], size)
    rate = recipe.schedule(recipe.learning_rate, recipe.epochs * steps, round(recipe.warmup * steps))
    optimizer = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay)
    if recipe.precision == "mixed_float16":  # small gradients would vanish
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    network.compile(optimizer, keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing), metrics=["accuracy"])
    optimizer.build(network.trainable_variables)
    return network


def _one_epoch(recipe, network, train, held, rows, epoch, size, history, out):
    data = recipe.pipeline(train, rows, recipe, epoch, out / LINKS)
    began = time.monotonic()
    print(f"epoch {epoch + 1}/{recipe.epochs} at {size}×{size}{_time_left(recipe, history)}", flush=True)
    logs = network.fit(
        data,
        validation_data=plain_batches(recipe.batch, held.images, one_hot(held.labels, len(held.names))) if len(held) else None,
        class_weight=class_weights(train.labels[rows]) if recipe.class_weights else None,
        shuffle=False,
        callbacks=[keras.callbacks.TerminateOnNaN()],
        verbose="auto" if os.isatty(1) else 2,
    ).history
    return {"size": size, "images": -(-len(rows) // recipe.batch) * recipe.batch, **_row(epoch, logs, began, recipe, "learning_rate")}


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


def _write_checkpoint(path, arrays, mean, history):
    means = {f"mean_{number}": array for number, array in enumerate(mean)}
    write_arrays(path, *arrays, **means, history=np.array(json.dumps(history)))


def _read_checkpoint(path):
    if not path.exists():
        return None
    try:
        with np.load(path) as file:
            arrays, mean = ([file[name] for name in _numbered(file.files, kind)] for kind in ("arr_", "mean_"))
            return {"arrays": arrays, "mean": mean, "history": json.loads(str(file["history"]))}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}); delete the run's folder and start again") from error


def _numbered(names, kind):
    return [f"{kind}{number}" for number in range(sum(name.startswith(kind) for name in names))]


def fit_head(recipe, train_features, train_labels, held_features, held_labels, names, out):
    """Trains the quasi-SVM on a frozen backbone's features.

    Args:
        recipe: `Recipe`, its `head_…` fields and `repeats`.
        Others: see `fit_on_features`.
        out: run folder. Gets `head_history.csv`.

    Returns:
        The trained head, `keras.Model` [b, d] → [b, classes].

    Raises:
        UserError: the loss became NaN or infinite, or the features of all images are the same.
    """
    keras.utils.set_random_seed(recipe.seed)
    width = train_features.shape[-1]
    over = None if recipe.head_common_scale else (0, 1)
    centre, spread = train_features.mean(axis=over), train_features.std(axis=over)
    scale = recipe.head_scale * median_distance((train_features[0] - centre) / np.maximum(spread, 1e-7), recipe.seed)
    if not scale > 0:
        raise UserError("all training images have the same features; is the backbone trained, are the images readable?")
    head = quasi_svm_head(recipe, width, scale, len(names))
    head.get_layer("standardise").adapt(train_features.reshape(-1, width))
    schedule = HeadSchedule(recipe.head_epochs, recipe.head_learning_rate, recipe.head_batch, "head_learning_rate")
    history = fit_on_features(head, schedule, recipe, train_features, train_labels, held_features, held_labels, names)
    write_history(Path(out) / "head_history.csv", history)
    adjust_logits(head, train_labels, len(names), recipe.head_logit_adjustment)
    return head


def adjust_logits(head, labels, classes, strength):
    """Takes `strength` times the log of each class's share of the labels from its logit, so that rare classes are found more often.

    A rare class's few images are soon known by heart, however often they are repeated, and unseen ones are taken for a
    commoner class. As the bias is not regularised, a loss with so adjusted logits would lead to the same.

    Source: A. K. Menon et al., "Long-Tail Learning via Logit Adjustment", ICLR 2021, section 4.2.

    Args:
        head: `keras.Model` whose layer `softmax` has a bias [classes]; changed.
        labels: int [n].
        classes: number of classes.
        strength: τ of the source, from 0, which changes nothing.
    """
    kernel, bias = head.get_layer("softmax").get_weights()
    share = np.maximum(np.bincount(labels, minlength=classes), 1) / len(labels)  # a class without an image counts as one with one
    head.get_layer("softmax").set_weights([kernel, bias - strength * np.log(share)])


@dataclass(frozen=True)
class HeadSchedule:
    """How long and how fast a head is trained: Adam, its learning rate falling to 0 over a half cosine."""

    epochs: int
    learning_rate: float
    batch: int
    field: str  # the recipe's field of this learning rate, for the message when it was too high


def fit_on_features(head, schedule, recipe, train_features, train_labels, held_features, held_labels, names):
    """Trains a head on a frozen backbone's features; each epoch sees one random view of each image.

    Args:
        head: `keras.Model` [b, d] → [b, classes]. Ends with the weights of the epoch that `is_kept`.
        schedule: `HeadSchedule`.
        recipe: `Recipe`, its `repeats`, `class_weights`, `keep` and `seed`.
        train_features: float32 [views, n, d].
        train_labels: int [n].
        held_features: float32 [m, d]; m may be 0.
        held_labels: int [m].
        names: class names.

    Returns:
        The history, a dictionary for each epoch.

    Raises:
        UserError: the loss became NaN or infinite.
    """
    rows = repeat_classes(train_labels, names, recipe.repeats)
    targets = one_hot(train_labels, len(names))
    held = plain_batches(schedule.batch, held_features, one_hot(held_labels, len(names))) if len(held_labels) else None
    steps = math.ceil(len(rows) / schedule.batch)
    rate = keras.optimizers.schedules.CosineDecay(schedule.learning_rate, schedule.epochs * steps)
    head.compile(keras.optimizers.Adam(rate), "categorical_crossentropy", metrics=["accuracy"])
    rng, history, best = np.random.default_rng(recipe.seed), [], None
    for epoch in progress(range(schedule.epochs), f"training {head.name.replace('_', '-')}", unit="epoch"):
        order = rng.permutation(rows)
        began = time.monotonic()
        logs = head.fit(
            plain_batches(schedule.batch, train_features[rng.integers(len(train_features), size=len(order)), order], targets[order]),
            validation_data=held,
            class_weight=class_weights(train_labels[rows]) if recipe.class_weights else None,
            shuffle=False,
            callbacks=[keras.callbacks.TerminateOnNaN()],
            verbose=0,
        ).history
        history.append(_row(epoch, logs, began, recipe, schedule.field))
        if is_kept(recipe, history):
            best = head.get_weights()
    head.set_weights(best)
    return history


def _fit_frozen(recipe, backbone, head, train, held, out, cache):
    """The softmax and its dense layers alone, on the features of the backbone as it came."""
    size = recipe.phases[0][1]
    features = cached_features(cache, backbone, train.images, size, recipe.augmentation, recipe.head_views, recipe.seed)
    held_features = cached_features(cache, backbone, held.images, size)[0]
    schedule = HeadSchedule(recipe.frozen_epochs, recipe.frozen_learning_rate, recipe.batch, "frozen_learning_rate")
    history = fit_on_features(head, schedule, recipe, features, train.labels, held_features, held.labels, train.names)
    write_history(out / "frozen_history.csv", history)


def _count(variables):
    return sum(math.prod(variable.shape) for variable in variables)


def median_distance(features, seed, pairs=20_000):
    """Median Euclidean distance between two different rows of [n, d], from a seeded sample of pairs.

    The usual first guess for a Gaussian kernel's width (A. Gretton et al., "A Kernel Two-Sample Test", JMLR 13, 2012).
    """
    rng = np.random.default_rng(seed)
    first = rng.integers(len(features), size=pairs)
    second = (first + rng.integers(1, len(features), size=pairs)) % len(features)
    return float(np.median(np.linalg.norm(features[first] - features[second], axis=1)))
