"""Heads: models from a backbone's features to class probabilities."""

from typing import TYPE_CHECKING

import keras

from training.model.fourier_features import RandomFourierFeatures

if TYPE_CHECKING:
    from training.config.recipe import Finetune, Head


def softmax_head(finetune: "Finetune", features: int, classes: int, seed: int = 0) -> keras.Model:
    """Features → dense layers with dropout → softmax. The backbone is fine-tuned under this head.

    Args:
        finetune: its `dense_units`, `activation`, `dense_l2`, `dropout` and `dense_dropout` are used.
        features: number of features d.
        classes: number of classes.
        seed: of dropout; each layer has another one.

    Returns:
        `keras.Model`, float32 [b, d] → probabilities [b, classes].
    """
    layers = [keras.Input((features,)), keras.layers.Dropout(finetune.dropout, seed=seed)]
    for number, units in enumerate(finetune.dense_units, 1):
        penalty = keras.regularizers.L2(finetune.dense_l2) if finetune.dense_l2 else None
        layers.append(keras.layers.Dense(units, finetune.activation, kernel_regularizer=penalty))
        layers.append(keras.layers.Dropout(finetune.dense_dropout, seed=seed + number))
    layers.append(keras.layers.Dense(classes, activation="softmax", dtype="float32", name="softmax"))
    return keras.Sequential(layers, name="softmax_head")


def linear_head(features: int, classes: int) -> keras.Model:
    """Features → standardization → softmax.

    Args:
        features: number of features d.
        classes: number of classes.

    Returns:
        `keras.Model`, float32 [b, d] → probabilities [b, classes]. Adapt its layer `standardise` before training.
    """
    return keras.Sequential(
        [
            keras.Input((features,)),
            keras.layers.Normalization(name="standardise"),
            keras.layers.Dense(classes, activation="softmax", name="softmax"),
        ],
        name="linear",
    )


def averaged_head(head: keras.Model, softmax: keras.Model, share: float) -> keras.Model:
    """The weighted mean of the probabilities of two heads on the same features.

    Args:
        head, softmax: `keras.Model`, float32 [b, d] → probabilities [b, classes].
        share: weight of `softmax`, 0 to below 1.

    Returns:
        `keras.Model`, float32 [b, d] → probabilities [b, classes]; `head` itself if `share` is 0.
    """
    if not share:
        return head
    features = keras.Input(head.input_shape[1:])
    return keras.Model(features, (1 - share) * head(features) + share * softmax(features), name="averaged")


def quasi_svm_head(head: "Head", features: int, classes: int, scale: float, seed: int) -> keras.Model:
    """Features → standardization → random Fourier features → softmax: a kernel machine that is linear in its weights.

    Args:
        head: its `fourier_features`, `kernel`, `shared_feature_scale`, `dropout` and `l2` are used.
        features: number of features d.
        classes: number of classes.
        scale: kernel width, in units of the standardized features.
        seed: of the Fourier features and of dropout.

    Returns:
        `keras.Model`, float32 [b, d] → probabilities [b, classes]. Adapt its layer `standardise` before training.
    """
    penalty = keras.regularizers.L2(head.l2)
    return keras.Sequential(
        [
            keras.Input((features,)),
            keras.layers.Normalization(axis=None if head.shared_feature_scale else -1, name="standardise"),
            RandomFourierFeatures(head.fourier_features, head.kernel, scale, seed=seed, name="fourier"),
            keras.layers.Dropout(head.dropout, seed=seed),
            keras.layers.Dense(classes, activation="softmax", kernel_regularizer=penalty, name="softmax"),
        ],
        name="quasi_svm",
    )
