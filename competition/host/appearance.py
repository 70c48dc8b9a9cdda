"""What the pages of a competition look like: the organizer's text and logo, or neutral ones."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from common.errors import UserError
from common.folders import printable
from common.image_file import read_image, reason_of
from competition.host.files import as_png

LOGO_SIDE = 600  # pixels, the longest side of an organizer's logo
TILES, TILE, GAP = 3, 80, 15  # of the neutral logo: tiles a side, pixels
TILE_COLOR, CHOSEN_COLOR, PAPER = "#c9d3dc", "#2f6f9f", "#ffffff"


def read_text(path: Path | str) -> str:
    """Reads the text of the page Overview.

    Raises:
        UserError: the file does not exist, is empty, or is not UTF-8.
    """
    try:
        text = Path(path).read_text("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--text must be a Markdown file in UTF-8, got {printable(path)}: {reason_of(error)}"
        ) from error
    if not text:
        raise UserError(f"--text must be a file with text, {printable(path)} is empty; leave out --text, or write one")
    return text


def read_logo(path: Path | str) -> bytes:
    """Reads a picture. Returns it as PNG without metadata, with sides of at most `LOGO_SIDE` pixels.

    Raises:
        UserError: the file is not a picture that Pillow reads.
    """
    try:
        picture, _ = read_image(path)
    except Exception as error:  # each of Pillow's decoders raises its own
        raise UserError(f"--logo must be a PNG or JPEG picture, got {printable(path)}: {reason_of(error)}") from error
    picture.thumbnail((LOGO_SIDE, LOGO_SIDE))
    return as_png(np.asarray(picture))


def neutral_logo() -> bytes:
    """Draws nine tiles, of which one is chosen. Returns a PNG, 300 pixels wide and high."""
    side = TILES * TILE + (TILES + 1) * GAP
    picture = Image.new("RGB", (side, side), PAPER)
    pen = ImageDraw.Draw(picture)
    for number in range(TILES * TILES):
        left, top = (GAP + place * (TILE + GAP) for place in (number % TILES, number // TILES))
        color = CHOSEN_COLOR if number == TILES * TILES // 2 else TILE_COLOR
        pen.rounded_rectangle((left, top, left + TILE - 1, top + TILE - 1), 12, color)
    return as_png(np.asarray(picture))
