"""Batches: augmented, mixed by Keras' layers, from arrays and from files."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from helpers import change
from PIL import Image

from common.errors import UserError
from common.images import Images, load_folder
from competition.synthetic import draw_folder, draw_images
from training.config.recipe import Augmentation, Finetune, Recipe
from training.data.augment import NO_TRANSFORMS, RandomTransforms, cut_mix, cut_mix_or_mix_up, mix_up, rand_augment
from training.data.pipeline import array_batches, folder_batches, one_hot, plain_batches

pytestmark = pytest.mark.integration
PLAIN = Recipe(augmentation=Augmentation(transforms=NO_TRANSFORMS), finetune=Finetune(batch_size=8))
LEAVES = Images(
    draw_images(16, classes=4, side=32), np.arange(16) % 4, ("a", "b", "c", "d"), tuple(f"{n}.jpg" for n in range(16))
)


def epoch_of(recipe, epoch=0, images=LEAVES, folder=None):
    """All batches of one epoch, (images, labels) as numpy."""
    batches = recipe.data.pipeline(images, np.arange(len(images)), recipe, epoch, folder)
    pairs = [batches[number] for number in range(len(batches))] if folder else list(batches)
    return tuple(np.concatenate([np.asarray(pair[part]) for pair in pairs]) for part in (0, 1))


@pytest.mark.parametrize(
    "layers",
    [
        (cut_mix,),
        (mix_up,),
        (cut_mix_or_mix_up,),
        pytest.param((rand_augment, cut_mix, mix_up), marks=pytest.mark.slow),
    ],
    ids=lambda layers: "-".join(layer.__name__ for layer in layers),
)
def test_batch_augmentations_repeat_with_the_seed_and_change_with_the_epoch(layers):
    recipe = change(PLAIN, batch_augmentations=layers)
    (images, labels), again, later, other = (
        epoch_of(*arguments) for arguments in ((recipe,), (recipe,), (recipe, 1), (change(recipe, seed=1),))
    )
    np.testing.assert_array_equal(images, again[0])
    np.testing.assert_array_equal(labels, again[1])
    for changed in (later, other):
        assert np.abs(images - changed[0]).mean() > 1
    assert np.abs(np.sort(images.ravel()) - np.sort(later[0].ravel())).max() > 1  # other views, not only another order
    assert images.dtype == labels.dtype == np.float32
    assert images.shape == LEAVES.images.shape
    assert 0 <= images.min() < images.max() <= 255
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-5)
    mixed = ((labels > 1e-6) & (labels < 1 - 1e-6)).any()
    assert mixed == (layers != (rand_augment,))


def test_mixed_labels_are_the_shares_of_the_pixels():
    """Each image has one shade, so the mean of a mixed image tells how much of each is in it."""
    shades = np.array([0, 40, 120, 240])
    images = Images(
        np.repeat(shades, 4).astype(np.uint8)[:, None, None, None] * np.ones((1, 96, 96, 3), np.uint8), *_labelled(16)
    )
    for layer in (cut_mix, mix_up, cut_mix_or_mix_up):
        pixels, labels = epoch_of(change(PLAIN, batch_augmentations=(layer,), batch_size=16), images=images)
        np.testing.assert_allclose(pixels.mean(axis=(1, 2, 3)), labels @ shades, atol=6)  # boxes have whole pixels
        assert len(np.unique(labels.round(4))) > 3


def _labelled(count):
    return np.repeat(np.arange(4), count // 4), ("a", "b", "c", "d"), ("",) * count


def test_cut_mix_or_mix_up_draws_one_of_both_for_each_batch():
    """A quarter of the images is white and the rest black, so that only MixUp makes grey pixels."""
    white = np.repeat([255, 0, 0, 0], 4).astype(np.uint8)[:, None, None, None]
    images = Images(np.tile(white * np.ones((1, 8, 8, 3), np.uint8), (8, 1, 1, 1)), *_labelled(128))
    layers = (cut_mix_or_mix_up,)
    pixels, _ = epoch_of(change(PLAIN, batch_augmentations=layers, batch_size=16, seed=2), images=images)
    again, _ = epoch_of(change(PLAIN, batch_augmentations=layers, batch_size=16, seed=2), images=images)
    grey = [((batch > 1) & (batch < 254)).any() for batch in pixels.reshape(8, 16, 8, 8, 3)]
    assert 2 <= sum(grey) <= 6
    np.testing.assert_array_equal(pixels, again)


def test_rand_augment_changes_pixels_and_no_label():
    images, labels = epoch_of(change(PLAIN, batch_augmentations=(rand_augment,)))
    plain, plain_labels = epoch_of(PLAIN)
    np.testing.assert_array_equal(labels, plain_labels)
    assert np.abs(images - plain).mean() > 1


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_plain_batches_are_the_rows_in_order(backend, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    inputs, targets = np.arange(10).reshape(5, 2), np.arange(5)
    data = plain_batches(2, inputs, targets)
    batches = [data[number] for number in range(len(data))] if backend == "jax" else list(data)
    assert [len(x) for x, _ in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), inputs)
    np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), targets)
    (first,) = plain_batches(2, inputs)[0] if backend == "jax" else next(iter(plain_batches(2, inputs)))
    np.testing.assert_array_equal(first, inputs[:2])


def test_autotuning_is_off():
    """Its thread sleeps for up to a minute, and the end of an epoch waits for it."""
    images = Images(draw_images(4, classes=2, side=32), np.arange(4) % 2, ("a", "b"), ("",) * 4)
    for data in (
        plain_batches(2, images.images),
        array_batches(images, np.arange(4), Recipe(finetune=Finetune(batch_size=2)), 0),
    ):
        assert data.options().autotune.enabled is False


def test_labels_are_one_hot():
    np.testing.assert_array_equal(one_hot(np.array([2, 0]), 3), [[0, 0, 1], [1, 0, 0]])
    assert one_hot(np.zeros(0, int), 3).shape == (0, 3)


# Rows of an epoch

EVERYTHING = RandomTransforms(
    quarter_turns=True, rotation=30, zoom=0.3, shift=0.2, brightness=0.5, contrast=0.5, saturation=0.5, tint=0.2
)
LARGER = draw_images(12, side=40)
# Each image has its row number in every pixel, so that a batch tells which rows are in it.
NUMBERED = np.repeat(np.arange(50, dtype=np.uint8), 8 * 8 * 3).reshape(50, 8, 8, 3)


def images_of(pixels):
    """Each image is a class of its own, the last image's class is the first."""
    count = len(pixels)
    return Images(pixels, np.arange(count)[::-1].copy(), tuple(f"c{n}" for n in range(count)), ("",) * count)


def rows_of(rows, batch_size, seed=0, epoch=0):
    """The rows in each batch of one epoch. Also checks their one-hot labels, 49 - row."""
    batches = []
    recipe = change(PLAIN, batch_size=batch_size, seed=seed)
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


def test_a_batch_larger_than_the_data_is_filled_too():
    (batch,) = rows_of([3, 4, 5], 8)
    assert len(batch) == 8
    assert set(batch) == {3, 4, 5}


def test_repeated_rows_are_seen_repeatedly():
    order = np.concatenate(rows_of([1, 2, 3, 1, 1, 2], 6))
    assert np.bincount(order).tolist() == [0, 3, 2, 1]


def test_batches_depend_only_on_seed_and_epoch():
    first = np.concatenate(rows_of(range(50), 16, 7, 1))
    np.testing.assert_array_equal(first, np.concatenate(rows_of(range(50), 16, 7, 1)))
    assert not np.array_equal(first, np.concatenate(rows_of(range(50), 16, 7, 2)))
    assert not np.array_equal(first, np.concatenate(rows_of(range(50), 16, 8, 1)))


def test_pixels_repeat_with_the_seed_and_change_with_the_epoch():
    def epoch(number):
        recipe = change(PLAIN, transforms=EVERYTHING, batch_size=4)
        return np.concatenate(
            [np.asarray(x) for x, _ in array_batches(images_of(LARGER), np.arange(12), recipe, number)]
        )

    np.testing.assert_array_equal(epoch(1), epoch(1))
    assert np.abs(epoch(1) - epoch(2)).mean() > 1


# From files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "leaves"
    draw_folder(folder, 4, classes=3, side=32)
    return folder


def test_files_give_the_same_images_and_labels_as_arrays(folder, tmp_path):
    images = load_folder(folder)
    assert len(images) == 12
    pixels, labels = epoch_of(
        change(PLAIN, pipeline=folder_batches, batch_size=6), images=images, folder=tmp_path / "links"
    )
    found = [int(np.abs(images.images.astype(np.float32) - one).mean(axis=(1, 2, 3)).argmin()) for one in pixels]
    assert sorted(found) == list(range(12))
    np.testing.assert_array_equal(pixels, images.images[found])
    np.testing.assert_array_equal(labels, np.eye(3)[images.labels[found]])


def test_files_are_full_batches_shuffled_by_seed_and_epoch(folder, tmp_path):
    images, recipe = load_folder(folder), change(PLAIN, pipeline=folder_batches)
    first, again, later = (epoch_of(recipe, number, images, tmp_path / "links") for number in (0, 0, 1))
    assert len(first[0]) == 16
    np.testing.assert_array_equal(first[0], again[0])
    assert np.abs(first[0] - later[0]).mean() > 1
    links = [path for path in (tmp_path / "links").rglob("*") if path.is_symlink()]
    assert len(links) == 16
    assert {path.resolve().parent.name for path in links} == set(images.names)


def test_files_are_augmented(folder, tmp_path):
    images = load_folder(folder)
    recipe = change(PLAIN, pipeline=folder_batches, transforms=RandomTransforms(rotation=90.0))
    plain = epoch_of(change(recipe, transforms=NO_TRANSFORMS), 0, images, tmp_path / "links")
    assert np.abs(epoch_of(recipe, 0, images, tmp_path / "links")[0] - plain[0]).mean() > 1


@pytest.mark.parametrize(("vertical", "ways"), [(True, 4), (False, 2)])
def test_files_are_mirrored_as_the_recipe_says(folder, tmp_path, vertical, ways):
    images, seen = load_folder(folder), set()
    only = replace(NO_TRANSFORMS, flips=True, vertical_flips=vertical)
    recipe = change(PLAIN, pipeline=folder_batches, transforms=only)
    original = images.images[:1].astype(np.float32)
    mirrored = [np.flip(original, axes)[0] for axes in ((), 2, 1, (1, 2))]
    for epoch in range(12):
        for pixels in epoch_of(recipe, epoch, images, tmp_path / "links")[0]:
            seen |= {way for way, one in enumerate(mirrored) if np.array_equal(one, pixels)}
    assert seen == set(range(ways))


def test_files_that_the_generator_does_not_read_are_refused(folder, tmp_path):
    """Pillow reads more formats than Keras' generator, which would silently leave them out."""
    images = load_folder(folder)
    renamed = tmp_path / "Species1.webp"
    Image.fromarray(images.images[0]).save(renamed)
    images = replace(images, paths=(str(renamed), *images.paths[1:]))
    with pytest.raises(UserError, match="only 11 of 12 are; convert the others, or set data.pipeline=array_batches"):
        folder_batches(images, np.arange(12), change(PLAIN, batch_size=4), 0, tmp_path / "links")


def test_synthetic_images_are_refused(folder, tmp_path):
    images = load_folder(folder)
    made = Images(images.images, images.labels, images.names, (*images.paths[:-1], "synthetic"))
    with pytest.raises(UserError, match="folder_batches.*SMOTE.*data.resampling"):
        folder_batches(made, np.arange(12), PLAIN, 0, tmp_path / "links")
