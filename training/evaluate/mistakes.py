"""The worst mistakes of a run or of a cross-validation, as thumbnails."""

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import digest
from common.folders import printable
from common.images import Images
from training.data.split import saved_val_rows
from training.evaluate.crossval import require_same_classes
from training.evaluate.plots import new_figure, save_figure
from training.inputs import Inputs, load_inputs
from training.run_folder import (
    FIRST_FOLD,
    OUT_OF_FOLD,
    VAL,
    best_of,
    read_record,
    run_file,
    saved_probabilities,
)

COLUMNS = 5  # thumbnails in a row
MAX_COUNT = 500


def worst_mistakes(labels: np.ndarray, probabilities: np.ndarray, count: int) -> np.ndarray:
    """Returns the misclassified images with the lowest probability of the true class, worst first: int [at most count].

    Args:
        labels: int [n].
        probabilities: float [n, classes].
        count: how many.
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(probabilities[wrong, labels[wrong]], kind="stable")][:count]


def draw_mistakes(folder: Path, inputs: Inputs, out: Path, count: int = 15) -> list[str]:
    """Draws the worst mistakes on images that the model was not trained on.

    Args:
        folder: a finished run with a validation set, also that of `auto`, or a cross-validation.
        inputs: the images that it was trained on: `data`, `labels`, `label_columns` and `validation`.
        out: the PNG file.
        count: how many thumbnails at most.

    Returns:
        One line for each mistake: path, true class and predicted class with their probabilities. Without a mistake
        there is no line and no picture.

    Raises:
        UserError: no such run, no validation set, damaged files, other images, or a count out of range.
    """
    if not 1 <= count <= MAX_COUNT:
        raise UserError(f"--count must be a whole number from 1 to {MAX_COUNT}, got {count}")
    images, rows, labels, probabilities = read_predictions(Path(folder), inputs)
    chosen = worst_mistakes(labels, probabilities, count)
    if not len(chosen):
        return []
    height = -(-len(chosen) // COLUMNS)
    figure, axes = new_figure(height, COLUMNS, (2.2 * COLUMNS, 2.6 * height), squeeze=False)
    figure.get_layout_engine().set(h_pad=0.15)  # inches, so that the first line of a title is not cut off
    for axis in axes.flat:
        axis.axis("off")
    lines = [
        _draw(axis, images, int(rows[place]), probabilities[place])
        for place, axis in zip(chosen, axes.flat, strict=False)
    ]
    save_figure(figure, Path(out))
    return lines


def _draw(axis: Any, images: Images, row: int, probabilities: np.ndarray) -> str:
    classes = (images.labels[row], probabilities.argmax())
    true, predicted = (f"{images.names[c]} {probabilities[c]:.0%}" for c in classes)
    path = Path(images.paths[row])
    folder, name = printable(path.parent.name), printable(path.name)
    axis.imshow(images.images[row])
    axis.set_title(f"true {true}\npredicted {predicted}\n{name}", fontsize=8)
    return f"{folder}/{name}: true {true}, predicted {predicted}"


def read_predictions(folder: Path, inputs: Inputs) -> tuple[Images, np.ndarray, np.ndarray, np.ndarray]:
    """Reads the predictions of a cross-validation, or of a run's validation set.

    Returns:
        All images, the rows of those with predictions, their labels int [m], their probabilities float [m, classes].

    Raises:
        UserError: no such run, no validation set, damaged files, or other images.
    """
    try:
        return _read_predictions(folder, inputs)
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{folder} is damaged ({type(error).__name__}: {error}); train it again") from error


def _read_predictions(folder: Path, inputs: Inputs) -> tuple[Images, np.ndarray, np.ndarray, np.ndarray]:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; check the path")
    is_crossval = (folder / OUT_OF_FOLD).is_file()
    run = folder / FIRST_FOLD if is_crossval else best_of(folder)
    # The best run of `auto` may be trained on the held-out images; `auto` keeps the predictions of before.
    found = [run_file(place, OUT_OF_FOLD if is_crossval else VAL) for place in (folder, run)]
    path = next((path for path in found if path.is_file()), None)
    if path is None:
        raise UserError(
            f"{folder} must be a finished run with a validation set, or a cross-validation; "
            f"it has neither {VAL} nor {OUT_OF_FOLD}"
        )
    record = read_record(run)
    images, _ = load_inputs(replace(inputs, size=record.image_shape, max_images=record.max_images))
    require_same_classes(record, images.names, folder)
    if record.data_sha256 != digest(images.images, images.labels):
        raise UserError(
            f"--data must be the images that {folder} was trained on, with the same --labels and --validation; "
            f"{len(images)} other images were given"
        )
    with np.load(path) as file:
        labels, probabilities = file["labels"], saved_probabilities(file, path)
        if is_crossval:
            return images, np.arange(len(images)), labels, probabilities[0]
        return images, saved_val_rows(file, record.recipe.data, images), labels, probabilities
