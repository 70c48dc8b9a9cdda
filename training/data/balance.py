"""Class balance: resampling, repeated classes and class weights.

Applied after the split, so that the validation part keeps its own distribution.
"""

import shlex
from typing import Any

import numpy as np
from imblearn.over_sampling import SMOTE, SVMSMOTE, RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from sklearn.utils.class_weight import compute_class_weight

from common.errors import UserError
from common.images import Images

RARE = 0.5  # SMOTE adds images to classes with less than this share of the largest class's images


def natural(images: Images, seed: int) -> Images:
    """Returns the images unchanged."""
    return images


def undersample(images: Images, seed: int) -> Images:
    """Reduces every class to the size of the smallest one (imbalanced-learn's RandomUnderSampler)."""
    return images.rows(_resampled_rows(RandomUnderSampler(random_state=seed), images))


def oversample(images: Images, seed: int) -> Images:
    """Repeats random images of every class up to the size of the largest one (imbalanced-learn's RandomOverSampler)."""
    return images.rows(_resampled_rows(RandomOverSampler(random_state=seed), images))


def smote(images: Images, seed: int) -> Images:
    """Doubles the rare classes with weighted means of the pixels of two neighbors.

    Source: N. V. Chawla et al., "SMOTE: Synthetic Minority Over-sampling Technique", JAIR 16, 2002.

    Args:
        images: `Images`.
        seed: integer.

    Returns:
        `Images`. The synthetic ones are last, and their paths are "synthetic".

    Raises:
        UserError: a rare class has too few images to have neighbors.
    """
    return _synthesized(SMOTE, images, seed)


def svmsmote(images: Images, seed: int) -> Images:
    """SMOTE near the support vectors of an SVM on the pixels. Adds fewer images if there are few support vectors.

    Source: H. M. Nguyen, E. W. Cooper and K. Kamei, "Borderline Over-sampling for Imbalanced Data Classification",
    2011.
    """
    return _synthesized(SVMSMOTE, images, seed)


def class_weights(labels: np.ndarray) -> dict[int, float]:
    """scikit-learn's balanced class weights for `fit`: label → n / (classes · images of that class)."""
    classes = np.unique(labels)
    return dict(
        zip(classes.tolist(), compute_class_weight("balanced", classes=classes, y=labels).tolist(), strict=True)
    )


def repeat_classes(labels: np.ndarray, names: tuple, repeats: dict) -> np.ndarray:
    """Row numbers of one epoch, with the images of some classes repeated.

    Args:
        labels: int [n], positions in `names`.
        names: class names.
        repeats: class name → how often each of its images occurs. Classes that are not in it occur once.

    Returns:
        int64 [m], m ≥ n, sorted by repetition.

    Raises:
        UserError: a class in `repeats` that does not exist.
    """
    check_classes("data.class_repeats", repeats, names)
    counts = np.array([repeats.get(name, 1) for name in names])
    rows = np.arange(len(labels))
    return np.concatenate([rows[counts[labels] > turn] for turn in range(counts.max())])


def check_classes(field: str, value: dict | tuple, names: tuple) -> None:
    """Raises a UserError if a field of a recipe names classes that the data does not have.

    Args:
        field: its name, for the error, which gives the setting without these classes.
        value: class name → number, or the rounds of `precompute_augmentation`.
        names: class names of the data.
    """
    kept: dict | tuple
    if isinstance(value, dict):
        wanted = set(value)
        kept = {name: number for name, number in value.items() if name in names}
    else:
        wanted = {name for classes, _ in value for name in classes}
        rounds = [(tuple(name for name in classes if name in names), classes, copies) for classes, copies in value]
        kept = tuple((there, copies) for there, classes, copies in rounds if there or not classes)
    unknown = sorted(wanted - set(names))
    if unknown:
        raise UserError(
            f"{field} must name classes of the data, {', '.join(names)}, got {', '.join(unknown)}; "
            f"give --set {shlex.quote(f'{field}={kept}')} or your own classes"
        )


def rare_targets(labels: np.ndarray, share: float = RARE) -> dict[int, int]:
    """Target sizes for SMOTE: label → twice its images, for the classes below `share` of the largest one."""
    values, counts = np.unique(labels, return_counts=True)
    return {
        int(value): 2 * int(count) for value, count in zip(values, counts, strict=True) if count < share * counts.max()
    }


def _resampled_rows(sampler: Any, images: Images) -> np.ndarray:
    rows, _ = sampler.fit_resample(np.arange(len(images))[:, None], images.labels)
    return np.sort(rows[:, 0])


def _synthesized(sampler: Any, images: Images, seed: int) -> Images:
    targets = rare_targets(images.labels)
    if not targets:
        return images
    flat = images.images.reshape(len(images), -1).astype(np.float32)
    try:
        pixels, labels = sampler(sampling_strategy=targets, random_state=seed).fit_resample(flat, images.labels)
    except ValueError as error:
        name = sampler.__name__.lower()
        raise UserError(f"data.resampling={name}: {error}; choose another resampling for so few images") from error
    new = slice(len(images), None)
    made = np.clip(np.rint(pixels[new]), 0, 255).astype(np.uint8).reshape(-1, *images.images.shape[1:])
    paths = images.paths + ("synthetic",) * len(made)
    return Images(
        np.concatenate([images.images, made]), np.concatenate([images.labels, labels[new]]), images.names, paths
    )
