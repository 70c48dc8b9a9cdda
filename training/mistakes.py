"""The worst mistakes of a run or of a cross-validation, as thumbnails: what to look at before the next experiment."""

import json
from pathlib import Path

import numpy as np

from training.crossval import OUT_OF_FOLD
from training.data import load_folder
from training.errors import UserError
from training.evaluate import figure_of, save_figure
from training.recipe import Recipe
from training.run import HELD, held_out

COLUMNS = 5  # thumbnails in a row


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
        UserError: no such run, no validation part, other images, or no mistake.
    """
    images = load_folder(data)
    rows, labels, probabilities = _answers(Path(folder), images)
    if not np.array_equal(labels, images.labels[rows]):
        raise UserError(f"{folder} was made of other images than those in {data}; give its own --data")
    chosen = worst_mistakes(labels, probabilities, count)
    if not len(chosen):
        raise UserError(f"no mistake among the {len(labels)} images of {folder}")
    lines = []
    height = -(-len(chosen) // COLUMNS)
    figure, axes = figure_of(height, COLUMNS, (2.2 * COLUMNS, 2.6 * height), squeeze=False)
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
    if (folder / OUT_OF_FOLD).is_file():
        with np.load(folder / OUT_OF_FOLD) as file:
            if len(file["labels"]) != len(images):
                raise UserError(
                    f"{folder} was made of {len(file['labels'])} images, the data folder has {len(images)}; give its own --data"
                )
            return np.arange(len(images)), file["labels"], file["probabilities"][0]
    if not (folder / HELD).is_file():
        raise UserError(f"{folder} has neither {HELD} nor {OUT_OF_FOLD}; give a finished run that held images out, or a cross-validation")
    fields = json.loads((folder / "recipe.json").read_text("utf-8"))["recipe"]
    recipe = Recipe(**{name: fields[name] for name in ("validation", "split_seed", "folds", "fold")})
    _, rows = held_out(recipe, images)
    with np.load(folder / HELD) as file:
        if len(file["labels"]) != len(rows):
            raise UserError(f"{folder} held out {len(file['labels'])} images, here it would be {len(rows)}; give its own --data")
        return rows, file["labels"], file["probabilities"]
