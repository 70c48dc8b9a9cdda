"""What the questions share, on arrays: folds, undersampling, F1 and the linear classifier."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from training.questions import (
    COMPONENTS,
    class_f1,
    fitted_components,
    folds,
    linear_classifier,
    smote,
    species1,
    undersampled,
)

pytestmark = pytest.mark.unit


def test_undersampled_keeps_the_given_number_of_rows_of_a_class_and_all_rows_of_others():
    labels = np.repeat([0, 1, 2], [10, 20, 30])
    rows = undersampled(labels, {1: 7, 2: 30}, 0)
    assert np.bincount(labels[rows]).tolist() == [10, 7, 30]
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert set(range(10)) <= set(rows.tolist())


def test_undersampled_is_random_and_reproducible():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1], [40, 40]))
    rows = [undersampled(labels, {0: 15}, seed).tolist() for seed in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2]
    assert undersampled(labels, {}, 0).tolist() == list(range(80))


def test_folds_hold_out_every_row_once_in_each_repeat_and_are_stratified():
    labels = np.repeat([0, 1, 2], [15, 25, 60])
    parts = folds(labels, repeats=2)
    assert len(parts) == 10
    for repeat in (parts[:5], parts[5:]):
        assert sorted(np.concatenate([val for _, val in repeat]).tolist()) == list(range(100))
    for rows, val in parts:
        assert sorted([*rows, *val]) == list(range(100))
        assert np.bincount(labels[val]).tolist() == [3, 5, 12]
    assert [val.tolist() for _, val in parts[:5]] != [val.tolist() for _, val in parts[5:]]


def test_folds_depend_on_the_seed_alone():
    labels = np.repeat([0, 1], [20, 20])
    val = [[part.tolist() for _, part in folds(labels, seed=seed)] for seed in (0, 0, 1)]
    assert val[0] == val[1] != val[2]


def test_class_f1_has_every_class_and_agrees_with_scikit_learn():
    truth, predicted = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    # Class 0: one correct, one missed, one false; class 1: two correct, one missed, one false; class 2 never occurs.
    assert class_f1(truth, predicted, 3) == pytest.approx([2 / 4, 4 / 6, 0])
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 4, (2, 200))
    assert class_f1(truth, predicted, 4) == pytest.approx(f1_score(truth, predicted, average=None))


def test_an_image_with_an_exact_copy_is_not_its_own_neighbor():
    x = np.random.default_rng(0).normal(size=(20, 5))
    doubled, labels = np.concatenate([x, x]), np.repeat([0, 1], 20)  # each copy is in the other class
    assert smote._same_class_neighbor(doubled, labels, ("a", "b")) == {"a": 0.0, "b": 0.0}
    nearest = species1._nearest(doubled)
    assert (labels[nearest] != labels).all()


def test_linear_classifier_learns_from_256_components_of_features_of_any_scale():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 100)
    x = rng.normal(size=(300, 400)) + 3 * np.eye(3)[y] @ rng.normal(size=(3, 400))
    x *= rng.uniform(0.01, 100, 400)
    space = fitted_components(x)
    assert space.transform(x).shape == (300, COMPONENTS)
    assert fitted_components(x[:40]).transform(x).shape == (300, 40)
    model = linear_classifier().fit(space.transform(x), y)
    assert (model.predict(space.transform(x)) == y).mean() > 0.95
