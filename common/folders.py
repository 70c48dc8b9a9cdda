"""Lists the files of class folders, without hidden and system files."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.errors import UserError

# Names, in lower case, of what operating systems, network drives and archives add to folders.
SYSTEM_NAMES = frozenset(
    ("@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "__macosx", "lost+found", "$recycle.bin")
    + ("recycler", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")
)
MIN_FILES = 8  # files that a rare class keeps of a listing that is limited
# Names of the parts of a data set, which are not classes.
PART = re.compile(
    r"((images?|imgs?|seg)[ _-])?"
    r"(train|training|val|valid|validation|test|testing|eval|dev|holdout|phase|fold|split)"
    r"([ _-]?(images?|imgs?|set|data))?[ _-]?\d*",
    re.I,
)
# The same anywhere in a name, as in test_stg1 and asl_alphabet_train.
TRAIN_PART = re.compile(r"(.*[^a-z])?train(ing)?([^a-z].*)?", re.I | re.S)
OTHER_PART = re.compile(r"(.*[^a-z])?(test(ing)?|val|valid|validation|eval|dev)([^a-z].*)?", re.I | re.S)
# Names of folders beside the images of a data set, which are not classes either.
BESIDE = re.compile(
    r"((images?|imgs?|seg)[ _-])?(masks?|annotations?|segmentations?|unlabell?ed)([ _-]?images?)?", re.I
)
ARCHIVES = frozenset((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"))  # extensions
TABLES = frozenset((".csv", ".tsv"))
ARRAYS = frozenset((".npz", ".npy", ".h5", ".hdf5", ".pkl", ".mat", ".parquet", ".tfrecord"))
MORE_IMAGES = frozenset((".heic", ".heif"))  # extensions of images that Pillow reads with a plug-in only
READ_BY_JPEG = frozenset(("MPO",))
NOT_READ = frozenset(("HDF5", "GRIB", "BUFR", "MPEG"))  # formats that Pillow only recognizes
UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # Unicode categories: control characters, bytes that are not UTF-8, line breaks


@dataclass(frozen=True)
class ClassFiles:
    """The files of each class, by class folders (`list_classes`) or by a table (`common.labels`).

    classes: (name, files) of each class, both in natural order.
    skipped: the hidden and system files, which are in no class.
    notes: lines that say what is unusual.
    """

    classes: tuple[tuple[str, tuple[Path, ...]], ...]
    skipped: tuple[Path, ...]
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """The number of files of all classes."""
        return sum(len(files) for _, files in self.classes)

    def limited(self, most: int) -> "ClassFiles":
        """Returns a listing of at most `most` files, evenly spaced in each class. Each class keeps at least one.

        Rare classes keep more of their files: half of an equal share, but from 2 to 8 files, if that is possible.
        """
        if self.count <= most:
            return self
        each = most // len(self.classes)
        least = max(1, min(MIN_FILES, max(each // 2, min(2, each))))
        rest = sum(max(0, len(files) - least) for _, files in self.classes)
        share = max(0, most - sum(min(least, len(files)) for _, files in self.classes)) / max(1, rest)
        wanted = [min(least, len(files)) + max(0, len(files) - least) * share for _, files in self.classes]
        kept = [int(count) for count in wanted]
        by_remainder = sorted(range(len(kept)), key=lambda place: kept[place] - wanted[place])
        for place in by_remainder[: max(0, most - sum(kept))]:
            kept[place] = min(kept[place] + 1, len(self.classes[place][1]))
        classes = [
            (name, tuple(files[place * len(files) // count] for place in range(count)))
            for (name, files), count in zip(self.classes, kept, strict=True)
        ]
        return replace(self, classes=tuple(classes))


def natural_key(name: str) -> tuple:
    """Returns a sort key that puts Species2 before Species10."""
    parts = re.split(r"(\d+)", name)  # every second one is a number; isdigit() is also true for ² and ①, int() fails
    return [int(part) if place % 2 else part.casefold() for place, part in enumerate(parts)], name


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or belongs to the operating system."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def has_image_extension(path: Path) -> bool:
    """Whether the extension is that of an image."""
    from PIL import Image  # here, because packing and uploading need no Pillow

    suffix = path.suffix.lower()
    return (
        suffix in MORE_IMAGES
        or Image.registered_extensions().get(suffix) in READ_BY_JPEG | Image.OPEN.keys() - NOT_READ
    )


def printable(text: object) -> str:
    """Returns a text or path with escapes in place of line breaks, control characters and bytes that are not UTF-8."""
    decoded = str(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in UNPRINTABLE else character
        for character in decoded
    )


def list_classes(folder: Path | str) -> ClassFiles:
    """Lists class folders in natural order. Hidden and system files and folders are skipped.

    Args:
        folder: contains one folder of images for each class.

    Raises:
        UserError: the folder does not exist, has fewer than two class folders, or contains parts of a data set instead;
            a class folder is empty, or its name cannot be printed.
    """
    folder = Path(folder)
    if folder.is_file():
        suffix, fix = folder.suffix.lower(), "if it is a zip, unpack it"
        if suffix in ARRAYS:
            fix = "save each image as a PNG file"
        elif suffix in TABLES:
            fix = "give the folder of its images, and this file with --labels"
        raise UserError(f"class folders must be in a folder, {printable(folder)} is a file; {fix}")
    if not folder.is_dir():
        raise UserError(
            f"the folder of class folders must exist; there is no folder {printable(folder)}, check the path"
        )
    entries = sorted(folder.iterdir(), key=lambda path: natural_key(path.name))
    broken = _broken_links(entries)
    every = [path for path in entries if path.is_dir()]
    skipped = [file for path in every if is_hidden(path.name) for file in walk_files(path)[0]]
    classes = []
    for path in every:
        if not is_hidden(path.name):
            files, hidden = walk_files(path)
            classes.append((path.name, tuple(files)))
            skipped += hidden
    _check_count(folder, [name for name, _ in classes])
    notes = _check_level(folder, classes)
    _check_names(folder, classes)
    notes += warnings_of_names([name for name, _ in classes], printable(folder))
    notes += _notes_of_files(entries, broken)
    return ClassFiles(tuple(classes), tuple(skipped), tuple(notes))


def _notes_of_files(entries: Sequence[Path], broken: Sequence[Path]) -> Iterator[str]:
    """Notes of what is beside the class folders and is not read."""
    loose = [path for path in entries if path.is_file() and not is_hidden(path.name)]
    for kind, chosen in (
        ("images that are in no class folder", [path for path in loose if has_image_extension(path)]),
        ("broken links", broken),
        ("archives that are not unpacked", [path for path in loose if path.suffix.lower() in ARCHIVES]),
    ):
        if chosen:
            yield f"skipped {len(chosen)} {kind}, for example {printable(chosen[0])}"


def _broken_links(entries: Sequence[Path]) -> list[Path]:
    """The links to nothing. Raises a UserError for one that may be a class on a disk that is not mounted."""
    broken = [path for path in entries if path.is_symlink() and not path.exists() and not is_hidden(path.name)]
    for path in broken:
        if not path.suffix and not path.readlink().suffix:  # else it is the link of a file
            raise UserError(
                f"class folders must exist, {printable(path)} is a link to {printable(path.readlink())}, which does "
                "not; mount its disk, or remove the link"
            )
    return broken


def warnings_of_names(names: Sequence[str], where: str) -> Iterator[str]:
    """Yields warnings of class names that may mean the same class.

    Args:
        names: the class names.
        where: the folder or the file that they are from.
    """
    kinds: tuple[tuple[Callable, str], ...] = (
        (lambda name: " ".join(name.split()).casefold(), "differ only in upper and lower case, or in blanks"),
        (_as_number, "are the same numbers, written in several ways"),
    )
    for key, what in kinds:
        count = Counter(map(key, names))
        alike = [name for name in names if count[key(name)] > 1]
        if alike:
            yield f"warning: the classes {', '.join(alike)} of {where} {what}"


def _as_number(text: str) -> int | str:
    """The whole number that a text is, or the text."""
    return int(text.partition(".")[0]) if re.fullmatch(r"[+-]?[0-9]+(\.0*)?", text) else text


def walk_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Returns (files, hidden and system files) of a folder and its subfolders, in natural order.

    Links to folders, which are not followed, and broken links are listed as files, so that a note names them when they
    cannot be read. Below a hidden folder every file is hidden.

    Raises:
        OSError: a folder cannot be read.
    """
    files: list[Path] = []
    hidden: list[Path] = []

    def stop(error: OSError) -> None:
        raise error

    for root, folders, names in os.walk(folder, onerror=stop):
        inside = any(is_hidden(part) for part in Path(root).relative_to(folder).parts)
        for name in (*names, *folders):
            path = Path(root, name)
            if path.is_symlink() or path.is_file():
                (hidden if inside or is_hidden(name) else files).append(path)
    return sorted(files, key=lambda path: natural_key(str(path))), sorted(hidden)


def subfolders(folder: Path) -> set[str]:
    """Returns the names of the visible folders in a folder that contain a visible file."""
    return {
        path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name) and walk_files(path)[0]
    }


def _check_count(folder: Path, names: list[str]) -> None:
    if len(names) >= 2:
        return
    got = f"only {printable(names[0])}" if names else "none"
    fix = "add one folder for each class"
    if not names and any(path.is_file() and not is_hidden(path.name) for path in folder.iterdir()):
        fix = "move its images there, or give a CSV file of their labels (--labels)"
    if names:
        inside = folder / names[0]
        while len(inner := subfolders(inside)) == 1:
            inside /= inner.pop()
        if inner:
            fix = f"give {printable(inside)}"
    raise UserError(f"{printable(folder)} must contain at least two class folders, got {got}; {fix}")


def _check_level(folder: Path, classes: list[tuple[str, tuple[Path, ...]]]) -> list[str]:
    """Raises a UserError if the folders are the parts of a data set. Returns a note if they could be."""
    inner = {
        name: {path.relative_to(folder / name).parts[0] for path in files if path.parent != folder / name}
        for name, files in classes
    }
    shared = {sub for name in inner for sub in inner[name] if sum(sub in other for other in inner.values()) > 1}
    parts = [name for name in inner if PART.fullmatch(name)]
    holders = [name for name in inner if len(inner[name]) > 1]
    if holders and (len(parts) == len(inner) or (parts and shared)):
        best = next((name for name in holders if name.lower().startswith("train")), holders[0])
        raise UserError(
            f"{printable(folder)} must contain class folders, got {', '.join(map(printable, inner))}, which hold class "
            f"folders themselves; give {printable(folder / best)}"
        )
    _check_parts(folder, inner)
    for name in inner:
        if len(inner[name] & set(inner)) > 1:
            raise UserError(
                f"{printable(folder)} must contain class folders, got {printable(name)} among them, which holds "
                f"folders of the same names; give {printable(folder / name)}, or move it elsewhere"
            )
    others = [name for name in inner if name not in parts and not BESIDE.fullmatch(name)]
    if not others and any(name in parts for name in holders):
        best = next(name for name in holders if name in parts)
        raise UserError(
            f"{printable(folder)} must contain class folders, got {printable(best)} among them, which holds folders "
            f"itself; give {printable(folder / best)}, or rename it if it is a class"
        )
    return list(_notes_of_level([*inner], parts, shared))


def _check_parts(folder: Path, inner: Mapping[str, set[str]]) -> None:
    """Raises a UserError if all folders are called as parts of a data set, some for training and some for testing."""
    train = [name for name in inner if TRAIN_PART.fullmatch(name)]
    others = [name for name in inner if name not in train and OTHER_PART.fullmatch(name)]
    beside = [name for name in inner if BESIDE.fullmatch(name)]
    if not train or not others or len({*train, *others, *beside}) < len(inner):
        return
    holders = [name for name in train if inner[name]]
    if holders:
        fix = f"give {printable(folder / holders[0])}"
    else:
        best = folder / train[0] if len(train) == 1 else folder
        fix = f"give {printable(best)}, with a CSV file of the labels of its images (--labels)"
    raise UserError(
        f"{printable(folder)} must contain class folders, got {', '.join(map(printable, inner))}, which are called as "
        f"parts of a data set; {fix}, or rename them if they are classes"
    )


def _notes_of_level(names: list[str], parts: list[str], shared: set[str]) -> Iterator[str]:
    """Notes of class folders, or of subfolders of theirs, that are called as something else.

    Args:
        names: of the class folders.
        parts: those that are called as parts of a data set.
        shared: names of subfolders that several classes have.
    """
    # The classes mask and no_mask, for example, are about masks.
    folded = [name.lower() for name in names]
    beside = [name for name in names if BESIDE.fullmatch(name) and sum(name.lower()[:4] in one for one in folded) == 1]
    used_too = sorted((name for name in shared if PART.fullmatch(name) or BESIDE.fullmatch(name)), key=natural_key)
    if any(name.lower() != "train" for name in parts):  # a train is also a vehicle
        yield (
            f"warning: the folders {', '.join(map(printable, parts))} are taken as classes, but are called as parts of "
            "a data set; if they are, give the folder of one part, with --labels if it has no class folders"
        )
    if beside:
        yield (
            f"warning: the folders {', '.join(map(printable, beside))} are taken as classes, but are called as masks, "
            "annotations or images without labels; if they are, move them elsewhere"
        )
    if used_too:
        yield (
            f"warning: the images in the subfolders {', '.join(map(printable, used_too[:3]))} of the classes are used "
            "like the others; if they are masks or test images, move them elsewhere"
        )
    elif len(shared) > 1:
        listed = ", ".join(map(printable, sorted(shared, key=natural_key)[:3]))
        yield f"several classes have the subfolders {listed}; if these are the classes, give a folder that holds them"


def _check_names(folder: Path, classes: list[tuple[str, tuple[Path, ...]]]) -> None:
    seen: dict[str, str] = {}
    for name, files in classes:
        if printable(name) != name:
            raise UserError(
                f"the name of a class folder must be printable UTF-8 text, got {printable(folder / name)}; rename it"
            )
        if not files:
            raise UserError(
                f"each class folder must contain images, {printable(folder / name)} is empty; add images or remove it"
            )
        other = seen.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            raise UserError(
                f"{printable(folder)} must not have two class folders that are both shown as {name}; rename one"
            )
