"""Reads a Kaggle competition's sample_submission.csv: its header, its ids and what it takes as answers."""

import csv
import re
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.folders import printable
from competition.package.answer import Answer, is_number, match_columns, match_values, parse_told
from competition.package.class_names import shortened
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
    """

    header: tuple[str, ...]
    id_column: int
    ids: tuple[str, ...]
    answer: Answer

    def form(self) -> dict[str, Any]:
        """Returns what `kaggle_kernel.write_answers` needs, as strings, numbers and lists."""
        form = {"header": self.header, "id_column": self.id_column, **asdict(self.answer)}
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
        return f"{start}{'columns' if answer.columns else 'labels'}, {answer.kind}: {shortened(pairs, LISTED)}"


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
        rows = _read_rows(path)
        id_column = _id_column(rows, images)
        header = () if _is_id(rows[0][id_column], images) else tuple(rows[0])
        body = rows[1:] if header else rows
        if not body:
            raise UserError("it needs a line for each image below its header; give the competition's file")
        ids = tuple(row[id_column] for row in body)
        repeated = [name for name, count in Counter(ids).items() if count > 1]
        if repeated:
            raise UserError(f"it has the id {repeated[0]} more than once; keep one line for each image")
        answers = [cell for place, cell in enumerate(header) if place != id_column]
        if len(rows[0]) > 2:
            return Sample(header, id_column, ids, match_columns(answers, names, told))
        values = {row[1 - id_column] for row in body}
        return Sample(header, id_column, ids, match_values(values, answers[0] if answers else "", names, told))
    except UserError as error:
        raise UserError(printable(f"--sample {path}: {error}")) from error


def _read_rows(path: Path | str) -> list[list[str]]:
    """Returns at least one row, all of the same length of two or more."""
    try:
        rows = read_rows(Path(path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{error}; give the competition's sample_submission.csv") from error
    if not rows or len(rows[0]) < 2:
        raise UserError(
            "it needs a header of two or more columns and a line for each image; give the competition's file"
        )
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise UserError(f"line {number} has {len(row)} columns, the header has {len(rows[0])}; repair the line")
    return rows


def _id_column(rows: list[list[str]], images: Container[str]) -> int:
    """The column with the most different ids of images; between equals one that is called so or has suffixes."""

    named = len(rows) > 1 and any(ID_HEADER.fullmatch(cell) and cell not in images for cell in rows[0])

    def rank(column: int) -> tuple[int, bool, bool]:
        values = {row[column] for row in rows[int(named) : FIRST_ROWS]}
        called = bool(ID_HEADER.fullmatch(rows[0][column]))
        return sum(value in images for value in values), called, rows[-1][column].lower().endswith(SUFFIXES)

    ranks = [rank(column) for column in range(len(rows[0]))]
    if max(ranks)[0] and ranks.count(max(ranks)) > 1:
        raise UserError("several columns hold ids of images; call that of the ids id in a header")
    return ranks.index(max(ranks)) if max(ranks)[0] else 0


def _is_id(cell: str, images: Container[str]) -> bool:
    """Whether the first line's cell is an id, so that the file has no header."""
    return cell in images or is_number(cell) or cell.lower().endswith(SUFFIXES)
