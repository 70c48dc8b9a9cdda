"""Probabilities with test-time augmentation (TTA).

This is the one definition of TTA in training. submission/model.py is a stand-alone copy; a test compares the two.
"""

from typing import TYPE_CHECKING

import keras
import numpy as np

from common.errors import UserError
from training.data.pipeline import plain_batches
from training.fit.precision import precision

if TYPE_CHECKING:
    from training.config.recipe import Prediction

BATCH_SIZE = 32

# The eight symmetries of the square: whether height and width are swapped, and the axes of [n, h, w, 3] that are then
# reversed. Axis 0, the batch, is never one of them.
TTA_TRANSFORMS = {
    "none": (False, ()),
    "horizontal": (False, (2,)),
    "vertical": (False, (1,)),
    "both": (False, (1, 2)),
    "diagonal": (True, ()),
    "right": (True, (2,)),  # a quarter turn
    "left": (True, (1,)),
    "antidiagonal": (True, (1, 2)),
}


def needs_square(name: str) -> bool:
    """Whether a transform swaps height and width."""
    return TTA_TRANSFORMS[name][0]


def transform(images: np.ndarray, name: str) -> np.ndarray:
    """Applies one of `TTA_TRANSFORMS` to images [n, h, w, c] of any dtype; [n, w, h, c] where axes are swapped."""
    swapped, axes = TTA_TRANSFORMS[name]
    return np.flip(np.swapaxes(images, 1, 2) if swapped else images, axes)


def predict_proba(model: keras.Model, images: np.ndarray, prediction: "Prediction") -> np.ndarray:
    """Predicts the probability of each class.

    All images are predicted under the first transform. If the top-1 confidence is at most `tta_threshold`, the
    probabilities are averaged over all transforms.

    Args:
        model: `keras.Model`, [b, h, w, 3] of 0 to 255 → [b, classes].
        images: uint8 [n, h, w, 3].
        prediction: the section of a recipe.

    Returns:
        float32 [n, classes].

    Raises:
        UserError: a probability is NaN or infinite.
    """
    first, *others = prediction.tta_transforms
    with precision(prediction.precision):
        probabilities = _predict(model, transform(images, first))
        rows = np.flatnonzero(probabilities.max(axis=-1) <= prediction.tta_threshold)
        if len(rows) and others:
            more = [_predict(model, transform(images[rows], name)) for name in others]
            probabilities[rows] = np.mean([probabilities[rows], *more], axis=0)
    if not np.isfinite(probabilities).all():  # the class of NaN would be 0
        raise UserError("the model's probabilities must be finite, and some are NaN; train it again")
    return probabilities


def _predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return model.predict(plain_batches(BATCH_SIZE, images), verbose=0)
