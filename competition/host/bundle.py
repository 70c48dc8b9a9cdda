"""Builds the zip of a competition from labelled images. Codabench accepts it without changes."""

import datetime
import io
import json
import os
import re
import secrets
import textwrap
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from common.errors import UserError
from common.files import atomically, write_text
from common.folders import printable
from common.images import Images
from common.progress import progress
from competition.host.appearance import neutral_logo
from competition.host.files import Folder, ZipFolder, write_lines
from competition.host.image_files import write_image_files

PAGES_FOLDER = Path(__file__).resolve().parent / "pages"
PROGRAMS_FOLDER = PAGES_FOLDER.parents[1]  # competition/
PROGRAMS = ("ingestion_program", "scoring_program")
PAGES = (
    ("Overview", "overview.md"),
    ("Data", "data.md"),
    ("Evaluation", "evaluation.md"),
    ("Starting kit", "starting_kit.md"),
)
TERMS = "terms.md"
ORGANIZER_NOTE = "organizer.md"  # a text for the organizer, beside the bundle and not in it
LOGO = "logo.png"
CLASSES = "classes.txt"  # class names, one a line, in the order of their numbers
KIT = "starting_kit.zip"  # a sample submission; its files are in the folder below, CLASSES is added
KIT_FOLDER = PAGES_FOLDER.with_name("starting_kit")
TEXT = "Which class does an image show? There are {classes} classes, which the page *Data* lists."
DOCKER_IMAGE = "tensorflow/tensorflow:2.15.0"
COLUMNS = (  # of the leaderboard: title, key in scores.json, digits
    ("Accuracy", "accuracy", 4),
    ("Macro F1", "macro_f1", 4),
    ("95 % from", "accuracy_low", 4),
    ("95 % to", "accuracy_high", 4),
)
PAGE_MISTAKES = 15  # in the detailed results
DETAILS = """The detailed results show your scores for each class, time, memory and every check. They show no image, and
  no calibration of the probabilities [n, {classes}] that a model may keep."""
DETAILS_WITH_MISTAKES = """The detailed results show your scores for each class, time, memory, every check, and images
  that your model got wrong. If it keeps the probabilities of its last `predict` in an attribute `probabilities`, a
  float32 array [n, {classes}], the page also shows a calibration diagram."""
JPEG_QUALITY = 90  # of the thumbnails
MAX_TITLE = 255  # characters
MAX_DOCKER_IMAGE = 128  # characters
EXTRA_SECONDS = 120  # of the server's time limit: to read the images, and the program's own limit must come first


@dataclass(frozen=True)
class Settings:
    """What an organizer decides.

    title: 1 to 255 characters.
    start: first day as YYYY-MM-DD; "" is today. The server reads it as UTC.
    seconds: time limit of one submission.
    per_day: submissions a day of one participant.
    in_all: submissions of one participant in all.
    docker_image: has TensorFlow and NumPy; at most 128 characters.
    show_mistakes: show participants hidden images that they got wrong, with their labels.
    text: Markdown, the first text of the page Overview; "" is a neutral one.
    logo: a PNG file; empty for a neutral one.

    Raises:
        UserError: a value is out of its range.
    """

    title: str = "Image classification"
    start: str = ""
    seconds: int = 300
    per_day: int = 5
    in_all: int = 100
    docker_image: str = DOCKER_IMAGE
    show_mistakes: bool = False
    text: str = ""
    logo: bytes = b""

    def __post_init__(self):
        for flag, value, longest in (
            ("title", self.title, MAX_TITLE),
            ("docker-image", self.docker_image, MAX_DOCKER_IMAGE),
        ):
            if not value.strip() or len(value) > longest:
                raise UserError(f"--{flag} must have 1 to {longest} characters, got {len(value)}")
            if printable(value) != value:
                raise UserError(f"--{flag} must be one line of printable UTF-8 text, got {printable(value)}")
        for flag, number in (("seconds", self.seconds), ("per-day", self.per_day), ("in-all", self.in_all)):
            if number < 1:
                raise UserError(f"--{flag} must be at least 1, got {number}")
        if self.start and not _is_date(self.start):
            raise UserError(f"--start must be a date as 2026-01-31, got {self.start}")


def _is_date(text: str) -> bool:
    """Whether a text is a date in the one form that the server reads. Python accepts more forms."""
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def build(images: Images, settings: Settings, out: str | Path) -> Path:
    """Writes the bundle, and beside it the organizer's note and the starting kit.

    An old file is replaced only by a complete new one.

    Args:
        images: labelled images.
        settings: the organizer's decisions.
        out: path of the zip; the note is at `note_path(out)`, the kit at `kit_path(out)`.

    Returns:
        Path of the zip.
    """
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    note = page(ORGANIZER_NOTE, settings, images)
    atomically(out, lambda temporary: _write(images, settings, temporary))
    write_text(note_path(out), note)
    atomically(kit_path(out), lambda temporary: temporary.write_bytes(starting_kit(images)))
    return out


def note_path(out: str | Path) -> Path:
    """Returns the place of the organizer's note about a bundle."""
    return Path(out).with_suffix(f".{ORGANIZER_NOTE}")


def kit_path(out: str | Path) -> Path:
    """Returns the place of the starting kit beside a bundle."""
    return Path(out).with_suffix(f".{KIT}")


def starting_kit(images: Images) -> bytes:
    """Returns a sample submission as a zip: model.py, metadata and the class names. It tells nothing about labels."""
    files = {name: (KIT_FOLDER / name).read_text("utf-8") for name in ("model.py", "metadata")}
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {**files, CLASSES: "".join(f"{name}\n" for name in images.names)}.items():
            archive.writestr(name, text)
    return data.getvalue()


def _write(images: Images, settings: Settings, path: Path) -> None:
    order = shuffled(len(images))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False) as archive:
        archive.writestr("competition.yaml", description(settings))
        archive.writestr(LOGO, settings.logo or neutral_logo())
        archive.writestr(KIT, starting_kit(images))
        for name in (TERMS, *(file for _, file in PAGES)):
            archive.writestr(name, page(name, settings, images))
        for program in PROGRAMS:
            for file in program_files(program):
                archive.write(file, f"{program}/{file.name}")
        archive.writestr("ingestion_program/contract.json", contract(settings.seconds))
        write_image_files(ZipFolder(archive, "input_data"), images, order)
        write_reference(ZipFolder(archive, "reference_data"), images, order, settings.show_mistakes)


def shuffled(count: int) -> np.ndarray:
    """Returns a secret random order, so that no position tells anything about a label: int64 [count]."""
    return np.random.default_rng(secrets.randbits(128)).permutation(count)


def write_input(folder: Folder, images: Images, order: np.ndarray) -> None:
    """Writes what the submission may see for the local grader: images.npy, uint8 [n, h, w, 3], and the class names.

    Args:
        folder: an existing folder.
        images: labelled images.
        order: int64 [n], row numbers in the order in which they are written.
    """
    shape = (len(order), *images.images.shape[1:])
    with (folder / "images.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for row in order:
            file.write(images.images[row].tobytes())
    write_lines(folder / CLASSES, images.names)


def write_reference(
    folder: Folder, images: Images, order: np.ndarray, show_mistakes: bool = False, file_names: bool = False
) -> None:
    """Writes what only the scoring stage sees: the labels and the class names.

    Args:
        folder: an existing folder; a `Path` must have a folder `images` already if `show_mistakes` is true.
        images: labelled images.
        order: as for `write_input`.
        show_mistakes: also write a thumbnail of each image, and let the detailed results show them with their labels.
        file_names: also write the names of the image files, and let the page show them too. Not for a server.
    """
    write_lines(folder / "labels.txt", images.labels[order])
    write_lines(folder / CLASSES, images.names)
    if not show_mistakes:
        return
    write_lines(folder / "details.json", [json.dumps({"mistakes": True})])
    if file_names and all(images.paths):  # synthetic images have none
        top = os.path.commonpath(images.paths)
        write_lines(folder / "files.txt", [printable(os.path.relpath(images.paths[row], top)) for row in order])
    for number, row in enumerate(progress(order, "thumbnails", unit="image")):
        with (folder / "images" / f"{number:05d}.jpg").open("wb") as file:
            Image.fromarray(images.images[row]).save(file, "JPEG", quality=JPEG_QUALITY)


def program_files(program: str) -> list[Path]:
    """Returns the files of a program, without its contract, which is written for each competition."""
    files = sorted((PROGRAMS_FOLDER / program).iterdir())
    return [path for path in files if path.is_file() and path.name != "contract.json"]


def contract(seconds: float, class_name: str = "model") -> str:
    """Returns the text of contract.json: the class that model.py must have, and the time limit in seconds."""
    return f'{{"class": "{class_name}", "seconds": {seconds:g}}}\n'


def description(settings: Settings) -> str:
    """Returns the text of competition.yaml. Its dates are quoted, because YAML cuts unquoted ones to midnight."""
    start = settings.start or datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    columns = [
        {"title": title, "key": key, "index": index, "sorting": "desc", "precision": digits}
        for index, (title, key, digits) in enumerate(COLUMNS)
    ]
    task = {"index": 0, "name": "Hidden images", "description": "Images that no participant has seen"}
    folders = {name: name for name in ("input_data", "reference_data", *PROGRAMS)}
    phase = {
        "index": 0,
        "name": "Hidden images",
        "description": "The hidden images",
        "start": f"{start} 00:00:00",
        "execution_time_limit": settings.seconds + EXTRA_SECONDS,
        "max_submissions_per_day": settings.per_day,
        "max_submissions": settings.in_all,
        "hide_prediction_output": True,  # it holds what a submission may have left, such as links
        "tasks": [0],
        "starting_kit": KIT,
    }
    value = {
        "version": 2,
        "title": settings.title,
        "image": LOGO,
        "terms": TERMS,
        "docker_image": settings.docker_image,
        "registration_auto_approve": True,
        "enable_detailed_results": True,
        "show_detailed_results_in_leaderboard": False,  # or the leaderboard would link everybody's page
        "pages": [{"title": title, "file": file} for title, file in PAGES],
        "tasks": [{**task, **folders}],
        "phases": [phase],
        "leaderboards": [{"title": "Results", "key": "main", "submission_rule": "Force_Best", "columns": columns}],
    }
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def page(name: str, settings: Settings, images: Images) -> str:
    """Returns a page, the terms or the organizer's note, with this competition's numbers.

    Only the fields below are replaced, so that an edited page may have other braces.
    """
    height, width = images.images.shape[1:3]
    classes = len(images.names)
    fields = {
        "title": settings.title,
        "text": settings.text or TEXT.format(classes=classes),
        "model_code": textwrap.indent((KIT_FOLDER / "model.py").read_text("utf-8"), "    ").rstrip(),
        "count": len(images),
        "height": height,
        "width": width,
        "seconds": settings.seconds,
        "per_day": settings.per_day,
        "in_all": settings.in_all,
        "classes": classes,
        "last": classes - 1,
        "class_list": "\n".join(f"{number}. {as_markdown(name)}" for number, name in enumerate(images.names)),
        "details": (DETAILS_WITH_MISTAKES if settings.show_mistakes else DETAILS).format(classes=classes),
        "given_away": given_away(settings, images),
        "learned": min(len(images), (classes - 1) * settings.in_all),
    }
    text = (PAGES_FOLDER / name).read_text("utf-8")
    return re.sub(rf"\{{({'|'.join(fields)})\}}", lambda field: str(fields[field[1]]), text)


def as_markdown(text: str) -> str:
    """Returns a text that Markdown shows as it is: hot_dog as hot_dog, *a* as \\*a\\*."""
    return re.sub(r"[\\`*~<>&\[\]|]|^[-+#=]|[.)](?= |$)|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)


def given_away(settings: Settings, images: Images) -> str:
    """Returns one line that says what the detailed results tell a participant about single hidden images."""
    if not settings.show_mistakes:
        return "no image, no label and no row of a hidden image, and nothing else that does not follow from the scores"
    learned = min(len(images), PAGE_MISTAKES * settings.in_all)
    return (
        f"up to {PAGE_MISTAKES} hidden images with their true labels for each submission, which chooses them by its "
        f"probabilities: a participant can collect {learned:,} of the {len(images):,} labels with "
        f"{settings.in_all:,} submissions, and more from the pages of others"
    )
