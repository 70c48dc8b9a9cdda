"""Groups of images that belong together, for example of one scene or patient: a split keeps each in one part."""

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common.errors import UserError
from common.files import write_csv
from common.images import Images
from common.labels import MISSING, without_separator_line

COLUMNS = ("path", "group")


def with_groups(images: Images, table: Path, data: Path) -> Images:
    """Returns the images with the groups of a CSV file.

    Args:
        images: loaded from `data`.
        table: CSV with the columns path (relative to `data`) and group (any text, the same in several classes if they
            are of one group). An image whose group is empty belongs to no other.
        data: the folder of class folders.

    Raises:
        UserError: no such file or columns, an image that is not in the table, or one with two groups.
    """
    groups = _read_groups(table)
    paths = [Path(path).relative_to(data).as_posix().strip() for path in images.paths]
    missing = [path for path in paths if path not in groups]
    if missing:
        raise UserError(
            f"--groups must name every image, {table} lacks {len(missing)}, the first is {missing[0]}; add a row for "
            "each"
        )
    return replace(images, group_names=tuple(groups[path] for path in paths))


def warnings_of_groups(images: Images) -> list[str]:
    """A warning of a group whose name stands for no group: all images without a group would be in one."""
    missing = sorted({name for name in images.group_names if name.lower() in MISSING})
    what = "may stand for images without a group; if so, leave their cells empty"
    return [f"warning: the group {', '.join(missing)} of --groups {what}"] if missing else []


def _read_groups(table: Path) -> dict[str, str]:
    """Path → group. Raises a UserError for another kind of file, and for a path with two groups."""
    groups: dict[str, str] = {}
    try:
        text = table.read_bytes().decode("utf-8-sig", errors="surrogateescape")
        text, delimiter, _ = without_separator_line(text)
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
        head = [cell.strip() for cell in next(rows, [])]
        if not set(COLUMNS) <= set(head):
            got = ", ".join(head) or "no header"
            raise UserError(
                f"--groups must be a CSV file with the columns path and group, {table} has {got}; rename them"
            )
        places = [head.index(name) for name in COLUMNS]
        for cells in filter(None, rows):
            if len(cells) <= max(places):
                raise UserError(
                    f"--groups must have one group for each path, {table} has no group for {cells[0]}; add it, or an "
                    "empty cell"
                )
            path, group = cells[places[0]].strip(), cells[places[1]].strip()
            if groups.setdefault(path, group) != group:
                got = f"{groups[path]!r} and {group!r}"
                raise UserError(f"--groups must have one group for each path, {table} has {got} for {path}; remove one")
    except OSError as error:
        raise UserError(f"--groups must be a CSV file, got {table}: {error.strerror}") from error
    except csv.Error as error:
        raise UserError(f"--groups must be a CSV file, {table} is damaged: {error}; repair it") from error
    return groups


def write_groups(table: Path, images: Images, groups: Sequence, data: Path) -> None:
    """Writes the CSV file that `with_groups` reads."""
    paths = (Path(path).relative_to(data).as_posix() for path in images.paths)
    write_csv(table, COLUMNS, [{"path": path, "group": group} for path, group in zip(paths, groups, strict=True)])
