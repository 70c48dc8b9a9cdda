"""The public DeepWeeds → the competition's class folders.

DeepWeeds: A. Olsen et al., "DeepWeeds: A Multiclass Weed Species Image Dataset for Deep Learning", Scientific Reports
9, 2058 (2019), doi:10.1038/s41598-018-38343-3; images and labels under CC BY 4.0. The competition used half of it,
scaled to 96×96, two species thinned further.
"""

import csv
import os
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from training.errors import UserError
from training.progress import progress

ARCHIVES = {
    "images.zip": "https://drive.usercontent.google.com/download?id=1xnK3B6K6KekDI55vwJ0vnc2IGoDga9cj&export=download&confirm=t",
    "labels.csv": "https://raw.githubusercontent.com/AlexOlsen/DeepWeeds/master/labels/labels.csv",
}
IMAGES = 17_509
SIDE = 96  # pixels
PHASE1 = 0.3  # share of the test set that the competition scored in its first phase

# Species as the CSV names them, in the competition's order: (training images, test images).
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


def rebuild(images, labels, out, counts=COUNTS):
    """Writes `train`, `phase1` and `phase2`, each with the folders Species1 to Species8 of 96×96 JPEG files.

    Args:
        images: folder that holds DeepWeeds' images.
        labels: CSV with the columns Filename and Species.
        out: folder to make; must not exist.
        counts: species → (training images, test images).

    Raises:
        UserError: a missing file or column, too few images of a species, an unreadable image, or `out` exists.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f"{out} exists; give another --out, or remove it first")
    chosen = choose(labels, counts)
    missing = [name for *_, name in chosen if not (Path(images) / name).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(chosen)} images are not in {images}, the first is {missing[0]}; give DeepWeeds' folder of images"
        )
    temporary = out.with_name(f".tmp-{out.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    for part, folder in {(part, folder) for part, folder, _, _ in chosen}:
        (temporary / part / folder).mkdir(parents=True)

    def convert(entry):
        part, folder, number, name = entry
        shrink(Path(images) / name, temporary / part / folder / f"{number:05d}.jpg")

    try:
        with ThreadPoolExecutor() as pool:
            list(progress(pool.map(convert, chosen), "scaling images", len(chosen), unit="image"))
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def choose(labels, counts=COUNTS):
    """Which image goes where: a list of (part, class folder, place in the part, file name).

    The names of a species, sorted, are shuffled with a seed made of its name; the first are `train`, the next the
    test set, of which the first 30 % are `phase1` and the rest `phase2`.
    """
    names = _read_labels(labels)
    chosen = []
    for position, (species, (train, test)) in enumerate(counts.items(), 1):
        files = sorted(names.get(species, ()))
        if len(files) < train + test:
            raise UserError(f"{labels} lists {len(files)} images of {species}, {train + test} are needed; is it DeepWeeds' labels.csv?")
        random.Random(f"an2dl-2022/{species}").shuffle(files)
        phase1 = train + round(PHASE1 * test)
        for part, first, last in (("train", 0, train), ("phase1", train, phase1), ("phase2", phase1, train + test)):
            chosen += [(part, f"Species{position}", number, name) for number, name in enumerate(files[first:last])]
    return chosen


def shrink(source, target):
    """One image as the competition has it: RGB, 96×96 bicubic, JPEG quality 95 without chroma subsampling."""
    try:
        with Image.open(source) as image:
            small = image.convert("RGB").resize((SIDE, SIDE), Image.BICUBIC)
    except (OSError, SyntaxError) as error:
        raise UserError(f"{source} is no readable image ({error}); download DeepWeeds again") from error
    small.save(target, quality=95, subsampling=0)


def download(folder):
    """Fetches DeepWeeds' `images.zip` and `labels.csv` and unpacks the images.

    Args:
        folder: where to keep them; what is there already is not fetched again.

    Returns:
        (folder of images, labels file).

    Raises:
        UserError: no network, or not 17,509 images.
    """
    import keras

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)  # Keras would save elsewhere
    try:
        labels = keras.utils.get_file("labels.csv", ARCHIVES["labels.csv"], cache_dir=folder, cache_subdir="")
        unpacked = keras.utils.get_file("images.zip", ARCHIVES["images.zip"], cache_dir=folder, cache_subdir="", extract=True)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"could not download DeepWeeds ({reason}); fetch images.zip and labels.csv by hand from "
            "github.com/AlexOlsen/DeepWeeds and give --images and --labels"
        ) from error
    return check_count(unpacked), Path(labels)


def check_count(folder):
    """The folder below `folder` that holds DeepWeeds' images; raises a UserError if it has not all 17,509."""
    files = list(Path(folder).rglob("*.jpg"))
    if len(files) != IMAGES:
        raise UserError(f"{folder} holds {len(files):,} images, DeepWeeds has {IMAGES:,}; delete it and download again")
    return files[0].parent


def _read_labels(labels):
    try:
        with open(labels, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {labels}: {error}; give DeepWeeds' labels.csv") from error
    if not rows or not {"Filename", "Species"} <= rows[0].keys():
        raise UserError(f"{labels} needs the columns Filename and Species; give DeepWeeds' labels.csv")
    names = {}
    for row in rows:
        names.setdefault(row["Species"], []).append(row["Filename"])
    return names
