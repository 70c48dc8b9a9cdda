"""Rare classes seen more often, in the training part alone."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_sample_weight

from competition.drawings import draw_images
from training import run
from training.augment import Augmentation
from training.balance import class_weights, natural, oversample, rare_targets, repeat_classes, smote, svmsmote, undersample
from training.data import Images
from training.errors import UserError
from training.recipe import Recipe

LABELS = np.array([0, 1, 2, 0, 1, 2, 2])
NAMES = ("a", "b", "c")


def test_each_image_occurs_as_often_as_asked():
    rows = repeat_classes(LABELS, NAMES, {"a": 3, "c": 2})
    assert np.bincount(rows).tolist() == [3, 1, 2, 3, 1, 2, 2]


def test_nothing_is_repeated_unasked():
    assert np.array_equal(repeat_classes(LABELS, NAMES, {}), np.arange(7))
    assert np.array_equal(repeat_classes(LABELS, NAMES, {"b": 1}), np.arange(7))


def test_an_unknown_class_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="Oak.*a, b, c.*--set repeats="):
        repeat_classes(LABELS, NAMES, {"Oak": 2, "a": 2})


def test_a_run_splits_first_and_repeats_training_rows_only(leaf_folder, tmp_path, small, monkeypatch):
    parts = []

    def finetune(recipe, train, held, *others):
        parts.extend((train, held))
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "finetune", finetune)
    recipe = replace(small, repeats={"Species1": 3})
    with pytest.raises(KeyboardInterrupt):
        run.train(recipe, "small", leaf_folder, "none", tmp_path / "out")
    train, held = parts
    assert np.bincount(held.labels).tolist() == [2, 2, 2]
    assert np.bincount(train.labels).tolist() == [6, 6, 6]
    assert len({*held.paths, *train.paths}) == 24
    rows = repeat_classes(train.labels, train.names, recipe.repeats)
    assert np.bincount(train.labels[rows]).tolist() == [18, 6, 6]
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["recipe"]["repeats"] == {"Species1": 3}


# Resampling

COUNTS = (15, 40, 38, 20)  # of which the first alone is rare
LEAVES = Images(
    draw_images(sum(COUNTS), side=16), np.repeat(np.arange(4), COUNTS), ("a", "b", "c", "d"), tuple(f"{n}.jpg" for n in range(sum(COUNTS)))
)
RESAMPLINGS = [undersample, oversample, smote, svmsmote]


def parts(**changes):
    return run._parts(replace(Recipe(), **changes), LEAVES)


@pytest.mark.parametrize(
    "changes",
    [*({"resampling": r} for r in RESAMPLINGS), {"offline": (((), 2),)}],
    ids=lambda changes: next(getattr(value, "__name__", name) for name, value in changes.items()),
)
def test_validation_is_never_resampled_and_its_images_never_trained_on(changes):
    before, held_before = parts()
    train, held = parts(**changes)
    np.testing.assert_array_equal(held.images, held_before.images)
    np.testing.assert_array_equal(held.labels, held_before.labels)
    assert held.paths == held_before.paths
    assert len(train) != len(before)
    assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in held.images}
    assert not set(train.paths) & set(held.paths)


@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_resampling_follows_from_the_seed(resampling):
    one, same, other = (resampling(LEAVES, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.images, same.images)
    assert one.paths == same.paths
    assert not np.array_equal(one.images, other.images)


def test_natural_images_stay_as_they_are():
    assert natural(LEAVES, 0) is LEAVES


@pytest.mark.parametrize(("resampling", "count"), [(undersample, 15), (oversample, 40)])
def test_random_resampling_brings_every_class_to_one_number_of_its_own_images(resampling, count):
    images = resampling(LEAVES, 0)
    assert np.bincount(images.labels).tolist() == [count] * 4
    rows = [LEAVES.paths.index(path) for path in images.paths]
    np.testing.assert_array_equal(images.images, LEAVES.images[rows])
    np.testing.assert_array_equal(images.labels, LEAVES.labels[rows])
    assert len(set(rows)) == (60 if resampling is undersample else len(LEAVES))  # none twice, or none left out


def test_rare_classes_are_those_below_half_of_the_largest():
    labels = np.repeat([0, 1, 2, 3], [19, 20, 21, 40])
    assert rare_targets(labels) == {0: 38}
    assert rare_targets(labels, 0.51) == {0: 38, 1: 40}
    assert rare_targets(np.repeat([0, 1], 5)) == {}


@pytest.mark.parametrize("resampling", [smote, svmsmote])
def test_synthetic_images_double_the_rare_class_and_come_last(resampling):
    made = resampling(LEAVES, 0)
    rare, *others = np.bincount(made.labels)
    assert others == [40, 38, 20]
    assert rare == 30 if resampling is smote else 15 < rare <= 30  # SVMSMOTE leaves out what it takes for noise
    count = len(LEAVES)
    np.testing.assert_array_equal(made.images[:count], LEAVES.images)
    assert made.paths == LEAVES.paths + ("synthetic",) * (rare - 15)
    assert set(made.labels[count:]) == {0}
    assert made.images.dtype == np.uint8


def distance_to_segments(point, ends):
    """Largest deviation of a pixel, in the nearest of the segments between two of the points."""
    found = np.inf
    for number, start in enumerate(ends):
        for end in ends[number + 1 :]:
            along = np.clip(np.dot(point - start, end - start) / np.dot(end - start, end - start), 0, 1)
            found = min(found, np.abs(start + along * (end - start) - point).max())
    return found


def test_an_image_of_smote_lies_between_two_images_of_its_class():
    made = smote(LEAVES, 0).images[len(LEAVES) :].reshape(15, -1).astype(float)
    own = LEAVES.images[LEAVES.labels == 0].reshape(15, -1).astype(float)
    other = LEAVES.images[LEAVES.labels == 1].reshape(40, -1).astype(float)
    assert max(distance_to_segments(image, own) for image in made) < 1.0  # rounding to whole numbers
    assert min(distance_to_segments(image, other[:8]) for image in made) > 5


def test_without_a_rare_class_nothing_is_synthesised():
    images = LEAVES.rows(np.flatnonzero(LEAVES.labels > 0))
    assert smote(images, 0) is images


@pytest.mark.parametrize("resampling", [smote, svmsmote])
def test_too_few_images_for_neighbours_are_a_fault_of_the_user(resampling):
    images = LEAVES.rows(np.r_[0:3, 20:60])
    with pytest.raises(UserError, match=f"resampling={resampling.__name__}:.*another resampling") as error:
        resampling(images, 0)
    assert "\n" not in str(error.value)


def test_class_weights_are_scikit_learn_s_formula():
    labels = np.repeat([0, 1, 3], [2, 3, 5])
    weights = class_weights(labels)
    assert weights == pytest.approx({0: 10 / (3 * 2), 1: 10 / (3 * 3), 3: 10 / (3 * 5)})
    np.testing.assert_allclose([weights[label] for label in labels], compute_sample_weight("balanced", labels))


def test_offline_copies_are_of_training_images_alone():
    train, held = parts(offline=((("a",), 3),), offline_augmentation=Augmentation(), validation=0.2)
    assert np.bincount(held.labels).tolist() == [3, 8, 8, 4]
    assert np.bincount(train.labels).tolist() == [12 * 4, 32, 30, 16]
