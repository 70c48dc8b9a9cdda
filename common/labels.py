"""Reads the labels of images from a CSV file, for a folder of images that has no class folders."""

import csv
import io
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from common.errors import UserError
from common.folders import (
    ClassFiles,
    has_image_extension,
    is_hidden,
    list_classes,
    natural_key,
    printable,
    walk_files,
    warnings_of_names,
)

# Names of columns in lower case, with _ in place of spaces and hyphens.
FILE_COLUMNS = frozenset(
    ("id", "image", "images", "image_id", "imageid", "image_name", "image_file", "image_path", "img", "img_id")
    + ("img_name", "img_path", "file", "files", "file_id", "file_name", "file_path", "filename", "filepath", "path")
)
LABEL_COLUMNS = frozenset(
    ("label", "labels", "class", "class_name", "classname", "species", "category", "target", "breed", "y")
)
DELIMITERS = ",;\t"
SEPARATOR_LINE = re.compile(r'"?sep=([,;\t])"?\r?\n', re.I)  # the first line for Excel
MISSING = frozenset(("nan", "na", "n/a", "none", "null", "?", "-"))  # labels that may stand for no label
PART_COLUMNS = frozenset(("split", "subset", "partition", "usage"))
PART_FLAGS = frozenset(
    ("is_train", "is_training", "is_training_image", "is_test", "is_val", "is_valid", "is_validation", "train", "test")
)
PARTS = frozenset(("train", "training", "val", "valid", "validation", "dev", "test", "testing"))
ONES, ZEROS = frozenset(("1", "1.0", "true")), frozenset(("0", "0.0", "false"))  # of a one-hot table
MANY_COLUMNS = 50  # of a table without a column of files: they may be pixels
SHOWN = 10  # columns in a note
SAMPLE = 100  # rows that are looked at to recognize the column of files


@dataclass(frozen=True)
class LabelledFolder:
    """Labelled images: class folders, or any folder and a CSV file of labels.

    folder: the images.
    table: the CSV file; None: class folders.
    columns: names of its columns of files and of labels; None: they are recognized.
    """

    folder: Path | str
    table: Path | str | None = None
    columns: tuple[str, str] | None = None

    def files(self) -> ClassFiles:
        """Lists the files of each class. Raises a UserError: see `list_classes` and `list_labelled`."""
        if self.table:
            return list_labelled(self.folder, self.table, self.columns)
        if self.columns:
            raise UserError("--label-columns names columns of a CSV file; give --labels FILE as well")
        return list_classes(self.folder)


def list_labelled(folder: Path | str, table: Path | str, columns: tuple[str, str] | None = None) -> ClassFiles:
    """Lists the images of a folder by the labels in a CSV file, in the order of `list_classes`.

    The table is separated by commas, semicolons or tabs. The column of files is the one whose values name files of the
    folder; folders before the name and the extension may be missing. The column of labels is recognized by its name, or
    because no other column is left. A one-hot table has one column for each class, with exactly one 1 in each row.

    Args:
        folder: the image files, also in subfolders.
        table: the CSV file, in UTF-8.
        columns: names of the columns of files and of labels. None: they are recognized.

    Returns:
        `ClassFiles`. A note says which columns were used, others which files and rows were not.

    Raises:
        UserError: no such folder or file, a damaged table, columns that are not recognized, files that do not exist or
            have two labels, empty cells, or fewer than two classes.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"the folder of images must exist; there is no folder {printable(folder)}, check the path")
    paths, hidden = walk_files(folder)
    files = _Files(folder, paths)
    rows = _read(Path(table))
    rows, file, labels = _recognize(rows, files) if columns is None else _chosen(rows, files, columns)
    label_of, repeated = _match(rows, file, labels, files)
    classes: dict[str, list[Path]] = defaultdict(list)
    for path in paths:  # in natural order
        if path in label_of:
            classes[label_of[path]].append(path)
    names = sorted(classes, key=natural_key)
    _check_classes(rows, names)
    notes = [
        f"{rows.name}: column {rows.called([file])} has the files, {_describe(rows, labels)}; {len(names)} classes"
    ]
    notes += _unused_columns(rows, {file, *labels})
    notes += _classes_without_rows(rows, labels, names)
    unused = [path for path in paths if path not in label_of and has_image_extension(path)]
    notes += _unusual(rows, names, repeated, unused)
    return ClassFiles(tuple((name, tuple(classes[name])) for name in names), tuple(hidden), tuple(notes))


def _classes_without_rows(rows: "_Rows", labels: Sequence[int], names: Sequence[str]) -> Iterator[str]:
    """A warning of the columns of a one-hot table in which no row has a 1."""
    empty = [rows.columns[number] for number in labels if _normal(rows.columns[number]) not in names]
    if len(labels) > 1 and empty:
        yield f"warning: no row of {rows.name} has a 1 in {', '.join(empty)}, so these are no classes of the model"


def _unused_columns(rows: "_Rows", used: set[int]) -> Iterator[str]:
    """Warnings of columns that divide the rows into parts such as train and test, which are all read."""
    for number in set(range(len(rows.columns))) - used:
        parts = {cell.lower() for cell in rows.column(number)} - {""}
        key = _key(rows.columns[number])
        named = key in PART_COLUMNS and any(word in part for part in parts for word in ("train", "val", "test"))
        called = named or (key in PART_FLAGS and parts <= ONES | ZEROS)
        if len(parts) > 1 and (called or parts <= PARTS):
            listed = ", ".join(sorted(parts)[:SHOWN])
            yield (
                f"warning: column {rows.called([number])} of {rows.name} has the parts {listed}, and "
                "all rows are read; write a file of labels for each part"
            )


def _unusual(rows: "_Rows", names: Sequence[str], repeated: int, unused: Sequence[Path]) -> Iterator[str]:
    """Notes on class names that are nearly equal, files that are named twice, and images that are not named."""
    yield from warnings_of_names(names, rows.name)
    missing = [name for name in names if name.lower() in MISSING]
    if missing:
        told = ", ".join(missing)
        yield f"warning: the class {told} of {rows.name} may stand for a missing label; if so, remove its rows"
    combined = next((name for name in names if _is_combined(name, names)), None)
    if combined:
        yield (
            f"warning: the class {combined} of {rows.name} is a combination of others; if an image has several labels, "
            "each combination is learned as a class of its own"
        )
    if repeated:
        yield f"{rows.name} names {repeated} files more than once, with the same label"
    if unused:
        yield f"skipped {len(unused)} images that are not in {rows.name}, for example {printable(unused[0])}"


def _is_combined(name: str, names: Sequence[str]) -> bool:
    """Whether a class name lists several others, or numbers of which one is a class."""
    words = {word for word in re.split(r"[\s|,;]+", name) if word}
    numbers = all(word.isdecimal() for word in words)
    return len(words) > 1 and (words <= set(names) or (numbers and not words.isdisjoint(names)))


@dataclass(frozen=True)
class _Rows:
    """A table: name of its file, names of its columns, and (number of the line, cells) of each row."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]

    def column(self, number: int) -> list[str]:
        return [cells[number] for _, cells in self.rows]

    def called(self, numbers: Iterable[int]) -> str:
        """The names of columns, for a message."""
        return ", ".join(self.columns[number] or f"column {number + 1}" for number in numbers)

    def without_header(self) -> "_Rows":
        columns = tuple(f"column {number}" for number, _ in enumerate(self.columns, 1))
        return _Rows(self.name, columns, ((1, self.columns), *self.rows))


class _Files:
    """The files of a folder, found by what a table calls them."""

    def __init__(self, folder: Path, paths: Iterable[Path]) -> None:
        self.folder = folder
        # By the last one and the last two parts of the path: thousands of files may have one name, such as image.png.
        self._by_end: dict[tuple[str, ...], list[tuple[Path, tuple[str, ...]]]] = defaultdict(list)
        root = folder.resolve()
        for path in paths:
            full = PurePosixPath(_normal((root / path.relative_to(folder)).as_posix()))
            for named in (full, full.with_suffix("")) if has_image_extension(path) else (full,):
                for end in (named.parts[-1:], named.parts[-2:]):
                    self._by_end[end].append((path, named.parts))

    def find(self, text: str) -> list[Path]:
        """Returns the files whose path ends with `text`, or is that of `text` within the folder."""
        parts = PurePosixPath(_normal(text.strip().replace("\\", "/"))).parts
        if not parts:
            return []
        found = [(path, full) for path, full in self._by_end.get(parts[-2:], ()) if full[-len(parts) :] == parts]
        shortest = min((len(full) for _, full in found), default=0)
        if len(found) > 1 and shortest == len(self.folder.resolve().parts) + len(parts):
            found = [(path, full) for path, full in found if len(full) == shortest]
        return [path for path, _ in found]

    def has(self, text: str) -> bool:
        """Whether `text` names a file with its extension, if the file has one."""
        name = PurePosixPath(_normal(text.strip().replace("\\", "/"))).name
        return any(_normal(path.name) == name for path in self.find(text))


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _read(table: Path) -> _Rows:
    try:
        text = table.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"the file of labels must be a CSV file, got {printable(table)}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{printable(table)} must be UTF-8; save it as CSV UTF-8") from error
    text, delimiter, skipped = without_separator_line(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        rows = [(reader.line_num + skipped, tuple(cell.strip() for cell in cells)) for cells in reader if any(cells)]
    except csv.Error as error:
        raise UserError(
            f"{printable(table)} is damaged in line {reader.line_num + skipped}: {error}; repair it"
        ) from error
    if len(rows) < 2 or len(rows[0][1]) < 2:
        raise UserError(
            f"{printable(table)} must have a header, rows, and a column each for files and labels, got {len(rows)} "
            f"lines of {len(rows[0][1]) if rows else 0} columns; add them"
        )
    columns = rows[0][1]
    for line, cells in rows:
        if len(cells) != len(columns):
            raise UserError(
                f"{printable(table)} must have {len(columns)} cells in each row, line {line} has {len(cells)}; "
                "repair the line"
            )
    return _Rows(printable(table.name), tuple(map(printable, columns)), tuple(rows[1:]))


def without_separator_line(text: str) -> tuple[str, str, int]:
    """(a CSV text without Excel's line sep=;, its delimiter, the number of lines that were removed)."""
    told = SEPARATOR_LINE.match(text)
    return (text[told.end() :], told[1], 1) if told else (text, delimiter_of(text), 0)


def delimiter_of(text: str) -> str:
    """The delimiter of a CSV text: the one of `DELIMITERS` that divides its first line into the most cells."""
    head = next((line for line in text.splitlines() if line.strip()), "")
    return max(DELIMITERS, key=lambda one: len(next(csv.reader([head], delimiter=one, skipinitialspace=True), [])))


def _recognize(rows: _Rows, files: _Files) -> tuple[_Rows, int, list[int]]:
    """(the table, its column of files, its columns of labels: several if it is one-hot)."""
    sample = rows.rows[:: max(1, len(rows.rows) // SAMPLE)]
    columns = range(len(rows.columns))
    found = [sum(bool(files.find(cells[number])) for _, cells in sample) for number in columns]
    # A column of whole names comes before one of names without extension, which may be the numbers of the rows.
    exact = [sum(files.has(cells[number]) for _, cells in sample) for number in columns]
    counts = exact if 2 * max(exact) >= max(found) else found
    likely = [number for number in columns if 2 * counts[number] >= max(counts)]
    named = [number for number in likely if _key(rows.columns[number]) in FILE_COLUMNS]
    candidates = likely if len(likely) == 1 else named
    if len(candidates) == 1 and 2 * exact[candidates[0]] < found[candidates[0]]:
        candidates += [number for number in columns if _names_other_files(rows, number, candidates[0])]
    if len(candidates) != 1:
        names = rows.called(candidates or likely)
        what = f"which of {names} names the files" if max(found) else f"a column of files of {printable(files.folder)}"
        if not max(found) and len(columns) > MANY_COLUMNS:
            raise UserError(
                f"{rows.name} must name files of images, got {len(columns)} columns; if they are the pixels, save each "
                "row as a PNG file called as its id, and write a file of their labels"
            )
        raise UserError(f"{rows.name}: cannot recognize {what}; give --label-columns FILES,LABELS, or another --data")
    (file,) = candidates
    head = rows.columns[file]
    if _key(head) not in FILE_COLUMNS and (files.find(head) or has_image_extension(Path(head))):
        rows = rows.without_header()
    return rows, file, _label_columns(rows, file)


def _names_other_files(rows: _Rows, number: int, file: int) -> bool:
    """Whether a column seems to name files, and others than those of the column `file`."""
    stems = [
        [PurePosixPath(cells[column].replace("\\", "/")).stem for _, cells in rows.rows] for column in (number, file)
    ]
    images = sum(has_image_extension(Path(cell)) for cell in rows.column(number))
    return stems[0] != stems[1] and (_key(rows.columns[number]) in FILE_COLUMNS or 2 * images > len(rows.rows))


def _label_columns(rows: _Rows, file: int) -> list[int]:
    """The column of labels, or the columns of a one-hot table."""
    rest = [number for number, name in enumerate(rows.columns) if number != file and _key(name)]
    keys = [_key(name) for name in rows.columns]
    named = [number for number in rest if keys[number] in LABEL_COLUMNS and not (keys[number] == "y" and "x" in keys)]
    binary = [number for number in rest if {cell.lower() for cell in rows.column(number)} <= ONES | ZEROS]
    # A class may be called target or label: a table of three or more columns with one 1 in each row is one-hot.
    if len(binary) > 2 and binary == rest and _have_one_each(rows, binary):
        named = []
    for candidates in (named, rest):
        if len(candidates) == 1:
            return candidates
    if not named and len(binary) > 1 and binary == rest:
        if len({_normal(rows.columns[number]) for number in binary}) < len(binary):
            raise UserError(f"{rows.name} must have one column for each class, two of its columns have the same name")
        return binary
    one_hot = ", or keep only the columns of the classes, if it is one-hot" if len(binary) > 1 else ""
    raise UserError(
        f"{rows.name}: cannot recognize which of {rows.called(named or rest)} has the labels; give --label-columns "
        f"{rows.columns[file]},NAME{one_hot}"
    )


def _have_one_each(rows: _Rows, numbers: Sequence[int]) -> bool:
    """Whether each row has exactly one 1 in these columns."""
    return all(sum(cells[number].lower() in ONES for number in numbers) == 1 for _, cells in rows.rows)


def _chosen(rows: _Rows, files: _Files, columns: Sequence[str]) -> tuple[_Rows, int, list[int]]:
    """The columns of these names, as `_recognize` returns them."""
    if not set(columns) <= set(rows.columns) and any(map(files.find, rows.columns)):
        rows = rows.without_header()
    for name in columns:
        if rows.columns.count(name) != 1:
            raise UserError(f"{rows.name}: --label-columns must be two of {', '.join(rows.columns)}, got {name}")
    file, label = map(rows.columns.index, columns)
    return rows, file, [label]


def _key(name: str) -> str:
    """The name of a column as in FILE_COLUMNS; "" for the numbers of rows that pandas writes."""
    key = name.lower().replace(" ", "_").replace("-", "_")
    return "" if key.startswith("unnamed:") else key


def _describe(rows: _Rows, labels: list[int]) -> str:
    if len(labels) == 1:
        return f"column {rows.columns[labels[0]]} the labels"
    more = ", …" if len(labels) > SHOWN else ""
    return f"{len(labels)} columns are one-hot ({rows.called(labels[:SHOWN])}{more})"


def _match(rows: _Rows, file: int, labels: list[int], files: _Files) -> tuple[dict[Path, str], int]:
    """(file → label, number of files that are named more than once)."""
    empty = [line for line, cells in rows.rows if not all(cells[number] for number in (file, *labels))]
    if empty:
        raise UserError(
            f"{rows.name} must have no empty cells, {len(empty)} rows have one, the first is line {empty[0]}; complete "
            "or remove these rows"
        )
    found = [files.find(cells[file]) for _, cells in rows.rows]
    missing = [cells[file] for (_, cells), paths in zip(rows.rows, found, strict=True) if not paths]
    if missing:
        raise UserError(
            f"{rows.name} must name files of {printable(files.folder)}, {len(missing)} of {len(found)} do not exist, "
            f"the first is {printable(missing[0])}; correct these rows, or the folder of the images"
        )
    label_of: dict[Path, str] = {}
    count: Counter[Path] = Counter()
    for (line, cells), paths in zip(rows.rows, found, strict=True):
        if len(paths) > 1:
            raise UserError(
                f"{rows.name}, line {line}: {printable(cells[file])} must name one file, "
                f"got {printable(paths[0])} and {printable(paths[1])}; write more of the path"
            )
        label = _label(rows, line, cells, labels)
        count[paths[0]] += 1
        other = label_of.setdefault(paths[0], label)
        if other != label:
            raise UserError(
                f"{rows.name}: each image must have one label, {printable(cells[file])} has two, "
                f"{printable(other)} and {printable(label)} (line {line}); remove one of the rows"
            )
    return label_of, sum(number > 1 for number in count.values())


def _label(rows: _Rows, line: int, cells: Sequence[str], labels: list[int]) -> str:
    if len(labels) == 1:
        return _normal(cells[labels[0]])
    ones = [rows.columns[number] for number in labels if cells[number].lower() in ONES]
    if len(ones) != 1:
        raise UserError(
            f"{rows.name}: exactly one of {', '.join(rows.columns[number] for number in labels)} must be 1, "
            f"line {line} has {len(ones)}; or give --label-columns FILES,LABELS"
        )
    return _normal(ones[0])


def _check_classes(rows: _Rows, names: list[str]) -> None:
    for name in names:
        if printable(name) != name or "/" in name or "\\" in name or is_hidden(name):
            raise UserError(
                f"{rows.name}: a class name must be usable as the name of a folder, got {printable(name)}; change it"
            )
    if len(names) < 2:
        raise UserError(f"{rows.name} must have at least two classes, got only {names[0]}; add images of others")
