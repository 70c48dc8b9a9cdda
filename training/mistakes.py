"""The worst mistakes of a run or of a cross-validation, as thumbnails: what to look at before the next experiment."""

import json
import zipfile
from pathlib import Path

import numpy as np

from training.crossval import OUT_OF_FOLD
from training.data import load_folder
from training.errors import UserError
from training.evaluate import figure_of, save_figure
from training.files import digest
from training.recipe import Recipe
from training.run import HELD, held_out

COLUMNS = 5  # thumbnails in a row
MOST = 500  # in one picture


def worst_mistakes(labels, probabilities, count):
    """The images answered wrong whose true class was given the least probability, worst first: int [at most count].

    Args:
        labels: int [n].
        probabilities: float [n, classes].
        count: how many.
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(probabilities[wrong, labels[wrong]], kind="stable")][:count]


def draw_mistakes(folder, data, out, count=15):
    """Draws the worst mistakes on images that the network was not trained on.

    Args:
        folder: a finished run with a validation part, or a cross-validation.
        data: the folder of class folders that it was trained on.
        out: the picture (PNG).
        count: how many thumbnails at most.

    Returns:
        One line for each mistake: path, truth and answer with their probabilities.

    Raises:
        UserError: no such run, no validation part, damaged files, other images, a senseless count, or no mistake.
    """
    if not 1 <= count <= MOST:
        raise UserError(f"--count {count}: expected a whole number from 1 to {MOST}")
    images = load_folder(data)
    try:
        rows, labels, probabilities = _answers(Path(folder), images)
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{folder} is damaged ({type(error).__name__}: {error}); make it again") from error
    chosen = worst_mistakes(labels, probabilities, count)
    if not len(chosen):
        raise UserError(f"no mistake among the {len(labels)} images of {folder}")
    lines = []
    height = -(-len(chosen) // COLUMNS)
    figure, axes = figure_of(height, COLUMNS, (2.2 * COLUMNS, 2.6 * height), squeeze=False)
    figure.get_layout_engine().set(h_pad=0.15)  # inches; a title's first line would be cut off
    for axis in axes.flat:
        axis.axis("off")
    for place, axis in zip(chosen, axes.flat, strict=False):
        answer = probabilities[place].argmax()
        truth, said = (f"{images.names[c]} {probabilities[place, c]:.0%}" for c in (labels[place], answer))
        path = Path(images.paths[rows[place]])
        axis.imshow(images.images[rows[place]])
        axis.set_title(f"is {truth}\nsaid {said}\n{path.name}", fontsize=8)
        lines.append(f"{path.parent.name}/{path.name}: is {truth}, said {said}")
    save_figure(figure, out)
    return lines


def _answers(folder, images):
    """(rows of the images, their labels, their probabilities) of a cross-validation or of a run."""
    folds = (folder / OUT_OF_FOLD).is_file()
    run, answers = (folder / "seed0-fold0", folder / OUT_OF_FOLD) if folds else (folder, folder / HELD)
    if not answers.is_file():
        raise UserError(f"{folder} has neither {HELD} nor {OUT_OF_FOLD}; give a finished run that held images out, or a cross-validation")
    record = json.loads((run / "recipe.json").read_text("utf-8"))
    if record["data_sha256"] != digest(images.images, images.labels):
        raise UserError(f"{folder} was made of other images; give its own --data")
    with np.load(answers) as file:
        labels, probabilities = file["labels"], file["probabilities"]
    if folds:
        return np.arange(len(images)), labels, probabilities[0]
    recipe = Recipe(**{name: record["recipe"][name] for name in ("validation", "split_seed", "folds", "fold")})
    return held_out(recipe, images)[1], labels, probabilities
