"""Image files and class folders are read into arrays."""

import shutil

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from common.images import NAMED, class_folders, load_folder, read_image
from competition.synthetic import draw_folder, draw_images

pytestmark = pytest.mark.unit
LEAF = draw_images(1, side=32)[0]


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


def test_files_are_in_natural_order(tmp_path):
    draw_folder(tmp_path, 3, classes=2, side=32)
    for old, new in (("00000", "10"), ("00001", "9"), ("00002", "1")):
        (tmp_path / "Species1" / f"{old}.jpg").rename(tmp_path / "Species1" / f"{new}.jpg")
    assert [path.stem for path in class_folders(tmp_path)[0][1]] == ["1", "9", "10"]


def test_rows_keep_image_label_and_path_together(leaf_folder):
    images = load_folder(leaf_folder)
    chosen = images.rows(np.array([20, 3]))
    assert len(chosen) == 2
    assert chosen.names == images.names
    assert chosen.labels.tolist() == [2, 0]
    assert chosen.paths == (images.paths[20], images.paths[3])
    np.testing.assert_array_equal(chosen.images, images.images[[20, 3]])


def test_hidden_files_and_folders_are_ignored(leaf_folder):
    before = load_folder(leaf_folder)
    (leaf_folder / "Species1" / ".DS_Store").write_bytes(b"\0")
    (leaf_folder / ".cache").mkdir()
    (leaf_folder / "readme.txt").write_text("not a class")
    after = load_folder(leaf_folder)
    assert after.paths == before.paths
    assert after.notes == ()


def test_grey_becomes_rgb(tmp_path):
    grey = Image.fromarray(LEAF).convert("L")
    grey.save(tmp_path / "grey.png")
    image, conversion = read_image(tmp_path / "grey.png")
    assert (image.mode, conversion) == ("RGB", "L to RGB")
    np.testing.assert_array_equal(np.asarray(image), np.repeat(np.asarray(grey)[..., None], 3, axis=-1))


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=100)
    image, conversion = read_image(tmp_path / "red.jpg")
    assert (image.mode, conversion) == ("RGB", "CMYK to RGB")
    np.testing.assert_allclose(np.asarray(image)[16, 16], [255, 0, 0], atol=3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_is_composited_over_white(tmp_path, mode):
    path = tmp_path / "alpha.png"
    pixels = np.zeros((4, 3, 4), np.uint8)
    pixels[:, 0], pixels[:, 1], pixels[:, 2] = (0, 0, 0, 0), (0, 0, 0, 102), (0, 0, 0, 255)
    if mode == "P":  # one color of the palette is transparent; its own color, black, must not show
        image = Image.fromarray(pixels[..., 3] // 102)  # 0, 1, 2
        image.putpalette([0, 0, 0, 153, 153, 153, 0, 0, 0])
        image.save(path, transparency=0)
    else:
        Image.fromarray(pixels).convert(mode).save(path)
    image, conversion = read_image(path)
    assert conversion == "alpha over white"
    np.testing.assert_array_equal(np.asarray(image)[0], [[255] * 3, [153] * 3, [0] * 3])


def test_16_bit_is_scaled_and_not_clipped(tmp_path):
    eight = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(eight.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    image, conversion = read_image(tmp_path / "deep.png")
    assert conversion.startswith("16-bit")
    np.testing.assert_array_equal(np.asarray(image), np.repeat(eight[..., None], 3, axis=-1))


# EXIF orientation → quarter turns of the stored pixels, counterclockwise as in numpy.
@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, -1), (8, 1)])
def test_exif_rotation_is_applied(tmp_path, orientation, turns):
    upright = Image.fromarray(LEAF[:24])
    upright.save(tmp_path / "plain.jpg")
    exif = Image.Exif()
    exif[274] = orientation
    upright.save(tmp_path / "turned.jpg", exif=exif)
    image, conversion = read_image(tmp_path / "turned.jpg")
    assert conversion == "rotated by EXIF"
    np.testing.assert_array_equal(np.asarray(image), np.rot90(np.asarray(Image.open(tmp_path / "plain.jpg")), turns))


def test_conversions_are_counted_in_the_notes(leaf_folder):
    for name in ("a", "b"):
        Image.fromarray(LEAF if name == "a" else LEAF[::-1]).convert("L").save(leaf_folder / "Species1" / f"{name}.png")
    Image.fromarray(LEAF).resize((50, 40)).save(leaf_folder / "Species2" / "large.png")
    images = load_folder(leaf_folder)
    assert images.notes == ("converted 2 images: L to RGB", "resized 1 images to 32×32")
    assert images.images.shape == (27, 32, 32, 3)


def test_given_size_is_height_and_width(leaf_folder):
    images = load_folder(leaf_folder, (20, 28))
    assert images.images.shape == (24, 20, 28, 3)
    expected = Image.open(images.paths[5]).resize((28, 20), Image.BICUBIC)
    np.testing.assert_array_equal(images.images[5], np.asarray(expected))
    assert images.notes == ("resized 24 images to 20×28",)


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
