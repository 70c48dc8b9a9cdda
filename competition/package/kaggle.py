"""Fills in a competition's sample_submission.csv with the model's predictions for a folder of test images."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from common.errors import UserError
from common.files import atomically
from common.images import read_image
from common.progress import progress

BATCH_SIZE = 32  # images that are read and predicted at once

AnswerKind = Literal["names", "numbers", "probabilities"]


@dataclass(frozen=True)
class Sample:
    """The format that a `sample_submission.csv` requires.

    header: column names; the first column holds the ids.
    ids: image ids in the order of the file.
    kind: "names" or "numbers" if one column takes the class, "probabilities" if there is one column per class.
    """

    header: tuple[str, ...]
    ids: tuple[str, ...]
    kind: AnswerKind


def read_sample(path: Path | str, names: Sequence[str]) -> Sample:
    """Reads a `sample_submission.csv`.

    Args:
        path: the file.
        names: the model's class names.

    Returns:
        `Sample`.

    Raises:
        UserError: the file cannot be read, has no rows or a repeated id, or its columns do not match the classes.
    """
    header, *body = _read_rows(path)
    ids = tuple(row[0] for row in body)
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated:
        raise UserError(f"--sample {path} has the id {repeated[0]} more than once")
    kind = _probability_columns(path, header, names) if len(header) > 2 else _class_column(path, header, body, names)
    return Sample(tuple(header), ids, kind)


def find_images(folder: Path | str, ids: Sequence[str]) -> tuple[list[Path], int]:
    """Finds the file of each id. An id is a file name or a path below `folder`, with or without the suffix.

    Args:
        folder: the test images, in any subfolders.
        ids: image ids.

    Returns:
        (paths in the order of `ids`, number of other files).

    Raises:
        UserError: the folder does not exist, or an id matches no file or several files.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"--images: no folder at {folder}")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    by_id: dict[str, list[Path]] = {}
    for path in files:
        relative = path.relative_to(folder)
        for key in {path.name, path.stem, relative.as_posix(), relative.with_suffix("").as_posix()}:
            by_id.setdefault(key, []).append(path)
    missing = [name for name in ids if name not in by_id]
    if missing:
        count = f"{len(missing)} of the sample's {len(ids)} ids"
        raise UserError(f"{folder} has no image for {count}, the first is {missing[0]}")
    for name in ids:
        if len(by_id[name]) > 1:
            raise UserError(f"the id {name} matches {by_id[name][0]} and {by_id[name][1]}; keep one of them")
    found = [by_id[name][0] for name in ids]
    return found, len(files) - len(set(found))


def write_csv(model: Any, folder: Path | str, sample_path: Path | str, out: Path | str) -> tuple[Path, list[str]]:
    """Predicts every image of a sample and writes the answers in the sample's format and order.

    Args:
        model: instance of the submission's `model` class, with `names` and `predict_proba`.
        folder: the test images.
        sample_path: the competition's sample_submission.csv.
        out: the CSV file; an existing file is replaced only if all images could be predicted.

    Returns:
        (path of the CSV file, notes for the user).

    Raises:
        UserError: see `read_sample` and `find_images`; or an image cannot be read.
    """
    out = Path(out)
    sample = read_sample(sample_path, model.names)
    paths, other_files = find_images(folder, sample.ids)
    starts = progress(range(0, len(paths), BATCH_SIZE), "predicting", unit="batch")
    probabilities = np.concatenate([_predict(model, paths[start : start + BATCH_SIZE]) for start in starts])

    def save(temporary: Path) -> None:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(sample.header)
            for name, row in zip(sample.ids, probabilities, strict=True):
                writer.writerow([name, *_cells(row, sample, model.names)])

    out.parent.mkdir(parents=True, exist_ok=True)
    atomically(out, save)
    return out, [f"{other_files} other files in {folder} are not in the sample"] if other_files else []


def _read_rows(path: Path | str) -> list[list[str]]:
    """Returns the header and at least one row, all of the same length of two or more."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--sample {path}: {error}; give the competition's sample_submission.csv") from error
    if len(rows) < 2 or len(rows[0]) < 2:
        raise UserError(f"--sample {path} needs a header of two or more columns and a line for each image")
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise UserError(f"--sample {path}, line {number} has {len(row)} columns, the header has {len(rows[0])}")
    return rows


def _probability_columns(path: Path | str, header: list[str], names: Sequence[str]) -> AnswerKind:
    if sorted(header[1:]) != sorted(names):
        different = sorted(set(header[1:]) ^ set(names))[:5]
        difference = ", ".join(different) or "number"
        raise UserError(
            f"--sample {path}: its columns and the model's classes differ in {difference}; train on its classes"
        )
    return "probabilities"


def _class_column(path: Path | str, header: list[str], body: list[list[str]], names: Sequence[str]) -> AnswerKind:
    values = {row[1] for row in body}
    if values <= set(names):
        return "names"
    if all(value.isdecimal() and int(value) < len(names) for value in values):
        return "numbers"
    other = min(values - set(names))
    raise UserError(
        f"--sample {path}: the values of {header[1]} must be the model's classes "
        f"or numbers from 0 to {len(names) - 1}, got {other!r}"
    )


def _predict(model: Any, paths: Sequence[Path]) -> np.ndarray:
    """Returns probabilities [n, classes]. Images of one size are predicted as one batch."""
    images = [_read_pixels(path) for path in paths]
    if len({image.shape for image in images}) == 1:
        return model.predict_proba(np.stack(images))
    return np.concatenate([model.predict_proba(image) for image in images])


def _read_pixels(path: Path) -> np.ndarray:
    try:
        return np.asarray(read_image(path)[0])
    except Exception as error:  # each decoder of Pillow raises exceptions of its own
        raise UserError(f"{path} cannot be read as an image ({error}); replace or remove it") from error


def _cells(row: np.ndarray, sample: Sample, names: Sequence[str]) -> list[str]:
    """Returns the cells of one image after the id."""
    if sample.kind == "probabilities":
        return [f"{row[names.index(column)]:.6f}" for column in sample.header[1:]]
    best = int(row.argmax())
    return [names[best] if sample.kind == "names" else str(best)]
