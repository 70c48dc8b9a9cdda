"""Rare classes seen more often, or common ones less. Runs after the split, so validation keeps its own distribution."""

import numpy as np
from imblearn.over_sampling import SMOTE, SVMSMOTE, RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from sklearn.utils.class_weight import compute_class_weight

from training.data import Images
from training.errors import UserError

RARE = 0.5  # classes with less than this share of the largest one's images are topped up with synthetic ones


def natural(images, seed):
    """The images as they are."""
    return images


def undersample(images, seed):
    """A random part of every class, as many as the rarest class has (imbalanced-learn's RandomUnderSampler)."""
    return images.rows(_resampled_rows(RandomUnderSampler(random_state=seed), images))


def oversample(images, seed):
    """Every class brought to the largest one's number by repeating random images of it (RandomOverSampler)."""
    return images.rows(_resampled_rows(RandomOverSampler(random_state=seed), images))


def smote(images, seed):
    """Rare classes doubled with weighted means of two neighbours' pixels.

    Source: N. V. Chawla et al., "SMOTE: Synthetic Minority Over-sampling Technique", JAIR 16, 2002.

    Args:
        images: `Images`.
        seed: integer.

    Returns:
        `Images`; the synthetic ones come last and their paths are "synthetic".

    Raises:
        UserError: a rare class with too few images to have neighbours.
    """
    return _synthesised(SMOTE, images, seed)


def svmsmote(images, seed):
    """`smote` around the support vectors of a support vector machine on the pixels; fewer images where it finds few.

    Source: H. M. Nguyen, E. W. Cooper and K. Kamei, "Borderline Over-sampling for Imbalanced Data Classification", 2011.
    """
    return _synthesised(SVMSMOTE, images, seed)


def class_weights(labels):
    """scikit-learn's balanced weights, as `fit` takes them: label → n / (classes · images of that class)."""
    classes = np.unique(labels)
    return dict(zip(classes.tolist(), compute_class_weight("balanced", classes=classes, y=labels).tolist(), strict=True))


def repeat_classes(labels, names, repeats):
    """Row numbers of one epoch, images of the given classes repeated: the data set with its rare classes concatenated to it.

    Args:
        labels: int [n], positions in `names`.
        names: class names.
        repeats: class name → how many times each of its images occurs (1 leaves it as it is).

    Returns:
        int64 [m], m ≥ n, sorted by repetition.

    Raises:
        UserError: a class in `repeats` that does not exist.
    """
    check_classes("repeats", repeats, names)
    counts = np.array([repeats.get(name, 1) for name in names])
    rows = np.arange(len(labels))
    return np.concatenate([rows[counts[labels] > turn] for turn in range(counts.max())])


def check_classes(field, wanted, names):
    """Raises a UserError that names the classes of the data where `wanted` has others."""
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        have, empty = ", ".join(names), "{}" if isinstance(wanted, dict) else "()"
        raise UserError(f"{field}: no class {', '.join(unknown)}; the data has {have}: give --set {field}={empty} or your own classes")


def rare_targets(labels, share=RARE):
    """For the classes below `share` of the largest one: label → twice its images. The others are not in it."""
    values, counts = np.unique(labels, return_counts=True)
    return {int(value): 2 * int(count) for value, count in zip(values, counts, strict=True) if count < share * counts.max()}


def _resampled_rows(sampler, images):
    rows, _ = sampler.fit_resample(np.arange(len(images))[:, None], images.labels)
    return np.sort(rows[:, 0])


def _synthesised(sampler, images, seed):
    targets = rare_targets(images.labels)
    if not targets:
        return images
    flat = images.images.reshape(len(images), -1).astype(np.float32)
    try:
        pixels, labels = sampler(sampling_strategy=targets, random_state=seed).fit_resample(flat, images.labels)
    except ValueError as error:
        raise UserError(f"resampling={sampler.__name__.lower()}: {error}; take another resampling for so few images") from error
    new = slice(len(images), None)
    made = np.clip(np.rint(pixels[new]), 0, 255).astype(np.uint8).reshape(-1, *images.images.shape[1:])
    paths = images.paths + ("synthetic",) * len(made)
    return Images(np.concatenate([images.images, made]), np.concatenate([images.labels, labels[new]]), images.names, paths)
