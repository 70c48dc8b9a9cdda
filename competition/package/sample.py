"""Reads a Kaggle competition's sample_submission.csv: its header, its ids and what it takes as answers."""

import csv
import math
import re
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.folders import printable
from common.labels import FILE_COLUMNS, delimiter_of
from competition.package.answer import Answer, is_number, match_columns, match_values, own_numbers, parse_told
from competition.package.class_names import order_note, shortened
from competition.package.image_ids import ImageIds
from competition.package.kaggle_kernel import read_rows

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
ID_HEADER = re.compile(r"(.*[ _-])?id|.*(image|img|file|path).*", re.I)
FIRST_ROWS = 100  # by which the column of the ids is recognised
LISTED = 30  # classes of a mapping that are listed
COUNTS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Sample:
    """The format that a `sample_submission.csv` requires.

    header: column names, or empty if the file has none.
    id_column: which column holds the ids.
    ids: image ids in the order of the file.
    answer: what the other columns take.
    delimiter: what separates the columns.
    """

    header: tuple[str, ...]
    id_column: int
    ids: tuple[str, ...]
    answer: Answer
    delimiter: str = ","

    def form(self) -> dict[str, Any]:
        """Returns what `kaggle_kernel.write_answers` needs, as strings, numbers and lists."""
        form = {"header": self.header, "id_column": self.id_column, "delimiter": self.delimiter, **asdict(self.answer)}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in form.items()}

    def mapping(self, names: Sequence[str]) -> str:
        """Returns one line that says which answer stands for which class."""
        answer = self.answer
        if answer.kind == "probability":
            return f"answers: the probability of {names[answer.columns[0]]}"
        ranked = f"MAP@{answer.top}: {_in_words(answer.top)} labels in each cell, the most probable first; "
        start = ranked if answer.top > 1 else ""
        if answer.kind == "names" and answer.labels == tuple(names):
            return f"{start}labels: the class names as they are, {shortened(names, LISTED)}"
        written = answer.labels or [cell for place, cell in enumerate(self.header) if place != self.id_column]
        classes = names if answer.labels else [names[column] for column in answer.columns]
        pairs = [f"{label} = {name}" for label, name in zip(written, classes, strict=True)]
        text = f"{start}{'columns' if answer.columns else 'labels'}, {answer.kind}: {shortened(pairs, LISTED)}"
        spelled = [
            (label.replace(" ", "_"), name.replace(" ", "_")) for label, name in zip(written, classes, strict=True)
        ]
        is_named = answer.kind == "names" or all(name in label for label, name in spelled)
        note = "" if is_named else order_note(names)
        if not is_named and not note and not own_numbers(names):
            note = "the order of the class names is assumed, compare it with the competition's numbers"
        return f"{text}; {note}" if note else text


def _in_words(count: int) -> str:
    return COUNTS[count - 2] if 2 <= count < len(COUNTS) + 2 else str(count)


def read_sample(path: Path | str, names: Sequence[str], images: Container[str] = (), told: str | None = None) -> Sample:
    """Reads a `sample_submission.csv`.

    Args:
        path: the file.
        names: the model's class names.
        images: the known image ids, by which the column of the ids and a missing header are recognised.
        told: what the answers are, if the user says it: one of `answer.KINDS`, or probability:CLASS.

    Returns:
        `Sample`.

    Raises:
        UserError: `told` is invalid, the file cannot be read, has no rows or a repeated id, its columns do not match
            the classes, or it does not tell what its answers are.
    """
    parse_told(told, names)
    try:
        rows, delimiter = _read_rows(path)
        id_column = _id_column(rows, images)
        header = () if _is_id(rows[0][id_column], images) else tuple(rows[0])
        body = rows[1:] if header else rows
        if not body:
            raise UserError("it needs a line for each image below its header; give the competition's file")
        ids = tuple(row[id_column] for row in body)
        repeated = [name for name, count in Counter(ids).items() if count > 1]
        if repeated:
            raise UserError(f"it has the id {repeated[0]} more than once; keep one line for each image")
        return Sample(header, id_column, ids, _match(header, body, id_column, names, told), delimiter)
    except UserError as error:
        raise UserError(printable(f"--sample {path}: {error}")) from error


def _match(
    header: Sequence[str], body: Sequence[Sequence[str]], id_column: int, names: Sequence[str], told: str | None
) -> Answer:
    """Decides what the columns beside that of the ids take."""
    columns = [_stripped(cell, names) for place, cell in enumerate(header) if place != id_column]
    if len(body[0]) > 2:
        return match_columns(columns, names, told)
    values, column = {_stripped(row[1 - id_column], names) for row in body}, columns[0] if columns else ""
    if header and re.sub("[ -]", "_", header[id_column].lower()) not in FILE_COLUMNS:
        _require_header(column, values, names)
    return match_values(values, column, names, told)


def _stripped(cell: str, names: Sequence[str]) -> str:
    return cell if cell in names else cell.strip()


def _require_header(column: str, values: set[str], names: Sequence[str]) -> None:
    """Raises a UserError if the name of the column of answers is an answer, so that the line is that of an image."""
    numbers = all(map(_is_float, (column, *values)))
    words = column.split()
    listed = len(words) > 1 and (set(words) <= set(names) or all(map(is_number, words)))  # of MAP@k
    if column and (column in values or numbers or listed or (column in names and values <= set(names))):
        raise UserError(f"its first line must be a header, got the answer {column}; add a header such as id,label")


def _is_float(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _read_rows(path: Path | str) -> tuple[list[list[str]], str]:
    """Returns (at least one row, all of the same length of two or more; what separates the columns)."""
    try:
        delimiter = delimiter_of(Path(path).read_text("utf-8-sig"))
        rows = read_rows(Path(path), delimiter)
    except UnicodeDecodeError as error:
        raise UserError("it must be UTF-8; give the competition's sample_submission.csv as it is") from error
    except (OSError, csv.Error) as error:
        raise UserError(f"{error}; give the competition's sample_submission.csv") from error
    if not rows or len(rows[0]) < 2:
        raise UserError(
            "it needs a header of two or more columns and a line for each image; give the competition's file"
        )
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise UserError(f"line {number} has {len(row)} columns, the header has {len(rows[0])}; repair the line")
    return rows, delimiter


def _id_column(rows: list[list[str]], images: Container[str]) -> int:
    """The column with the most different ids of images; between equals one that is called so or has suffixes.

    If a column is called so, others must not differ from the names of images in leading zeros: labels often do.
    """
    called = [len(rows) > 1 and bool(ID_HEADER.fullmatch(cell)) and cell not in images for cell in rows[0]]
    is_exact = images.has_exactly if isinstance(images, ImageIds) else images.__contains__

    def rank(column: int) -> tuple[int, bool, bool]:
        values = {row[column] for row in rows[int(any(called)) : FIRST_ROWS]}
        is_known = images.__contains__ if called[column] or not any(called) else is_exact
        return sum(map(is_known, values)), called[column], rows[-1][column].lower().endswith(SUFFIXES)

    ranks = [rank(column) for column in range(len(rows[0]))]
    if max(ranks)[0] and ranks.count(max(ranks)) > 1:
        raise UserError("several columns hold ids of images; call that of the ids id in a header")
    best, body = ranks.index(max(ranks)), rows[int(any(called)) :]
    if not max(ranks)[0] and len({row[best] for row in body}) < len(body) == len({row[0] for row in body}):
        return 0  # no image is known, because all are on Kaggle, and ids do not repeat
    return best


def _is_id(cell: str, images: Container[str]) -> bool:
    """Whether the first line's cell is an id, so that the file has no header."""
    return cell in images or is_number(cell) or cell.lower().endswith(SUFFIXES)
