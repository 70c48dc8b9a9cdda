"""What the attacks share. It is in each attack's zip, because a hostile submission brings its own tools."""

import io
import json
import os
import re
import sys
import time
import zipfile

import numpy as np

SECONDS = 15  # time limit of a search
TELLING = re.compile(r"(?i)(?:label|answer|truth|solution|reference)[^/]*$|\.zip$").search
LARGEST = 20_000_000  # bytes of a file that is read


def classes(X):
    """A class for each row that depends on nothing else."""
    return np.asarray(X).astype(np.int64)[:, ::7, ::5].sum((1, 2, 3)) % 8


def target():
    """What the tests tell the attacks, so that none fails for lack of knowledge: data, zip, port, socket, mark."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "target.json"), encoding="utf-8") as file:
        return json.load(file)


def mark():
    """How many seconds a child sleeps: a number by which the tests recognise it."""
    return target()["mark"]


def output():
    """The ingestion program's output folder."""
    return os.path.join(os.path.dirname(sys.argv[1]), "output")


def responses_pipe():
    """The file descriptor for the runner's responses."""
    return int(sys.argv[-1])


class Search:
    """Searches files for labels, and keeps what it finds."""

    def __init__(self):
        self.lists, self.leaves = [], []
        self.stop = time.monotonic() + SECONDS

    def walk(self, *folders, leave_out=()):
        """Reads every file below some folders, except the kernel's own."""
        for top in folders:
            for folder, below, files in os.walk(top):
                below[:] = [name for name in below if name not in leave_out and folder + name not in ("/proc", "/sys")]
                leaves = re.search(r"/Species\d+$", folder)
                for name in files if leaves else filter(TELLING, files):
                    self.file(os.path.join(folder, name))
                if time.monotonic() > self.stop:
                    return self
        return self

    def file(self, path, name=None):
        """Reads one file, whose name may differ from its path."""
        name = name or path
        if not (TELLING(name) or re.search(r"Species\d+/[^/]+$", name)):
            return self
        try:
            if os.path.isfile(path) and os.path.getsize(path) <= LARGEST:
                with open(path, "rb") as file:
                    self.content(name, file.read())
        except OSError:
            pass
        return self

    def content(self, name, data):
        """Searches the content of a file or of a zip's entry."""
        species = re.search(r"Species(\d+)/[^/]+$", name)
        if name.endswith(".zip"):
            try:
                with zipfile.ZipFile(io.BytesIO(data)) as archive:
                    for entry in archive.namelist():
                        self.content(entry, archive.read(entry))
            except (zipfile.BadZipFile, RuntimeError, OSError):
                pass
        elif species:
            self.leaves.append((data, int(species[1]) - 1))
        else:
            numbers = re.findall(rb"^\d+$", data, re.MULTILINE)
            self.lists.append([int(number) for number in numbers if len(number) < 9])

    def table(self, images):
        """Image as bytes → label, as far as known for the given images."""
        rows = [row.tobytes() for row in images]
        table = {}
        for labels in self.lists:
            if len(labels) == len(rows) and max(labels) < 8:
                table.update(zip(rows, labels))
        for data, label in self.leaves:
            table[pixels(data)] = label
        return {row: table[row] for row in rows if row in table}

    def model(self, images=None):
        """A class that predicts from what was found. Raises RuntimeError if nothing was found."""
        if images is None:
            images = np.load(os.path.join(os.path.dirname(sys.argv[1]), "input_data", "images.npy"))
        return answering(self.table(images))


def answering(table):
    """A class that looks its predictions up. Raises RuntimeError if the table is empty."""
    if not table:
        raise RuntimeError("found nothing")

    class Model:
        def predict(self, X):
            return np.array([table.get(row.astype(np.uint8).tobytes(), 0) for row in X])

    return Model


def pixels(data):
    """An image's pixels as bytes."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB")).tobytes()
    except (OSError, ValueError):
        return b""
