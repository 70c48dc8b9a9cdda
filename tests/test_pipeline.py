"""Batches with Keras' mixing layers and from files, copies made before training, and how the learning rate goes."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from competition.drawings import draw_folder, draw_images
from training.augment import NO_CHANGE, Augmentation, augment_offline, cut_mix, mix_up, rand_augment
from training.data import Images, load_folder
from training.errors import UserError
from training.pipeline import array_batches, folder_batches, one_hot, plain_batches
from training.recipe import Recipe
from training.schedules import FINAL, constant, cosine, cosine_to_tenth, exponential

PLAIN = Recipe(augmentation=NO_CHANGE, batch=8)
LEAVES = Images(draw_images(16, classes=4, side=32), np.arange(16) % 4, ("a", "b", "c", "d"), tuple(f"{n}.jpg" for n in range(16)))


def epoch_of(recipe, epoch=0, images=LEAVES, folder=None):
    """All batches of one epoch, (images, labels) as numpy."""
    batches = recipe.pipeline(images, np.arange(len(images)), recipe, epoch, folder)
    pairs = [batches[number] for number in range(len(batches))] if folder else list(batches)
    return tuple(np.concatenate([np.asarray(pair[part]) for pair in pairs]) for part in (0, 1))


@pytest.mark.parametrize(
    "layers", [(rand_augment,), (cut_mix,), (mix_up,), (rand_augment, cut_mix, mix_up)], ids=lambda ls: ls[-1].__name__
)
def test_layers_repeat_with_the_seed_and_change_with_the_epoch(layers):
    recipe = replace(PLAIN, layers=layers)
    (images, labels), again, later, other = (
        epoch_of(*arguments) for arguments in ((recipe,), (recipe,), (recipe, 1), (replace(recipe, seed=1),))
    )
    np.testing.assert_array_equal(images, again[0])
    np.testing.assert_array_equal(labels, again[1])
    for changed in (later, other):
        assert np.abs(images - changed[0]).mean() > 1
    assert np.abs(np.sort(images.ravel()) - np.sort(later[0].ravel())).max() > 1  # other views, not another order alone
    assert images.dtype == labels.dtype == np.float32
    assert images.shape == LEAVES.images.shape
    assert 0 <= images.min() < images.max() <= 255
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-5)
    mixed = ((labels > 1e-6) & (labels < 1 - 1e-6)).any()
    assert mixed == (layers != (rand_augment,))


def test_mixed_labels_are_the_shares_of_the_pixels():
    """Images of one shade each: the mean of a mixed image tells how much of each is in it."""
    shades = np.array([0, 40, 120, 240])
    images = Images(np.repeat(shades, 4).astype(np.uint8)[:, None, None, None] * np.ones((1, 96, 96, 3), np.uint8), *_labelled(16))
    for layer in (cut_mix, mix_up):
        pixels, labels = epoch_of(replace(PLAIN, layers=(layer,), batch=16), images=images)
        np.testing.assert_allclose(pixels.mean(axis=(1, 2, 3)), labels @ shades, atol=6)  # a box is cut at whole pixels
        assert len(np.unique(labels.round(4))) > 3


def _labelled(count):
    return np.repeat(np.arange(4), count // 4), ("a", "b", "c", "d"), ("",) * count


def test_rand_augment_moves_pixels_and_no_label():
    images, labels = epoch_of(replace(PLAIN, layers=(rand_augment,)))
    plain, plain_labels = epoch_of(PLAIN)
    np.testing.assert_array_equal(labels, plain_labels)
    assert np.abs(images - plain).mean() > 1


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_plain_batches_are_the_rows_in_their_order(backend, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    inputs, targets = np.arange(10).reshape(5, 2), np.arange(5)
    data = plain_batches(2, inputs, targets)
    batches = [data[number] for number in range(len(data))] if backend == "jax" else list(data)
    assert [len(x) for x, _ in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), inputs)
    np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), targets)
    (first,) = plain_batches(2, inputs)[0] if backend == "jax" else next(iter(plain_batches(2, inputs)))
    np.testing.assert_array_equal(first, inputs[:2])


def test_nobody_waits_for_autotuning():
    """Its thread wakes at ever longer intervals, up to a minute, and the end of an epoch waited for that."""
    images = Images(draw_images(4, classes=2, side=32), np.arange(4) % 2, ("a", "b"), ("",) * 4)
    for data in (plain_batches(2, images.images), array_batches(images, np.arange(4), Recipe(batch=2), 0)):
        assert data.options().autotune.enabled is False


def test_labels_are_one_hot():
    np.testing.assert_array_equal(one_hot(np.array([2, 0]), 3), [[0, 0, 1], [1, 0, 0]])
    assert one_hot(np.zeros(0, int), 3).shape == (0, 3)


# From files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "leaves"
    draw_folder(folder, 4, classes=3, side=32)
    return folder


def test_files_give_the_same_images_and_labels_as_arrays(folder, tmp_path):
    images = load_folder(folder)
    assert len(images) == 12
    pixels, labels = epoch_of(replace(PLAIN, pipeline=folder_batches, batch=6), images=images, folder=tmp_path / "links")
    found = [int(np.abs(images.images.astype(np.float32) - one).mean(axis=(1, 2, 3)).argmin()) for one in pixels]
    assert sorted(found) == list(range(12))
    np.testing.assert_array_equal(pixels, images.images[found])
    np.testing.assert_array_equal(labels, np.eye(3)[images.labels[found]])


def test_files_are_whole_batches_shuffled_by_seed_and_epoch(folder, tmp_path):
    images, recipe = load_folder(folder), replace(PLAIN, pipeline=folder_batches)
    first, again, later = (epoch_of(recipe, number, images, tmp_path / "links") for number in (0, 0, 1))
    assert len(first[0]) == 16
    np.testing.assert_array_equal(first[0], again[0])
    assert np.abs(first[0] - later[0]).mean() > 1
    links = [path for path in (tmp_path / "links").rglob("*") if path.is_symlink()]
    assert len(links) == 16
    assert {path.resolve().parent.name for path in links} == set(images.names)


def test_files_are_augmented(folder, tmp_path):
    images = load_folder(folder)
    recipe = replace(PLAIN, pipeline=folder_batches, augmentation=Augmentation(rotation=90.0))
    plain = epoch_of(replace(recipe, augmentation=NO_CHANGE), 0, images, tmp_path / "links")
    assert np.abs(epoch_of(recipe, 0, images, tmp_path / "links")[0] - plain[0]).mean() > 1


def test_synthetic_images_are_no_files(folder, tmp_path):
    images = load_folder(folder)
    made = Images(images.images, images.labels, images.names, (*images.paths[:-1], "synthetic"))
    with pytest.raises(UserError, match="synthetic images are none"):
        folder_batches(made, np.arange(12), PLAIN, 0, tmp_path / "links")


# Before training


def test_copies_come_behind_the_images_and_round_follows_round():
    counts = np.bincount(LEAVES.labels)
    made = augment_offline(LEAVES, ((("a", "c"), 2), ((), 1)), Augmentation(), 0)
    assert np.bincount(made.labels).tolist() == [6 * counts[0], 2 * counts[1], 6 * counts[2], 2 * counts[3]]
    np.testing.assert_array_equal(made.images[:16], LEAVES.images)
    np.testing.assert_array_equal(made.labels[:16], LEAVES.labels)
    assert made.paths[:16] == LEAVES.paths
    assert made.images.dtype == np.uint8
    assert len(made) == len(made.labels) == len(made.paths)
    for path, label in zip(made.paths, made.labels, strict=True):  # a copy has its source's label and name
        assert LEAVES.labels[LEAVES.paths.index(path)] == label
    assert len({image.tobytes() for image in made.images}) == len(made)


def test_copies_follow_from_the_seed():
    one, same, other = (augment_offline(LEAVES, (((), 2),), Augmentation(), seed).images for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one[16:].astype(int) - other[16:]).mean() > 1


def test_copies_without_change_are_the_images_whatever_the_block(monkeypatch):
    monkeypatch.setattr("training.augment.BLOCK", 5)
    made = augment_offline(LEAVES, (((), 2),), NO_CHANGE, 0)
    np.testing.assert_allclose(made.images[16:].astype(int), np.repeat(LEAVES.images, 2, axis=0), atol=1)


def test_no_round_leaves_the_images_as_they_are_and_an_unknown_class_is_refused():
    assert augment_offline(LEAVES, (), Augmentation(), 0) is LEAVES
    with pytest.raises(UserError, match="offline: no class oak; the data has a, b, c, d"):
        augment_offline(LEAVES, ((("a", "oak"), 1),), Augmentation(), 0)


# How the learning rate goes


def rates(schedule, peak=0.5, steps=100, warmup=0):
    rate = schedule(peak, steps, warmup)
    return np.array([float(rate(step)) if callable(rate) else rate for step in range(steps + 1)])


def test_an_exponential_decay_ends_at_a_hundredth_of_the_peak():
    found = rates(exponential)
    assert FINAL == 0.01
    assert found[0] == pytest.approx(0.5)
    assert found[-1] == pytest.approx(0.005, rel=1e-4)
    np.testing.assert_allclose(found[1:] / found[:-1], 0.01 ** (1 / 100), rtol=1e-4)


def test_a_constant_rate_stays_and_a_cosine_rises_and_falls():
    assert set(rates(constant)) == {0.5}
    found = rates(cosine, warmup=20)
    assert found.argmax() == 20
    assert (found[0], found[20], found[60], found[-1]) == pytest.approx((0, 0.5, 0.25, 0), abs=1e-6)
    found = rates(cosine_to_tenth, warmup=20)
    assert (found[0], found[20], found[60], found[-1]) == pytest.approx((0, 0.5, 0.275, 0.05), abs=1e-6)
    assert rates(cosine_to_tenth)[0] == 0.5


@pytest.mark.parametrize("schedule", [cosine, cosine_to_tenth, exponential, constant])
def test_an_optimizer_takes_every_schedule(schedule):
    optimizer = keras.optimizers.AdamW(schedule(0.5, 0, 0))  # a run without steps, too
    assert np.isfinite(float(optimizer.learning_rate))
