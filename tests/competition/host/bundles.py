"""What the host's tests share: the settings of a bundle, and a bundle as the server has it."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from helpers import ROOT
from PIL import Image

from competition.host.bundle import Settings

SIDE, CLASSES, PER_CLASS = 32, 4, 5
COUNT = CLASSES * PER_CLASS
SETTINGS = Settings("Leaves: “round two” & more", "2026-12-01", 120, 3, 40)
TELLTALE = "telltale"  # in the names of the files, the path and the EXIF of the images
PROGRAMS = [
    path
    for folder in ("ingestion_program", "scoring_program")
    for path in sorted((ROOT / "competition" / folder).glob("*.py"))
]


@dataclass
class Unpacked:
    """A bundle as the server has it: the zip, the unpacked folder, and the text and content of competition.yaml."""

    zip: Path
    folder: Path
    text: str
    yaml: Any

    @property
    def image_files(self):
        return sorted((self.folder / "input_data" / "images").iterdir())

    @property
    def images(self):
        return np.stack([np.asarray(Image.open(path)) for path in self.image_files])

    @property
    def labels(self):
        return lines(self.folder / "reference_data" / "labels.txt")

    @property
    def columns(self):
        return self.yaml["leaderboards"][0]["columns"]


def unpack(path, target):
    """Unpacks a bundle."""
    with zipfile.ZipFile(path) as archive:
        archive.extractall(target)
    text = (target / "competition.yaml").read_text("utf-8")
    return Unpacked(path, target, text, yaml.safe_load(text))


def lines(path):
    return path.read_text("utf-8").splitlines()


def files(folder):
    """The relative paths of all files below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
