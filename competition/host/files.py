"""Folders that a bundle is written to, on disk or inside of an open zip, and what is written to them."""

import io
import zipfile
from collections.abc import Iterable
from typing import IO, Any, Protocol

import numpy as np
from PIL import Image


class Folder(Protocol):
    """A folder to write to: a `Path`, or a folder inside of an open zip."""

    def __truediv__(self, name: str, /) -> Any: ...


class ZipFolder:
    """A folder inside of an open zip with the part of the interface of `Path` that writing needs."""

    def __init__(self, archive: zipfile.ZipFile, name: str):
        self.archive, self.name = archive, name

    def __truediv__(self, name: str) -> "ZipFolder":
        return ZipFolder(self.archive, f"{self.name}/{name}")

    def open(self, mode: str) -> IO[bytes]:
        """Opens a new file of the zip. `mode` must be "wb"."""
        return self.archive.open(self.name, "w", force_zip64=True)


def write_lines(path: Any, values: Iterable[Any]) -> None:
    """Writes one value a line in UTF-8."""
    with path.open("wb") as file:
        file.write("".join(f"{value}\n" for value in values).encode())


def as_png(pixels: np.ndarray) -> bytes:
    """Returns pixels, uint8 [h, w, 3], as a PNG file without metadata."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()
