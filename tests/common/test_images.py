"""Image files and class folders are read into arrays."""

import errno
import os
import re
import shutil
import sys
import zlib
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import ROOT, python
from pictures import chunk, with_chunks
from PIL import Image

from common import images as module
from common.errors import UserError
from common.folders import list_classes
from common.images import NAMED, Images, load_folder, working_size
from competition.synthetic import draw_folder, draw_images

pytestmark = pytest.mark.unit
LEAF = draw_images(1, seed=9, side=32)[0]


def test_classes_are_in_natural_order(tmp_path):
    draw_folder(tmp_path / "leaves", 2, classes=11, side=32)
    images = load_folder(tmp_path / "leaves")
    assert images.names == tuple(f"Species{n}" for n in range(1, 12))
    assert images.labels.tolist() == [n for n in range(11) for _ in range(2)]
    assert images.images.shape == (22, 32, 32, 3)
    assert images.images.dtype == np.uint8
    assert images.labels.dtype == np.int64
    assert images.notes == ()
    for path, label, pixels in zip(images.paths, images.labels, images.images, strict=True):
        assert f"/Species{label + 1}/" in path
        np.testing.assert_array_equal(pixels, np.asarray(Image.open(path)))


@pytest.mark.parametrize(("factor", "warned"), [(1, True), (16, False)])
def test_twelve_bits_in_sixteen_are_warned_of(tmp_path, factor, warned):
    rng = np.random.default_rng(0)
    for name in ("Oak", "Ash"):
        (tmp_path / name).mkdir()
        for number in range(2):
            pixels = rng.integers(0, 4096, (16, 16)).astype(np.uint16) * factor
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    notes = "\n".join(load_folder(tmp_path).notes)
    assert ("warning: all 4 images of more than 8 bits are nearly black" in notes) == warned


def test_files_are_in_natural_order(tmp_path):
    draw_folder(tmp_path, 3, classes=2, side=32)
    for old, new in (("00000", "10"), ("00001", "9"), ("00002", "1")):
        (tmp_path / "Species1" / f"{old}.jpg").rename(tmp_path / "Species1" / f"{new}.jpg")
    assert [path.stem for path in list_classes(tmp_path).classes[0][1]] == ["1", "9", "10"]


def test_rows_keep_image_label_and_path_together(leaf_folder):
    images = load_folder(leaf_folder)
    chosen = images.rows(np.array([20, 3]))
    assert len(chosen) == 2
    assert chosen.names == images.names
    assert chosen.labels.tolist() == [2, 0]
    assert chosen.paths == (images.paths[20], images.paths[3])
    np.testing.assert_array_equal(chosen.images, images.images[[20, 3]])


def test_hidden_files_and_folders_are_skipped_and_counted(leaf_folder):
    before = load_folder(leaf_folder)
    (leaf_folder / "Species1" / ".DS_Store").write_bytes(b"\0")
    (leaf_folder / ".cache").mkdir()
    (leaf_folder / "readme.txt").write_text("not a class")
    (leaf_folder / "Species2" / ".ipynb_checkpoints").mkdir()
    shutil.copy(before.paths[9], leaf_folder / "Species2" / ".ipynb_checkpoints" / "00001-checkpoint.jpg")
    after = load_folder(leaf_folder)
    assert after.paths == before.paths
    assert after.notes == (f"skipped 2 hidden or system files, for example {leaf_folder / 'Species1' / '.DS_Store'}",)


def test_conversions_are_counted_in_the_notes(leaf_folder):
    for name, leaf in zip("ab", draw_images(2, seed=5, side=32), strict=True):
        Image.fromarray(leaf).convert("L").save(leaf_folder / "Species1" / f"{name}.png")
    Image.fromarray(LEAF).resize((50, 40)).save(leaf_folder / "Species2" / "large.png")
    images = load_folder(leaf_folder)
    assert images.notes == (
        "converted 2 images: L to RGB",
        "resized 1 images to 32×32",
        "cropped 1 of them at the center to this aspect, which removed up to 20% of an image",
    )
    assert images.images.shape == (27, 32, 32, 3)


def test_given_size_is_height_and_width(leaf_folder):
    images = load_folder(leaf_folder, (20, 28))
    assert images.images.shape == (24, 20, 28, 3)
    center = (0, 4, 32, 27)  # 32 × 23 pixels have the aspect of 28 × 20
    expected = Image.open(images.paths[5]).resize((28, 20), Image.BICUBIC, center)
    np.testing.assert_array_equal(images.images[5], np.asarray(expected))
    assert images.notes[0] == "resized 24 images to 20×28"
    assert "cropped 24 of them" in images.notes[1]


def test_images_of_several_aspects_are_read_as_squares(tmp_path):
    for name, sides in (("Oak", ((30, 20), (20, 30))), ("Ash", ((30, 20), (40, 20)))):
        (tmp_path / name).mkdir()
        for number, (width, height) in enumerate(sides):
            pixels = draw_images(1, seed=len(name) + number, side=64)[0] // (1 + (name == "Ash"))
            Image.fromarray(pixels[:height, :width]).save(tmp_path / name / f"{number}.png")
    images = load_folder(tmp_path)
    assert images.images.shape == (4, 20, 20, 3)
    assert any("several aspect ratios" in note and "20×20" in note for note in images.notes)
    assert any("removed up to 50%" in note for note in images.notes)
    stored = np.asarray(Image.open(images.paths[0]))
    np.testing.assert_array_equal(images.images[0], stored[:, (stored.shape[1] - 20) // 2 :][:, :20])


def test_unreadable_files_are_skipped_and_named(leaf_folder):
    text, cut = leaf_folder / "Species1" / "notes.txt", leaf_folder / "Species2" / "00003.jpg"
    text.write_text("oak leaves")
    cut.write_bytes(cut.read_bytes()[:400])
    images = load_folder(leaf_folder)
    assert len(images) == 23
    assert str(cut) not in images.paths
    assert len(images.notes) == 2
    for note, path in zip(images.notes, (text, cut), strict=True):
        assert note.startswith(f"skipped {path}: ")
        assert "\n" not in note
    assert images.notes[0].endswith(": not an image that Pillow can read")


def test_many_skipped_files_are_counted(leaf_folder):
    for number in range(NAMED + 5):
        (leaf_folder / "Species1" / f"{number}.txt").write_text("no image")
    notes = load_folder(leaf_folder).notes
    assert len(notes) == NAMED + 1
    assert notes[-1].startswith("skipped 5 more files")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about the damage
@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG", "AVIF"])
def test_damaged_file_of_any_format_is_skipped(leaf_folder, kind):
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
    bad = leaf_folder / "Species3" / f"bad.{kind.lower()}"
    Image.fromarray(LEAF).save(bad, kind)
    data = bad.read_bytes()
    rng = np.random.default_rng(0)
    for turn in range(30):
        cut = bytearray(data[: rng.integers(1, len(data))] if turn % 2 else data)
        for _ in range(3):
            cut[rng.integers(min(len(cut), 200))] = rng.integers(256)
        bad.write_bytes(cut)
        images = load_folder(leaf_folder)
        assert len(images) == 25 or [n for n in images.notes if n.startswith(f"skipped {bad}: ")]


def one_class(folder):
    shutil.rmtree(folder / "Species1")
    shutil.rmtree(folder / "Species2")
    return folder


def empty_class(folder):
    (folder / "Species4").mkdir()
    return folder / "Species4"


def unreadable_class(folder):
    for path in (folder / "Species2").iterdir():
        path.write_text("no image")
    return folder / "Species2"


@pytest.mark.parametrize("damage", [one_class, empty_class, unreadable_class])
def test_damaged_class_folders_are_refused_by_name(leaf_folder, damage):
    check_refused(leaf_folder, damage(leaf_folder))


@pytest.mark.parametrize("place", ["nowhere", "Species1/00000.jpg", "Species1"], ids=["missing", "file", "no class"])
def test_folder_without_class_folders_is_refused_by_name(leaf_folder, place):
    check_refused(leaf_folder / place, leaf_folder / place)


def check_refused(folder, named):
    with pytest.raises(UserError) as error:
        load_folder(folder)
    assert str(named) in str(error.value)
    assert "\n" not in str(error.value)


def test_image_with_two_labels_is_refused_and_every_pair_is_listed(leaf_folder):
    pairs = [("Species1/00001.jpg", "Species2/copy.jpg"), ("Species2/00004.jpg", "Species3/x.jpg")]
    for one, other in pairs:
        shutil.copy(leaf_folder / one, leaf_folder / other)
    shutil.copy(leaf_folder / "Species1/00002.jpg", leaf_folder / "Species1/again.jpg")  # one label: no conflict
    with pytest.raises(UserError) as error:
        load_folder(leaf_folder)
    for one, other in pairs:
        assert f"{leaf_folder / one} ({one[:8]}) = {leaf_folder / other} ({other[:8]})" in str(error.value)
    assert "again.jpg" not in str(error.value)


# --- damaged metadata and names


def test_pictures_with_damaged_metadata_are_used_and_counted(leaf_folder):
    plain = BytesIO()
    Image.fromarray(LEAF).save(plain, "PNG")
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(5_000_000)))
    (leaf_folder / "Species1" / "text.png").write_bytes(with_chunks(plain.getvalue(), text))
    Image.fromarray(LEAF[::-1]).save(leaf_folder / "Species1" / "exif.png", exif=b"Exif\0\0nonsense")
    images = load_folder(leaf_folder)
    assert len(images) == 26
    assert images.notes == (
        "converted 1 images: EXIF not readable, not rotated",
        "converted 1 images: metadata not readable",
    )


def test_file_names_that_are_not_utf8_are_read_and_shown_escaped(leaf_folder):
    Image.fromarray(LEAF).save(leaf_folder / "Species1" / os.fsdecode(b"\xe9.png"), "PNG")
    (leaf_folder / "Species1" / os.fsdecode(b"\xe8\n.png")).write_bytes(b"no image")
    images = load_folder(leaf_folder)
    assert len(images) == 25
    assert images.notes[0].startswith(f"skipped {leaf_folder}/Species1/\\xe8\\n.png: ")
    assert "\n".join(images.notes).encode()


def test_class_of_heic_files_names_the_missing_reader(leaf_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for path in (leaf_folder / "Species2").iterdir():
        path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    (leaf_folder / "Species1" / "note.txt").write_text("no image")  # another reason, of another class
    with pytest.raises(UserError, match="Species2 has none: .*HEIC reader; pip install pillow-heif"):
        load_folder(leaf_folder)


# --- copies


def test_copies_are_grouped_and_counted(leaf_folder):
    shutil.copy(leaf_folder / "Species1" / "00002.jpg", leaf_folder / "Species1" / "same file.jpg")
    Image.open(leaf_folder / "Species3" / "00004.jpg").save(leaf_folder / "Species3" / "same pixels.png")
    images = load_folder(leaf_folder)
    names = [path.rpartition("leaves/")[2] for path in images.paths]
    pairs = {(names[group], names[row]) for row, group in enumerate(images.groups) if group != row}
    assert pairs == {
        ("Species1/00002.jpg", "Species1/same file.jpg"),
        ("Species3/00004.jpg", "Species3/same pixels.png"),
    }
    (warning,) = images.notes
    assert warning.startswith("warning: 2 images are copies")
    part = images.rows([20, 2, 8])
    assert part.digests == tuple(images.digests[row] for row in (20, 2, 8))
    assert part.groups.tolist() == [0, 1, 1]


def test_near_copies_are_noted(leaf_folder):
    Image.open(leaf_folder / "Species1" / "00002.jpg").save(leaf_folder / "Species1" / "again.jpg", quality=60)
    images = load_folder(leaf_folder)
    assert np.array_equal(images.groups, np.arange(25))
    (note,) = images.notes
    assert note.startswith("1 images look nearly the same")
    assert "again.jpg" in note


def test_same_pixels_in_two_classes_are_warned_of(leaf_folder):
    Image.open(leaf_folder / "Species1" / "00002.jpg").save(leaf_folder / "Species2" / "again.png")
    (warning,) = load_folder(leaf_folder).notes
    assert "1 images have the pixels of an image of another class" in warning
    assert "again.png (Species2)" in warning


def test_images_of_another_folder_are_recognized(leaf_folder, tmp_path):
    shutil.copytree(leaf_folder, tmp_path / "test")
    for path in sorted((tmp_path / "test").glob("*/*.jpg"))[3:]:
        Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
    assert load_folder(tmp_path / "test").count_in(load_folder(leaf_folder)) == 3


# --- classes are matched by name

SHAPE = (3, 1, 1, 3)


@pytest.mark.parametrize(
    ("own", "names", "labels"),
    [
        (("a", "b", "c"), ("a", "b", "c"), [0, 1, 2]),
        (("b", "c", "d"), ("a", "b", "c", "d"), [1, 2, 3]),
        (("a", "b", "c"), ("c", "b", "a"), [2, 1, 0]),
        (("caf\u00e9", "b", "c"), ("cafe\u0301", "b", "c"), [0, 1, 2]),
    ],
)
def test_labels_are_matched_by_name(own, names, labels):
    images = Images(np.zeros(SHAPE, np.uint8), np.arange(3), own, ("",) * 3).with_classes(names, "--test", "--data")
    assert images.names == names
    assert images.labels.tolist() == labels
    assert images.labels.dtype == np.int64


def test_unknown_classes_are_refused_and_both_sides_are_named():
    images = Images(np.zeros(SHAPE, np.uint8), np.arange(3), ("a", "b", "Oak"), ("",) * 3)
    with pytest.raises(UserError, match="--test must have the classes of --data, a, b; got also Oak"):
        images.with_classes(("a", "b"), "--test", "--data")


# --- size


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(96, 96)], (96, 96)),
        ([(512, 512)], (512, 512)),
        ([(3000, 4000)], (288, 384)),
        ([(4000, 3000)], (384, 288)),
        ([(513, 513)], (384, 384)),
        ([(5, 100_000)], (1, 384)),
        ([(3000, 4000), (96, 96), (96, 96)], (96, 96)),
        ([(20, 30), (3000, 4000)], (20, 20)),
        ([(20, 30)] * 9 + [(30, 20)], (20, 30)),
        ([(20, 30)] * 8 + [(30, 20)], (20, 20)),
        ([(333, 500), (500, 333), (400, 600)], (333, 333)),
        ([(600, 900), (900, 600)], (384, 384)),
        ([(16, 16)] * 12 + [(400 + row, 400 + row) for row in range(88)], (437, 437)),  # thumbnails
        ([(16, 16)] * 12 + [(30 + row % 2, 30 + row % 2) for row in range(18)], (16, 16)),
        ([(16, 16)] * 60 + [(400 + row, 400 + row) for row in range(40)], (16, 16)),
    ],
)
def test_most_frequent_size_is_taken_if_it_is_small(sizes, expected):
    assert working_size(sizes) == expected


def test_of_many_sizes_the_median_is_taken():
    """By chance, two small images may have the same size."""
    rng = np.random.default_rng(0)
    photos = [(side, side) for side in range(100, 301)]
    assert working_size([*photos, (32, 32), (32, 32), (32, 32)]) == (198, 198)
    wide = [(side, 3 * side // 2) for side in range(100, 301)]
    assert working_size(wide) == (200, 300)
    crops = [tuple(int(side) for side in np.exp(rng.normal(np.log(150), 0.7, 2))) for _ in range(2000)]
    height, width = working_size(crops)
    shorter = np.median([min(size) for size in crops])
    assert height == width == int(shorter)
    assert working_size([(side, 2 * side) for side in range(600, 900)]) == (192, 384)


def test_the_median_size_is_noted(tmp_path):
    for name, first in (("Oak", 20), ("Ash", 40)):
        (tmp_path / name).mkdir()
        for side in range(first, first + 20):
            Image.fromarray(draw_images(1, seed=side, side=side)[0]).save(tmp_path / name / f"{side}.png")
    images = load_folder(tmp_path)
    assert images.images.shape == (40, 39, 39, 3)
    assert any("no size is that of a tenth of the images" in note and "39×39" in note for note in images.notes)


def test_large_photographs_are_reduced_with_a_note(tmp_path):
    for name, seed in (("Oak", 0), ("Ash", 1)):
        (tmp_path / name).mkdir()
        Image.fromarray(draw_images(1, seed=seed, side=1200)[0][:600]).save(tmp_path / name / "1.jpg")
    images = load_folder(tmp_path)
    assert images.images.shape == (2, 192, 384, 3)
    resized, reduced = images.notes
    assert resized == "resized 2 images to 192×384"
    assert "600×1200 is reduced" in reduced
    assert "--size" in reduced
    assert load_folder(tmp_path, (10, 20)).notes == ("resized 2 images to 10×20",)


def test_unreadable_files_do_not_choose_the_size(leaf_folder):
    """Their heads are readable, so that they are counted at first."""
    for number in range(30):
        path = leaf_folder / "Species1" / f"cut{number}.png"
        Image.fromarray(draw_images(1, side=48)[0]).save(path)
        path.write_bytes(path.read_bytes()[:300])
    assert load_folder(leaf_folder).images.shape == (24, 32, 32, 3)


def test_too_little_memory_is_named(leaf_folder, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr("common.images.np", SimpleNamespace(empty=fail, uint8=np.uint8))
    with pytest.raises(UserError, match="24 images of 32×32 pixels need .* GB.*--size"):
        load_folder(leaf_folder)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOTCONN])
def test_disk_that_cannot_be_read_is_no_damaged_image(leaf_folder, monkeypatch, number):
    read = module.read_file

    def fail(path):
        if path.name == "00002.jpg":
            raise OSError(number, os.strerror(number))
        return read(path)

    monkeypatch.setattr(module, "read_file", fail)
    with pytest.raises(OSError) as caught:
        load_folder(leaf_folder)
    assert caught.value.errno == number
    assert caught.value.filename.endswith("00002.jpg")


def test_image_too_large_for_the_memory_is_no_damaged_image(tmp_path):
    """A process with little memory, which the photograph exceeds."""
    draw_folder(tmp_path / "leaves", 2, classes=2, side=32)
    Image.new("RGB", (9000, 9000)).save(tmp_path / "leaves" / "Species1" / "large.png")
    code = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from common.cli import run_command
from common.images import load_folder
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000,) * 2)
sys.exit(run_command(lambda: print(load_folder(sys.argv[2], (32, 32)).notes)))
"""
    done = python("-c", code, ROOT, tmp_path / "leaves")
    assert done.returncode == 2, done.stdout
    assert re.fullmatch("error: too little memory .*\n", done.stderr)


def test_few_of_many_pairs_with_two_labels_are_named_and_all_printed(tmp_path, capsys):
    draw_folder(tmp_path / "leaves", 5, classes=2, side=32)
    for path in (tmp_path / "leaves" / "Species1").iterdir():
        shutil.copy(path, tmp_path / "leaves" / "Species2" / f"copy_{path.name}")
    with pytest.raises(UserError, match="each pair: .*; and the other 2 pairs printed above$") as caught:
        load_folder(tmp_path / "leaves")
    assert str(caught.value).count(" = ") == 3
    listed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("two labels: ")]
    assert len(listed) == 5 and len(set(listed)) == 5
    for path in (tmp_path / "leaves" / "Species1").iterdir():
        copy = tmp_path / "leaves" / "Species2" / f"copy_{path.name}"
        assert f"two labels: {path} (Species1) = {copy} (Species2)" in listed


def test_thumbnails_among_photographs_are_noted(tmp_path):
    for name, sides in (("a", [30] * 4 + [200, 201, 202]), ("b", [203, 204, 205])):
        (tmp_path / name).mkdir()
        for number, side in enumerate(sides):
            Image.fromarray(np.full((side, side, 3), 20 * number, np.uint8)).save(tmp_path / name / f"{number}.png")
    images = load_folder(tmp_path)
    assert images.images.shape[1:3] == (200, 200)
    note = "the most frequent size 30×30 is that of thumbnails, so the images are read at the median size, 200×200;"
    assert any(one.startswith(note) for one in images.notes), images.notes
