"""Fills in a competition's sample_submission.csv with the model's predictions for a folder of test images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import atomically
from common.folders import printable
from common.image_file import read_image, reason_of
from common.progress import progress
from competition.package.image_ids import ImageIds
from competition.package.kaggle_kernel import write_answers
from competition.package.sample import Sample, read_sample

BATCH_SIZE = 32  # images that are read and predicted at once


def plan(
    folder: Path | str, sample_path: Path | str, names: Sequence[str], told: str | None = None, hidden: bool = False
) -> tuple[Sample, list[Path], list[str]]:
    """Reads a sample and finds its images, before anything is predicted.

    Args:
        folder: the test images.
        sample_path: the competition's sample_submission.csv.
        names: the model's class names.
        told: what the answers are, see `read_sample`; None decides it from the names and the sample.
        hidden: the folder may be empty, because its images are on Kaggle only.

    Returns:
        (the sample, the image of each id, notes for the user).

    Raises:
        UserError: see `read_sample` and `ImageIds`.
    """
    images = ImageIds(folder)
    sample = read_sample(sample_path, names, images, told)
    if hidden and not images.files:
        note = f"{printable(folder)} is empty: only the run on Kaggle shows whether ids and images match"
        return sample, [], [sample.mapping(names), note]
    paths, notes = images.find(sample.ids)
    return sample, paths, [sample.mapping(names), *notes]


def write_csv(
    model: Any, folder: Path | str, sample_path: Path | str, out: Path | str, told: str | None = None
) -> tuple[Path, list[str]]:
    """Predicts every image of a sample and writes the answers in the sample's format and order.

    Args:
        model: instance of the submission's `model` class, with `names` and `predict_proba`.
        folder: the test images.
        sample_path: the competition's sample_submission.csv.
        out: the CSV file; an existing file is replaced only if all images could be predicted.
        told: see `plan`.

    Returns:
        (path of the CSV file, notes for the user; the first says which answer stands for which class).

    Raises:
        UserError: see `plan`; or an image cannot be read.
    """
    out = Path(out)
    sample, paths, notes = plan(folder, sample_path, model.names, told)
    starts = progress(range(0, len(paths), BATCH_SIZE), "predicting", unit="batch")
    probabilities = np.concatenate([_predict(model, paths[start : start + BATCH_SIZE]) for start in starts])
    if not np.isfinite(probabilities).all():
        raise UserError("the model must return probabilities, got NaN or infinity; train it again")
    out.parent.mkdir(parents=True, exist_ok=True)
    atomically(out, lambda temporary: write_answers(temporary, sample.ids, probabilities, sample.form()))
    return out, notes


def _predict(model: Any, paths: Sequence[Path]) -> np.ndarray:
    """Returns probabilities [n, classes]. One image is in memory at a time."""
    return model.predict_proba(_read_pixels(path) for path in paths)


def _read_pixels(path: Path) -> np.ndarray:
    try:
        return np.asarray(read_image(path)[0])
    except MemoryError:
        raise
    except Exception as error:  # each decoder of Pillow raises exceptions of its own
        raise UserError(
            f"{printable(path)} cannot be read ({reason_of(error)}); replace it, every id needs an answer"
        ) from error
