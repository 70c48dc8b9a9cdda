"""Builds the zip of a competition from labelled images. Codabench accepts it without changes."""

import datetime
import io
import json
import secrets
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import yaml
from PIL import Image

from common.errors import UserError
from common.files import atomically, write_text
from common.images import Images
from common.progress import progress
from competition.synthetic import draw_leaf

PAGES_FOLDER = Path(__file__).resolve().parent / "pages"
PROGRAMS_FOLDER = PAGES_FOLDER.parents[1]  # competition/
PROGRAMS = ("ingestion_program", "scoring_program")
PAGES = (("Overview", "overview.md"), ("Data", "data.md"), ("Evaluation", "evaluation.md"))
TERMS = "terms.md"
ORGANIZER_NOTE = "organizer.md"  # a text for the organizer, beside the bundle and not in it
LOGO = "logo.png"
DOCKER_IMAGE = "tensorflow/tensorflow:2.15.0"
COLUMNS = (  # of the leaderboard: title, key in scores.json, digits
    ("Accuracy", "accuracy", 4),
    ("Macro F1", "macro_f1", 4),
    ("95 % from", "accuracy_low", 4),
    ("95 % to", "accuracy_high", 4),
)
PAGE_MISTAKES = 15  # shown on the page of details
DETAILS = """The page of details shows your scores for each class, time, memory and every check. It shows no image, and
  no calibration of the probabilities [n, {classes}] that a model may keep."""
DETAILS_WITH_MISTAKES = """The page of details shows your scores for each class, time, memory, every check, and images
  that your model got wrong. If it keeps the probabilities of its last `predict` in an attribute `probabilities`, a
  float32 array [n, {classes}], the page also shows a calibration diagram."""
JPEG_QUALITY = 90  # of the thumbnails
MAX_TITLE = 255  # characters
MAX_DOCKER_IMAGE = 128  # characters
EXTRA_SECONDS = 60  # of the server's time limit, so that the ingestion program's own limit comes first


class Folder(Protocol):
    """A folder to write to: a `Path`, or a folder inside of an open zip."""

    def __truediv__(self, name: str, /) -> Any: ...


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

    Raises:
        UserError: a value is out of its range.
    """

    title: str = "Leaves"
    start: str = ""
    seconds: int = 300
    per_day: int = 5
    in_all: int = 100
    docker_image: str = DOCKER_IMAGE
    show_mistakes: bool = False

    def __post_init__(self):
        for flag, value, longest in (
            ("title", self.title, MAX_TITLE),
            ("docker-image", self.docker_image, MAX_DOCKER_IMAGE),
        ):
            if not value.strip() or len(value) > longest:
                raise UserError(f"--{flag} must have 1 to {longest} characters, got {len(value)}")
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
    """Writes the bundle, and beside it the organizer's note. An old file is replaced only by a complete new one.

    Args:
        images: labelled images.
        settings: the organizer's decisions.
        out: path of the zip; the note is at `note_path(out)`.

    Returns:
        Path of the zip.
    """
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    note = page(ORGANIZER_NOTE, settings, images)
    atomically(out, lambda temporary: _write(images, settings, temporary))
    write_text(note_path(out), note)
    return out


def note_path(out: str | Path) -> Path:
    """Returns the place of the organizer's note about a bundle."""
    return Path(out).with_suffix(f".{ORGANIZER_NOTE}")


def _write(images: Images, settings: Settings, path: Path) -> None:
    order = shuffled(len(images))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False) as archive:
        archive.writestr("competition.yaml", description(settings))
        archive.writestr(LOGO, logo())
        for name in (TERMS, *(file for _, file in PAGES)):
            archive.writestr(name, page(name, settings, images))
        for program in PROGRAMS:
            for file in program_files(program):
                archive.write(file, f"{program}/{file.name}")
        archive.writestr("ingestion_program/contract.json", contract(settings.seconds))
        write_input(_ZipFolder(archive, "input_data"), images, order)
        write_reference(_ZipFolder(archive, "reference_data"), images, order, settings.show_mistakes)


def shuffled(count: int) -> np.ndarray:
    """Returns a secret random order, so that no position tells anything about a label: int64 [count]."""
    return np.random.default_rng(secrets.randbits(128)).permutation(count)


def write_input(folder: Folder, images: Images, order: np.ndarray) -> None:
    """Writes what the submission may see: `images.npy`, uint8 [n, h, w, 3], and the class names.

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
    write_lines(folder / "classes.txt", images.names)


def write_reference(folder: Folder, images: Images, order: np.ndarray, show_mistakes: bool = False) -> None:
    """Writes what only the scoring stage sees: the labels and the class names.

    Args:
        folder: an existing folder; a `Path` must have a folder `images` already if `show_mistakes` is true.
        images: labelled images.
        order: as for `write_input`.
        show_mistakes: also write a thumbnail of each image, and let the page of details show them with their labels.
    """
    write_lines(folder / "labels.txt", images.labels[order])
    write_lines(folder / "classes.txt", images.names)
    if not show_mistakes:
        return
    write_lines(folder / "details.json", [json.dumps({"mistakes": True})])
    for number, row in enumerate(progress(order, "thumbnails", unit="image")):
        with (folder / "images" / f"{number:05d}.jpg").open("wb") as file:
            Image.fromarray(images.images[row]).save(file, "JPEG", quality=JPEG_QUALITY)


def write_lines(path: Any, values: Any) -> None:
    """Writes one value a line in UTF-8."""
    with path.open("wb") as file:
        file.write("".join(f"{value}\n" for value in values).encode())


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
        "tasks": [0],
    }
    value = {
        "version": 2,
        "title": settings.title,
        "image": LOGO,
        "terms": TERMS,
        "docker_image": settings.docker_image,
        "registration_auto_approve": True,
        "enable_detailed_results": True,
        "show_detailed_results_in_leaderboard": False,  # or everybody could open everybody's page
        "pages": [{"title": title, "file": file} for title, file in PAGES],
        "tasks": [{**task, **folders}],
        "phases": [phase],
        "leaderboards": [{"title": "Results", "key": "main", "submission_rule": "Force_Best", "columns": columns}],
    }
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def page(name: str, settings: Settings, images: Images) -> str:
    """Returns a page, the terms or the organizer's note, with this competition's numbers."""
    height, width = images.images.shape[1:3]
    classes = len(images.names)
    return (
        (PAGES_FOLDER / name)
        .read_text("utf-8")
        .format(
            title=settings.title,
            count=len(images),
            height=height,
            width=width,
            seconds=settings.seconds,
            per_day=settings.per_day,
            in_all=settings.in_all,
            classes=classes,
            last=classes - 1,
            class_list="\n".join(f"{number}. {label}" for number, label in enumerate(images.names)),
            details=(DETAILS_WITH_MISTAKES if settings.show_mistakes else DETAILS).format(classes=classes),
            given_away=given_away(settings, images),
            learned=min(len(images), (classes - 1) * settings.in_all),
        )
    )


def given_away(settings: Settings, images: Images) -> str:
    """Returns one line that says what the page of details tells a participant about single hidden images."""
    if not settings.show_mistakes:
        return "no image, no label and no row of a hidden image, and nothing else that does not follow from the scores"
    learned = min(len(images), PAGE_MISTAKES * settings.in_all)
    return (
        f"up to {PAGE_MISTAKES} hidden images with their true labels for each submission, which chooses them by its "
        f"probabilities: a participant can collect {learned:,} of the {len(images):,} labels with "
        f"{settings.in_all:,} submissions"
    )


def logo(side: int = 300) -> bytes:
    """Returns a synthetic leaf as PNG, `side` pixels wide and high."""
    data = io.BytesIO()
    draw_leaf(3, np.random.default_rng(3), side).save(data, "PNG")
    return data.getvalue()


class _ZipFolder:
    """A folder inside of an open zip with the part of the interface of `Path` that writing needs."""

    def __init__(self, archive: zipfile.ZipFile, name: str):
        self.archive, self.name = archive, name

    def __truediv__(self, name: str) -> "_ZipFolder":
        return _ZipFolder(self.archive, f"{self.name}/{name}")

    def open(self, mode: str) -> IO[bytes]:
        return self.archive.open(self.name, "w", force_zip64=True)
