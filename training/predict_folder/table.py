"""The table of predictions, as CSV or Parquet: one file for each shard, and all of them joined."""

import csv
import importlib
import io
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import atomically
from common.folders import printable

Columns = dict[str, np.ndarray]  # name → values: float32, or texts
CSV_ROWS = 500  # that are made text at once; a wide table would need too much memory


def require_writer(out: Path) -> None:
    """Raises a UserError unless a table of this name can be written: .csv, or .parquet with pyarrow installed."""
    if out.suffix not in ENCODERS:
        raise UserError(f"--out must end with {' or '.join(ENCODERS)}, got {out}; give for example predictions.csv")
    if out.suffix == ".parquet":
        try:
            importlib.import_module("pyarrow.parquet")
        except ImportError as error:
            raise UserError(
                f"a .parquet file needs pyarrow ({error}); pip install pyarrow, or give a .csv file"
            ) from None


def columns(paths: Sequence[str], probabilities: np.ndarray, names: Sequence[str], top: int | None = None) -> Columns:
    """Returns the columns of a table.

    Args:
        paths: of the n images. What cannot be printed is escaped.
        probabilities: float32 [n, classes].
        names: class names.
        top: None for one column for each class, or how many of the most probable classes get a column.

    Returns:
        path, label, probability, and for each class probability_NAME; with `top`, in place of the latter,
        label_2, probability_2, label_3, probability_3, … up to `top`.
    """
    rows, labels = np.arange(len(paths)), np.array(names, object)
    order = np.argsort(-probabilities, axis=-1, kind="stable")[:, : top or 1]
    table: Columns = {"path": np.array([printable(path) for path in paths], object)}
    for rank in range(top or 1):
        suffix = f"_{rank + 1}" if rank else ""
        table[f"label{suffix}"] = labels[order[:, rank]]
        table[f"probability{suffix}"] = probabilities[rows, order[:, rank]]
    if top is None:
        table |= {f"probability_{name}": probabilities[:, place] for place, name in enumerate(names)}
    return table


def encode(table: Columns, suffix: str) -> bytes:
    """Returns the content of a file of this suffix."""
    return ENCODERS[suffix](table)


def join(parts: Sequence[Path], out: Path) -> None:
    """Writes the rows of all parts into one file of their format. The memory holds one part at a time.

    Raises:
        OSError: the file cannot be written.
    """
    atomically(out, lambda temporary: JOINERS[out.suffix](parts, temporary))


def count_rows(path: Path) -> int:
    """The number of rows of a table that `join` has written."""
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as file:
            return sum(1 for _ in csv.reader(file)) - 1
    from pyarrow import parquet

    return parquet.read_metadata(path).num_rows


def _csv(table: Columns) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    for first in range(0, len(next(iter(table.values()))), CSV_ROWS):
        # The shortest text that is the same float32.
        rows = (values[first : first + CSV_ROWS] for values in table.values())
        texts = [values.astype(str) if values.dtype == np.float32 else values for values in rows]
        writer.writerows(zip(*texts, strict=True))
    return text.getvalue().encode()


def _parquet(table: Columns) -> bytes:
    import pyarrow
    from pyarrow import parquet

    kinds = {
        name: pyarrow.float32() if values.dtype == np.float32 else pyarrow.string() for name, values in table.items()
    }
    arrays = [pyarrow.array(values, kinds[name]) for name, values in table.items()]
    target = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(arrays, pyarrow.schema(kinds.items())), target)
    return target.getvalue().to_pybytes()


def _join_csv(parts: Sequence[Path], target: Path) -> None:
    with open(target, "wb") as sink:
        for number, part in enumerate(parts):
            with open(part, "rb") as source:
                if number:
                    source.readline()  # the names of the columns, which have no line break
                shutil.copyfileobj(source, sink, 1 << 20)


def _join_parquet(parts: Sequence[Path], target: Path) -> None:
    from pyarrow import parquet

    with open(target, "wb") as sink, parquet.ParquetWriter(sink, parquet.read_schema(parts[0])) as writer:
        for part in parts:
            with parquet.ParquetFile(part) as source:  # `read_table` would read a folder's name such as a=b as a column
                writer.write_table(source.read())


ENCODERS: dict[str, Callable[[Columns], bytes]] = {".csv": _csv, ".parquet": _parquet}
JOINERS: dict[str, Callable[[Sequence[Path], Path], Any]] = {".csv": _join_csv, ".parquet": _join_parquet}
