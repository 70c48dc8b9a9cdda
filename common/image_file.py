"""Reads one image file as an image viewer shows it.

submission/model.py stands alone and has the same rules; a test compares the pixels of the two.
"""

import io
import struct
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from common.folders import printable

LARGE = 4_000_000  # pixels; a larger file is decoded at a reduced scale if it is resized anyway
REDUCING_GAP = 2.0  # how much larger than the wanted size the reduced one is at least, as in Pillow's `thumbnail`
ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")  # Pillow's modes that have an alpha channel
ORIENTATION = 274  # EXIF tag
PHOTOMETRIC = 262  # TIFF tag: whether 0 is black or white
TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # the chunks that decide what is shown
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
HEAD_BYTES = 16
SEVERAL_PICTURES = ("GIF", "PNG", "TIFF", "WEBP")  # formats that may have them; an MPO file's are those of two lenses
VIDEO_STARTS = (b"\x1aE\xdf\xa3", b"\x00\x00\x01\xba", b"FLV\x01")  # Matroska and WebM, MPEG, Flash
VIDEO_ATOMS = (b"moov", b"mdat", b"wide", b"pnot")  # the first atom of an old QuickTime file
VIDEO_BRANDS = (b"qt", b"mp4", b"iso", b"M4", b"3g", b"avc", b"MSNV", b"dash", b"f4v", b"mmp4", b"XAVC")
NO_HEIC = "Pillow has no HEIC reader; pip install pillow-heif, or convert the file to JPEG"

_exif_lock = threading.Lock()  # warnings can be recorded by one thread at a time only


@dataclass(frozen=True)
class Picture:
    """An image file that was read.

    image: mode RGB, upright.
    size: (height, width) of the upright image in the file, in pixels, before any resizing.
    conversion: what was converted, "" or a few words.
    """

    image: Image.Image
    size: tuple[int, int]
    conversion: str


def read_image(path: Path | str, size: tuple[int, int] | None = None) -> tuple[Image.Image, str]:
    """Reads one file as an image viewer shows it.

    EXIF rotation is applied, more than 8 bits are scaled to 8, alpha is composited over white, grey and CMYK become
    RGB. An image with unreadable EXIF data is used as it is stored.

    Args:
        path: the file.
        size: (height, width) in pixels to resize to, or None. An image of another aspect is first cropped at the
            center, so that nothing is distorted; see `center_box`.

    Returns:
        (Pillow image in mode RGB, what was converted: "" or a few words).

    Raises:
        OSError, SyntaxError, ValueError: not an image, or a damaged one. Pillow's decoders may raise others.
    """
    picture = decode(read_file(Path(path)), size)
    return picture.image, picture.conversion


def read_file(path: Path) -> bytes:
    """Returns the bytes of an image file. Of a video, which may need all of the memory, only the first are read.

    Raises:
        OSError: the file cannot be read. UnidentifiedImageError: it is a video.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
        kind, brand = head[4:8], head[8:12]
        container = kind in VIDEO_ATOMS or (kind == b"ftyp" and brand.startswith(VIDEO_BRANDS))
        if container or head.startswith(VIDEO_STARTS) or (head[:4], brand) == (b"RIFF", b"AVI "):
            raise UnidentifiedImageError("a video, not an image")
        return head + file.read()


def decode(data: bytes, size: tuple[int, int] | None = None) -> Picture:
    """Reads the bytes of an image file, see `read_image`. Large files are decoded at a scale close to `size`."""
    try:
        return _decode(data, size)
    except Exception as error:  # each of Pillow's decoders raises its own
        if data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS:
            return _decode_heic(data, size)
        pixels_only = _without_metadata(data)
        if pixels_only is None:
            raise
        try:
            picture = _decode(pixels_only, size)
        except Exception:
            raise error from None
    words = ", ".join(filter(None, ("metadata not readable", picture.conversion)))
    return Picture(picture.image, picture.size, words)


def reason_of(error: Exception) -> str:
    """Returns one line that says why a file cannot be read. Pillow's text has the address of an object."""
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6} megapixels; save it smaller"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if text.startswith("cannot identify image file"):
        return "not an image that Pillow can read"
    return printable(text.splitlines()[0])


def center_box(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """Returns the largest part in the center of an image that has the aspect of another size.

    Args:
        size: (width, height) of the image, in pixels.
        target: (width, height) whose aspect is wanted.

    Returns:
        (left, top, right, bottom) in whole pixels.
    """
    width, height = size
    inner = min(width, max(1, round(height * target[0] / target[1])))
    upper = min(height, max(1, round(width * target[1] / target[0])))
    left, top = (width - inner) // 2, (height - upper) // 2
    return left, top, left + inner, top + upper


def stored_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image file in pixels, upright, without decoding the pixels if that is possible."""
    try:
        with Image.open(path) as stored:
            # Pillow searches a PNG without EXIF data in front of its pixels for EXIF data behind them.
            needs_pixels = stored.format == "PNG" and "exif" not in stored.info
            turned = not needs_pixels and stored.format != "TIFF" and orientation(stored)[0] >= 5  # TIFF's is upright
            return stored.size if turned else stored.size[::-1]
    except Exception:
        return decode(read_file(path)).size


def orientation(image: Image.Image) -> tuple[int, bool]:
    """(EXIF orientation 1 to 8, whether the EXIF data is damaged). Damaged or unknown values are 1."""
    with _exif_lock, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            raw = image.info.get("exif")
            if raw:
                Image.Exif().load(raw)  # again, because what `open` has read is cached without its warnings
            value = image.getexif().get(ORIENTATION, 1)
        except Exception:
            return 1, True
    if isinstance(value, int) and value in TRANSPOSE:
        return value, False
    return 1, bool(caught)


def _decode(data: bytes, size: tuple[int, int] | None) -> Picture:
    with Image.open(io.BytesIO(data)) as stored:
        several = ["the first of several pictures"] * _has_more_pictures(data, stored.format or "")
        if size is not None and stored.width * stored.height > LARGE:
            return _decode_large(stored, size, several)
        stored.load()
        turn, damaged = orientation(stored)
        image, words = _to_rgb(stored)
        words += several
    image = image.transpose(TRANSPOSE[turn]) if turn > 1 else image
    full = image.height, image.width
    if size is not None and full != size:
        image = image.resize(size[::-1], Image.Resampling.BICUBIC, center_box(image.size, size[::-1]))
    image = image.copy() if image is stored else image  # without the file
    return Picture(image, full, _words(turn, damaged, words))


def _has_more_pictures(data: bytes, kind: str) -> bool:
    """Whether a file has further pages or frames. It is opened again, because looking for them may change the first."""
    if kind not in SEVERAL_PICTURES:
        return False
    try:
        with Image.open(io.BytesIO(data)) as stored:
            return bool(getattr(stored, "is_animated", False))
    except Exception:  # of a damaged second picture
        return False


def _decode_large(stored: ImageFile.ImageFile, size: tuple[int, int], several: list[str]) -> Picture:
    """Decodes an open file at a scale between its own and `size`, resizes it, and only then rotates it."""
    full = stored.size
    sides = size if orientation(stored)[0] >= 5 else size[::-1]
    left, top, right, bottom = center_box(full, sides)
    wanted = (
        round(sides[0] * REDUCING_GAP * full[0] / (right - left)),
        round(sides[1] * REDUCING_GAP * full[1] / (bottom - top)),
    )
    # Only JPEG files have a draft. Its box is what belongs to the image, the last row and column may be filled up.
    drafted = stored.draft(None, wanted)
    stored.load()
    turn, damaged = orientation(stored)  # now 1 for a TIFF file, which Pillow rotates while it reads it
    if not drafted:
        full, sides = stored.size, size if turn >= 5 else size[::-1]
    image, words = _to_rgb(stored)
    scale = np.divide(drafted[1][2:], full) if drafted else np.ones(2)
    box = tuple(np.multiply(center_box(full, sides), np.tile(scale, 2)).tolist())
    image = image.resize(sides, Image.Resampling.BICUBIC, box, REDUCING_GAP)
    image = image.transpose(TRANSPOSE[turn]) if turn > 1 else image
    return Picture(image, full if turn >= 5 else full[::-1], _words(turn, damaged, words + several))


def _words(turn: int, damaged: bool, words: list[str]) -> str:
    """What was converted, in a few words."""
    turned = ["rotated by EXIF"] if turn > 1 else []
    return ", ".join(turned + ["EXIF not readable, not rotated"] * damaged + words)


def _to_rgb(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """The image in mode RGB, and what was converted."""
    words = []
    if image.mode.startswith(("I", "F")):
        white = 1 if image.mode == "F" else 65535
        kind = {"F": "float", "I": "32-bit"}.get(image.mode, "16-bit")
        words.append(f"{kind}, {0 if _zero_is_white(image) else white} is white")
        image = _to_8_bit(image, white)
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        words.append("alpha over white")
        image = image.convert("LA") if image.mode == "La" else image
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode != "RGB" and not words:
        words.append(f"{image.mode} to RGB")
    return image if image.mode == "RGB" else image.convert("RGB"), words


def _to_8_bit(image: Image.Image, white: int) -> Image.Image:
    """Scales by the mode alone, never by the values, so that a dark image stays dark. Keeps a transparent value."""
    array = np.asarray(image)
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= white):  # also if one is NaN
        raise ValueError(
            f"pixels of mode {image.mode} must be from 0 to {white}, got {low:g} to {high:g}; save it with 8 bits"
        )
    levels = white - array.astype(np.float32) if _zero_is_white(image) else array.astype(np.float32)
    grey = Image.fromarray((levels * np.float32(255 / white)).round().astype(np.uint8))
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return grey
    alpha = Image.fromarray(np.where(array == clear, 0, 255).astype(np.uint8))
    return Image.merge("LA", (grey, alpha))


def _zero_is_white(image: Image.Image) -> bool:
    """Whether a TIFF file stores white as 0. Pillow inverts only those with up to 8 bits."""
    return getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0


def _decode_heic(data: bytes, size: tuple[int, int] | None) -> Picture:
    """Reads a HEIC file with the package pillow-heif, if it is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise ValueError(NO_HEIC) from None
    register_heif_opener()
    return _decode(data, size)


def _without_metadata(data: bytes) -> bytes | None:
    """A PNG file with only the chunks that decide what is shown; None for other formats.

    Pillow refuses a whole file for a text or color profile above its limit, or with a wrong checksum.
    """
    if not data.startswith(PNG_START):
        return None
    kept, place = [PNG_START], len(PNG_START)
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        end = place + 12 + length
        if data[place + 4 : place + 8] in PNG_PIXELS:
            kept.append(data[place:end])
        place = end
    return b"".join(kept)
