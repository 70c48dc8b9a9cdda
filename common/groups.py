"""Groups of images that belong together, for example of one scene: a split keeps each group in one part."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common.errors import UserError
from common.files import atomically
from common.images import Images

COLUMNS = ("path", "group")


def with_groups(images: Images, table: Path, data: Path) -> Images:
    """Returns the images with the groups of a CSV file.

    Args:
        images: loaded from `data`.
        table: CSV with the columns path (relative to `data`) and group (any text).
        data: the folder of class folders.

    Raises:
        UserError: no such file or columns, or an image without a group.
    """
    try:
        with open(table, newline="", encoding="utf-8", errors="surrogateescape") as file:
            groups = {row["path"]: row["group"] for row in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"--groups must be a CSV file with the columns path and group; {table}: {reason}") from error
    paths = [Path(path).relative_to(data).as_posix() for path in images.paths]
    missing = [path for path in paths if path not in groups]
    if missing:
        raise UserError(f"--groups must name every image, {table} lacks {len(missing)}, the first is {missing[0]}")
    return replace(images, scenes=tuple(groups[path] for path in paths))


def write_groups(table: Path, images: Images, groups: Sequence, data: Path) -> None:
    """Writes the CSV file that `with_groups` reads."""

    def save(temporary: Path) -> None:
        with open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for path, group in zip(images.paths, groups, strict=True):
                writer.writerow([Path(path).relative_to(data).as_posix(), group])

    atomically(table, save)
