"""Copies labelled images into two folders, for training and for validation."""

import errno
import shutil
from pathlib import Path

from common.errors import UserError
from common.files import atomic_folder
from common.images import Images
from training.data.split import split, split_warnings
from training.inputs import Inputs, load_labelled


def copy_split(inputs: Inputs, out: Path, validation_split: float, seed: int) -> list[str]:
    """Copies labelled images into class folders in `out/train` and `out/validation`.

    Args:
        inputs: its `data`, `labels` and `label_columns` are used.
        out: a new folder.
        validation_split, seed: see `split`.

    Returns:
        Lines to print: notes of the reader, and the number of images in each part.

    Raises:
        UserError: `out` exists; see `load_labelled` and `split`.
    """
    if out.exists():
        raise UserError(f"--out must be a new folder, {out} exists; give another one, or remove it first")
    if out.resolve().is_relative_to(Path(inputs.data).resolve()):
        raise UserError(f"--out must be outside of --data, whose images it would become; got {out}, give another one")
    images = load_labelled(inputs)
    rows_of_parts = split(images.labels, validation_split, seed, images.names, images.groups)
    parts = dict(zip(("train", "validation"), rows_of_parts, strict=True))
    with atomic_folder(out) as temporary:
        for part, rows in parts.items():
            for row in rows:
                source = Path(images.paths[row])
                target = temporary / part / _place(source.relative_to(inputs.data), images, row, bool(inputs.labels))
                while target.exists():
                    target = target.with_name(f"_{target.name}")
                target.parent.mkdir(parents=True, exist_ok=True)
                _copy(source, target, out)
    unusual = split_warnings(images.labels, images.names, *rows_of_parts, validation_split)
    return [*images.notes, *unusual, ", ".join(f"{len(rows)} images in {out / part}" for part, rows in parts.items())]


def _place(path: Path, images: Images, row: int, labelled: bool) -> Path:
    """The place of an image in class folders.

    With a table of labels, subfolders that are called as a class become part of the file's name: they may be the class
    folders before their labels were corrected.
    """
    if not labelled:
        return path
    folder = Path(images.names[images.labels[row]])
    return folder / "__".join(path.parts) if set(path.parts[:-1]) & set(images.names) else folder / path


def _copy(source: Path, target: Path, out: Path) -> None:
    """Copies a file. If the disk is full the error names `out`, where shutil names the source."""
    try:
        shutil.copy2(source, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, error.strerror, str(out)) from error
        raise
