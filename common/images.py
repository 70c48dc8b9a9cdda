"""Reads image files and class folders into arrays. Outside of submission/model.py, nothing else reads image files."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from common.errors import UserError
from common.progress import progress

NAMED = 20  # skipped files that are named one by one
ORIENTATION = 274  # EXIF tag
ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")  # Pillow's modes that have an alpha channel


@dataclass(frozen=True)
class Images:
    """Labelled images.

    images: uint8 [n, h, w, 3], RGB, 0 to 255.
    labels: int64 [n], positions in `names`.
    names: class names in natural order.
    paths: the n files, in the same order.
    notes: lines that say what was skipped or converted.
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    paths: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def rows(self, index: Sequence[int] | np.ndarray) -> "Images":
        """Returns the images of the given row numbers, without the notes."""
        paths = tuple(self.paths[i] for i in index)
        return Images(self.images[index], self.labels[index], self.names, paths)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class _Photo:
    """An image file that was read. `image` has mode RGB, `sha256` is that of the file's bytes."""

    path: Path
    label: int
    image: Image.Image
    conversion: str
    sha256: bytes

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.height, self.image.width


def natural_key(name: str) -> tuple:
    """Returns a sort key that puts Species2 before Species10."""
    return [int(part) if part.isdigit() else part.casefold() for part in re.split(r"(\d+)", name)], name


def class_folders(folder: Path | str) -> list[tuple[str, list[Path]]]:
    """Lists class folders in natural order, each with its sorted files. Hidden files and folders are ignored.

    Args:
        folder: contains one folder of images for each class.

    Returns:
        List of (name, [path, …]).

    Raises:
        UserError: the folder does not exist, has fewer than two class folders, or one of them is empty.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"the folder of class folders must exist; there is no folder {folder}, check the path")
    classes = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    found = [(path.name, _files(path)) for path in sorted(classes, key=lambda path: natural_key(path.name))]
    if len(found) < 2:
        got = f"only {found[0][0]}" if found else "none"
        raise UserError(f"{folder} must contain at least two class folders, got {got}; add one folder for each class")
    for name, files in found:
        if not files:
            raise UserError(f"each class folder must contain images, {folder / name} is empty; add images or remove it")
    return found


def read_image(path: Path | str) -> tuple[Image.Image, str]:
    """Reads one file as an image viewer shows it.

    EXIF rotation is applied, 16 bits are scaled to 8, alpha is composited over white, grey and CMYK become RGB.

    Args:
        path: the file.

    Returns:
        (Pillow image in mode RGB, what was converted: "" or a few words).

    Raises:
        OSError, SyntaxError, ValueError: not an image, or a damaged one.
    """
    with Image.open(path) as stored:
        stored.load()
        image = ImageOps.exif_transpose(stored)
    conversions = []
    same_orientation = image.getexif().get(ORIENTATION) == stored.getexif().get(ORIENTATION)
    if image.size != stored.size or not same_orientation:
        conversions.append("rotated by EXIF")
    if image.mode.startswith(("I", "F")):
        conversions.append("16-bit")
        array = np.asarray(image, np.float64)
        image = Image.fromarray(np.clip(array / (257 if array.max() > 255 else 1), 0, 255).round().astype(np.uint8))
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        conversions.append("alpha over white")
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode != "RGB":
        conversions.append(f"{image.mode} to RGB")
    return image.convert("RGB"), ", ".join(conversions)


def load_folder(folder: Path | str, size: tuple[int, int] | None = None) -> Images:
    """Loads class folders into arrays.

    Files that are not readable images are skipped and named in the notes. Images of another size or color mode are
    converted, and the notes count them.

    Args:
        folder: contains one folder of images for each class.
        size: (height, width) in pixels; None takes the most frequent size of the images.

    Returns:
        `Images`.

    Raises:
        UserError: see `class_folders`; a class has no readable image; the same image has two labels.
    """
    classes = class_folders(folder)
    names = tuple(name for name, _ in classes)
    photos, notes = _read_files(classes)
    for label, name in enumerate(names):
        if not any(photo.label == label for photo in photos):
            reason = notes[0] if notes else ""
            raise UserError(f"each class must have a readable image, {Path(folder) / name} has none: {reason}")
    _check_labels(photos, names)
    size = size or Counter(photo.size for photo in photos).most_common(1)[0][0]
    images = np.empty((len(photos), *size, 3), np.uint8)
    for row, photo in enumerate(photos):
        images[row] = np.asarray(_resized(photo, size))
    labels = np.array([photo.label for photo in photos], np.int64)
    paths = tuple(str(photo.path) for photo in photos)
    return Images(images, labels, names, paths, (*notes, *_conversions(photos, size)))


def _files(folder: Path) -> list[Path]:
    """All files in a folder and its subfolders, in natural order."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return sorted(files, key=lambda path: natural_key(str(path)))


def _read_files(classes: list[tuple[str, list[Path]]]) -> tuple[list[_Photo], list[str]]:
    """Reads the files of all classes in parallel. Returns the images, and notes on the files that are none."""
    paths = [path for _, paths in classes for path in paths]
    labels = [label for label, (_, paths) in enumerate(classes) for _ in paths]
    with ThreadPoolExecutor() as pool:
        results = list(progress(pool.map(_read_file, paths, labels), "reading images", len(paths)))
    notes = [result for result in results if isinstance(result, str)]
    if len(notes) > NAMED:
        notes[NAMED:] = [f"skipped {len(notes) - NAMED} more files that are not readable images"]
    return [result for result in results if isinstance(result, _Photo)], notes


def _read_file(path: Path, label: int) -> _Photo | str:
    """Reads one file. Returns a note if it is not a readable image."""
    try:
        data = path.read_bytes()
        image, conversion = read_image(path)
    except Exception as error:  # each of Pillow's decoders raises its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return f"skipped {path}: {reason}"
    return _Photo(path, label, image, conversion, hashlib.sha256(data).digest())


def _check_labels(photos: list[_Photo], names: tuple[str, ...]) -> None:
    """Raises a UserError that lists all files of the same bytes in two classes."""
    first: dict[bytes, _Photo] = {}
    pairs = []
    for photo in photos:
        other = first.setdefault(photo.sha256, photo)
        if other.label != photo.label:
            pairs.append(f"{other.path} ({names[other.label]}) = {photo.path} ({names[photo.label]})")
    if pairs:
        raise UserError(f"each image must have one label, these have two; remove one of each pair: {'; '.join(pairs)}")


def _conversions(photos: list[_Photo], size: tuple[int, int]) -> list[str]:
    """Notes on the images that were converted or resized."""
    counts = Counter(photo.conversion for photo in photos if photo.conversion)
    notes = [f"converted {count} images: {conversion}" for conversion, count in sorted(counts.items())]
    resized = sum(photo.size != tuple(size) for photo in photos)
    if resized:
        notes.append(f"resized {resized} images to {size[0]}×{size[1]}")
    return notes


def _resized(photo: _Photo, size: tuple[int, int]) -> Image.Image:
    height, width = size
    if photo.size == (height, width):
        return photo.image
    return photo.image.resize((width, height), Image.Resampling.BICUBIC)
