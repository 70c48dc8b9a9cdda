"""Random views of images, and copies made of them before training."""

import numpy as np
import pytest

from common.errors import UserError
from common.images import Images
from competition.synthetic import draw_images
from training.data.augment import (
    LUMA,
    NO_TRANSFORMS,
    RandomTransforms,
    Views,
    apply_views,
    draw_views,
    precompute_augmentation,
)

pytestmark = pytest.mark.unit
EVERYTHING = RandomTransforms(
    quarter_turns=True, rotation=30, zoom=0.3, shift=0.2, brightness=0.5, contrast=0.5, saturation=0.5, tint=0.2
)
LEAVES = draw_images(12, side=40)


def only(**changes):
    return RandomTransforms(**{"flips": False, "rotation": 0.0, "zoom": 0.0, "shift": 0.0, **changes})


def view(images, transforms, seed=0):
    """(views as numpy, their random numbers)."""
    drawn = draw_views(transforms, len(images), images.shape[1:], np.random.default_rng(seed))
    return np.asarray(apply_views(images, *drawn.arrays())), drawn


def which(image, candidates):
    """Position of the one candidate that the image equals."""
    found = [
        n
        for n, candidate in enumerate(candidates)
        if candidate.shape == image.shape and np.abs(image - candidate).max() < 1e-3
    ]
    assert len(found) == 1
    return found[0]


def symmetries(image):
    return [np.rot90(mirror, turns).astype(np.float32) for mirror in (image, image[:, ::-1]) for turns in range(4)]


def test_zeros_do_not_change_the_image():
    views, _ = view(LEAVES, NO_TRANSFORMS)
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


def test_warp_maps_output_pixels_to_input_pixels_x_first():
    one = np.ones(1, np.float32)
    warp = np.array([[1, 0, 3, 0, 1, -2, 0, 0]], np.float32)  # reads 3 pixels to the right and 2 above
    moved = np.asarray(apply_views(LEAVES[:1], warp, np.ones((1, 3), np.float32), one, one))[0]
    np.testing.assert_allclose(moved[2:, :-3], LEAVES[0][:-2, 3:], atol=1e-3)


def test_geometric_transforms_fill_their_ranges():
    drawn = draw_views(only(rotation=20.0, zoom=0.15), 2000, (40, 80, 3), np.random.default_rng(0)).warp
    angle = np.rad2deg(np.arctan2(drawn[:, 3], drawn[:, 0]))
    zoom = -np.log(drawn[:, 0] * drawn[:, 4] - drawn[:, 1] * drawn[:, 3]) / 2
    shift = draw_views(only(shift=0.1), 2000, (40, 80, 3), np.random.default_rng(0)).warp[:, [2, 5]]
    for value, limit in ((angle, 20.0), (zoom, 0.15), (shift[:, 0], 8.0), (shift[:, 1], 4.0)):
        assert 0.95 * limit < value.max() <= limit * 1.0001
        assert -limit * 1.0001 <= value.min() < -0.95 * limit


def test_rotation_and_zoom_keep_the_center_in_place():
    drawn = draw_views(
        only(flips=True, quarter_turns=True, rotation=180.0, zoom=0.5), 50, (41, 61, 3), np.random.default_rng(0)
    ).warp
    x = drawn[:, 0] * 30 + drawn[:, 1] * 20 + drawn[:, 2]
    y = drawn[:, 3] * 30 + drawn[:, 4] * 20 + drawn[:, 5]
    np.testing.assert_allclose(x, 30, atol=1e-3)
    np.testing.assert_allclose(y, 20, atol=1e-3)


def test_outside_of_the_image_its_mirror_image_is_seen():
    white = np.full((8, 16, 16, 3), 255, np.uint8)
    views, _ = view(white, only(rotation=180.0, zoom=0.5, shift=0.3))
    np.testing.assert_allclose(views, 255, atol=1e-2)


@pytest.mark.parametrize("field", ["brightness", "contrast", "saturation", "tint"])
def test_each_color_change_is_its_formula_and_moves_no_pixel(field):
    views, drawn = view(LEAVES, only(**{field: 0.4}))
    x = LEAVES.astype(np.float64)
    if field in ("brightness", "tint"):
        factor = drawn.gain
        expected = x * factor[:, None, None]
    elif field == "contrast":
        factor, mean = drawn.contrast, x.mean(axis=(1, 2, 3), keepdims=True)
        expected = mean + (x - mean) * factor[:, None, None, None]
    else:
        factor, grey = drawn.saturation, (x @ LUMA.astype(np.float64))[..., None]
        expected = grey + (x - grey) * factor[:, None, None, None]
    np.testing.assert_allclose(views, np.clip(expected, 0, 255), atol=2e-3)
    assert np.all(np.abs(np.log(factor)) <= 0.4001)
    assert np.ptp(factor) > 0.1
    assert np.allclose(np.ptp(drawn.gain, axis=1), 0) == (field != "tint")


def test_saturation_keeps_a_grey_image_grey():
    grey = np.repeat(LEAVES[..., :1], 3, axis=-1)
    views, _ = view(grey, only(saturation=1.0))
    np.testing.assert_allclose(views, grey, atol=1e-2)


def test_views_are_float32_within_0_and_255():
    images = np.concatenate([LEAVES, np.zeros_like(LEAVES), np.full_like(LEAVES, 255)])
    views, _ = view(images, RandomTransforms(brightness=1.5, contrast=1.5, saturation=1.5, tint=1.0))
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
    parts = [
        np.asarray(apply_views(LEAVES[p], *(a[p] for a in drawn.arrays())))
        for p in (slice(0, 5), slice(5, 6), slice(6, 12))
    ]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-3)


def test_a_view_does_not_depend_on_the_type_of_the_image():
    whole, drawn = view(LEAVES, EVERYTHING)
    np.testing.assert_array_equal(np.asarray(apply_views(LEAVES.astype(np.float32), *drawn.arrays())), whole)


def test_views_have_one_row_for_each_image():
    drawn = draw_views(EVERYTHING, 7, (40, 40, 3), np.random.default_rng(0))
    assert isinstance(drawn, Views)
    assert [a.shape for a in drawn.arrays()] == [(7, 8), (7, 3), (7,), (7,)]
    assert {a.dtype for a in drawn.arrays()} == {np.dtype(np.float32)}


# Precomputed augmentation


LABELLED = Images(
    draw_images(16, classes=4, side=32), np.arange(16) % 4, ("a", "b", "c", "d"), tuple(f"{n}.jpg" for n in range(16))
)


def test_copies_follow_the_images_and_rounds_add_up():
    counts = np.bincount(LABELLED.labels)
    made = precompute_augmentation(LABELLED, ((("a", "c"), 2), ((), 1)), RandomTransforms(), 0)
    assert np.bincount(made.labels).tolist() == [6 * counts[0], 2 * counts[1], 6 * counts[2], 2 * counts[3]]
    np.testing.assert_array_equal(made.images[:16], LABELLED.images)
    np.testing.assert_array_equal(made.labels[:16], LABELLED.labels)
    assert made.paths[:16] == LABELLED.paths
    assert made.images.dtype == np.uint8
    assert len(made) == len(made.labels) == len(made.paths)
    for path, label in zip(made.paths, made.labels, strict=True):  # a copy has its source's label and name
        assert LABELLED.labels[LABELLED.paths.index(path)] == label
    assert len({image.tobytes() for image in made.images}) == len(made)


def test_copies_depend_only_on_the_seed():
    one, same, other = (
        precompute_augmentation(LABELLED, (((), 2),), RandomTransforms(), seed).images for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one[16:].astype(int) - other[16:]).mean() > 1


def test_copies_without_transforms_are_the_images_for_any_block_size(monkeypatch):
    monkeypatch.setattr("training.data.augment.BLOCK_SIZE", 5)
    made = precompute_augmentation(LABELLED, (((), 2),), NO_TRANSFORMS, 0)
    np.testing.assert_allclose(made.images[16:].astype(int), np.repeat(LABELLED.images, 2, axis=0), atol=1)


def test_no_round_returns_the_images_unchanged():
    assert precompute_augmentation(LABELLED, (), RandomTransforms(), 0) is LABELLED


def test_unknown_class_of_a_round_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="augmentation.precomputed.*a, b, c, d.*oak"):
        precompute_augmentation(LABELLED, ((("a", "oak"), 1),), RandomTransforms(), 0)
