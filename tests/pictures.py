"""Image files of every mode and format, each with the pixels that an image viewer shows."""

import struct
import zlib
from io import BytesIO

import numpy as np
import PIL
from PIL import Image, ImageCms

COLOR = np.random.default_rng(7).integers(0, 256, (10, 12, 3), dtype=np.uint8)
GREY = COLOR[..., 0]
ALPHA = np.where(np.arange(12) < 4, 0, np.where(np.arange(12) < 8, 102, 255)).astype(np.uint8) * np.ones(
    (10, 1), np.uint8
)
REFUSED = "refused"  # in place of the pixels


def rgb(grey):
    """Grey [h, w] → RGB [h, w, 3]."""
    return np.repeat(np.asarray(grey)[..., None], 3, axis=-1)


def over_white(pixels):
    """RGB [h, w, 3] composited over white with `ALPHA`."""
    share = ALPHA[..., None] / 255
    return (pixels * share + 255 * (1 - share)).round()


def encoded(image, kind, **options):
    """The bytes of a Pillow image as a file."""
    file = BytesIO()
    if "append_images" in options:  # copies, because Pillow keeps the settings of the format saved before
        options["append_images"] = [frame.copy() for frame in options["append_images"]]
    image.copy().save(file, kind, **options)
    return file.getvalue()


def chunk(kind, data):
    """One chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(png, *chunks):
    """A PNG file with more chunks behind its header."""
    return png[:33] + b"".join(chunks) + png[33:]


def zero_is_white(tiff: bytes) -> bytes:
    """A TIFF file whose values are taken as the opposite: its photometric interpretation is 0 instead of 1."""
    entry, other = (struct.pack("<HHIHH", 262, 3, 1, value, 0) for value in (1, 0))
    assert tiff.count(entry) == 1
    return tiff.replace(entry, other)


def png(array, color_type, depth, *chunks):
    """A PNG file of an array [h, w, …] whose values are stored with `depth` bits, 8 or 16."""
    height, width = array.shape[:2]
    rows = array.astype(">u2" if depth == 16 else np.uint8).reshape(height, -1)
    pixels = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    parts = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def exif(orientation=None, make=None):
    """EXIF bytes."""
    tags = Image.Exif()
    if orientation is not None:
        tags[274] = orientation
    if make is not None:
        tags[271] = make
    return tags.tobytes()


def lab():
    """A Pillow image in mode LAB, and its colors."""
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    image = ImageCms.applyTransform(Image.fromarray(COLOR), to_lab)
    return image, np.asarray(image.convert("RGB"))


def palette(transparency=None):
    """A Pillow image in mode P whose three colors are 0, 100 and 200, and its grey values."""
    places = (np.arange(120) % 3).astype(np.uint8).reshape(10, 12)
    image = Image.fromarray(places)
    image.putpalette([value for grey in (0, 100, 200) for value in [grey] * 3])
    return image, places


def _files():
    color, grey = Image.fromarray(COLOR), Image.fromarray(GREY)
    rgba, la = Image.fromarray(np.dstack([COLOR, ALPHA])), Image.fromarray(np.dstack([GREY, ALPHA]))
    bits = Image.fromarray(GREY > 127)
    indexed, places = palette()
    shown = np.array([0, 100, 200])[places]
    lab_image, lab_colors = lab()
    deep = GREY.astype(np.uint16) * 257
    frames = [Image.fromarray(COLOR[::-1]), Image.fromarray(255 - COLOR)]
    cmyk = np.dstack([255 - COLOR, np.zeros((10, 12), np.uint8)])
    yield "1.png", encoded(bits, "PNG"), rgb(np.where(GREY > 127, 255, 0))
    yield "L.png", encoded(grey, "PNG"), rgb(GREY)
    yield (
        "L transparent value.png",
        png(GREY, 0, 8, chunk(b"tRNS", struct.pack(">H", GREY[0, 0]))),
        rgb(np.where(GREY[0, 0] == GREY, 255, GREY)),
    )
    yield "LA.png", encoded(la, "PNG"), over_white(rgb(GREY))
    yield "P.png", encoded(indexed, "PNG"), rgb(shown)
    yield "P transparent color.png", encoded(indexed, "PNG", transparency=0), rgb(np.where(places == 0, 255, shown))
    yield (
        "P alpha of each color.png",
        encoded(indexed, "PNG", transparency=bytes([0, 255, 255])),
        rgb(np.where(places == 0, 255, shown)),
    )
    yield "P.gif", encoded(indexed, "GIF"), rgb(shown)
    yield "PA.tif", encoded(indexed.convert("PA"), "TIFF"), rgb(shown)
    yield "RGB.png", encoded(color, "PNG"), COLOR
    yield "RGB.bmp", encoded(color, "BMP"), COLOR
    yield "RGB.tif", encoded(color, "TIFF"), COLOR
    yield "RGB.ppm", encoded(color, "PPM"), COLOR
    yield "RGB.webp", encoded(color, "WEBP", lossless=True), COLOR
    yield "RGB.jpg", encoded(color, "JPEG", quality=100, subsampling=0), (COLOR, 12)
    yield "RGB progressive.jpg", encoded(color, "JPEG", quality=100, subsampling=0, progressive=True), (COLOR, 12)
    yield "RGB two pictures.mpo", encoded(color, "MPO", save_all=True, append_images=frames, quality=100), None
    yield (
        "RGB transparent color.png",
        png(COLOR, 2, 8, chunk(b"tRNS", struct.pack(">3H", *COLOR[0, 0]))),
        np.where((COLOR[0, 0] == COLOR).all(axis=-1, keepdims=True), 255, COLOR),
    )
    yield "RGB 16 bits.png", png(COLOR.astype(np.uint16) * 257, 2, 16), COLOR
    yield "RGBA.png", encoded(rgba, "PNG"), over_white(COLOR)
    yield "RGBA.webp", encoded(rgba, "WEBP", lossless=True, exact=True), over_white(COLOR)
    yield "RGBA.tif", encoded(rgba, "TIFF"), over_white(COLOR)
    yield "RGBA 16 bits.png", png(np.dstack([COLOR, ALPHA]).astype(np.uint16) * 257, 6, 16), over_white(COLOR)
    yield "CMYK.tif", encoded(Image.fromarray(cmyk, "CMYK"), "TIFF"), COLOR
    yield "CMYK.jpg", encoded(Image.fromarray(cmyk, "CMYK"), "JPEG", quality=100, subsampling=0), (COLOR, 12)
    if int(PIL.__version__.split(".")[0]) >= 13:  # earlier ones cannot read the YCbCr TIFF that they write
        yield "YCbCr.tif", encoded(color.convert("YCbCr"), "TIFF"), (COLOR, 3)
    yield "LAB.tif", encoded(lab_image, "TIFF"), (lab_colors, 3)
    yield "I;16.png", encoded(Image.fromarray(deep), "PNG"), rgb(GREY)
    yield "I;16 dark.png", encoded(Image.fromarray(GREY.astype(np.uint16)), "PNG"), rgb((GREY / 257).round())
    yield (
        "I;16 transparent value.png",
        png(deep, 0, 16, chunk(b"tRNS", struct.pack(">H", deep[0, 0]))),
        rgb(np.where(deep == deep[0, 0], 255, GREY)),
    )
    yield "I;16.tif", encoded(Image.fromarray(deep), "TIFF"), rgb(GREY)
    yield "I;16 zero is white.tif", zero_is_white(encoded(Image.fromarray(65535 - deep), "TIFF")), rgb(GREY)
    yield "L zero is white.tif", zero_is_white(encoded(Image.fromarray(255 - GREY), "TIFF")), rgb(GREY)
    yield "I;16B.tif", encoded(Image.fromarray(deep.astype(">u2")), "TIFF"), rgb(GREY)
    yield "16 bits.pgm", b"P5 12 10 65535\n" + deep.astype(">u2").tobytes(), rgb(GREY)
    yield "16 bits dark.pgm", b"P5 12 10 65535\n" + GREY.astype(">u2").tobytes(), rgb((GREY / 257).round())
    yield "I.tif", encoded(Image.fromarray(deep.astype(np.int32)), "TIFF"), rgb(GREY)
    yield "I of 24 bits.tif", encoded(Image.fromarray(GREY.astype(np.int32) * 65536), "TIFF"), REFUSED
    yield "I negative.tif", encoded(Image.fromarray(-deep.astype(np.int32)), "TIFF"), REFUSED
    yield "F 0 to 1.tif", encoded(Image.fromarray((GREY / 255).astype(np.float32)), "TIFF"), rgb(GREY)
    yield "F dark.tif", encoded(Image.fromarray((GREY / 25500).astype(np.float32)), "TIFF"), rgb((GREY / 100).round())
    yield "F 0 to 255.tif", encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"), REFUSED
    yield "F NaN.tif", encoded(Image.fromarray(np.where(GREY > 200, np.nan, 0.5).astype(np.float32)), "TIFF"), REFUSED
    yield "first frame.gif", encoded(indexed, "GIF", save_all=True, append_images=frames), rgb(shown)
    yield "first frame.webp", encoded(color, "WEBP", save_all=True, append_images=frames, lossless=True), COLOR
    yield "first frame.png", encoded(color, "PNG", save_all=True, append_images=frames), COLOR
    yield "first page.tif", encoded(color, "TIFF", save_all=True, append_images=frames), COLOR


# EXIF orientation → what it makes of the stored pixels.
TURNS = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: np.rot90(x, 2),
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}


def _turned():
    color = Image.fromarray(COLOR)
    for orientation, turn in TURNS.items():
        data = exif(orientation)
        for suffix, kind, options in (("png", "PNG", {}), ("webp", "WEBP", {"lossless": True}), ("tif", "TIFF", {})):
            yield f"orientation {orientation}.{suffix}", encoded(color, kind, exif=data, **options), turn(COLOR)
    deep = Image.fromarray(GREY.astype(np.uint16) * 257)
    yield "orientation 6 of 16 bits.png", encoded(deep, "PNG", exif=exif(6)), TURNS[6](rgb(GREY))
    for value in (0, 9):
        yield f"orientation {value} is unknown.png", encoded(color, "PNG", exif=exif(value)), COLOR


def damaged_metadata():
    """Yields (file name, bytes, a word of the note): good pictures whose metadata is damaged or too large."""
    color, plain = Image.fromarray(COLOR), encoded(Image.fromarray(COLOR), "PNG")
    whole, text = exif(6, "Camera" * 20), b"Comment\0\0" + zlib.compress(bytes(5_000_000))
    profile = b"profile\0\0" + zlib.compress(bytes(5_000_000))
    wrong = bytearray(chunk(b"tEXt", b"Comment\0hello"))
    wrong[-1] ^= 1
    for name, data in {"no TIFF": b"Exif\0\0nonsense", "empty": b"Exif\0\0", "cut head": whole[:9]}.items():
        if name != "empty":
            yield f"{name}.png", encoded(color, "PNG", exif=data), "EXIF"
            yield f"{name}.webp", encoded(color, "WEBP", exif=data, lossless=True), "EXIF"
    yield "cut before orientation.png", encoded(color, "PNG", exif=whole[:20]), "EXIF"
    yield "wrong place.png", encoded(color, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"), "EXIF"
    yield "large text.png", with_chunks(plain, chunk(b"zTXt", text)), "metadata"
    yield "large text at the end.png", plain[:-12] + chunk(b"zTXt", text) + plain[-12:], "metadata"
    international = b"Comment\0\1\0\0\0" + zlib.compress(bytes(5_000_000))
    yield "large international text.png", with_chunks(plain, chunk(b"iTXt", international)), "metadata"
    yield "large color profile.png", with_chunks(plain, chunk(b"iCCP", profile)), "metadata"
    yield "wrong checksum of a text.png", with_chunks(plain, bytes(wrong)), "metadata"
    many = [chunk(b"zTXt", b"C%d\0\0" % number + zlib.compress(bytes(1_000_000))) for number in range(70)]
    yield "many texts.png", with_chunks(plain, *many), "metadata"


PICTURES = {name: (data, shown) for name, data, shown in (*_files(), *_turned())}
DAMAGED_METADATA = {name: (data, word) for name, data, word in damaged_metadata()}
