"""Labelled images → a competition that Codabench accepts as it is: dist/competition.zip."""

import datetime
import io
import os
import secrets
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from competition.drawings import draw_leaf
from training.errors import UserError
from training.progress import progress

HERE = Path(__file__).resolve().parent
PROGRAMS = ("ingestion_program", "scoring_program")
PAGES = (("Overview", "overview.md"), ("Data", "data.md"), ("Evaluation", "evaluation.md"))
TERMS = "terms.md"
LOGO = "logo.png"
DOCKER_IMAGE = "tensorflow/tensorflow:2.15.0"
COLUMNS = (("Accuracy", "accuracy", 4), ("Macro F1", "macro_f1", 4), ("95 % from", "accuracy_low", 4), ("95 % to", "accuracy_high", 4))
QUALITY = 90  # of the thumbnails, as JPEG
MAX_DOCKER = 128


@dataclass(frozen=True)
class Settings:
    """What an organiser decides. `start` is a date as YYYY-MM-DD; `seconds` what one submission may take."""

    title: str = "Leaves"
    start: str = ""
    seconds: int = 300
    per_day: int = 5
    in_all: int = 100
    docker_image: str = DOCKER_IMAGE

    def __post_init__(self):
        if not self.title.strip() or len(self.title) > 255:
            raise UserError("--title must have 1 to 255 letters")
        if len(self.docker_image) > MAX_DOCKER or not self.docker_image.strip():
            raise UserError(f"--docker-image must have 1 to {MAX_DOCKER} letters")
        for name, value in (("seconds", self.seconds), ("per-day", self.per_day), ("in-all", self.in_all)):
            if value < 1:
                raise UserError(f"--{name} must be at least 1, got {value}")
        if self.start:
            try:
                if datetime.date.fromisoformat(self.start).isoformat() != self.start:
                    raise ValueError  # a date that Python reads, and the server need not
            except ValueError:
                raise UserError(f"--start must be a date as 2026-01-31, got {self.start}") from None


def build(images, settings, out):
    """Writes the bundle; an older file stays as it is until the new one is whole.

    Args:
        images: `training.data.Images`, labelled.
        settings: `Settings`.
        out: path of the zip.

    Returns:
        Path of the zip.
    """
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".tmp-{out.name}")
    order = shuffled(len(images))
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr("competition.yaml", description(settings))
            archive.writestr(LOGO, logo())
            for name in (TERMS, *(file for _, file in PAGES)):
                archive.writestr(name, page(name, settings, images))
            for program in PROGRAMS:
                for path in program_files(program):
                    archive.write(path, f"{program}/{path.name}")
            archive.writestr("ingestion_program/contract.json", contract(settings.seconds))
            write_input(_InZip(archive, "input_data"), images, order)
            write_reference(_InZip(archive, "reference_data"), images, order)
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    return out


def shuffled(count):
    """A secret order, so that neither a name nor a place tells anything of a label: int64 [count]."""
    return np.random.default_rng(secrets.randbits(128)).permutation(count)


def write_input(folder, images, order):
    """What the submission may see: `images.npy`, uint8 [n, h, w, 3], and the classes' names.

    Args:
        folder: an existing folder, as anything with `folder / name` that can be written to.
        images: `training.data.Images`.
        order: rows in the order in which they are shown.
    """
    with (folder / "images.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (len(order), *images.images.shape[1:])}
        )
        for row in order:
            file.write(images.images[row].tobytes())
    write_lines(folder / "classes.txt", images.names)


def write_reference(folder, images, order):
    """What only the scoring sees: the labels, the classes' names, and a thumbnail of each image.

    Arguments as for `write_input`; a real folder must hold `images` already.
    """
    write_lines(folder / "labels.txt", images.labels[order])
    write_lines(folder / "classes.txt", images.names)
    for number, row in enumerate(progress(order, "thumbnails", unit="image")):
        with (folder / "images" / f"{number:05d}.jpg").open("wb") as file:
            Image.fromarray(images.images[row]).save(file, "JPEG", quality=QUALITY)


def write_lines(path, values):
    """A value a line, in UTF-8."""
    with path.open("wb") as file:
        file.write("".join(f"{value}\n" for value in values).encode())


def program_files(program):
    """The files of a program, its contract left out, which is written for each competition."""
    return [path for path in sorted((HERE / program).iterdir()) if path.is_file() and path.name != "contract.json"]


def contract(seconds, kind="model"):
    """The ingestion program's contract.json: the class that it asks for, and the seconds that it may take."""
    return f'{{"class": "{kind}", "seconds": {seconds:g}}}\n'


def description(settings):
    """competition.yaml. The dates are quoted, for an unquoted one would be cut to midnight."""
    start = settings.start or datetime.date.today().isoformat()
    columns = [
        {"title": title, "key": key, "index": index, "sorting": "desc", "precision": precision}
        for index, (title, key, precision) in enumerate(COLUMNS)
    ]
    task = {"index": 0, "name": "Hidden images", "description": "Images that no participant has seen"}
    phase = {"index": 0, "name": "Hidden images", "description": "The hidden images", "start": f"{start} 00:00:00"}
    value = {
        "version": 2,
        "title": settings.title,
        "image": LOGO,
        "terms": TERMS,
        "docker_image": settings.docker_image,
        "registration_auto_approve": True,
        "enable_detailed_results": True,
        "pages": [{"title": title, "file": file} for title, file in PAGES],
        "tasks": [
            {
                **task,
                "input_data": "input_data",
                "reference_data": "reference_data",
                **{program: program for program in PROGRAMS},
            }
        ],
        "phases": [
            {
                **phase,
                "execution_time_limit": settings.seconds + 60,  # the programs' own limit comes first
                "max_submissions_per_day": settings.per_day,
                "max_submissions": settings.in_all,
                "tasks": [0],
            }
        ],
        "leaderboards": [{"title": "Results", "key": "main", "submission_rule": "Force_Best", "columns": columns}],
    }
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def page(name, settings, images):
    """A page or the terms, with this competition's numbers filled in."""
    text = (HERE / "pages" / name).read_text("utf-8")
    height, width = images.images.shape[1:3]
    classes = "\n".join(f"{number}. {label}" for number, label in enumerate(images.names))
    values = {"title": settings.title, "count": len(images), "height": height, "width": width, "seconds": settings.seconds}
    return text.format(**values, classes=classes, last=len(images.names) - 1, per_day=settings.per_day, in_all=settings.in_all)


def logo(side=300):
    """A drawn leaf as PNG bytes."""
    data = io.BytesIO()
    draw_leaf(3, np.random.default_rng(3), side).save(data, "PNG")
    return data.getvalue()


class _InZip:
    """A folder inside an open zip, written to as a `Path` is."""

    def __init__(self, archive, name):
        self.archive, self.name = archive, name

    def __truediv__(self, name):
        return _InZip(self.archive, f"{self.name}/{name}")

    def open(self, mode):
        return self.archive.open(self.name, mode[0], force_zip64=True)
