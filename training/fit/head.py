"""Training of a head on a frozen backbone's features."""

import math
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression

from common.errors import UserError
from common.progress import progress
from training.config.recipe import LINEAR, Recipe
from training.data.balance import check_classes, class_weights, repeat_classes
from training.data.pipeline import one_hot, plain_batches, soft_targets
from training.fit.checkpoint import history_row, is_kept, write_history
from training.model.build import compile_classifier
from training.model.heads import linear_head, quasi_svm_head

HEAD_HISTORY = "head_history.csv"
LINEAR_STEPS = 200  # of L-BFGS
MIN_VARIANCE = 0.01  # of a feature, in units of the median, for logistic regression
SAMPLED_PAIRS = 20_000  # of images, for the median distance
# In units of the mean variance; a feature with a lower one is constant but for rounding.
MIN_RELATIVE_VARIANCE = 1e-10


@dataclass(frozen=True)
class Features:
    """A frozen backbone's features and their labels.

    train: float32 [views, n, d].
    train_labels: int [n].
    val: float32 [m, d]; m may be 0.
    val_labels: int [m].
    names: class names.
    teacher: float32 [n, classes], a teacher's probabilities of the training images; None if there are none.
    """

    train: np.ndarray
    train_labels: np.ndarray
    val: np.ndarray
    val_labels: np.ndarray
    names: tuple
    teacher: np.ndarray | None = None


@dataclass(frozen=True)
class HeadSchedule:
    """Adam with a learning rate that falls to 0 over a half cosine.

    field: the recipe's field of the learning rate, for the error when it is too high.
    teacher_share: weight of a teacher's probabilities in the targets.
    """

    epochs: int
    learning_rate: float
    batch_size: int
    field: str
    teacher_share: float = 0.0


def fit_head(recipe: Recipe, features: Features, folder: Path | None = None) -> keras.Model:
    """Trains the head that the recipe has: logistic regression (`fit_linear`) or a quasi-SVM (`fit_quasi_svm`).

    Args:
        recipe, features: see there.
        folder: the run's folder; gets the quasi-SVM's `head_history.csv`. None: nothing is written.

    Returns:
        The trained head, `keras.Model` [b, d] → [b, classes].

    Raises:
        UserError: see `fit_quasi_svm`.
    """
    if recipe.head.kind == LINEAR:
        return fit_linear(recipe, features)
    head, history = fit_quasi_svm(recipe, features)
    if folder:
        write_history(folder / HEAD_HISTORY, history)
    return head


def fit_quasi_svm(recipe: Recipe, features: Features) -> tuple[keras.Model, list[dict]]:
    """Trains the quasi-SVM.

    Args:
        recipe: its `head`, `data`, `checkpoint` and `seed` are used.
        features: see `Features`.

    Returns:
        (the trained head, `keras.Model` [b, d] → [b, classes]; the history, a dictionary for each epoch).

    Raises:
        Diverged: the loss is NaN or infinite.
        UserError: all images have the same features, or `head.class_bias` names a class that does not exist.
    """
    keras.utils.set_random_seed(recipe.seed)
    train, width = features.train, features.train.shape[-1]
    axes = None if recipe.head.shared_feature_scale else (0, 1)
    mean, deviation = train.mean(axis=axes), np.sqrt(_variance_to_divide_by(train.var(axis=axes)))
    order = 1 if recipe.head.kernel == "laplacian" else 2
    typical = median_distance((train[0] - mean) / np.maximum(deviation, 1e-7), recipe.seed, order)
    scale = recipe.head.kernel_scale * typical
    if not scale > 0:
        raise UserError("all training images have the same features; check the backbone weights and the images")
    head = quasi_svm_head(recipe.head, width, len(features.names), scale, recipe.seed)
    scaler = head.get_layer("standardise")
    scaler.adapt(train.reshape(-1, width))
    scaler.adapt_variance.assign(_variance_to_divide_by(keras.ops.convert_to_numpy(scaler.adapt_variance)))
    scaler.finalize_state()
    chosen = recipe.head
    schedule = HeadSchedule(
        chosen.epochs, chosen.learning_rate, chosen.batch_size, "head.learning_rate", chosen.teacher_share
    )
    history = fit_on_features(head, schedule, recipe, features)
    adjust_logits(head, features.train_labels, len(features.names), recipe.head.logit_adjustment)
    _add_class_bias(head, features.names, recipe.head.class_bias)
    return head, history


def _variance_to_divide_by(variance: np.ndarray) -> np.ndarray:
    """The variances of features, of constant ones the mean variance.

    A feature that is 0 in each of a few training images would be divided by 1e-7 in a new image, and decide its class.
    """
    mean = variance.mean()
    return np.where(variance > MIN_RELATIVE_VARIANCE * mean, variance, mean)


def _variance_with_floor(variance: np.ndarray) -> np.ndarray:
    """The variances of features, but at least a hundredth of the median of those that are not 0.

    A feature that is nearly constant in a few training images would be hundreds of deviations away in a new image.
    """
    positive = variance[variance > 0]
    return np.maximum(variance, MIN_VARIANCE * np.median(positive)) if len(positive) else variance


def fit_linear(recipe: Recipe, features: Features) -> keras.Model:
    """Trains logistic regression on standardized features with scikit-learn.

    Args:
        recipe: its `head.c`, `head.logit_adjustment`, `data.class_repeats` and `data.class_weights` are used.
        features: see `Features`; all views are training examples.

    Returns:
        The trained head, `keras.Model` [b, d] → [b, classes].
    """
    labels, width = features.train_labels, features.train.shape[-1]
    rows = repeat_classes(labels, features.names, recipe.data.class_repeats)
    head = linear_head(width, len(features.names))
    scaler = head.get_layer("standardise")
    scaler.adapt(features.train.reshape(-1, width))
    scaler.adapt_variance.assign(_variance_with_floor(keras.ops.convert_to_numpy(scaler.adapt_variance)))
    scaler.finalize_state()
    x = keras.ops.convert_to_numpy(scaler(features.train[:, rows].reshape(-1, width)))
    y = np.tile(labels[rows], len(features.train))
    weights = "balanced" if recipe.data.class_weights else None
    model = LogisticRegression(C=recipe.head.c, class_weight=weights, max_iter=LINEAR_STEPS, tol=1e-3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes")  # half as many images are enough
        model.fit(x, y)
    kernel, bias = model.coef_.T, model.intercept_
    if len(features.names) == 2:  # scikit-learn has one logit for two classes
        kernel, bias = np.hstack([-kernel, kernel]) / 2, np.array([-bias[0], bias[0]]) / 2
    head.get_layer("softmax").set_weights([kernel.astype(np.float32), bias.astype(np.float32)])
    adjust_logits(head, labels, len(features.names), recipe.head.logit_adjustment)
    return head


def fit_on_features(head: keras.Model, schedule: HeadSchedule, recipe: Recipe, features: Features) -> list[dict]:
    """Trains a head; each epoch takes one random view of each image.

    Args:
        head: `keras.Model` [b, d] → [b, classes]. It ends with the weights of the epoch that is kept.
        schedule: see `HeadSchedule`.
        recipe: its `data`, `checkpoint` and `seed` are used.
        features: see `Features`.

    Returns:
        The history, a dictionary for each epoch.

    Raises:
        Diverged: the loss is NaN or infinite.
    """
    labels, classes = features.train_labels, len(features.names)
    rows = repeat_classes(labels, features.names, recipe.data.class_repeats)
    targets, validation = soft_targets(one_hot(labels, classes), features.teacher, schedule.teacher_share), None
    if len(features.val_labels):
        validation = plain_batches(schedule.batch_size, features.val, one_hot(features.val_labels, classes))
    steps = math.ceil(len(rows) / schedule.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(schedule.learning_rate, schedule.epochs * steps)
    compile_classifier(head, keras.optimizers.Adam(rate), "categorical_crossentropy")
    rng, best = np.random.default_rng(recipe.seed), None
    history: list[dict] = []
    for epoch in progress(range(schedule.epochs), f"training {head.name.replace('_', '-')}", unit="epoch"):
        order = rng.permutation(rows)
        began = time.monotonic()
        views = rng.integers(len(features.train), size=len(order))
        logs = head.fit(
            plain_batches(schedule.batch_size, features.train[views, order], targets[order]),
            validation_data=validation,
            class_weight=class_weights(labels[rows]) if recipe.data.class_weights else None,
            shuffle=False,
            callbacks=[keras.callbacks.TerminateOnNaN()],
            verbose=0,
        ).history
        history.append(history_row(epoch, logs, began, f"{schedule.field}={schedule.learning_rate / 3:.1g}"))
        if is_kept(recipe.checkpoint, history):
            best = head.get_weights()
    head.set_weights(best)
    return history


def adjust_logits(head: keras.Model, labels: np.ndarray, classes: int, strength: float) -> None:
    """Subtracts `strength` times the log of each class's frequency from its logit.

    The few images of a rare class are soon fitted, however often they are repeated, and unseen ones are predicted as a
    more frequent class. The bias is not regularized, so training with adjusted logits would give the same result.

    Source: A. K. Menon et al., "Long-Tail Learning via Logit Adjustment", ICLR 2021, section 4.2.

    Args:
        head: `keras.Model` whose layer `softmax` has a bias [classes]; changed in place.
        labels: int [n].
        classes: number of classes.
        strength: τ of the source; 0 changes nothing.
    """
    kernel, bias = head.get_layer("softmax").get_weights()
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)  # a class without an image counts as one image
    head.get_layer("softmax").set_weights([kernel, bias - strength * np.log(counts / len(labels))])


def _add_class_bias(head: keras.Model, names: tuple, biases: dict) -> None:
    check_classes("head.class_bias", biases, names)
    kernel, bias = head.get_layer("softmax").get_weights()
    head.get_layer("softmax").set_weights([kernel, bias + [biases.get(name, 0.0) for name in names]])


def median_distance(features: np.ndarray, seed: int, order: int = 2) -> float:
    """Median distance between two different rows of [n, d], from a random sample of pairs.

    If it is 0, it is that of the pairs that differ; it is 0 only if all rows are the same.

    It is the usual heuristic for the width of a kernel (A. Gretton et al., "A Kernel Two-Sample Test", JMLR 13, 2012).

    Args:
        features: float [n, d].
        seed: of the sample.
        order: of the norm that the kernel has: 2 of the Gaussian, 1 of the Laplacian.
    """
    rng = np.random.default_rng(seed)
    first = rng.integers(len(features), size=SAMPLED_PAIRS)
    second = (first + rng.integers(1, len(features), size=SAMPLED_PAIRS)) % len(features)
    distances = np.linalg.norm(features[first] - features[second], ord=order, axis=1)
    median = np.median(distances)
    if not median and distances.any():  # most images are copies of one
        median = np.median(distances[distances > 0])
    return float(median)
