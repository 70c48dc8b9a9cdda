"""The classes of a competition: those of the training images, also if one has no hidden image."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from common.folders import list_classes, natural_key, printable, subfolders
from common.images import Images
from competition.package.class_names import listed_names

TRAINING = "train"  # folder that `python -m training split` writes beside the hidden images


def with_classes_of(images: Images, source: Path) -> Images:
    """Returns hidden images whose class numbers are those of the training images.

    Args:
        images: labelled images.
        source: the training images' class folders, or a text file with a class name a line, in the order of the
            numbers.

    Raises:
        UserError: no such classes, or an image of another class.
    """
    return images.with_classes(_names_of(source), "the hidden images", "--classes")


def _names_of(source: Path) -> Sequence[str]:
    if source.is_dir():
        return [name for name, _ in list_classes(source).classes]
    names = listed_names(source)
    if names is None:
        raise UserError(
            "--classes must be a folder of class folders, or a UTF-8 text file with one name of two or more different "
            f"classes a line, got {printable(source)}"
        )
    return names


def require_training_classes(images: Images, folder: Path) -> None:
    """Raises a UserError if training images beside the hidden ones have more classes, which would change the numbers.

    Args:
        images: the hidden images.
        folder: their class folders.
    """
    training = folder.resolve().parent / TRAINING
    names = sorted(subfolders(training), key=natural_key) if training.is_dir() else []
    hidden = {unicodedata.normalize("NFC", name) for name in images.names}  # a Mac's archive has other forms
    missing = [name for name in names if unicodedata.normalize("NFC", name) not in hidden]
    if missing and hidden < {unicodedata.normalize("NFC", name) for name in names}:
        raise UserError(
            f"{printable(folder)} has no image of {', '.join(missing)}, which {printable(training)} has, so its "
            f"classes would be numbered differently; give --classes {printable(training)}, or to leave them out "
            f"--classes {printable(folder)}"
        )
