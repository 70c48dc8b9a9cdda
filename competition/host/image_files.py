"""The hidden images as files of a bundle: all JPEG as they came, but without metadata, or all PNG."""

import functools
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from common.errors import UserError
from common.folders import printable
from common.image_file import decode
from common.images import Images
from common.progress import progress
from competition.host.files import Folder, as_png, write_lines

JPEG_START = b"\xff\xd8\xff"
JPEG_END = b"\xff\xd9"
# Segments that decide what is shown: frames and Huffman tables, scans, quantization tables, restart intervals.
KEPT = (*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDD)
HUFFMAN, SCAN = 0xC4, 0xDA
AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # the next segment; restart markers belong to the scan
EQUAL_EVERYWHERE = ("", "L to RGB")  # conversions that the decoders of the server make in the same way


def write_image_files(folder: Folder, images: Images, order: np.ndarray) -> None:
    """Writes what the submission may see: images/00000.jpg or .png, …, their shape, and the class names.

    If all images come from JPEG files that were saved with the same settings, and whose pixels were not converted,
    these are stored as they came, without metadata. If not, all are PNG: which images had another format, compression,
    size or orientation could tell their labels.

    Args:
        folder: an existing folder; a `Path` must have a folder `images` already.
        images: labelled images.
        order: int64 [n], row numbers in the order in which they are written.
    """
    write_lines(folder / "classes.txt", images.names)
    write_lines(folder / "shape.json", [json.dumps(list(images.images.shape))])
    as_they_came = (
        _are_all_jpeg(images.paths)
        and len(set(map(_settings, images.paths))) == 1
        and all(
            _shows(Path(path), pixels)
            for path, pixels in zip(progress(images.paths, "checking", unit="image"), images.images, strict=True)
        )
    )
    for number, row in enumerate(progress(order, "images", unit="image")):
        data = without_metadata(Path(images.paths[row]).read_bytes()) if as_they_came else as_png(images.images[row])
        if data is None:
            raise UserError(f"{printable(images.paths[row])} was changed while it was read; run the command again")
        with (folder / "images" / f"{number:05d}.{'jpg' if as_they_came else 'png'}").open("wb") as file:
            file.write(data)


def without_metadata(data: bytes) -> bytes | None:
    """Returns a JPEG file with only the segments that decide what is shown; None if it is not a whole JPEG file.

    EXIF data, comments, color profiles, thumbnails and everything behind the image are left out.
    """
    segments = _segments(data)
    return None if segments is None else b"".join([JPEG_START[:2], *(segment for _, segment in segments), JPEG_END])


def _segments(data: bytes) -> list[tuple[int, bytes]] | None:
    """(marker, bytes) of each segment that decides what is shown; None if it is not a whole JPEG file."""
    kept, place = [], 2
    if not data.startswith(JPEG_START):
        return None
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != JPEG_END[1]:
        marker, end = data[place + 1], place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xFF:  # padding
            place += 1
            continue
        if marker == SCAN:
            following = AFTER_SCAN.search(data, end)
            end = following.start() if following else len(data)
        if marker in KEPT:
            kept.append((marker, data[place:end]))
        place = end
    return kept if data[place : place + 2] == JPEG_END else None


def _settings(path: str) -> tuple | None:
    """What a JPEG file tells of how it was saved: all segments but the scans. None if it is not a whole JPEG file.

    Huffman tables are the standard's, or computed for each image: only this is told.
    """
    segments = _segments(Path(path).read_bytes())
    return None if segments is None else tuple((marker, _setting(marker, segment)) for marker, segment in segments)


def _setting(marker: int, segment: bytes) -> bytes:
    """What a segment tells of how the file was saved."""
    if marker == SCAN:
        return b""
    if marker == HUFFMAN and segment not in _standard_tables():
        return b"own"
    return segment


@functools.cache
def _standard_tables() -> frozenset[bytes]:
    """The segments of Huffman tables of a JPEG file that is not optimized."""
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "JPEG")
    return frozenset(segment for marker, segment in _segments(data.getvalue()) or () if marker == HUFFMAN)


def _are_all_jpeg(paths: Sequence[str]) -> bool:
    """Whether there are files, and all are JPEG."""
    for path in paths:
        with open(path, "rb") as file:
            if file.read(len(JPEG_START)) != JPEG_START:
                return False
    return bool(paths)


def _shows(path: Path, pixels: np.ndarray) -> bool:
    """Whether a JPEG file shows exactly these pixels, uint8 [h, w, 3], also without its metadata."""
    data = without_metadata(path.read_bytes())
    try:
        picture = decode(data) if data else None
    except Exception:  # each of Pillow's decoders raises its own
        return False
    if picture is None or picture.conversion not in EQUAL_EVERYWHERE:
        return False
    return np.array_equal(np.asarray(picture.image), pixels)
