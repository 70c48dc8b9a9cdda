"""Class balance: resampling, repeated classes and class weights, of the training part only."""

import json
import re
import shlex

import numpy as np
import pytest
from helpers import change
from sklearn.utils.class_weight import compute_sample_weight

from common.errors import UserError
from common.images import Images
from competition.synthetic import draw_images
from training import run
from training.config.override import override
from training.config.recipe import Recipe
from training.data.augment import RandomTransforms
from training.data.balance import (
    check_classes,
    class_weights,
    natural,
    oversample,
    rare_targets,
    repeat_classes,
    smote,
    svmsmote,
    undersample,
)
from training.run import Inputs

pytestmark = pytest.mark.unit
LABELS = np.array([0, 1, 2, 0, 1, 2, 2])
NAMES = ("a", "b", "c")


def test_images_of_a_class_occur_as_often_as_asked():
    rows = repeat_classes(LABELS, NAMES, {"a": 3, "c": 2})
    assert np.bincount(rows).tolist() == [3, 1, 2, 3, 1, 2, 2]


def test_classes_that_are_not_named_occur_once():
    assert np.array_equal(repeat_classes(LABELS, NAMES, {}), np.arange(7))
    assert np.array_equal(repeat_classes(LABELS, NAMES, {"b": 1}), np.arange(7))


def test_unknown_class_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="data.class_repeats.*a, b, c.*Oak.*--set 'data.class_repeats={'"):
        repeat_classes(LABELS, NAMES, {"Oak": 2, "a": 2})


def setting_in(error):
    """The setting that an error recommends, as a shell would give it to --set."""
    return shlex.split(re.search("give --set (.*) or your own classes$", str(error))[1])[0]


def test_recommended_setting_keeps_what_is_said_of_the_classes_of_the_data():
    recipe = change(Recipe(), class_repeats={"Oak": 2, "it's": 3})
    with pytest.raises(UserError) as caught:
        check_classes("data.class_repeats", recipe.data.class_repeats, ("a", "it's"))
    assert override(recipe, [setting_in(caught.value)]).data.class_repeats == {"it's": 3}
    with pytest.raises(UserError) as caught:
        check_classes("data.class_repeats", recipe.data.class_repeats, NAMES)
    assert override(recipe, [setting_in(caught.value)]).data.class_repeats == {}


@pytest.mark.parametrize(
    ("rounds", "kept"),
    [
        (((("Oak", "Elm"), 1), ((), 3)), (((), 3),)),
        (((("Oak", "b"), 1), ((), 3)), ((("b",), 1), ((), 3))),
        (((("Oak",), 2),), ()),
    ],
)
def test_recommended_setting_keeps_the_augmentation_of_all_classes(rounds, kept):
    with pytest.raises(UserError, match="augmentation.precomputed.*got .*Oak") as caught:
        check_classes("augmentation.precomputed", rounds, NAMES)
    assert override(Recipe(), [setting_in(caught.value)]).augmentation.precomputed == kept


def test_run_splits_first_and_repeats_only_training_rows(leaf_folder, tmp_path, small, monkeypatch):
    seen = []

    def finetune(recipe, data, *others):
        seen.append(data)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "finetune", finetune)
    recipe = change(small, class_repeats={"Species1": 3})
    with pytest.raises(KeyboardInterrupt):
        run.train(recipe, "small", Inputs(leaf_folder, "none"), tmp_path / "out")
    train, val = seen[0].train, seen[0].val
    assert np.bincount(val.labels).tolist() == [2, 2, 2]
    assert np.bincount(train.labels).tolist() == [6, 6, 6]
    assert len({*val.paths, *train.paths}) == 24
    rows = repeat_classes(train.labels, train.names, recipe.data.class_repeats)
    assert np.bincount(train.labels[rows]).tolist() == [18, 6, 6]
    record = json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))
    assert record["recipe"]["data"]["class_repeats"] == {"Species1": 3}


# Resampling

COUNTS = (15, 40, 38, 20)  # only the first class is rare
LEAVES = Images(
    draw_images(sum(COUNTS), side=16),
    np.repeat(np.arange(4), COUNTS),
    ("a", "b", "c", "d"),
    tuple(f"{n}.jpg" for n in range(sum(COUNTS))),
)
RESAMPLINGS = [undersample, oversample, smote, svmsmote]


def parts(**changes):
    data = run.split_and_balance(change(Recipe(), **changes), LEAVES)
    return data.train, data.val


@pytest.mark.parametrize(
    "changes",
    [*({"resampling": r} for r in RESAMPLINGS), {"precomputed": (((), 2),)}],
    ids=lambda changes: next(getattr(value, "__name__", name) for name, value in changes.items()),
)
def test_validation_part_is_never_resampled_or_trained_on(changes):
    before, val_before = parts()
    train, val = parts(**changes)
    np.testing.assert_array_equal(val.images, val_before.images)
    np.testing.assert_array_equal(val.labels, val_before.labels)
    assert val.paths == val_before.paths
    assert len(train) != len(before)
    assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in val.images}
    assert not set(train.paths) & set(val.paths)


@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_resampling_depends_only_on_the_seed(resampling):
    one, same, other = (resampling(LEAVES, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.images, same.images)
    assert one.paths == same.paths
    assert not np.array_equal(one.images, other.images)


def test_natural_returns_the_images_unchanged():
    assert natural(LEAVES, 0) is LEAVES


@pytest.mark.parametrize(("resampling", "count"), [(undersample, 15), (oversample, 40)])
def test_random_resampling_gives_every_class_the_same_number_of_its_own_images(resampling, count):
    images = resampling(LEAVES, 0)
    assert np.bincount(images.labels).tolist() == [count] * 4
    rows = [LEAVES.paths.index(path) for path in images.paths]
    np.testing.assert_array_equal(images.images, LEAVES.images[rows])
    np.testing.assert_array_equal(images.labels, LEAVES.labels[rows])
    assert len(set(rows)) == (60 if resampling is undersample else len(LEAVES))  # no image twice, or none missing


def test_rare_classes_are_those_below_half_of_the_largest():
    labels = np.repeat([0, 1, 2, 3], [19, 20, 21, 40])
    assert rare_targets(labels) == {0: 38}
    assert rare_targets(labels, 0.51) == {0: 38, 1: 40}
    assert rare_targets(np.repeat([0, 1], 5)) == {}


@pytest.mark.parametrize("resampling", [smote, svmsmote])
def test_synthetic_images_double_the_rare_class_and_are_last(resampling):
    made = resampling(LEAVES, 0)
    rare, *others = np.bincount(made.labels)
    assert others == [40, 38, 20]
    assert rare == 30 if resampling is smote else 15 < rare <= 30  # SVMSMOTE skips what it takes for noise
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


def test_image_of_smote_lies_between_two_images_of_its_class():
    made = smote(LEAVES, 0).images[len(LEAVES) :].reshape(15, -1).astype(float)
    own = LEAVES.images[LEAVES.labels == 0].reshape(15, -1).astype(float)
    other = LEAVES.images[LEAVES.labels == 1].reshape(40, -1).astype(float)
    assert max(distance_to_segments(image, own) for image in made) < 1.0  # rounding to whole numbers
    assert min(distance_to_segments(image, other[:8]) for image in made) > 5


def test_without_a_rare_class_nothing_is_synthesized():
    images = LEAVES.rows(np.flatnonzero(LEAVES.labels > 0))
    assert smote(images, 0) is images


@pytest.mark.parametrize("resampling", [smote, svmsmote])
def test_too_few_images_for_neighbors_are_a_user_error(resampling):
    images = LEAVES.rows(np.r_[0:3, 20:60])
    with pytest.raises(UserError, match=f"data.resampling={resampling.__name__}:.*another resampling") as error:
        resampling(images, 0)
    assert "\n" not in str(error.value)


def test_class_weights_are_those_of_scikit_learn():
    labels = np.repeat([0, 1, 3], [2, 3, 5])
    weights = class_weights(labels)
    assert weights == pytest.approx({0: 10 / (3 * 2), 1: 10 / (3 * 3), 3: 10 / (3 * 5)})
    np.testing.assert_allclose([weights[label] for label in labels], compute_sample_weight("balanced", labels))


def test_precomputed_copies_are_only_of_training_images():
    train, val = parts(precomputed=((("a",), 3),), precomputed_transforms=RandomTransforms(), validation_split=0.2)
    assert np.bincount(val.labels).tolist() == [3, 8, 8, 4]
    assert np.bincount(train.labels).tolist() == [12 * 4, 32, 30, 16]
