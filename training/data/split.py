"""Stratified splits of labelled images into a training and a validation part."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sklearn.model_selection import StratifiedKFold, train_test_split

from common.errors import UserError
from common.files import atomic_folder
from common.images import Images, load_folder

if TYPE_CHECKING:
    from training.config.recipe import Data


@dataclass(frozen=True)
class TrainVal:
    """The two parts of the labelled images. `val` may be empty."""

    train: Images
    val: Images


def split_rows(data: "Data", images: Images) -> tuple[np.ndarray, np.ndarray]:
    """The (training rows, validation rows) of a recipe: one stratified part or one of several folds is held out."""
    if data.folds:
        return split_fold(images.labels, data.folds, data.fold, data.split_seed, images.names)
    return split(images.labels, data.validation_split, data.split_seed, images.names)


def split(
    labels: np.ndarray, validation_split: float, seed: int, names: tuple | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A stratified, seeded split into a training and a validation part.

    Args:
        labels: int [n].
        validation_split: share held out, 0 to below 1.
        seed: integer.
        names: class names, for the error.

    Returns:
        (training rows, validation rows), int64, each sorted.

    Raises:
        UserError: a class is too small to be in both parts.
    """
    rows = np.arange(len(labels))
    if validation_split == 0:
        return rows, rows[:0]
    values, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        rare = values[counts.argmin()]
        raise UserError(f"a split needs two images of each class, {names[rare] if names else rare} has one; add images")
    try:
        train, val = train_test_split(rows, test_size=validation_split, stratify=labels, random_state=seed)
    except ValueError as error:
        raise UserError(f"cannot hold out {validation_split:.0%} of {len(labels)} images: {error}") from error
    return np.sort(train), np.sort(val)


def split_fold(
    labels: np.ndarray, folds: int, fold: int, seed: int, names: tuple | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A stratified, seeded split that holds out one of several folds.

    Args:
        labels: int [n].
        folds: number of folds, 2 or more. Each row is held out in exactly one of them.
        fold: which one, 0 to below `folds`.
        seed: integer.
        names: class names, for the error.

    Returns:
        (training rows, validation rows), int64, each sorted.

    Raises:
        UserError: a class has fewer images than folds.
    """
    values, counts = np.unique(labels, return_counts=True)
    if counts.min() < folds:
        rare = values[counts.argmin()]
        name = names[rare] if names else rare
        raise UserError(
            f"{folds} folds need {folds} images of each class, {name} has {counts.min()}; give fewer --folds"
        )
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels)
    return list(parts)[fold]


def copy_split(data: Path, out: Path, validation_split: float, seed: int) -> list[str]:
    """Copies class folders into `out/train` and `out/validation`.

    Returns:
        Lines to print: notes of the reader, and the number of images in each part.

    Raises:
        UserError: `out` exists; see `load_folder` and `split`.
    """
    if out.exists():
        raise UserError(f"--out must be a new folder, {out} exists; give another one, or remove it first")
    images = load_folder(data)
    parts = dict(zip(("train", "validation"), split(images.labels, validation_split, seed, images.names), strict=True))
    with atomic_folder(out) as temporary:
        for part, rows in parts.items():
            for row in rows:
                source = Path(images.paths[row])
                target = temporary / part / source.relative_to(data)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
    return [*images.notes, ", ".join(f"{len(rows)} images in {out / part}" for part, rows in parts.items())]
