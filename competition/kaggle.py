"""A folder of test images + sample_submission.csv → submission.csv, checked against the sample id by id."""

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data import read_image
from training.errors import UserError
from training.files import atomically
from training.progress import progress

BATCH = 32  # images


@dataclass(frozen=True)
class Sample:
    """What a `sample_submission.csv` asks for.

    header: its columns, the first one of them the ids'. ids: in its order. kind: "names" or "numbers" where one column
    takes the class, "probabilities" where each class has its own.
    """

    header: tuple
    ids: tuple
    kind: str


def read_sample(path, names):
    """Reads a `sample_submission.csv`.

    Args:
        path: the file.
        names: the model's class names.

    Returns:
        `Sample`.

    Raises:
        UserError: no such file, no table, an id twice, or columns that the model has no answer for.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--sample {path}: {error}; give the competition's sample_submission.csv") from error
    if len(rows) < 2 or len(rows[0]) < 2:
        raise UserError(f"--sample {path} needs a header of two or more columns and a line for each image")
    header, body = tuple(rows[0]), rows[1:]
    for number, row in enumerate(body, 2):
        if len(row) != len(header):
            raise UserError(f"--sample {path}, line {number} has {len(row)} columns, the header has {len(header)}")
    ids = tuple(row[0] for row in body)
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError(f"--sample {path} has the id {twice[0]} more than once")
    return Sample(header, ids, _kind(path, header, body, names))


def find_images(folder, ids):
    """The file of each id, which is its name with or without the ending.

    Returns:
        (list of paths in the order of `ids`, number of other files).

    Raises:
        UserError: no folder, an id without a file, or with two.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"--images: no folder at {folder}")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    by_id = {}
    for path in files:
        for key in {path.name, path.stem, *(p.relative_to(folder).as_posix() for p in (path, path.with_suffix("")))}:
            by_id.setdefault(key, []).append(path)
    missing = [name for name in ids if name not in by_id]
    if missing:
        raise UserError(f"{folder} has no image for {len(missing)} of the sample's {len(ids)} ids, the first is {missing[0]}")
    double = next((name for name in ids if len(by_id[name]) > 1), None)
    if double is not None:
        raise UserError(f"the id {double} fits {by_id[double][0]} and {by_id[double][1]}; keep one of them")
    found = [by_id[name][0] for name in ids]
    return found, len(files) - len(set(found))


def write_csv(network, folder, sample_path, out):
    """Predicts every image of a sample and writes the answers in its own form and order.

    Args:
        network: the submission's `model`, with `names` and `predict_proba`.
        folder: the test images.
        sample_path: the competition's sample_submission.csv.
        out: the CSV file; an older one stays as it is until the new one is whole.

    Returns:
        (path of the CSV file, notes).

    Raises:
        UserError: see `read_sample` and `find_images`; an image that cannot be read.
    """
    out = Path(out)
    sample = read_sample(sample_path, network.names)
    paths, others = find_images(folder, sample.ids)
    probabilities = np.concatenate(
        [_predict(network, paths[start : start + BATCH]) for start in progress(range(0, len(paths), BATCH), "predicting", unit="batch")]
    )

    def save(temporary):
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(sample.header)
            writer.writerows([name, *_cells(row, sample, network.names)] for name, row in zip(sample.ids, probabilities, strict=True))

    out.parent.mkdir(parents=True, exist_ok=True)
    atomically(out, save)
    return out, [f"{others} other files in {folder} are not in the sample"] if others else []


def _kind(path, header, body, names):
    if len(header) > 2:
        if set(header[1:]) != set(names) or len(header) - 1 != len(names):
            strange = sorted(set(header[1:]) ^ set(names))
            raise UserError(
                f"--sample {path}: its columns and the model's classes differ in {', '.join(strange[:5]) or 'number'}; train on its classes"
            )
        return "probabilities"
    values = {row[1] for row in body}
    if values <= set(names):
        return "names"
    if all(value.isdecimal() and int(value) < len(names) for value in values):
        return "numbers"
    other = next(value for value in sorted(values) if value not in names)
    raise UserError(f"--sample {path}: {header[1]} is {other!r}, neither one of the model's classes nor a number below {len(names)}")


def _predict(network, paths):
    """Probabilities [n, classes]; images of one size go through together."""
    images = [_pixels(path) for path in paths]
    if len({image.shape for image in images}) == 1:
        return network.predict_proba(np.stack(images))
    return np.concatenate([network.predict_proba(image) for image in images])


def _pixels(path):
    try:
        return np.asarray(read_image(path)[0])
    except Exception as error:  # each of Pillow's decoders raises its own
        raise UserError(f"{path} cannot be read as an image ({error}); replace or remove it") from error


def _cells(row, sample, names):
    if sample.kind == "probabilities":
        return [f"{row[names.index(column)]:.6f}" for column in sample.header[1:]]
    return [names[row.argmax()] if sample.kind == "names" else int(row.argmax())]
