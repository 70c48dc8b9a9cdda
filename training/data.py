"""Class folders → arrays, and arrays → training and validation part."""

import hashlib
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from sklearn.model_selection import StratifiedKFold, train_test_split

from training.errors import UserError
from training.progress import progress

NAMED = 20  # skipped files that are named one by one


@dataclass(frozen=True)
class Images:
    """Labelled images.

    images: uint8 [n, h, w, 3], RGB, 0 to 255.
    labels: int64 [n], positions in `names`.
    names: class names in natural order.
    paths: the n files, in the same order.
    notes: one line for each thing that was skipped or converted.
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple
    paths: tuple
    notes: tuple = ()

    def rows(self, index):
        """The images of the given row numbers."""
        paths = tuple(self.paths[i] for i in index)
        return Images(self.images[index], self.labels[index], self.names, paths)

    def __len__(self):
        return len(self.labels)


def natural_key(name):
    """Sorts Species2 before Species10."""
    return [int(part) if part.isdigit() else part.casefold() for part in re.split(r"(\d+)", name)], name


def class_folders(folder):
    """Class folders in natural order, each with its sorted files.

    Returns:
        List of (name, [path, …]).

    Raises:
        UserError: no folder, no class folder, one class only, or an empty class.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no folder at {folder}; give a folder that holds one folder of images for each class")
    found = []
    for path in sorted((p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=lambda p: natural_key(p.name)):
        files = sorted((p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")), key=lambda p: natural_key(str(p)))
        found.append((path.name, files))
    if len(found) < 2:
        have = f"only {found[0][0]}" if found else "none"
        raise UserError(f"{folder} must hold a folder of images for each of two or more classes, found {have}")
    for name, files in found:
        if not files:
            raise UserError(f"the class folder {folder / name} is empty; add images or remove it")
    return found


def read_image(path):
    """One file as an image viewer shows it.

    EXIF rotation is applied, 16-bit is scaled to 8, alpha is laid over white, grey and CMYK become RGB.

    Returns:
        (PIL image in mode RGB, what was converted: "" or a few words).

    Raises:
        OSError, SyntaxError, ValueError: not an image, or a damaged one.
    """
    with Image.open(path) as image:
        image.load()
        turned = ImageOps.exif_transpose(image)
    changed = ["rotated by EXIF"] if turned.size != image.size or turned.getexif().get(274) != image.getexif().get(274) else []
    image = turned
    if image.mode.startswith(("I", "F")):
        changed.append("16-bit")
        array = np.asarray(image, np.float64)
        image = Image.fromarray(np.clip(array / (257 if array.max() > 255 else 1), 0, 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        changed.append("alpha over white")
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode != "RGB":
        changed.append(f"{image.mode} to RGB")
    return image.convert("RGB"), ", ".join(changed)


def load_folder(folder, size=None):
    """Class folders → arrays.

    Files that are no readable image are left out, and each is named in the notes; other shapes and colour modes are
    converted and counted there.

    Args:
        folder: holds one folder for each class.
        size: (height, width) in pixels; None takes the most frequent size among the images.

    Returns:
        `Images`.

    Raises:
        UserError: see `class_folders`; a class without one readable image; the same bytes under two labels.
    """
    classes = class_folders(folder)
    files = [(path, label) for label, (_, paths) in enumerate(classes) for path in paths]
    with ThreadPoolExecutor() as pool:
        results = list(progress(pool.map(_try_read, [path for path, _ in files]), "reading images", len(files)))
    good = [(path, label, *result) for (path, label), result in zip(files, results, strict=True) if not isinstance(result, str)]
    notes = [f"skipped {path}: {result}" for (path, _), result in zip(files, results, strict=True) if isinstance(result, str)]
    if len(notes) > NAMED:
        notes[NAMED:] = [f"skipped {len(notes) - NAMED} more files that are no readable images"]
    for label, (name, _) in enumerate(classes):
        if not any(g[1] == label for g in good):
            raise UserError(f"no readable image in {Path(folder) / name}: {notes[0] if notes else ''}")
    _refuse_conflicts([(path, label, digest) for path, label, _, _, digest in good], [name for name, _ in classes])
    if size is None:
        size = Counter((i.height, i.width) for _, _, i, _, _ in good).most_common(1)[0][0]
    notes += _conversions(good, size)
    images = np.empty((len(good), *size, 3), np.uint8)
    for row, (_, _, image, _, _) in enumerate(good):
        images[row] = np.asarray(_resized(image, size))
    labels = np.array([label for _, label, _, _, _ in good], np.int64)
    return Images(images, labels, tuple(name for name, _ in classes), tuple(str(g[0]) for g in good), tuple(notes))


def split(labels, validation, seed, names=None):
    """Stratified, seeded division into training and validation.

    Args:
        labels: int [n].
        validation: share held out, 0 to below 1.
        seed: integer.
        names: class names, for the error.

    Returns:
        (training rows, validation rows), int64, each sorted.

    Raises:
        UserError: a class too small to be in both parts.
    """
    rows = np.arange(len(labels))
    if validation == 0:
        return rows, rows[:0]
    values, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        rare = values[counts.argmin()]
        raise UserError(f"class {names[rare] if names else rare} has one image; it needs two to be in both parts of the split")
    try:
        train, held = train_test_split(rows, test_size=validation, stratify=labels, random_state=seed)
    except ValueError as error:
        raise UserError(f"cannot hold out {validation:.0%} of {len(labels)} images: {error}") from error
    return np.sort(train), np.sort(held)


def split_fold(labels, folds, fold, seed, names=None):
    """One of several stratified, seeded folds, held out.

    Args:
        labels: int [n].
        folds: number of folds, 2 or more. Each row is held out in one of them.
        fold: which one, 0 to below `folds`.
        seed: integer.
        names: class names, for the error.

    Returns:
        (training rows, validation rows), int64, each sorted.

    Raises:
        UserError: a class with fewer images than folds.
    """
    values, counts = np.unique(labels, return_counts=True)
    if counts.min() < folds:
        rare = values[counts.argmin()]
        raise UserError(f"class {names[rare] if names else rare} has {counts.min()} images, too few for {folds} folds")
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels)
    return list(parts)[fold]


def _try_read(path):
    """(image, conversion, digest), or the reason why not."""
    try:
        data = path.read_bytes()
        image, changed = read_image(path)
    except Exception as error:  # each of Pillow's decoders raises its own
        return f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
    return image, changed, hashlib.sha256(data).digest()


def _refuse_conflicts(files, names):
    first, pairs = {}, []
    for path, label, digest in files:
        other, other_label = first.setdefault(digest, (path, label))
        if other_label != label:
            pairs.append(f"{other} ({names[other_label]}) = {path} ({names[label]})")
    if pairs:
        raise UserError(f"the same image stands under two labels, remove one of each pair: {'; '.join(pairs)}")


def _conversions(good, size):
    counts = Counter(changed for _, _, _, changed, _ in good if changed)
    notes = [f"converted {count} images: {changed}" for changed, count in sorted(counts.items())]
    other = sum((image.height, image.width) != tuple(size) for _, _, image, _, _ in good)
    if other:
        notes.append(f"resized {other} images to {size[0]}×{size[1]}")
    return notes


def _resized(image, size):
    height, width = size
    return image if image.size == (width, height) else image.resize((width, height), Image.BICUBIC)
