"""Probabilities with test-time augmentation (TTA).

This is the one definition of TTA in training. submission/model.py is a stand-alone copy; a test compares the two.
"""

from dataclasses import dataclass

import keras
import numpy as np

from common.errors import UserError
from training.config.checks import Check
from training.data.pipeline import plain_batches
from training.fit.precision import PRECISIONS, precision

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


@dataclass(frozen=True)
class Prediction:
    """The section of a recipe that describes test-time augmentation."""

    # flips and rotations whose predictions are averaged; the first one is always computed
    tta_transforms: tuple = ("none",)
    tta_threshold: float = 1.0  # images whose first prediction has a higher top-1 confidence get no further transforms
    precision: str = "float32"  # or "bfloat16", of the run's own evaluation; model.py chooses by the processor

    def __post_init__(self) -> None:
        check = Check("prediction", self)
        known = self.tta_transforms and all(
            isinstance(name, str) and name in TTA_TRANSFORMS for name in self.tta_transforms
        )
        check("tta_transforms", known, f"some of {', '.join(TTA_TRANSFORMS)}")
        check("tta_threshold", 0 <= self.tta_threshold <= 1, "a probability from 0 to 1")
        check.one_of("precision", PRECISIONS)

    def check_image_shape(self, image_shape: tuple) -> None:
        """Raises a UserError if a transform swaps height and width of images that are not square."""
        height, width = image_shape[:2]
        swapped = [name for name in self.tta_transforms if needs_square(name)]
        if swapped and height != width:
            raise UserError(
                f"prediction.tta_transforms: {swapped[0]} needs square images, got {height}×{width}; "
                "give --set \"prediction.tta_transforms=('none', 'horizontal', 'vertical', 'both')\""
            )


def needs_square(name: str) -> bool:
    """Whether a transform swaps height and width."""
    return TTA_TRANSFORMS[name][0]


def transform(images: np.ndarray, name: str) -> np.ndarray:
    """Applies one of `TTA_TRANSFORMS` to images [n, h, w, c] of any dtype; [n, w, h, c] where axes are swapped."""
    swapped, axes = TTA_TRANSFORMS[name]
    return np.flip(np.swapaxes(images, 1, 2) if swapped else images, axes)


def predict_proba(model: keras.Model, images: np.ndarray, prediction: Prediction) -> np.ndarray:
    """Predicts the probability of each class.

    All images are predicted under the first transform. If the top-1 confidence is at most `tta_threshold`, the
    probabilities are averaged over all transforms.

    Args:
        model: `keras.Model`, [b, h, w, 3] of 0 to 255 → [b, classes].
        images: uint8 [n, h, w, 3].
        prediction: see `Prediction`.

    Returns:
        float32 [n, classes].
    """
    first, *others = prediction.tta_transforms
    with precision(prediction.precision):
        probabilities = _predict(model, transform(images, first))
        rows = np.flatnonzero(probabilities.max(axis=-1) <= prediction.tta_threshold)
        if len(rows) and others:
            more = [_predict(model, transform(images[rows], name)) for name in others]
            probabilities[rows] = np.mean([probabilities[rows], *more], axis=0)
    return probabilities


def _predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return model.predict(plain_batches(BATCH_SIZE, images), verbose=0)
