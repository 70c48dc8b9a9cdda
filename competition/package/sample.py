"""Reads a Kaggle competition's sample_submission.csv and decides what it takes as answers.

The sample rarely says what its numbers mean. They are read as positions, as positions from 1, or as class names only if
the class names and the sample's own values leave no other reading; otherwise the user has to say it with --labels.
"""

import csv
import re
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.folders import printable

LABELS = ("names", "positions", "one-based", "probability")  # the values of --labels
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
ID_HEADER = re.compile(r"(.*[ _-])?id|.*(image|img|file|path).*", re.I)
FIRST_ROWS = 100  # by which the column of the ids is recognised
MAX_DIGITS = 9
LISTED = 30  # classes of a mapping that are listed


Answers = tuple[str, tuple[str, ...], tuple[int, ...]]  # kind, labels and columns of a `Sample`


@dataclass(frozen=True)
class Sample:
    """The format that a `sample_submission.csv` requires.

    header: column names, or empty if the file has none.
    id_column: which column holds the ids.
    ids: image ids in the order of the file.
    kind: "names", "positions" or "one-based" if one column takes the class, "probability" if one column takes the
        probability of one of two classes, "probabilities" if there is one column for each class.
    labels: what is written for each class, in the model's order; empty if probabilities are written.
    columns: the class of each column of probabilities, as a position in the model's order.
    """

    header: tuple[str, ...]
    id_column: int
    ids: tuple[str, ...]
    kind: str
    labels: tuple[str, ...] = ()
    columns: tuple[int, ...] = ()

    def mapping(self, names: Sequence[str]) -> str:
        """Returns one line that says which answer stands for which class."""
        if self.kind == "probability":
            return f"answers: the probability of {names[self.columns[0]]}"
        if self.kind == "names" and self.labels == tuple(names):
            return f"labels: the class names as they are, {', '.join(names)}"
        answers = self.labels or [cell for place, cell in enumerate(self.header) if place != self.id_column]
        classes = names if self.labels else [names[column] for column in self.columns]
        pairs = [f"{answer} = {name}" for answer, name in zip(answers, classes, strict=True)]
        if len(pairs) > LISTED:
            pairs[LISTED - 1 : -1] = ["…"]
        return f"{'columns' if self.columns else 'labels'}, {self.kind}: {', '.join(pairs)}"


def read_sample(
    path: Path | str, names: Sequence[str], images: Container[str] = (), labels: str | None = None
) -> Sample:
    """Reads a `sample_submission.csv`.

    Args:
        path: the file.
        names: the model's class names.
        images: the known image ids, by which the column of the ids and a missing header are recognised.
        labels: one of `LABELS`: what the answers are, if the user says it.

    Returns:
        `Sample`.

    Raises:
        UserError: the file cannot be read, has no rows or a repeated id, its columns do not match the classes, or it
            does not tell what its answers are.
    """
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
            columns = match_columns(answers, names, labels)
            return Sample(header, id_column, ids, "probabilities", columns=columns)
        values = {row[1 - id_column] for row in body}
        kind, written, columns = match_values(values, answers[0] if answers else "", names, labels)
    except UserError as error:
        raise UserError(printable(f"--sample {path}: {error}")) from error
    return Sample(header, id_column, ids, kind, written, columns)


def match_columns(columns: Sequence[str], names: Sequence[str], labels: str | None = None) -> tuple[int, ...]:
    """Returns the class of each column of probabilities, as a position in `names`.

    A column is called as its class, or has its number; all may have the same prefix or suffix.

    Args:
        columns: names of the columns.
        names: the model's class names.
        labels: one of `LABELS`, or None.

    Raises:
        UserError: the columns are not the classes, or are numbers that may mean two things.
    """
    if labels == "probability":
        raise UserError(f"--labels probability needs one column of answers, the sample has {len(columns)}")
    if not columns:
        raise UserError("several columns of answers need a header that names their classes; add it")
    kinds = [labels] if labels else ["names"] if _are_numbers(names) else ["names", "positions", "one-based"]
    for kind in kinds:
        found = _positions_of(columns, names, kind)
        if found is not None:
            return found
    different = sorted(set(columns) ^ set(names))[:5]
    fix = "train on its classes"
    if not labels and _are_numbers(names) and any(_positions_of(columns, names, kind) for kind in LABELS[1:3]):
        fix = "if its columns are numbered by position, give --labels positions or --labels one-based"
    raise UserError(f"its columns and the model's classes differ in {', '.join(different) or 'number'}; {fix}")


def match_values(values: set[str], column: str, names: Sequence[str], labels: str | None = None) -> Answers:
    """Decides what a single column of answers takes.

    Args:
        values: the sample's values in this column.
        column: its name, or "".
        names: the model's class names.
        labels: one of `LABELS`, or None.

    Returns:
        (kind, what is written for each class, classes whose probability is written), see `Sample`.

    Raises:
        UserError: the values are neither classes nor numbers, or they may mean two things.
    """
    if labels:
        return _as_told(values, column, names, labels)
    if len(names) == 2 and _are_probabilities(values):
        return _binary(values, column, names)
    if column in names and _are_probabilities(values - set(names)) and not values <= set(names):
        raise UserError(f"its column {column} is one of the model's {len(names)} classes; all of them are required")
    if values <= set(names):
        return "names", tuple(names), ()
    if _are_numbers(values) and max(map(int, values)) <= max(len(names), *_numbers(names)):
        return _numbered(values, column, names)
    last = len(names) - 1
    other = min(value for value in values - set(names) if not _is_number(value) or int(value) > last)
    raise UserError(
        f"the values of {_called(column)} must be the model's classes or numbers from 0 to {last}, got {other!r}; "
        "train on the competition's classes"
    )


def _numbered(values: set[str], column: str, names: Sequence[str]) -> Answers:
    """Decides what whole numbers are that are not simply the class names."""
    numbers, count = {int(value) for value in values}, len(names)
    if _are_numbers(names):
        written = _written(_numbers(names), values)
        if numbers <= set(_numbers(names)) and len(set(written)) == count:  # 1 for the class 01
            return "names", written, ()
        what = "are none of the class names: they may be placeholders or positions"
        raise _undecided(values, column, what, ("names", "positions", "one-based"))
    if min(numbers) == 0 and max(numbers) < count:
        return "positions", _written(range(count), values), ()
    if min(numbers) > 0 and max(numbers) == count:
        return "one-based", _written(range(1, count + 1), values), ()
    if min(numbers) == 0:
        raise UserError(
            f"the values of {_called(column)} must be numbers from 0 to {count - 1} or from 1 to {count}, "
            f"got 0 and {max(numbers)}; train on the competition's classes"
        )
    raise _undecided(values, column, "do not tell whether they count from 0 or from 1", ("positions", "one-based"))


def _binary(values: set[str], column: str, names: Sequence[str]) -> Answers:
    """Decides what numbers from 0 to 1 are if there are two classes: class numbers, or a probability."""
    named = _named_class(column, names)
    if not _are_numbers(values):
        if named is None:
            what = f"are a probability of {names[0]} or of {names[1]}; --labels probability is that of {names[1]}"
            raise _undecided(values, column, what, ("probability",))
        return "probability", (), (named,)
    options = ("probability",) if named == 0 else ("positions", "one-based", "probability")
    what = f"may be class numbers, or the probability of {names[1 if named is None else named]}"
    raise _undecided(values, column, what, ("names",) * _are_numbers(names) + options)


def _named_class(column: str, names: Sequence[str]) -> int | None:
    """The one of two classes that the column is called after, or 1 if the classes are 0 and 1; else None."""
    words = {column.casefold(), *re.split(r"[\W_]+", column.casefold())}
    found = [place for place, name in enumerate(names) if name.casefold() in words]
    if len(found) == 1:
        return found[0]
    return _numbers(names).index(1) if sorted(_numbers(names)) == [0, 1] else None


def _as_told(values: set[str], column: str, names: Sequence[str], labels: str) -> Answers:
    """What --labels says, unless the sample contradicts it."""
    if labels == "probability":
        if len(names) != 2 or not _are_probabilities(values):
            raise UserError(f"--labels probability needs two classes and numbers from 0 to 1, got {len(names)} classes")
        named = _named_class(column, names)
        return labels, (), (1 if named is None else named,)
    if labels == "names":
        other = sorted(value for value in values - set(names) if not _is_number(value))
        if other:
            raise UserError(f"--labels names needs values that are classes of the model, got {other[0]!r}")
        return labels, tuple(names), ()
    numbers = range(len(names)) if labels == "positions" else range(1, len(names) + 1)
    other = sorted(value for value in values if not _is_number(value) or int(value) > numbers[-1])
    if other:
        raise UserError(f"--labels {labels} needs whole numbers up to {numbers[-1]}, got {other[0]!r}")
    return labels, _written(numbers, values), ()


def _called(column: str) -> str:
    return f"the column {column}" if column else "its column of answers"


def _undecided(values: set[str], column: str, what: str, options: Sequence[str]) -> UserError:
    shown = ", ".join(sorted(values)[:3])
    fix = " or ".join(f"--labels {option}" for option in options)
    return UserError(f"the values of {_called(column)} ({shown}) {what}; give {fix}")


def _read_rows(path: Path | str) -> list[list[str]]:
    """Returns at least one row, all of the same length of two or more."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
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

    def rank(column: int) -> tuple[int, bool, bool]:
        values = {row[column] for row in rows[:FIRST_ROWS]}
        called = bool(ID_HEADER.fullmatch(rows[0][column]))
        return sum(value in images for value in values), called, rows[-1][column].lower().endswith(SUFFIXES)

    ranks = [rank(column) for column in range(len(rows[0]))]
    if max(ranks)[0] and ranks.count(max(ranks)) > 1:
        raise UserError("several columns hold ids of images; call that of the ids id in a header")
    return ranks.index(max(ranks)) if max(ranks)[0] else 0


def _is_id(cell: str, images: Container[str]) -> bool:
    """Whether the first line's cell is an id, so that the file has no header."""
    return cell in images or _is_number(cell) or cell.lower().endswith(SUFFIXES)


def _positions_of(columns: Sequence[str], names: Sequence[str], kind: str) -> tuple[int, ...] | None:
    """The classes of columns that are called or numbered as the classes, or None if they are not."""
    if len(columns) != len(names) or len(set(columns)) != len(columns):
        return None
    if kind == "names":
        pairs = {(column.removesuffix(names[0]), "") for column in columns if column.endswith(names[0])}
        pairs |= {("", column.removeprefix(names[0])) for column in columns if column.startswith(names[0])}
        for before, after in pairs:
            places = {f"{before}{name}{after}": place for place, name in enumerate(names)}
            if set(places) == set(columns):
                return tuple(places[column] for column in columns)
    wanted = _numbers(names) if kind == "names" else [number + (kind == "one-based") for number in range(len(names))]
    parts = [re.fullmatch(r"(.*?)([0-9]{1,9})", column) for column in columns]
    found = [int(part[2]) for part in parts if part]
    prefixes = {part[1] for part in parts if part}
    if len(prefixes) != 1 or len(set(found)) != len(names) or sorted(found) != sorted(wanted):
        return None
    return tuple(wanted.index(number) for number in found)


def _is_number(text: str) -> bool:
    """Whether a text is a whole number from 0, in ASCII digits."""
    return text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS


def _are_numbers(texts: Sequence[str] | set[str]) -> bool:
    return all(map(_is_number, texts))


def _numbers(names: Sequence[str]) -> list[int]:
    """The class names as numbers, or [-1] if they are none."""
    return [int(name) for name in names] if _are_numbers(names) else [-1]


def _are_probabilities(values: set[str]) -> bool:
    try:
        return all(0 <= float(value) <= 1 for value in values)
    except ValueError:
        return False


def _written(numbers: Iterable[int], values: set[str]) -> tuple[str, ...]:
    """Numbers in the form of the sample's values: with leading zeros if these have them."""
    widths = {len(value) for value in values}
    padded = len(widths) == 1 and any(value.startswith("0") and len(value) > 1 for value in values)
    return tuple(f"{number:0{max(widths) if padded else 1}d}" for number in numbers)
