"""One image file is read as an image viewer shows it, whatever its mode, format and metadata."""

import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from pictures import COLOR, DAMAGED_METADATA, PICTURES, REFUSED, encoded, exif
from PIL import Image, UnidentifiedImageError

from common.image_file import LARGE, decode, read_file, read_image, reason_of, stored_size

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("name", PICTURES)
def test_every_mode_is_read_as_a_viewer_shows_it(name):
    data, shown = PICTURES[name]
    if shown is REFUSED:
        with pytest.raises(ValueError, match="from 0 to .* got .* save it with 8 bits"):
            decode(data)
        return
    picture = decode(data)
    assert picture.image.mode == "RGB"
    if shown is not None:
        expected, tolerance = shown if isinstance(shown, tuple) else (shown, 0)
        assert picture.size == expected.shape[:2]
        difference = np.abs(np.asarray(picture.image).astype(int) - np.asarray(expected).astype(int))
        assert difference.max() <= max(tolerance, 1 if "A" in name.split(".")[0] else 0)


def test_reason_names_the_largest_size_in_megapixels(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_500_000)
    with pytest.raises(Image.DecompressionBombError) as caught:
        decode(encoded(Image.new("L", (2000, 2000)), "png"))
    assert reason_of(caught.value) == "more than 3 megapixels; save it smaller"


@pytest.mark.parametrize("name", PICTURES)
def test_size_is_that_of_the_upright_image(name, tmp_path):
    data, shown = PICTURES[name]
    (tmp_path / "image").write_bytes(data)
    if shown is not REFUSED:
        assert stored_size(tmp_path / "image") == decode(data).size


@pytest.mark.parametrize("name", DAMAGED_METADATA)
def test_picture_with_damaged_metadata_is_used_unrotated(name):
    data, word = DAMAGED_METADATA[name]
    picture = decode(data)
    assert word in picture.conversion
    np.testing.assert_array_equal(np.asarray(picture.image), COLOR)


def test_orientation_in_front_of_the_cut_is_used():
    tags = Image.Exif()
    tags[274], tags[305] = 6, "Software" * 20  # a reader goes through them in this order
    cut = tags.tobytes()[:-30]
    picture = decode(encoded(Image.fromarray(COLOR), "PNG", exif=cut))
    assert picture.conversion == "rotated by EXIF"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("RGB.png", ""),
        ("L.png", "L to RGB"),
        ("CMYK.jpg", "CMYK to RGB"),
        ("LA.png", "alpha over white"),
        ("I;16.png", "16-bit, 65535 is white"),
        ("I;16 zero is white.tif", "16-bit, 0 is white"),
        ("I.tif", "32-bit, 65535 is white"),
        ("F 0 to 1.tif", "float, 1 is white"),
        ("orientation 8.png", "rotated by EXIF"),
        ("orientation 6 of 16 bits.png", "rotated by EXIF, 16-bit, 65535 is white"),
    ],
)
def test_conversion_is_named(name, words):
    assert decode(PICTURES[name][0]).conversion == words


def test_dark_image_is_scaled_as_a_bright_one():
    """The maximum of an image does not decide its scale: half the values are half as bright."""
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    for factor in (1, 10, 257):
        pixels = np.asarray(decode(encoded(Image.fromarray(levels * factor), "PNG")).image)[..., 0]
        np.testing.assert_array_equal(pixels, (levels * factor / 257).round())


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


def test_heic_names_the_missing_reader(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ValueError, match="HEIC.*pip install pillow-heif"):
        decode(HEIC)


def test_heic_is_read_if_its_reader_is_installed(monkeypatch):
    def register():
        monkeypatch.setattr("common.image_file.Image.open", lambda file: Image.fromarray(COLOR))

    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=register))
    np.testing.assert_array_equal(np.asarray(decode(HEIC).image), COLOR)


@pytest.mark.parametrize("data", [b"", b"text", PICTURES["RGB.png"][0][:60], PICTURES["RGB.png"][0][:8]])
def test_damaged_file_is_refused(data):
    with pytest.raises((OSError, SyntaxError, ValueError)):
        decode(data)


# --- a large photograph is read at a reduced scale


@pytest.fixture(scope="module")
def photograph():
    coarse = np.random.default_rng(0).integers(0, 256, (30, 45, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((2700, 1800), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_large_photograph_has_nearly_the_pixels_of_a_full_decode(photograph, tmp_path, kind, orientation):
    assert photograph.width * photograph.height > LARGE
    data = encoded(photograph, kind, exif=exif(orientation))
    (tmp_path / "photo").write_bytes(data)
    size = (96, 144) if orientation == 1 else (144, 96)
    reduced, words = read_image(tmp_path / "photo", size)
    full = decode(data)
    assert full.size == ((1800, 2700) if orientation == 1 else (2700, 1800))
    assert decode(data, size).size == full.size == stored_size(tmp_path / "photo")
    assert words == full.conversion
    assert reduced.size == size[::-1]
    exact = np.asarray(full.image.resize(size[::-1], Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(np.asarray(reduced) - exact).mean() < 0.5


def test_smaller_image_is_resized_exactly(photograph):
    small = photograph.resize((900, 600))
    data = encoded(small, "JPEG")
    expected = decode(data).image.resize((96, 64), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(np.asarray(decode(data, (64, 96)).image), np.asarray(expected))


VIDEOS = {
    "iPhone": b"\x00\x00\x00\x14ftypqt  \x00\x00\x00\x00",
    "Android": b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00",
    "old QuickTime": b"\x00\x00\x00\x08wide\x00\x00\x00\x00mdat",
    "Matroska": b"\x1aE\xdf\xa3" + bytes(12),
    "AVI": b"RIFF\x00\x00\x00\x00AVI LIST",
    "MPEG": b"\x00\x00\x01\xba" + bytes(12),
}


@pytest.mark.parametrize("kind", VIDEOS)
def test_a_video_is_not_read_into_memory(tmp_path, kind):
    path = tmp_path / "IMG_1.MOV"
    with open(path, "wb") as file:
        file.write(VIDEOS[kind])
        file.truncate(200_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(UnidentifiedImageError, match="a video, not an image"):
            read_file(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", sorted({"PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "ICO", "JPEG2000", "PPM"}))
def test_no_image_is_taken_for_a_video(tmp_path, name):
    Image.new("RGB", (32, 32), "green").save(tmp_path / "image", name)
    assert read_file(tmp_path / "image") == (tmp_path / "image").read_bytes()


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("side", [8, 2100])
def test_the_first_of_several_pictures_is_read_with_a_word(tmp_path, kind, count, side):
    pictures = [Image.new("RGB", (side, side), (40 * number, 0, 0)) for number in range(count)]
    pictures[0].save(tmp_path / "image", kind, save_all=count > 1, append_images=pictures[1:])
    image, words = read_image(tmp_path / "image", (8, 8))
    assert np.asarray(image).max() < 8
    assert ("the first of several pictures" in words) == (count > 1)
