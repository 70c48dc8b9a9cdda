"""Copies of images are found: exact ones by their content, near ones by a perceptual hash."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from common import copies
from common.copies import joined_groups, near_copies, near_copies_in, thumbnail
from common.images import Images, load_folder
from competition.synthetic import draw_images

pytestmark = pytest.mark.unit
LEAVES = draw_images(30, seed=3)


def test_copies_of_one_class_have_the_number_of_the_first():
    labels = np.array([0, 0, 1, 0, 1, 1])
    digests = (b"a", b"b", b"a", b"a", b"c", b"a")
    groups = Images(np.zeros((6, 1, 1, 3)), labels, ("x", "y"), ("",) * 6, digests=digests).groups
    assert groups.tolist() == [0, 1, 2, 0, 4, 2]
    assert groups.dtype == np.int64


def test_groups_that_share_an_image_are_one():
    scenes, digests = ["x", "y", "y", "z", "w", "w"], [b"a", b"b", b"c", b"a", b"c", b"d"]
    assert joined_groups(6, digests, scenes).tolist() == [0, 1, 1, 0, 1, 1]
    assert joined_groups(6, (), scenes).tolist() == [0, 1, 1, 3, 4, 4]


def test_long_chains_are_one_group():
    count = 3000
    even, odd = np.arange(count) // 2, (np.arange(count) + 1) // 2
    order = np.random.default_rng(0).permutation(count)
    assert not joined_groups(count, even[order].tolist(), odd[order].tolist()).any()


def test_images_without_a_digest_are_all_different():
    assert joined_groups(3, ()).tolist() == [0, 1, 2]


def compressed(image, quality):
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


ALTERED = {
    "compressed": lambda image: compressed(image, 40),
    "smaller": lambda image: image.resize((64, 64)),
    "larger": lambda image: image.resize((300, 300)),
    "a little brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.05),
}


@pytest.mark.parametrize("block", [7, copies.BLOCK])
@pytest.mark.parametrize("change", ALTERED)
def test_altered_copies_are_found_and_other_images_are_not(monkeypatch, change, block):
    monkeypatch.setattr(copies, "BLOCK", block)
    images = [Image.fromarray(leaf) for leaf in LEAVES]
    thumbnails = np.stack([thumbnail(image) for image in [*images, ALTERED[change](images[4])]])
    assert near_copies(thumbnails, np.zeros(31, int)).tolist() == [-1] * 30 + [4]
    assert near_copies(thumbnails, np.repeat([0, 1], [30, 1])).tolist() == [-1] * 31  # of another class


@pytest.mark.parametrize("block", [7, copies.BLOCK])
def test_altered_copies_are_found_among_other_images_of_their_class(monkeypatch, block):
    monkeypatch.setattr(copies, "BLOCK", block)
    own = np.stack([thumbnail(compressed(Image.fromarray(LEAVES[row]), 40)) for row in (20, 3, 7)])
    others = np.stack([thumbnail(Image.fromarray(leaf)) for leaf in LEAVES[:15]])
    assert near_copies_in(own, np.zeros(3, int), others, np.zeros(15, int)).tolist() == [-1, 3, 7]
    assert near_copies_in(own, np.array([0, 0, 1]), others, np.zeros(15, int)).tolist() == [-1, 3, -1]
    assert near_copies_in(own, np.zeros(3, int), others[:0], np.zeros(0, int)).tolist() == [-1, -1, -1]


def test_even_surfaces_of_different_brightness_are_no_near_copies():
    thumbnails = np.stack([np.full((8, 9), level, np.uint8) for level in (0, 100, 200, 205)])
    assert near_copies(thumbnails, np.zeros(4, int)).tolist() == [-1, -1, -1, 2]


def test_no_image_has_no_copy():
    assert near_copies(np.empty((0, 8, 9), np.uint8), np.empty(0, int)).shape == (0,)


def test_bits_are_counted():
    values = np.random.default_rng(0).integers(0, 2**64, 1000, np.uint64)
    assert copies._count_bits(values).tolist() == [bin(value).count("1") for value in values.tolist()]


@pytest.mark.integration
def test_real_images_have_one_near_copy_and_no_copy(leaves):
    """It is a second photograph of the same plant; no other pair of one class is closer than 7 of 64 bits."""
    images = load_folder(leaves / "train")
    assert np.array_equal(images.groups, np.arange(len(images)))
    (note,) = images.notes
    assert note.startswith("1 images look nearly the same")
    assert "Species7/00104.jpg and " in note
