"""Stratified splits of labelled images into a training and a validation part."""

import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, train_test_split

from common.errors import UserError
from common.images import Images
from training.config.checks import MAX_SEED

if TYPE_CHECKING:
    from training.config.recipe import Data

LISTED = 10  # classes that a warning names
MAX_HELD_OUT = 0.5  # of a class's images, above which a warning is printed
MAX_FOLDS = 100  # that a small share of groups is one of
ATTEMPTS, SEED_STEP = 20, 1000  # seeds that are tried until each part of mixed groups has each class


@dataclass(frozen=True)
class TrainVal:
    """The two parts of the labelled images. `val` may be empty; `val_rows` are its rows among all images, if known."""

    train: Images
    val: Images
    val_rows: np.ndarray | None = None


def saved_val_rows(file: Any, data: "Data", images: Images) -> np.ndarray:
    """The validation rows of a run: those in its `val.npz`, or in runs of earlier versions those of the split."""
    return file["rows"] if "rows" in file.files else split_rows(data, images)[1]


def split_rows(data: "Data", images: Images) -> tuple[np.ndarray, np.ndarray]:
    """The (training rows, validation rows) of a recipe: one stratified part or one of several folds is held out.

    Images that are `held_out` are the validation part, whatever share the recipe holds out.

    Raises:
        UserError: see `split` and `split_fold`; folds of images of which some are `held_out`.
    """
    if images.held_out:
        if data.folds:
            raise UserError("data.folds splits all images, --validation holds out others; leave one of them out")
        held_out = np.array(images.held_out)
        return np.flatnonzero(~held_out), np.flatnonzero(held_out)
    if data.folds:
        return split_fold(images.labels, data.folds, data.fold, data.split_seed, images.names, images.groups)
    return split(images.labels, data.validation_split, data.split_seed, images.names, images.groups)


def split(
    labels: np.ndarray,
    validation_split: float,
    seed: int,
    names: tuple | None = None,
    groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """A stratified, seeded split into a training and a validation part. A class with several images is in both.

    Args:
        labels: int [n].
        validation_split: share held out, 0 to below 1.
        seed: integer.
        names: class names, for the error.
        groups: int [n]. Rows with the same number are in the same part. None: all are different. If each group is of
            one class, only its first row is drawn, so the split without groups is the same as with different ones. If
            not, some folds of scikit-learn's StratifiedGroupKFold are held out, which is about the share; a group that
            has all images of a class is trained on.

    Returns:
        (training rows, validation rows), int64, each sorted.

    Raises:
        UserError: no class can be in both parts, or a class with mixed groups cannot.
    """
    rows = np.arange(len(labels))
    if validation_split == 0:
        return rows, rows[:0]
    if not 0 < validation_split < 1:
        raise UserError(f"the share that is held out must be from 0 to below 1, got {validation_split:g}")
    if groups is not None and _has_mixed_group(labels, groups):
        return _grouped_part(labels, groups, validation_split, seed, names)
    first, group = _first_rows(labels, groups)
    drawn = np.flatnonzero(np.bincount(labels[first])[labels[first]] > 1)  # a class with a single image is trained on
    classes, share = len(np.unique(labels[first[drawn]])), validation_split
    if classes < 2:
        raise UserError(
            f"a split needs two different images of at least two classes, got {classes} such classes; add images, or "
            "hold nothing out (--set data.validation_split=0)"
        )
    _require_each_class(share, len(drawn), classes)
    _, val = train_test_split(drawn, test_size=share, stratify=labels[first[drawn]], random_state=seed)
    held_out = np.isin(group, _with_each_class(val, drawn, labels[first], seed))
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _require_each_class(share: float, images: int, classes: int) -> None:
    """Raises a UserError if a part has fewer images than classes."""
    held_out = math.ceil(share * images)
    if min(held_out, images - held_out) >= classes:
        return
    least = math.ceil(100 * classes / images) / 100
    other = least if share <= 0.5 else 1 - least
    raise UserError(
        f"both parts of a split have an image of each of the {classes} classes, {min(share, 1 - share):.0%} of "
        f"{images} images are fewer; hold out a share of {other:g} (--set data.validation_split={other:g}, or "
        "--validation-split of split), or add images"
    )


def _with_each_class(val: np.ndarray, drawn: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """The held-out rows, with one row moved of each class that is in one part only.

    scikit-learn's stratified split rounds the number of held-out images of a rare class down to none.

    Args:
        val: the rows of `drawn` that are held out.
        drawn: the rows that are split, at least two of each class.
        labels: int, of all rows.
        seed: integer.
    """
    held_out, rng = np.isin(drawn, val), np.random.default_rng(seed)
    for label in np.unique(labels[drawn]):
        places = np.flatnonzero(labels[drawn] == label)
        if held_out[places].all() or not held_out[places].any():
            moved = rng.choice(places)
            held_out[moved] = not held_out[moved]
    return drawn[held_out]


def split_warnings(labels: np.ndarray, names: tuple, train: np.ndarray, val: np.ndarray, share: float) -> list[str]:
    """Warnings of classes that are only in the training part, and of classes of which too many images are held out.

    The latter happens with large groups, because whole groups are drawn.

    Args:
        labels: int [n].
        names: class names.
        train, val: rows of both parts.
        share: the share that should be held out.
    """
    if not len(val):
        return []
    counts, held_out = (np.bincount(rows, minlength=len(names)) for rows in (labels, labels[val]))
    absent = [f"{names[label]} ({counts[label]})" for label in np.setdiff1d(labels[train], labels[val])]
    reason = "a class needs two different images, or two groups"
    lines = [f"warning: no image of {_listed(absent)} is held out: {reason}"] if absent else []
    limit = max(MAX_HELD_OUT, 2 * share)
    mostly = [
        f"{held_out[label]} of the {counts[label]} images of {names[label]}"
        for label in np.flatnonzero(held_out > limit * counts)
    ]
    fix = "copies and groups stay in one part; give smaller groups or another seed, if the command has these options"
    return [*lines, f"warning: {_listed(mostly)} are held out: {fix}"] if mostly else lines


def _listed(texts: list[str]) -> str:
    return ", ".join(texts[:LISTED]) + (f" and {len(texts) - LISTED} more" if len(texts) > LISTED else "")


def split_fold(
    labels: np.ndarray,
    folds: int,
    fold: int,
    seed: int,
    names: tuple | None = None,
    groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """A stratified, seeded split that holds out one of several folds.

    Args:
        labels: int [n].
        folds: number of folds, 2 or more. Each row is held out in exactly one of them.
        fold: which one, 0 to below `folds`.
        seed: integer.
        names: class names, for the error.
        groups: see `split`.

    Returns:
        (training rows, validation rows), int64, each sorted.

    Raises:
        UserError: a class has fewer different images than folds.
    """
    if groups is not None and _has_mixed_group(labels, groups):
        return _grouped_folds(labels, groups, folds, fold, seed, names)
    first, group = _first_rows(labels, groups)
    name, count = _smallest_class(labels[first], names)
    if count < folds:
        raise UserError(
            f"{folds} folds need {folds} different images of each class, {name} has {count}; give fewer --folds"
        )
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels[first], labels[first])
    train, val = list(parts)[fold]
    return np.flatnonzero(np.isin(group, train)), np.flatnonzero(np.isin(group, val))


def _has_mixed_group(labels: np.ndarray, groups: np.ndarray) -> bool:
    """Whether a group has images of several classes."""
    return np.unique(np.stack([labels, groups]), axis=1).shape[1] > len(np.unique(groups))


def movable_rows(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The rows of groups that can be held out: those of which none has all images of a class."""
    needed = [groups[labels == label][0] for label in np.unique(labels) if len(np.unique(groups[labels == label])) == 1]
    return np.flatnonzero(~np.isin(groups, needed))


def _grouped_part(
    labels: np.ndarray, groups: np.ndarray, share: float, seed: int, names: tuple | None
) -> tuple[np.ndarray, np.ndarray]:
    """Holds out about a share of groups that have images of several classes; see `split`."""
    rows = movable_rows(labels, groups)
    pairs = np.unique(np.stack([labels[rows], groups[rows]]), axis=1)
    classes, counts = np.unique(pairs[0], return_counts=True)
    several = classes[counts >= 2]
    if len(several) < 2:
        raise UserError(
            "a split needs two groups of images of at least two classes; give smaller groups, or hold nothing out "
            "(--set data.validation_split=0)"
        )
    most = int(min(len(np.unique(groups[rows])), np.bincount(labels[rows]).max()))  # Fraction overflows with int64
    for part, attempts in _fractions(share, most):
        for attempt in range(attempts):  # scikit-learn does not see to it that each part has each class
            own_seed = (seed + SEED_STEP * attempt) % (MAX_SEED + 1)
            held_out = _folds(labels[rows], groups[rows], part.denominator, range(part.numerator), own_seed)
            val = rows[held_out]
            train = np.setdiff1d(np.arange(len(labels)), val)
            lacking = np.append(np.setdiff1d(labels, labels[train]), np.setdiff1d(several, labels[val]))
            if not len(lacking):
                return train, val
    raise _no_image_of(lacking[0], names, part.denominator)


def _fractions(share: float, most: int) -> Iterator[tuple[Fraction, int]]:
    """The parts of folds that are about a share, and how often each is tried with another seed.

    Args:
        share: above 0 and below 1.
        most: folds that scikit-learn can make, at least 2.
    """
    least = min(share, 1 - share)
    if least < 0.1 and most > 10:  # many folds take long, and may lack a class
        small = Fraction(1, min(most, MAX_FOLDS, round(1 / least)))
        yield (small if share < 0.5 else 1 - small), 2
    folds = min(10, most)
    yield Fraction(min(max(share, 1 / folds), 1 - 1 / folds)).limit_denominator(folds), ATTEMPTS


def _grouped_folds(
    labels: np.ndarray, groups: np.ndarray, folds: int, fold: int, seed: int, names: tuple | None
) -> tuple[np.ndarray, np.ndarray]:
    """Holds out a fold of groups that have images of several classes; see `split_fold`."""
    parts = [_folds(labels, groups, folds, [number], seed) for number in range(folds)]
    trained_on = [np.setdiff1d(np.arange(len(labels)), val) for val in parts]
    for part in (*parts, *trained_on):  # of all folds, before the first one is trained
        lacking = np.setdiff1d(labels, labels[part])
        if len(lacking):
            raise _no_image_of(lacking[0], names, folds)
    return trained_on[fold], parts[fold]


def _folds(labels: np.ndarray, groups: np.ndarray, folds: int, held_out: Iterable[int], seed: int) -> np.ndarray:
    """The rows of some folds, in which the shares of the classes are about the same, and groups are whole."""
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a class with fewer images than folds
            parts = [val for _, val in splitter.split(labels, labels, groups)]
    except ValueError as error:
        raise UserError(f"cannot split these groups into {folds} parts: {error}; give smaller groups") from error
    return np.sort(np.concatenate([parts[fold] for fold in held_out]))


def _no_image_of(label: int, names: tuple | None, parts: int) -> UserError:
    name = names[label] if names else str(label)
    return UserError(
        f"groups must allow {parts} parts, so that each part has each class; one would have no image of {name}; "
        "give smaller groups, or images of it in other groups"
    )


def _smallest_class(labels: np.ndarray, names: tuple | None) -> tuple[str, int]:
    """(name or number, images) of the class with the fewest images."""
    values, counts = np.unique(labels, return_counts=True)
    label = int(values[counts.argmin()])
    return names[label] if names else str(label), int(counts.min())


def _first_rows(labels: np.ndarray, groups: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(the first row of each group, in order; for each row the place of its group among them)."""
    rows = np.arange(len(labels))
    if groups is None:
        return rows, rows
    keys = np.asarray(groups).tolist()
    place = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    group = np.array([place[key] for key in keys], np.int64)
    return np.unique(group, return_index=True)[1], group
