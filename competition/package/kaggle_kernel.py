"""Writes the answers of a Kaggle competition. This text is also a cell of the notebook that runs on Kaggle.

The notebook's last cell calls `predict_hidden`. The local layout uses the same functions, so that both write the same
answers. Needs Python 3.8, numpy and the submission's model.py; nothing is downloaded.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import os
import re
import time
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

BATCH_SIZE = 32  # images that are predicted between two looks at the clock
PAUSE = 30  # seconds between two lines that say how far it is
MAX_UNREADABLE = 0.05  # share of the images; more are a fault of the notebook, not of the images
DEPTH = 3  # levels of folders that are searched for an input: Kaggle has used several places
DIGITS = 12  # of a probability
SMALLEST = 1e-6  # of a probability: a log-loss is infinite for 0


def predict_hidden(settings: dict[str, Any], out: str = "submission.csv") -> None:
    """Predicts the images of the competition's sample as it is on Kaggle, and writes the answers in its form.

    Args:
        settings: `dataset`, `competition`, `sample` and `images` say where the inputs are, `sha256` is the digest of
            the model's files, see `digest_of`, `form` is the form of the answers, see `write_answers`.
        out: the CSV file.

    Raises:
        ValueError: an input is missing or ambiguous, the dataset holds another model, or too many images cannot be
            read.
    """
    root = Path(os.environ.get("KAGGLE_INPUT", "/kaggle/input"))
    dataset, competition = locate(root, settings["dataset"]), locate(root, settings["competition"])
    if digest_of(dataset) != settings["sha256"]:  # Kaggle runs a notebook with the old version until it has the new one
        raise ValueError(
            f"{dataset} must hold the model that the notebook was built for, got another version; wait until `kaggle "
            "datasets status` says ready, then push the notebook again"
        )
    ids = read_ids(locate(competition, settings["sample"]), settings["form"])
    paths = find_images(locate(competition, settings["images"]), ids)
    network = load_code(dataset / "model.py").model(str(dataset))
    write_answers(Path(out), ids, predict(network, paths), settings["form"])
    print(f"{out}: {len(ids)} images")


def locate(folder: Path, name: str) -> Path:
    """Returns the file or folder of this name that is nearest to the top of a folder.

    Raises:
        ValueError: there is none, or there are several on one level.
    """
    level = [folder] if folder.is_dir() else []
    for _ in range(DEPTH):
        found = [parent / name for parent in level if (parent / name).exists()]
        if len(found) > 1:
            raise ValueError(f"{name} must be one input, got {found[0]} and {found[1]}; remove one of them")
        if found:
            return found[0]
        level = [Path(entry) for parent in level for entry in os.scandir(parent) if entry.is_dir()]
    there = sorted(entry.name for entry in os.scandir(folder)) if folder.is_dir() else ["no such folder"]
    got = ", ".join(there[:20])
    raise ValueError(f"{folder} must contain {name}, got {got}; add it to the notebook's inputs")


def digest_of(folder: Path) -> str:
    """Returns the SHA-256 of a model's files: of their names and contents, in the order of the names.

    Args:
        folder: contains model.py and SubmissionModel.
    """
    network, digest = folder / "SubmissionModel", hashlib.sha256()
    paths = [folder / "model.py", network / "saved_model.pb", *(network / "variables").rglob("*")]
    files = {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}
    for name in sorted(files):
        digest.update(f"{name}\0{files[name].stat().st_size}\0".encode())  # so that no file runs into the next one
        with open(files[name], "rb") as file:
            for part in iter(lambda: file.read(1 << 20), b""):
                digest.update(part)
    return digest.hexdigest()


def load_code(path: Path) -> Any:
    """Returns a Python file as a module."""
    spec = importlib.util.spec_from_file_location("submitted", path)
    assert spec is not None and spec.loader is not None  # holds for every .py file
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- the sample's ids and their images


def read_rows(path: Path, delimiter: str = ",") -> list[list[str]]:
    """Returns the rows of a CSV file without blank lines."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        return [row for row in csv.reader(file, delimiter=delimiter) if row]


def read_ids(path: Path, form: dict[str, Any]) -> list[str]:
    """Returns the ids of a sample.

    Raises:
        ValueError: it has another header than the sample that the notebook was built for.
    """
    rows, header = read_rows(path, form["delimiter"]), list(form["header"])
    if header and rows[:1] != [header]:
        raise ValueError(f"{path} must have the header {header}, got {rows[:1]}; build the notebook from this sample")
    return [row[form["id_column"]] for row in rows[bool(header) :]]


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _without_case(text: str) -> str:
    return _composed(text).casefold()


def _without_zeros(text: str) -> str:
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", _without_case(text))


# How an id and a file name are compared. A looser form is used only for ids that no stricter one matches.
FORMS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("", str),
    ("another encoding of accents", _composed),
    ("other upper and lower case", _without_case),
    ("other leading zeros", _without_zeros),
)


class ImageIndex:
    """Image files by id. An id is a file name or a path below the folder, with or without the suffix.

    Args:
        files: the images, relative to their folder.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self._by_form: list[dict[str, list[Path]]] = []

    def matches(self, name: str) -> tuple[int, list[Path]]:
        """Returns (the strictest of `FORMS` in which an id matches, the files that match)."""
        for number, (_, form) in enumerate(FORMS):
            files = self._index(number).get(form(name))
            if files:
                return number, files
        return 0, []

    def _index(self, number: int) -> dict[str, list[Path]]:
        """{id in a form: files}."""
        while len(self._by_form) <= number:
            form = FORMS[len(self._by_form)][1]
            index: dict[str, list[Path]] = {}
            for path in self.files:
                for key in {path.name, path.stem, path.as_posix(), path.with_suffix("").as_posix()}:
                    files = index.setdefault(form(key), [])
                    if path not in files[-1:]:
                        files.append(path)
            self._by_form.append(index)
        return self._by_form[number]


def find_images(folder: Path, ids: Sequence[str]) -> list[str]:
    """Returns the path of each id's image.

    Raises:
        ValueError: an id has no image or several, or two ids have the same one.
    """
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    index = ImageIndex([path for path in files if not any(part.startswith(".") for part in path.parts)])
    found: dict[Path, str] = {}
    paths = []
    for name in ids:
        matching = index.matches(name)[1]
        if len(matching) != 1:
            got = " and ".join(map(str, matching[:2])) or f"none of {len(index.files)} files"
            raise ValueError(f"the id {name} must have one image in {folder}, got {got}; build the notebook again")
        if found.setdefault(matching[0], name) != name:
            raise ValueError(f"the ids {found[matching[0]]} and {name} both match {matching[0]}; build it again")
        paths.append(str(folder / matching[0]))
    return paths


# --- the answers


def predict(network: Any, paths: Sequence[str]) -> np.ndarray:
    """Returns the probabilities [n, classes] of image files, and prints how far it is.

    An image that cannot be read gets the mean of the others, because a hidden image cannot be repaired, and without its
    answer nothing is scored.

    Raises:
        ValueError: more than one image and more than 5 % of them cannot be read, or the only one.
    """
    parts, start = [], time.monotonic()
    unreadable: dict[str, str] = {}
    shown = start
    for place in range(0, len(paths), BATCH_SIZE):
        parts.append(predict_batch(network, paths[place : place + BATCH_SIZE], unreadable))
        if are_too_many(unreadable, len(paths)):
            break
        now, done = time.monotonic(), min(place + BATCH_SIZE, len(paths))
        if now - shown > PAUSE:
            shown, left = now, (now - start) / done * (len(paths) - done)
            print(f"{done} of {len(paths)} images, {left / 60:.0f} minutes left", flush=True)
    probabilities = np.concatenate(parts)
    if unreadable:
        fill_unreadable(probabilities, paths[: len(probabilities)], unreadable, len(paths))
    return probabilities


def predict_batch(network: Any, paths: Sequence[str], unreadable: dict[str, str]) -> np.ndarray:
    """Returns the probabilities [n, classes] of image files, and notes those that cannot be read: {path: reason}."""
    try:
        return network.predict_proba(iter(paths))
    except ValueError as error:
        if len(paths) == 1:
            unreadable[paths[0]] = str(error).split("\n")[0]
            return np.zeros((1, len(network.names)), np.float32)
    return np.concatenate([predict_batch(network, [path], unreadable) for path in paths])


def are_too_many(unreadable: dict[str, str], count: int) -> bool:
    """Whether more images of `count` cannot be read than one or 5 %."""
    return len(unreadable) > max(1, MAX_UNREADABLE * count)


def fill_unreadable(probabilities: np.ndarray, paths: Sequence[str], unreadable: dict[str, str], count: int) -> None:
    """Sets the rows of images that cannot be read to the mean of the others. Raises ValueError if they are too many.

    Args:
        probabilities: [n, classes], of the images in `paths`.
        paths: the images that were predicted, n of `count`.
        unreadable: path → reason.
        count: number of all images.
    """
    path, reason = next(iter(unreadable.items()))
    what = f"{len(unreadable)} of {len(paths)} images cannot be read, {path} first ({reason})"
    if are_too_many(unreadable, count) or len(unreadable) == len(paths):
        raise ValueError(f"{what}; look at the files, and train and predict with images of this kind")
    rows = np.array([path in unreadable for path in paths])
    probabilities[rows] = probabilities[~rows].mean(axis=0)
    print(f"warning: {what}; the answer is the mean of the others", flush=True)


def write_answers(path: Path, ids: Sequence[str], probabilities: np.ndarray, form: dict[str, Any]) -> None:
    """Writes a CSV file of answers.

    Args:
        path: the file.
        ids: the images' ids.
        probabilities: float32 array [n, classes].
        form: `header` (names of the columns, or empty), `id_column` (the place of the ids), `delimiter`, and either
            `labels` (what is written for each class) and `top` (labels in each cell, the most probable first), or
            `columns` (the class of each column of probabilities).

    Raises:
        ValueError: a probability is not finite.
    """
    if not np.isfinite(probabilities).all():
        raise ValueError("the model must return probabilities, got NaN or infinity; train it again")
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=form["delimiter"], lineterminator="\n")
        if form["header"]:
            writer.writerow(form["header"])
        for place, name in enumerate(ids):
            cells = _cells(probabilities[place], form)
            cells.insert(form["id_column"], name)
            writer.writerow(cells)


def _cells(row: np.ndarray, form: dict[str, Any]) -> list[str]:
    """Returns the answers for one image, from its probabilities [classes]."""
    if form["labels"]:
        best = np.argsort(-row, kind="stable")[: form["top"]]
        return [" ".join(form["labels"][place] for place in best)]
    written = _written_probabilities(row)
    return [written[column] for column in form["columns"]]


def _written_probabilities(row: np.ndarray) -> list[str]:
    """Returns probabilities of at least 1e-6 and at most 1 - 1e-6 that sum to exactly 1 as they are written.

    They are mixed with 1e-6 for each class. Clipping them would make images equal, which lowers an AUC.
    """
    shares = row / row.sum(dtype=np.float64)  # 1 - 1e-9 is not 1, as it is in float32
    units = np.rint((SMALLEST + (1 - len(row) * SMALLEST) * shares) * 10**DIGITS).astype(np.int64)
    units[row.argmax()] += 10**DIGITS - units.sum()
    return [f"{unit / 10**DIGITS:.{DIGITS}f}" for unit in units]
