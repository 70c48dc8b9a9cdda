"""Fills in a competition's sample_submission.csv with the model's predictions for a folder of test images."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import atomically
from common.folders import printable
from common.image_file import NO_HEIC, decode, read_file, reason_of
from common.progress import progress
from competition.package.image_ids import ImageIds
from competition.package.kaggle_kernel import are_too_many, fill_unreadable, predict_batch, write_answers
from competition.package.sample import Sample, read_sample
from competition.package.trained_on import HASH_BYTES, count_trained_on

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
    model: Any,
    folder: Path | str,
    sample_path: Path | str,
    out: Path | str,
    told: str | None = None,
    model_folder: Path | None = None,
) -> tuple[Path, list[str]]:
    """Predicts every image of a sample and writes the answers in the sample's format and order.

    Args:
        model: instance of the submission's `model` class, with `names` and `predict_proba`.
        folder: the test images.
        sample_path: the competition's sample_submission.csv.
        out: the CSV file; an existing file is replaced only at the end.
        told: see `plan`.
        model_folder: folder of the model's SavedModel, which may tell what it was trained on.

    Returns:
        (path of the CSV file, notes for the user; the first says which answer stands for which class).

    Raises:
        UserError: see `plan`; or too many images cannot be read, see `fill_unreadable`.
    """
    out = Path(out)
    sample, paths, notes = plan(folder, sample_path, model.names, told)
    reader = _FileReader(model)
    probabilities = _predict(reader, [str(path) for path in paths])
    if not np.isfinite(probabilities).all():
        raise UserError("the model must return probabilities, got NaN or infinity; train it again")
    out.parent.mkdir(parents=True, exist_ok=True)
    atomically(out, lambda temporary: write_answers(temporary, sample.ids, probabilities, sample.form()))
    seen = count_trained_on(model_folder, reader.hashes.values()) if model_folder else 0
    if seen:
        notes.append(f"warning: the model was trained on {seen} of these {len(paths)} images; check --images")
    return out, notes


class _FileReader:
    """A model that reads its images as training does, so that it also takes HEIC files and very large photographs.

    hashes: path → hash of the file, as `trained_on` has it, of the images that were read.
    """

    def __init__(self, model: Any) -> None:
        self.names, self._model = model.names, model
        self.hashes: dict[str, bytes] = {}

    def predict_proba(self, paths: Iterable[str]) -> np.ndarray:
        """Returns probabilities [n, classes]. One image is in memory at a time."""
        return self._model.predict_proba(map(self._read_pixels, paths))

    def _read_pixels(self, path: str) -> np.ndarray:
        """Returns uint8 [h, w, 3].

        Raises:
            ValueError: the image is damaged, or no image.
            UserError, MemoryError: this computer cannot read the file; the image may be good.
        """
        try:
            data = read_file(Path(path))
            self.hashes[path] = hashlib.sha256(data).digest()[:HASH_BYTES]
            return np.asarray(decode(data).image)
        except MemoryError:
            raise
        except Exception as error:  # each decoder of Pillow raises exceptions of its own
            if str(error) == NO_HEIC:
                raise UserError(f"cannot read {printable(path)}: {error}") from error
            if isinstance(error, OSError) and error.errno is not None:
                fix = "repair the disk or the permissions"
                raise UserError(f"cannot read {printable(path)}: {error.strerror}; {fix}") from error
            raise ValueError(reason_of(error)) from error


def _predict(reader: _FileReader, paths: Sequence[str]) -> np.ndarray:
    """Returns probabilities [n, classes]; those of unreadable images are the mean of the others, as in the notebook."""
    unreadable: dict[str, str] = {}
    starts = progress(range(0, len(paths), BATCH_SIZE), "predicting", unit="batch")
    parts = []
    for start in starts:
        parts.append(predict_batch(reader, paths[start : start + BATCH_SIZE], unreadable))
        if are_too_many(unreadable, len(paths)):
            break
    probabilities = np.concatenate(parts)
    if unreadable:
        try:
            fill_unreadable(probabilities, paths[: len(probabilities)], unreadable, len(paths))
        except ValueError as error:
            raise UserError(str(error)) from error
    return probabilities
