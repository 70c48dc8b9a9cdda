"""submission/model.py, which stands alone, reads image files with the same pixels as the training does."""

import warnings

import hypothesis
import numpy as np
import pytest
from helpers import ROOT, load_module
from hypothesis import strategies as st
from pictures import COLOR, DAMAGED_METADATA, PICTURES, encoded
from PIL import Image, ImageCms

from common.image_file import center_box, decode

pytestmark = pytest.mark.integration

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I;16B", "I", "F")
KINDS = (
    "PNG",
    "TIFF",
    "JPEG",
    "WEBP",
    "GIF",
    "BMP",
    "PPM",
    "TGA",
    "ICO",
    "JPEG2000",
    "AVIF",
    "SGI",
    "PCX",
    "DDS",
    "QOI",
)


@pytest.fixture(scope="module")
def reader_code():
    return load_module(ROOT / "submission" / "model.py", "reader")


def both(reader_code, data, path):
    """The pixels of the two readers, None where a reader refuses the file."""
    path.write_bytes(data)
    try:
        ours = np.asarray(decode(data).image)
    except Exception:  # each of Pillow's decoders raises its own
        ours = None
    try:
        theirs = reader_code._as_image(path)
        assert theirs.dtype == np.uint8
    except ValueError as error:
        assert str(error).startswith("expected images")
        theirs = None
    return ours, theirs


@pytest.mark.filterwarnings("ignore::UserWarning")  # of damaged metadata
@pytest.mark.parametrize("name", [*PICTURES, *DAMAGED_METADATA])
def test_readers_give_the_same_pixels(reader_code, tmp_path, name):
    data = {**PICTURES, **DAMAGED_METADATA}[name][0]
    ours, theirs = both(reader_code, data, tmp_path / "image")
    assert (ours is None) == (theirs is None)
    if ours is not None:
        np.testing.assert_array_equal(ours, theirs)


def test_damaged_exif_is_warned_of(reader_code, tmp_path):
    (tmp_path / "image").write_bytes(DAMAGED_METADATA["no TIFF.png"][0])
    with pytest.warns(UserWarning, match="EXIF.*not rotated"):
        reader_code._as_image(tmp_path / "image")


def pillow_images():
    """Pillow images of modes that no file has, or whose channels could be taken for others."""
    color = Image.fromarray(COLOR)
    lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    alpha = Image.fromarray(np.dstack([COLOR, COLOR[..., :1]]))
    yield "HSV", color.convert("HSV"), color.convert("HSV").convert("RGB")
    yield "YCbCr", color.convert("YCbCr"), color.convert("YCbCr").convert("RGB")
    yield "LAB", ImageCms.applyTransform(color, lab), ImageCms.applyTransform(color, lab).convert("RGB")
    yield "CMYK", color.convert("CMYK"), color
    yield "L", color.convert("L"), color.convert("L").convert("RGB")
    yield "P", color.quantize(5), color.quantize(5).convert("RGB")
    yield (
        "La",
        alpha.convert("LA").convert("La"),
        Image.alpha_composite(
            Image.new("RGBA", color.size, "white"), alpha.convert("LA").convert("La").convert("LA").convert("RGBA")
        ).convert("RGB"),
    )
    yield (
        "RGBa",
        alpha.convert("RGBa"),
        Image.alpha_composite(Image.new("RGBA", color.size, "white"), alpha.convert("RGBa").convert("RGBA")).convert(
            "RGB"
        ),
    )


@pytest.mark.parametrize(
    ("image", "shown"), [(i, s) for _, i, s in pillow_images()], ids=[n for n, *_ in pillow_images()]
)
def test_pillow_image_of_any_mode_is_converted(reader_code, image, shown):
    np.testing.assert_array_equal(reader_code._as_image(image), np.asarray(shown))


# --- any picture, also a damaged one


@st.composite
def files(draw):
    """The bytes of an image file of any mode, size and format, sometimes with random EXIF data or random damage."""
    mode, kind = draw(st.sampled_from(MODES)), draw(st.sampled_from(KINDS))
    width, height = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    pixels = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if mode == "F":
        scale = draw(st.sampled_from([1, 1, 0.01, 255, -1, np.nan]))
        image = Image.fromarray((pixels.random((height, width)) * scale).astype(np.float32))
    elif mode.startswith("I"):
        top = draw(st.sampled_from([1, 255, 65535]) if mode != "I" else st.sampled_from([1, 255, 65535, 2**31 - 1]))
        values = pixels.integers(0, top, (height, width), endpoint=True)
        image = Image.fromarray(values.astype({"I": np.int32, "I;16": "<u2", "I;16B": ">u2"}[mode]))
    else:
        channels = len(Image.new(mode, (1, 1)).getbands())
        depth = pixels.integers(0, 256, (height, width * channels), dtype=np.uint8).tobytes()
        image = Image.new(mode, (width, height)) if mode == "1" else Image.frombytes(mode, (width, height), depth)
        if mode in ("P", "PA"):
            image.putpalette(list(range(256)) * 3)
    options = {}
    if draw(st.booleans()):
        tags = Image.Exif()
        tags[274] = draw(st.integers(0, 9))
        noise = draw(st.binary(max_size=40))
        options["exif"] = draw(st.sampled_from([tags.tobytes(), tags.tobytes()[:20] + noise, b"Exif\0\0" + noise]))
    if mode in ("P", "L", "RGB", "1") and kind == "PNG" and draw(st.booleans()):
        options["transparency"] = (1, 2, 3) if mode == "RGB" else draw(st.integers(0, 255))
    try:
        data = encoded(image, kind, **options)
    except Exception:  # not every format has every mode
        data = encoded(image.convert("RGB") if mode not in ("F", "LAB") else image, "TIFF")
    if draw(st.integers(0, 3)) == 0:
        damaged = bytearray(data[: draw(st.integers(1, len(data)))])
        for _ in range(draw(st.integers(0, 3))):
            damaged[draw(st.integers(0, len(damaged) - 1))] = draw(st.integers(0, 255))
        data = bytes(damaged)
    return data


def check_agreement(reader_code, path, data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours, theirs = both(reader_code, data, path)
    assert (ours is None) == (theirs is None)
    if ours is not None:
        np.testing.assert_array_equal(ours, theirs)
        assert ours.ndim == 3
        assert ours.shape[2] == 3


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)  # damage may change the size
        yield tmp_path_factory.mktemp("files") / "image"


COMMON = {"deadline": None, "suppress_health_check": list(hypothesis.HealthCheck), "database": None}


@hypothesis.given(files())
@hypothesis.settings(max_examples=200, derandomize=True, **COMMON)
def test_readers_agree_on_any_file(reader_code, path, data):
    check_agreement(reader_code, path, data)


@pytest.mark.slow
@hypothesis.given(files())
@hypothesis.settings(max_examples=10_000, **COMMON)
def test_readers_agree_on_ten_thousand_files(reader_code, path, data):
    check_agreement(reader_code, path, data)


SIDE = st.integers(1, 3000)


@hypothesis.given(SIDE, SIDE, SIDE, SIDE)
@hypothesis.settings(max_examples=300, derandomize=True, **COMMON)
def test_both_crop_the_same_center(reader_code, height, width, target_height, target_width):
    pixels = np.broadcast_to(np.arange(height)[:, None, None] * 10_000 + np.arange(width)[:, None], (height, width, 1))
    cropped = reader_code._center(pixels, (target_height, target_width))[..., 0]
    left, top, right, bottom = center_box((width, height), (target_width, target_height))
    assert cropped.shape == (bottom - top, right - left)
    assert cropped[0, 0] == top * 10_000 + left
    assert (bottom - top == height) or (right - left == width)
