"""The hidden images as files: what is stored as it came, what becomes PNG, and that the server decodes the pixels."""

import io
import json
import sys

import numpy as np
import pytest
from helpers import ROOT, load_module, python
from PIL import Image

from common.images import load_folder
from competition.host.image_files import without_metadata, write_image_files
from competition.synthetic import draw_leaf

PROGRAM = ROOT / "competition" / "ingestion_program"
SIDE = 40
# Options of Pillow for JPEG files whose pixels are those of the file.
JPEG = {
    "plain": {},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_blocks": 1},
    "small colors": {"subsampling": 2, "quality": 30},
    "comment and profile": {"comment": b"secret " * 9000, "icc_profile": b"secret" * 20_000},
}


def leaf(number=0, side=SIDE):
    return draw_leaf(number, np.random.default_rng(number), side)


def encoded(image, kind="JPEG", **options):
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def write(folder, files):
    """Loads files of two classes and writes them in reverse order. Returns (folder, images, order)."""
    for number, (name, data) in enumerate(files.items()):
        path = folder / "data" / f"class{number % 2}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    images = load_folder(folder / "data")
    (folder / "input" / "images").mkdir(parents=True)
    order = np.arange(len(images))[::-1]
    write_image_files(folder / "input", images, order)
    return folder / "input", images, order


def suffixes(folder):
    return [path.suffix for path in sorted((folder / "images").iterdir())]


@pytest.mark.unit
@pytest.mark.parametrize("case", JPEG)
def test_jpeg_without_metadata_shows_the_same_pixels(case):
    exif = Image.Exif()
    exif[0x010E] = "secret"
    data = encoded(leaf(), exif=exif, **JPEG[case]) + b"secret"
    stripped = without_metadata(data)
    assert b"secret" in data
    assert b"secret" not in stripped
    assert len(stripped) < len(data)
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(stripped))), np.asarray(Image.open(io.BytesIO(data)))
    )


@pytest.mark.unit
@pytest.mark.parametrize("length", [0, 2, 3, 10, 300, 600, -2])
def test_no_whole_jpeg_is_not_stripped(length):
    assert without_metadata(encoded(leaf())[:length]) is None
    assert without_metadata(encoded(leaf(), "PNG")) is None


@pytest.mark.unit
@pytest.mark.parametrize(
    "options",
    [{}, {"restart_marker_blocks": 1}, {"subsampling": 2, "quality": 30}, {"optimize": True}, {"progressive": True}],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_files_of_the_same_settings_are_stored_as_they_came(tmp_path, options, mode):
    files = {
        "a.jpg": encoded(leaf(0).convert(mode), **options),
        "b.jpg": encoded(leaf(1).convert(mode), comment=b"secret", **options),
        "c.jpg": encoded(leaf(2).convert(mode), icc_profile=b"secret", **options),
    }
    folder, images, order = write(tmp_path, files)
    assert suffixes(folder) == [".jpg"] * 3
    for number, row in enumerate(order):
        came = files[images.paths[row].rpartition("/")[2]]
        assert (folder / "images" / f"{number:05d}.jpg").read_bytes() == without_metadata(came)


TURNED = Image.Exif()
TURNED[0x0112] = 6


@pytest.mark.unit
@pytest.mark.parametrize(
    "other",
    [
        encoded(leaf(1), "PNG"),
        encoded(leaf(1), exif=TURNED),
        encoded(leaf(1, 64)),
        encoded(leaf(1).convert("CMYK")),
        encoded(leaf(1).convert("L")),
        encoded(leaf(1), quality=76),
        encoded(leaf(1), subsampling=0),
        encoded(leaf(1), progressive=True),
        encoded(leaf(1), optimize=True),
        encoded(leaf(1), restart_marker_blocks=1),
    ],
    ids=["PNG", "rotated", "resized", "CMYK", "grey", "quality", "subsampling", "progressive", "optimized", "restart"],
)
def test_one_other_image_makes_all_files_png(tmp_path, other):
    """Otherwise the format or the compression of a file could tell its class."""
    files = {"a.jpg": encoded(leaf(0)), "b.jpg": other, "c.jpg": encoded(leaf(2))}
    folder, *_ = write(tmp_path, files)
    assert suffixes(folder) == [".png"] * 3


# Runs a program as if Pillow was not installed.
WITHOUT_PILLOW = (
    "import runpy, sys; sys.modules['PIL'] = None; sys.argv = sys.argv[1:]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


@pytest.mark.integration
@pytest.mark.parametrize("pillow", [True, False], ids=["Pillow", "TensorFlow"])
@pytest.mark.parametrize("case", ["plain", "restart markers", "small colors", "grey", "all kinds"])
def test_server_decodes_the_pixels_that_were_loaded(tmp_path, monkeypatch, pillow, case):
    kinds = [JPEG.get(case, {})] * 3 if case != "all kinds" else [*JPEG.values()]
    leaves = [leaf(number).convert("L" if case == "grey" else "RGB") for number in range(len(kinds))]
    files = {f"{row}.jpg": encoded(leaves[row], **options) for row, options in enumerate(kinds)}
    folder, images, order = write(tmp_path, files)
    assert set(suffixes(folder)) == {".png" if case == "all kinds" else ".jpg"}
    if not pillow:
        (tmp_path / "python").write_text(
            f'#!/bin/sh\nshift 2\nexec "{sys.executable}" -I -B -c "{WITHOUT_PILLOW}" "$@"\n'
        )
        (tmp_path / "python").chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    loaded = load_module(PROGRAM / "ingestion.py", "ingestion").load_images(str(folder))
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded, images.images[order])


@pytest.mark.integration
@pytest.mark.parametrize("change", ["damaged", "missing", "one more"])
def test_images_that_cannot_be_decoded_stop_the_ingestion(tmp_path, change):
    folder, images, _ = write(tmp_path, {f"{number}.jpg": encoded(leaf(number)) for number in range(4)})
    path = folder / "images" / "00002.jpg"
    if change == "damaged":
        path.write_bytes(b"no image")
    elif change == "missing":
        path.unlink()
    else:
        path.with_name("00004.jpg").write_bytes(path.read_bytes())
    with pytest.raises(RuntimeError, match="cannot be decoded"):
        load_module(PROGRAM / "ingestion.py", "ingestion").load_images(str(folder))
    assert json.loads((folder / "shape.json").read_text()) == list(images.images.shape)


@pytest.mark.integration
def test_decoder_runs_alone(tmp_path):
    folder, images, order = write(tmp_path, {"a.png": encoded(leaf(0), "PNG"), "b.png": encoded(leaf(1), "PNG")})
    code = "import subprocess, sys; print(len(subprocess.run([sys.executable, '-I', *sys.argv[1:]], stdout=-1).stdout))"
    done = python("-c", code, PROGRAM / "decoder.py", folder / "images")
    assert done.stdout == f"{images.images.nbytes}\n", done.stderr
