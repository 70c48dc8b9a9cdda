"""Rebuilds the competition's class folders from the public DeepWeeds.

DeepWeeds: A. Olsen et al., "DeepWeeds: A Multiclass Weed Species Image Dataset for Deep Learning", Scientific Reports
9, 2058 (2019), doi:10.1038/s41598-018-38343-3; images and labels under CC BY 4.0. The competition used half of the
images of its eight species, with fewer of two of them, scaled to 96×96.
"""

import csv
import random
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from common.errors import UserError
from common.files import atomic_folder
from common.progress import progress

ARCHIVES = {
    "images.zip": "https://drive.usercontent.google.com/download?id=1xnK3B6K6KekDI55vwJ0vnc2IGoDga9cj&export=download&confirm=t",
    "labels.csv": "https://raw.githubusercontent.com/AlexOlsen/DeepWeeds/master/labels/labels.csv",
}
IMAGES = 17_509
SIDE = 96  # pixels
PHASE1 = 0.3  # share of the test set that the competition scored in its first phase

# Species as in DeepWeeds' labels.csv, in the competition's order: (training images, test images).
COUNTS = {
    "Chinee apple": (186, 186),
    "Lantana": (532, 532),
    "Parkinsonia": (515, 516),
    "Parthenium": (511, 511),
    "Prickly acacia": (531, 531),
    "Rubber vine": (222, 222),
    "Siam weed": (537, 537),
    "Snake weed": (508, 508),
}


def rebuild(images: Path | str, labels: Path | str, out: Path | str, counts: dict = COUNTS) -> None:
    """Writes `train`, `phase1` and `phase2`, each with the folders Species1 to Species8 of 96×96 JPEG files.

    Args:
        images: folder of DeepWeeds' images.
        labels: CSV with the columns Filename and Species.
        out: new folder; must not exist.
        counts: species → (training images, test images).

    Raises:
        UserError: a missing file or column, too few images of a species, an unreadable image, or `out` exists.
    """
    images, out = Path(images), Path(out)
    if out.exists():
        raise UserError(f"--out must be a new folder, {out} exists; give another one, or remove it first")
    chosen = choose(labels, counts)
    missing = [name for *_, name in chosen if not (images / name).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(chosen)} images are not in {images}, the first is {missing[0]}; "
            "give DeepWeeds' folder of images"
        )
    with atomic_folder(out) as temporary:
        for part, folder in {(part, folder) for part, folder, _, _ in chosen}:
            (temporary / part / folder).mkdir(parents=True)

        def convert(entry: tuple[str, str, int, str]) -> None:
            part, folder, number, name = entry
            shrink(images / name, temporary / part / folder / f"{number:05d}.jpg")

        with ThreadPoolExecutor() as pool:
            list(progress(pool.map(convert, chosen), "scaling images", len(chosen), unit="image"))


def choose(labels: Path | str, counts: dict = COUNTS) -> list[tuple[str, str, int, str]]:
    """Chooses the images of each part.

    The sorted file names of a species are shuffled with a seed made of its name. The first ones are `train`, the next
    ones the test set. The first 30 % of the test set are `phase1`, the rest is `phase2`.

    Args:
        labels, counts: see `rebuild`.

    Returns:
        List of (part, class folder, number within the part, file name).

    Raises:
        UserError: no such table, or too few images of a species.
    """
    names = _read_labels(labels)
    chosen = []
    for position, (species, (train, test)) in enumerate(counts.items(), 1):
        files = sorted(names.get(species, ()))
        if len(files) < train + test:
            raise UserError(
                f"{labels} must list {train + test} images of {species}, got {len(files)}; give DeepWeeds' labels.csv"
            )
        random.Random(f"an2dl-2022/{species}").shuffle(files)
        phase1 = train + round(PHASE1 * test)
        for part, first, last in (("train", 0, train), ("phase1", train, phase1), ("phase2", phase1, train + test)):
            chosen += [(part, f"Species{position}", number, name) for number, name in enumerate(files[first:last])]
    return chosen


def shrink(source: Path, target: Path) -> None:
    """Writes one image in the competition's format: RGB, 96×96 bicubic, JPEG quality 95 without chroma subsampling."""
    try:
        with Image.open(source) as image:
            small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    except (OSError, SyntaxError) as error:
        raise UserError(f"{source} is not a readable image ({error}); download DeepWeeds again") from error
    small.save(target, quality=95, subsampling=0)


def download(folder: Path | str) -> tuple[Path, Path]:
    """Downloads DeepWeeds' `images.zip` and `labels.csv` and unpacks the images.

    Args:
        folder: where to keep them. Files that are already there are not downloaded again.

    Returns:
        (folder of images, labels file).

    Raises:
        UserError: no network, or not 17,509 images.
    """
    import keras

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)  # Keras would save elsewhere
    place = {"cache_dir": folder, "cache_subdir": ""}
    try:
        labels = keras.utils.get_file("labels.csv", ARCHIVES["labels.csv"], **place)
        unpacked = keras.utils.get_file("images.zip", ARCHIVES["images.zip"], extract=True, **place)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"cannot download DeepWeeds ({reason}); download images.zip and labels.csv from "
            "github.com/AlexOlsen/DeepWeeds yourself and give --images and --labels"
        ) from error
    return check_count(unpacked), Path(labels)


def check_count(folder: Path | str) -> Path:
    """Returns the folder, at or below `folder`, of DeepWeeds' images.

    Raises:
        UserError: it does not hold all 17,509 images.
    """
    files = list(Path(folder).rglob("*.jpg"))
    if len(files) != IMAGES:
        raise UserError(
            f"{folder} must hold the {IMAGES:,} images of DeepWeeds, got {len(files):,}; delete it and download again"
        )
    return files[0].parent


def _read_labels(labels: Path | str) -> dict[str, list[str]]:
    """Species → file names."""
    try:
        with open(labels, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {labels}: {error}; give DeepWeeds' labels.csv") from error
    if not rows or not {"Filename", "Species"} <= rows[0].keys():
        raise UserError(f"{labels} must have the columns Filename and Species; give DeepWeeds' labels.csv")
    names = defaultdict(list)
    for row in rows:
        names[row["Species"]].append(row["Filename"])
    return names
