"""Loads class folders into arrays."""

import errno
import hashlib
import statistics
import sys
import time
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from common.copies import joined_groups, near_copies, near_copies_in, thumbnail
from common.errors import UserError
from common.folders import ClassFiles, list_classes, printable
from common.image_file import center_box, decode, read_file, reason_of, stored_size
from common.machine import available_cores
from common.progress import progress

NAMED = 20  # skipped files that are named one by one
PAIRS = 3  # of equal files with two labels that are named
MAX_SIDE = 512  # pixels; images of a larger most frequent size are reduced
SAME_ASPECT = 0.05  # relative difference of two aspects that are taken as the same
OTHER_ASPECTS = 0.1  # share of images of another aspect, above which all images are read as squares
TRIAL_FILES = 16  # on which the speed of reading is measured
DARK = 32  # an eighth of white
MIN_SHARE = 0.1  # of the images that have the most frequent size; with fewer, the median size is taken
# Errors that concern one file; others are of the disk, the network or this computer. Pillow's have no number.
OF_ONE_FILE = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENXIO)
REDUCED_SIDE = 384  # pixels, the longer side of reduced images; the recipes' networks use at most 299


@dataclass(frozen=True)
class Images:
    """Labelled images.

    images: uint8 [n, h, w, 3], RGB, 0 to 255.
    labels: int64 [n], positions in `names`.
    names: class names in natural order.
    paths: the n files, in the same order.
    notes: lines that say what was skipped, converted or found more than once.
    digests: a hash of the content of each image; empty if the images are not from files.
    file_hashes: the first 8 bytes of the SHA-256 of each file; empty if the images are not from files.
    thumbnails: uint8 [n, 8, 9], by which near copies are found; None if the images are not from files.
    group_names: names of the groups that the user gave, "" is no group. Empty if there are none.
    held_out: which images are the validation part that the user gave; empty if a split is drawn.
    teacher: float32 [n, classes], probabilities of another model that are trained on as soft targets; None without.
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    paths: tuple[str, ...]
    notes: tuple[str, ...] = ()
    digests: tuple[bytes, ...] = ()
    file_hashes: tuple[bytes, ...] = ()
    thumbnails: np.ndarray | None = None
    group_names: tuple[str, ...] = ()
    held_out: tuple[bool, ...] = ()
    teacher: np.ndarray | None = None

    @property
    def groups(self) -> np.ndarray:
        """int64 [n]. Images of one group, and copies of one image in one class, have the number of their first row."""
        copies = list(zip(self.labels.tolist(), self.digests, strict=True)) if self.digests else ()
        return joined_groups(len(self), copies, [name or row for row, name in enumerate(self.group_names)])

    def rows(self, index: Sequence[int] | np.ndarray) -> "Images":
        """Returns the images of the given row numbers, without the notes."""

        def chosen(values: tuple) -> tuple:
            return tuple(values[i] for i in index) if values else ()

        return replace(
            self,
            images=self.images[index],
            labels=self.labels[index],
            paths=chosen(self.paths),
            notes=(),
            digests=chosen(self.digests),
            file_hashes=chosen(self.file_hashes),
            thumbnails=None if self.thumbnails is None else self.thumbnails[index],
            group_names=chosen(self.group_names),
            held_out=chosen(self.held_out),
            teacher=None if self.teacher is None else self.teacher[index],
        )

    def with_validation(self, validation: "Images") -> "Images":
        """Returns these images and after them those of a validation part, marked as held out.

        Args:
            validation: images of the same size and class names.
        """
        parts = (self, validation)
        known = all(part.thumbnails is not None for part in parts)
        return replace(
            self,
            images=np.concatenate([self.images, validation.images]),
            labels=np.concatenate([self.labels, validation.labels]),
            paths=self.paths + validation.paths,
            digests=self.digests + validation.digests,
            file_hashes=self.file_hashes + validation.file_hashes,
            thumbnails=np.concatenate([part.thumbnails for part in parts]) if known else None,
            held_out=(False,) * len(self) + (True,) * len(validation),
        )

    def with_classes(self, names: Sequence[str], what: str, whose: str) -> "Images":
        """Returns the images with labels that are positions in other class names, matched by name.

        Args:
            names: class names. They may include classes without an image.
            what: what these images are, for the error.
            whose: what the class names are of, for the error.

        Raises:
            UserError: a class of these images is not among `names`.
        """
        places = {unicodedata.normalize("NFC", name): place for place, name in enumerate(names)}
        own = [unicodedata.normalize("NFC", name) for name in self.names]
        unknown = [name for name in own if name not in places]
        if unknown:
            folded = {name.casefold(): name for name in names}
            alike = [f"{name} for {folded[name.casefold()]}" for name in unknown if name.casefold() in folded]
            hint = f" (in other upper and lower case: {', '.join(alike)})" if alike else ""
            raise UserError(
                f"{what} must have the classes of {whose}, {', '.join(names)}; "
                f"got also {', '.join(unknown)}{hint}; rename or remove these classes"
            )
        labels = np.array([places[name] for name in own], np.int64)[self.labels]
        return replace(self, labels=labels, names=tuple(names))

    def count_in(self, other: "Images", rows: Iterable[int] | None = None) -> int:
        """Returns how many of these images are also in `other`, which was loaded at the same size.

        Args:
            other: `Images`.
            rows: only these rows of `other`; None: all.
        """
        digests = set(other.digests if rows is None else (other.digests[row] for row in rows))
        return sum(digest in digests for digest in self.digests)

    def near_copies_in(self, other: "Images") -> list[tuple[str, str]]:
        """Returns (path here, path there) of these images that look nearly the same as one of their class in `other`.

        Images that are also in `other` pixel by pixel are left out; see `count_in`.

        Args:
            other: `Images` with the same classes.
        """
        if self.thumbnails is None or other.thumbnails is None:
            return []
        found, same = near_copies_in(self.thumbnails, self.labels, other.thumbnails, other.labels), set(other.digests)
        rows = [row for row in np.flatnonzero(found >= 0) if self.digests[row] not in same]
        return [(self.paths[row], other.paths[found[row]]) for row in rows]

    def contradictions(self, other: "Images") -> list[tuple[str, str]]:
        """Returns (path here, path there) of these images that are of another class in `other`.

        Args:
            other: `Images` of the same size and classes.
        """
        there = {digest: row for row, digest in enumerate(other.digests)}
        pairs = ((row, there[digest]) for row, digest in enumerate(self.digests) if digest in there)
        return [(self.paths[row], other.paths[at]) for row, at in pairs if self.labels[row] != other.labels[at]]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class _Photo:
    """What is known of an image file that was read, besides its pixels.

    size: (height, width) in the file, upright.
    sha256: of the file's bytes.
    digest: of its pixels.
    """

    path: Path
    label: int
    size: tuple[int, int]
    conversion: str
    sha256: bytes
    digest: bytes
    thumbnail: np.ndarray


def load_folder(folder: Path | str, size: tuple[int, int] | None = None) -> Images:
    """Loads class folders into arrays. See `load_images`; a UserError also for what `list_classes` refuses."""
    return load_images(list_classes(folder), size)


def load_images(listed: ClassFiles, size: tuple[int, int] | None = None) -> Images:
    """Loads the listed files of each class into arrays.

    Files that are not readable images are skipped and named in the notes. Images of another size or color mode are
    converted, and the notes count them, as well as copies.

    Args:
        listed: of `list_classes`, or of `common.labels.list_labelled`.
        size: (height, width) in pixels. None takes that of `working_size`.

    Returns:
        `Images`.

    Raises:
        UserError: a class has no readable image; the same file has two labels; too little memory.
        OSError, MemoryError: this computer cannot read a file.
    """
    names = tuple(name for name, _ in listed.classes)
    files = [(path, label) for label, (_, paths) in enumerate(listed.classes) for path in paths]
    given = (size[0], size[1]) if size else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # damaged metadata, which the notes count
        images, results, used = _read_at_size(files, given)
    photos = [result for result in results if isinstance(result, _Photo)]
    notes = [result for result in results if isinstance(result, str)]
    _check_readable(photos, names, [(label, r) for (_, label), r in zip(files, results, strict=True)])
    _check_labels(photos, names)
    labels = np.array([photo.label for photo in photos], np.int64)
    if len(notes) > NAMED:
        notes[NAMED:] = [f"skipped {len(notes) - NAMED} more files that are not readable images"]
    notes += [*listed.notes, *_hidden(listed.skipped), *_conversions(photos, used, given is None)]
    thumbnails = np.stack([photo.thumbnail for photo in photos])
    notes += _copies(photos, labels, names, thumbnails)
    paths = tuple(str(photo.path) for photo in photos)
    digests, hashes = (photo.digest for photo in photos), (photo.sha256[:8] for photo in photos)
    return Images(images, labels, names, paths, tuple(notes), tuple(digests), tuple(hashes), thumbnails)


def cost_of_reading(listed: ClassFiles, size: tuple[int, int] | None = None) -> tuple[float, int]:
    """Measures what an image costs that `load_images` reads, on a few evenly spaced files.

    Args:
        listed, size: see `load_images`.

    Returns:
        (seconds, bytes of memory) for each image; 0 bytes if none of the files is a readable image.
    """
    files = [(path, label) for label, (_, paths) in enumerate(listed.classes) for path in paths]
    some, began = files[:: max(1, len(files) // TRIAL_FILES)], time.monotonic()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        images, _, _ = _read_at_size(some, size)
    return (time.monotonic() - began) / max(1, len(some)), images[0].nbytes if len(images) else 0


def stored_sizes(listed: ClassFiles) -> set[tuple[int, int]]:
    """Returns the different sizes, (height, width) upright, of the readable files, from their heads alone."""
    with _pool() as pool:
        sizes = pool.map(_size_or_none, [path for _, paths in listed.classes for path in paths])
        return {size for size in sizes if size}


def working_size(sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Returns the size, (height, width), at which images of several sizes are read.

    It is the most frequent size, or the median height and width if less than a tenth of the images have that size, or
    less than half of them and it is less than half of the median. It is a square of the shorter side if more than a
    tenth of the images have another aspect: a center crop to a square loses least. Of the median size, it is the median
    of the shorter sides. It is reduced to `REDUCED_SIDE` if a side is above `MAX_SIDE`.

    Args:
        sizes: (height, width) of each image, in pixels; at least one.
    """
    counts = Counter(sizes)
    (height, width), most = counts.most_common(1)[0]
    shorter, share = min(height, width), most / counts.total()
    median = int(statistics.median(min(size) for size in counts.elements()))
    if share < MIN_SHARE or (share < 0.5 and 2 * shorter < median):  # the latter are thumbnails among photographs
        height, width = (int(statistics.median(sides)) for sides in zip(*counts.elements(), strict=True))
        shorter = median
    other = sum(count for (h, w), count in counts.items() if abs(h * width - w * height) > SAME_ASPECT * w * height)
    if other > OTHER_ASPECTS * counts.total():
        height = width = shorter
    longer = max(height, width)
    if longer <= MAX_SIDE:
        return height, width
    return max(1, round(height * REDUCED_SIDE / longer)), max(1, round(width * REDUCED_SIDE / longer))


def _read_at_size(
    files: list[tuple[Path, int]], size: tuple[int, int] | None
) -> tuple[np.ndarray, list[_Photo | str], tuple[int, int]]:
    """Reads all files at the given size, or at the working size of those that are readable."""
    if size:
        return (*_read_files(files, size), size)
    with _pool() as pool:
        sizes = [size for size in pool.map(_size_or_none, [path for path, _ in files]) if size]
    while True:
        used = working_size(sizes or [(1, 1)])
        images, results = _read_files(files, used)
        sizes = [result.size for result in results if isinstance(result, _Photo)]
        if not sizes or working_size(sizes) == used:  # rarely not, if many files are damaged behind their heads
            return images, results, used


def _read_files(files: list[tuple[Path, int]], size: tuple[int, int]) -> tuple[np.ndarray, list[_Photo | str]]:
    """Reads files in parallel. Returns the images that could be read, and for each file what is known or a note."""
    try:
        images = np.empty((len(files), *size, 3), np.uint8)
    except MemoryError:
        raise UserError(
            f"{len(files)} images of {size[0]}×{size[1]} pixels need {len(files) * size[0] * size[1] * 3 / 1e9:.0f} GB "
            "of memory; give a smaller --size, or fewer images"
        ) from None

    def read(row: int) -> _Photo | str:
        return _read_file(*files[row], images[row])

    with _pool() as pool:  # Pillow's decoders run in parallel, so threads are as fast as processes
        results = list(progress(pool.map(read, range(len(files))), "reading images", len(files)))
    good = [row for row, result in enumerate(results) if isinstance(result, _Photo)]
    for place, row in enumerate(good):  # in place, because a copy would need the memory twice
        if place != row:
            images[place] = images[row]
    return images[: len(good)], results


def _pool() -> ThreadPoolExecutor:
    """One thread for each core that this process may use, because each holds a decoded image."""
    return ThreadPoolExecutor(available_cores())


def _size_or_none(path: Path) -> tuple[int, int] | None:
    try:
        return stored_size(path)
    except Exception:  # each of Pillow's decoders raises its own; the file is read again, and then skipped with a note
        return None


def _read_file(path: Path, label: int, pixels: np.ndarray) -> _Photo | str:
    """Reads one file into `pixels` [h, w, 3]. Returns a note if it is not a readable image.

    Raises:
        OSError, MemoryError: this computer cannot read the file; the image may be good.
    """
    try:
        data = read_file(path)
        picture = decode(data, pixels.shape[:2])
    except MemoryError:
        raise
    except Exception as error:  # each of Pillow's decoders raises its own
        if isinstance(error, OSError) and error.errno not in OF_ONE_FILE:
            raise OSError(error.errno, error.strerror, str(path)) from error
        return f"skipped {printable(path)}: {reason_of(error)}"
    pixels[:] = np.asarray(picture.image)
    digest = hashlib.sha256(f"{picture.size}".encode())
    digest.update(pixels.data)
    sha256 = hashlib.sha256(data).digest()
    return _Photo(path, label, picture.size, picture.conversion, sha256, digest.digest(), thumbnail(picture.image))


def _check_readable(photos: list[_Photo], names: tuple[str, ...], results: list[tuple[int, _Photo | str]]) -> None:
    """Raises a UserError if a class has no readable image."""
    readable = {photo.label for photo in photos}
    for label, name in enumerate(names):
        if label not in readable:
            reason = next(note for of, note in results if of == label)
            raise UserError(
                f"each class must have a readable image, {name} has none: {reason}; add images, or remove the class"
            )


def _check_labels(photos: list[_Photo], names: tuple[str, ...]) -> None:
    """Raises a UserError that names files of the same bytes in two classes. If they are many, all are printed first."""
    first: dict[bytes, _Photo] = {}
    pairs = []
    for photo in photos:
        other = first.setdefault(photo.sha256, photo)
        if other.label != photo.label:
            pairs.append(
                f"{printable(other.path)} ({names[other.label]}) = {printable(photo.path)} ({names[photo.label]})"
            )
    if pairs:
        more = [f"and the other {len(pairs) - PAIRS} pairs printed above"] if len(pairs) > PAIRS else []
        for pair in pairs if more else []:
            print(f"two labels: {pair}", file=sys.stderr)
        shown = "; ".join([*pairs[:PAIRS], *more])
        raise UserError(f"each image must have one label, these have two; remove one of each pair: {shown}")


def _hidden(skipped: Sequence[Path]) -> Iterator[str]:
    if skipped:
        yield f"skipped {len(skipped)} hidden or system files, for example {printable(skipped[0])}"


def _conversions(photos: list[_Photo], size: tuple[int, int], automatic: bool) -> Iterator[str]:
    """Notes on the images that were converted or resized. `automatic`: nobody has given the size."""
    counts = Counter(photo.conversion for photo in photos if photo.conversion)
    for conversion, count in sorted(counts.items()):
        yield f"converted {count} images: {conversion}"
    deep = [photo.thumbnail.max() for photo in photos if "65535 is white" in photo.conversion]
    if deep and max(deep) < DARK:
        yield (
            f"warning: all {len(deep)} images of more than 8 bits are nearly black, because 65535 is white; "
            "if they have 12 bits, multiply their values by 16"
        )
    resized = sum(photo.size != size for photo in photos)
    if resized:
        yield f"resized {resized} images to {size[0]}×{size[1]}"
    lost = [_lost(photo.size, size) for photo in photos]
    cropped = sum(share > SAME_ASPECT for share in lost)
    if cropped:
        yield f"cropped {cropped} of them at the center to this aspect, which removed up to {max(lost):.0%} of an image"
    (height, width), most = Counter(photo.size for photo in photos).most_common(1)[0]
    if automatic and size[0] == size[1] and height != width:
        yield (
            f"the images have several aspect ratios, so they are read as squares of {size[0]}×{size[1]}; --size "
            "chooses another size"
        )
    elif automatic and most < MIN_SHARE * len(photos):
        yield (
            f"no size is that of a tenth of the images, so they are read at the median size, {size[0]}×{size[1]}; "
            "--size chooses another"
        )
    elif automatic and (height, width) != size and max(height, width) <= MAX_SIDE:
        yield (
            f"the most frequent size {height}×{width} is that of thumbnails, so the images are read at the median "
            f"size, {size[0]}×{size[1]}; --size chooses another"
        )
    elif automatic and (height, width) != size:
        yield (
            f"the most frequent size {height}×{width} is reduced, because a side is longer than {MAX_SIDE} pixels; "
            "--size chooses another"
        )


def _lost(size: tuple[int, int], used: tuple[int, int]) -> float:
    """The share of an image that a center crop to the aspect of another size removes."""
    left, top, right, bottom = center_box(size[::-1], used[::-1])
    return 1 - (right - left) * (bottom - top) / (size[0] * size[1])


def _copies(photos: list[_Photo], labels: np.ndarray, names: tuple[str, ...], thumbnails: np.ndarray) -> Iterator[str]:
    """Warnings of copies, within a class and between classes, and a note on near copies."""
    groups = joined_groups(len(photos), [(photo.label, photo.digest) for photo in photos])
    first = np.unique(groups)
    if len(first) < len(photos):
        row = int(np.flatnonzero(groups != np.arange(len(photos)))[0])
        pair = f"{printable(photos[groups[row]].path)} = {printable(photos[row].path)}"
        yield (
            f"warning: {len(photos) - len(first)} images are copies of another of their class, for example {pair}; "
            "a split keeps copies in one part"
        )
    yield from _contradictions(photos, names)
    earlier = near_copies(thumbnails[first], labels[first])
    near = np.flatnonzero(earlier >= 0)
    if len(near):
        one, other = (printable(photos[first[row]].path) for row in (earlier[near[0]], near[0]))
        yield (
            f"{len(near)} images look nearly the same as another of their class, for example {one} and {other}; "
            "if they show the same thing, keep one of them"
        )


def _contradictions(photos: list[_Photo], names: tuple[str, ...]) -> Iterator[str]:
    """A warning of images with the same pixels, but not the same bytes, in two classes."""
    by_digest: dict[bytes, _Photo] = {}
    pairs = []
    for photo in photos:
        other = by_digest.setdefault(photo.digest, photo)
        if other.label != photo.label:
            pairs.append((other, photo))
    if pairs:
        example = " = ".join(f"{printable(photo.path)} ({names[photo.label]})" for photo in pairs[0])
        yield f"warning: {len(pairs)} images have the pixels of an image of another class, for example {example}"
