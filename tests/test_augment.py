"""Random views, and the batches that are made of them."""

import numpy as np
import pytest

from competition.drawings import draw_images
from training.augment import GREY, NO_CHANGE, Augmentation, Views, apply_views, draw_views
from training.data import Images
from training.pipeline import array_batches
from training.recipe import Recipe

EVERYTHING = Augmentation(quarter_turns=True, rotation=30, zoom=0.3, shift=0.2, brightness=0.5, contrast=0.5, saturation=0.5, tint=0.2)
LEAVES = draw_images(12, side=40)


def only(**changes):
    return Augmentation(**{"flips": False, "rotation": 0.0, "zoom": 0.0, "shift": 0.0, **changes})


def view(images, augmentation, seed=0):
    """(views as numpy, what was drawn)."""
    drawn = draw_views(augmentation, len(images), images.shape[1:], np.random.default_rng(seed))
    return np.asarray(apply_views(images, *drawn.arrays())), drawn


def which(image, candidates):
    """Position of the one candidate that the image equals."""
    found = [n for n, candidate in enumerate(candidates) if candidate.shape == image.shape and np.abs(image - candidate).max() < 1e-3]
    assert len(found) == 1
    return found[0]


def symmetries(image):
    return [np.rot90(mirror, turns).astype(np.float32) for mirror in (image, image[:, ::-1]) for turns in range(4)]


def test_zeros_leave_the_image_as_it_is():
    views, _ = view(LEAVES, NO_CHANGE)
    np.testing.assert_allclose(views, LEAVES, atol=1e-3)


def test_flips_are_exact_on_images_that_are_not_square():
    images = np.repeat(LEAVES[:1, :25], 64, axis=0)
    views, _ = view(images, only(flips=True))
    mirrors = [images[0][::y, ::x].astype(np.float32) for y in (1, -1) for x in (1, -1)]
    assert {which(v, mirrors) for v in views} == {0, 1, 2, 3}


@pytest.mark.parametrize(("flips", "expected"), [(False, {0, 1, 2, 3}), (True, set(range(8)))])
def test_quarter_turns_are_exact(flips, expected):
    images = np.repeat(LEAVES[:1], 96, axis=0)
    views, _ = view(images, only(flips=flips, quarter_turns=True))
    assert {which(v, symmetries(images[0])) for v in views} == expected


def test_the_warp_takes_output_pixels_to_input_pixels_x_first():
    one = np.ones(1, np.float32)
    warp = np.array([[1, 0, 3, 0, 1, -2, 0, 0]], np.float32)  # reads 3 to the right and 2 above
    moved = np.asarray(apply_views(LEAVES[:1], warp, np.ones((1, 3), np.float32), one, one))[0]
    np.testing.assert_allclose(moved[2:, :-3], LEAVES[0][:-2, 3:], atol=1e-3)


def test_geometry_stays_within_its_limits_and_uses_them():
    drawn = draw_views(only(rotation=20.0, zoom=0.15), 2000, (40, 80, 3), np.random.default_rng(0)).warp
    angle = np.rad2deg(np.arctan2(drawn[:, 3], drawn[:, 0]))
    zoom = -np.log(drawn[:, 0] * drawn[:, 4] - drawn[:, 1] * drawn[:, 3]) / 2
    shift = draw_views(only(shift=0.1), 2000, (40, 80, 3), np.random.default_rng(0)).warp[:, [2, 5]]
    for value, limit in ((angle, 20.0), (zoom, 0.15), (shift[:, 0], 8.0), (shift[:, 1], 4.0)):
        assert 0.95 * limit < value.max() <= limit * 1.0001
        assert -limit * 1.0001 <= value.min() < -0.95 * limit


def test_turning_and_zooming_leave_the_centre_in_place():
    drawn = draw_views(only(flips=True, quarter_turns=True, rotation=180.0, zoom=0.5), 50, (41, 61, 3), np.random.default_rng(0)).warp
    x = drawn[:, 0] * 30 + drawn[:, 1] * 20 + drawn[:, 2]
    y = drawn[:, 3] * 30 + drawn[:, 4] * 20 + drawn[:, 5]
    np.testing.assert_allclose(x, 30, atol=1e-3)
    np.testing.assert_allclose(y, 20, atol=1e-3)


def test_the_mirror_image_is_seen_outside_the_picture():
    white = np.full((8, 16, 16, 3), 255, np.uint8)
    views, _ = view(white, only(rotation=180.0, zoom=0.5, shift=0.3))
    np.testing.assert_allclose(views, 255, atol=1e-2)


@pytest.mark.parametrize("field", ["brightness", "contrast", "saturation", "tint"])
def test_each_change_of_light_is_its_formula_and_moves_no_pixel(field):
    views, drawn = view(LEAVES, only(**{field: 0.4}))
    x = LEAVES.astype(np.float64)
    if field in ("brightness", "tint"):
        factor = drawn.gain
        expected = x * factor[:, None, None]
    elif field == "contrast":
        factor, mean = drawn.contrast, x.mean(axis=(1, 2, 3), keepdims=True)
        expected = mean + (x - mean) * factor[:, None, None, None]
    else:
        factor, grey = drawn.saturation, (x @ GREY.astype(np.float64))[..., None]
        expected = grey + (x - grey) * factor[:, None, None, None]
    np.testing.assert_allclose(views, np.clip(expected, 0, 255), atol=2e-3)
    assert np.all(np.abs(np.log(factor)) <= 0.4001)
    assert np.ptp(factor) > 0.1
    assert np.allclose(np.ptp(drawn.gain, axis=1), 0) == (field != "tint")


def test_saturation_leaves_a_grey_image_grey():
    grey = np.repeat(LEAVES[..., :1], 3, axis=-1)
    views, _ = view(grey, only(saturation=1.0))
    np.testing.assert_allclose(views, grey, atol=1e-2)


def test_views_are_float32_within_0_and_255():
    images = np.concatenate([LEAVES, np.zeros_like(LEAVES), np.full_like(LEAVES, 255)])
    views, _ = view(images, Augmentation(brightness=1.5, contrast=1.5, saturation=1.5, tint=1.0))
    assert views.dtype == np.float32
    assert views.shape == images.shape
    assert views.min() >= 0
    assert views.max() <= 255


def test_the_same_seed_gives_the_same_views():
    one, _ = view(LEAVES, EVERYTHING, seed=5)
    np.testing.assert_array_equal(one, view(LEAVES, EVERYTHING, seed=5)[0])
    assert np.abs(one - view(LEAVES, EVERYTHING, seed=6)[0]).mean() > 1


def test_a_view_does_not_depend_on_its_batch():
    whole, drawn = view(LEAVES, EVERYTHING)
    parts = [np.asarray(apply_views(LEAVES[p], *(a[p] for a in drawn.arrays()))) for p in (slice(0, 5), slice(5, 6), slice(6, 12))]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-3)


def test_a_view_does_not_depend_on_the_type_of_the_image():
    whole, drawn = view(LEAVES, EVERYTHING)
    np.testing.assert_array_equal(np.asarray(apply_views(LEAVES.astype(np.float32), *drawn.arrays())), whole)


def test_views_hold_one_row_for_each_image():
    drawn = draw_views(EVERYTHING, 7, (40, 40, 3), np.random.default_rng(0))
    assert isinstance(drawn, Views)
    assert [a.shape for a in drawn.arrays()] == [(7, 8), (7, 3), (7,), (7,)]
    assert {a.dtype for a in drawn.arrays()} == {np.dtype(np.float32)}


# Images whose every pixel is their row number, so that a batch tells which rows are in it.
NUMBERED = np.repeat(np.arange(50, dtype=np.uint8), 8 * 8 * 3).reshape(50, 8, 8, 3)


def images_of(pixels):
    """Every image a class of its own, the last image's first."""
    count = len(pixels)
    return Images(pixels, np.arange(count)[::-1].copy(), tuple(f"c{n}" for n in range(count)), ("",) * count)


def rows_of(rows, batch, seed=0, epoch=0):
    """The rows of each batch of one epoch; their one-hot labels, 49 - row, are checked on the way."""
    batches = []
    recipe = Recipe(augmentation=NO_CHANGE, batch=batch, seed=seed)
    for pixels, labels in array_batches(images_of(NUMBERED), np.asarray(rows), recipe, epoch):
        assert pixels.dtype == labels.dtype == np.float32
        found = np.asarray(pixels)[:, 0, 0, 0].round().astype(int)
        np.testing.assert_array_equal(np.asarray(labels), np.eye(50)[49 - found])
        batches.append(found)
    return batches


def test_every_row_is_seen_once_and_the_last_batch_is_filled_from_the_beginning():
    batches = rows_of(range(50), 16)
    assert [len(b) for b in batches] == [16] * 4
    order = np.concatenate(batches)
    assert sorted(order[:50]) == list(range(50))
    np.testing.assert_array_equal(order[50:], order[:14])
    assert not np.array_equal(order[:50], np.arange(50))


def test_a_batch_larger_than_the_data_is_filled_as_well():
    (batch,) = rows_of([3, 4, 5], 8)
    assert len(batch) == 8
    assert set(batch) == {3, 4, 5}


def test_repeated_rows_are_seen_repeatedly():
    order = np.concatenate(rows_of([1, 2, 3, 1, 1, 2], 6))
    assert np.bincount(order).tolist() == [0, 3, 2, 1]


def test_batches_depend_on_seed_and_epoch_alone():
    first = np.concatenate(rows_of(range(50), 16, 7, 1))
    np.testing.assert_array_equal(first, np.concatenate(rows_of(range(50), 16, 7, 1)))
    assert not np.array_equal(first, np.concatenate(rows_of(range(50), 16, 7, 2)))
    assert not np.array_equal(first, np.concatenate(rows_of(range(50), 16, 8, 1)))


def test_pixels_repeat_with_the_seed_and_change_with_the_epoch():
    def epoch(number):
        recipe = Recipe(augmentation=EVERYTHING, batch=4)
        return np.concatenate([np.asarray(x) for x, _ in array_batches(images_of(LEAVES), np.arange(12), recipe, number)])

    np.testing.assert_array_equal(epoch(1), epoch(1))
    assert np.abs(epoch(1) - epoch(2)).mean() > 1
