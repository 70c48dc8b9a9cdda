"""The quasi-SVM: it learns a nonlinear boundary, keeps the best epoch, and corrects for class frequencies."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from scipy.spatial.distance import pdist

from common.errors import UserError
from training.config.recipe import Head, Recipe
from training.fit.checkpoint import history_row, is_kept, read_history
from training.fit.head import Features, fit_head, median_distance

NAMES = ("in", "out")


def rings(count, seed):
    """Points on two concentric circles, which no straight line separates: features [count, 2], labels."""
    rng = np.random.default_rng(seed)
    labels, angle = np.arange(count) % 2, rng.uniform(0, 2 * np.pi, count)
    radius = 1.0 + 2.0 * labels + rng.normal(0, 0.15, count)
    return np.stack([radius * np.cos(angle) + 50, 1e-3 * radius * np.sin(angle)], axis=1).astype(np.float32), labels


def without_val(features, labels):
    return Features(features[None], labels, features[:0], labels[:0], NAMES)


def recipe_of(checkpoint="best_val_loss", **head):
    return Recipe(head=Head(**head), checkpoint=checkpoint)


THIRTY_EPOCHS = {"epochs": 30, "fourier_features": 256, "learning_rate": 1e-2, "batch_size": 64, "kernel_scale": 0.5}


@pytest.mark.integration
def test_head_learns_what_no_straight_line_separates(tmp_path):
    train, labels = rings(300, 0)
    val, val_labels = rings(100, 1)
    features = Features(np.stack([train, rings(300, 2)[0]]), labels, val, val_labels, NAMES)
    head = fit_head(recipe_of(**THIRTY_EPOCHS), features, tmp_path)
    probabilities = head.predict(val, verbose=0)
    assert (probabilities.argmax(axis=1) == val_labels).mean() > 0.97
    history = read_history(tmp_path / "head_history.csv")
    assert len(history) == 30
    best = min(row["val_loss"] for row in history)
    assert head.evaluate(val, np.eye(2)[val_labels], verbose=0)[0] == pytest.approx(best, abs=1e-4)


@pytest.mark.integration
def test_shared_scale_does_not_amplify_uninformative_features(tmp_path):
    points, labels = rings(300, 0)
    noise = np.random.default_rng(0).normal(0, 1e-3, (300, 50))  # of low variance
    points = np.concatenate([points * [1, 1e3], noise], axis=1, dtype=np.float32)
    features = Features(points[None, :200], labels[:200], points[200:], labels[200:], NAMES)

    def accuracy(shared):
        head = fit_head(recipe_of("last", **THIRTY_EPOCHS, shared_feature_scale=shared), features, tmp_path)
        correct = head.predict(features.val, verbose=0).argmax(axis=1) == features.val_labels
        return correct.mean(), head.get_layer("standardise")

    (shared, scaled), (each, _) = accuracy(True), accuracy(False)
    assert shared > 0.97 > 0.8 > each
    assert float(scaled.mean.numpy().item()) == pytest.approx(points[:200].mean(), abs=1e-5)
    assert float(scaled.variance.numpy().item()) == pytest.approx(points[:200].var(), rel=1e-4)


@pytest.mark.integration
def test_a_feature_that_is_constant_in_training_does_not_decide_the_class_of_a_new_image(tmp_path):
    points, labels = rings(300, 0)
    points = np.concatenate([points, np.zeros((300, 1), np.float32)], axis=1)
    head = fit_head(recipe_of("last", **THIRTY_EPOCHS), without_val(points, labels), tmp_path)
    new = points + np.float32([0, 0, 0.1])  # a tenth of a typical deviation
    same = head.predict(new, verbose=0).argmax(axis=1) == head.predict(points, verbose=0).argmax(axis=1)
    assert same.mean() > 0.95


@pytest.mark.integration
def test_class_weights_raise_the_probability_of_a_rare_class(tmp_path):
    points, labels = rings(300, 0)
    chosen = (labels == 1) | (np.arange(300) < 60)
    features = without_val(points[chosen], labels[chosen])
    plain = recipe_of("last", epochs=3, fourier_features=64)
    weighted = replace(plain, data=replace(plain.data, class_weights=True))
    one, other = (
        fit_head(recipe, features, tmp_path).predict(points, verbose=0)[:, 0].mean() for recipe in (plain, weighted)
    )
    assert other > one + 0.1


@pytest.mark.integration
def test_logit_adjustment_prefers_a_rare_class_by_its_frequency(tmp_path):
    points, labels = rings(300, 0)
    chosen = (labels == 1) | (np.arange(300) < 60)  # 30 of one class, 150 of the other
    features = without_val(points[chosen], labels[chosen])
    recipes = [recipe_of("last", epochs=3, fourier_features=64, logit_adjustment=tau) for tau in (0.0, 1.0, 2.0)]
    heads = [fit_head(recipe, features, tmp_path) for recipe in recipes]
    odds = [np.log(p[:, 0] / p[:, 1]) for p in (head.predict(features.train[0], verbose=0) for head in heads)]
    np.testing.assert_allclose(odds[1] - odds[0], np.log(150 / 30), atol=1e-3)
    np.testing.assert_allclose(odds[2] - odds[0], 2 * np.log(150 / 30), atol=1e-3)
    kernels = [head.get_layer("softmax").get_weights()[0] for head in heads]
    assert all(np.array_equal(kernel, kernels[0]) for kernel in kernels)


@pytest.mark.integration
def test_head_depends_only_on_the_seed(tmp_path):
    features = without_val(*rings(40, 0))

    def probabilities(seed):
        recipe = replace(recipe_of(epochs=2, fourier_features=32), seed=seed)
        return fit_head(recipe, features, tmp_path).predict(features.train[0], verbose=0)

    np.testing.assert_allclose(probabilities(1), probabilities(1), atol=1e-6)
    assert np.abs(probabilities(1) - probabilities(2)).max() > 1e-3


@pytest.mark.integration
def test_infinite_loss_is_a_user_error_that_names_the_learning_rate(tmp_path):
    with pytest.raises(UserError, match="finite.*head.learning_rate=") as error:
        fit_head(recipe_of(epochs=5, learning_rate=1e38), without_val(*rings(40, 0)), tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.unit
def test_equal_features_of_all_images_are_a_user_error(tmp_path):
    features = without_val(np.ones((10, 4), np.float32), np.arange(10) % 2)
    with pytest.raises(UserError, match="features"):
        fit_head(recipe_of(epochs=1), features, tmp_path)


@pytest.mark.unit
def test_median_distance_is_that_of_different_rows():
    features = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    assert median_distance(features, 0) == pytest.approx(np.median(pdist(features)), rel=0.02)
    assert median_distance(features, 0) == median_distance(features, 0)
    # Two rows form one pair; a row paired with itself would pull the median to 0.
    assert median_distance(np.array([[0.0, 0.0], [3.0, 4.0]]), 0) == 5.0
    assert median_distance(np.array([[0.0, 0.0], [3.0, 4.0]]), 0, order=1) == 7.0
    assert median_distance(np.array([[0.0, 0.0]] * 9 + [[3.0, 4.0]]), 0) == 5.0  # copies of one image
    assert median_distance(np.zeros((9, 2)), 0) == 0.0


@pytest.mark.parametrize(("kernel", "similarity"), [("gaussian", np.exp(-0.5)), ("laplacian", np.exp(-1))])
def test_the_kernel_of_a_typical_pair_is_neither_0_nor_1(kernel, similarity):
    """The width is the median distance in the norm of the kernel."""
    features = np.random.default_rng(0).normal(size=(1, 300, 64)).astype(np.float32)
    labels = np.arange(300) % 2
    recipe = recipe_of(checkpoint="last", epochs=1, kernel=kernel, fourier_features=8192)
    head = fit_head(recipe, Features(features, labels, features[0, :0], labels[:0], ("a", "b")))
    inner = keras.Model(head.inputs, head.get_layer("fourier").output)
    mapped = inner.predict(features[0], verbose=0)
    kernel_values = (mapped @ mapped.T)[np.triu_indices(300, 1)]
    assert np.median(kernel_values) == pytest.approx(similarity, abs=0.05)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("checkpoint", "losses", "kept"),
    [
        ("best_val_loss", [0.5, 0.2, 0.9], [True, True, False]),
        ("best_val_loss", [0.5, 0.5], [True, True]),
        ("last", [0.5, 0.2, 0.9], [True, True, True]),
        ("best_val_loss", [None, None], [True, True]),  # nothing is held out
    ],
)
def test_epochs_that_are_kept(checkpoint, losses, kept):
    history = [{} if loss is None else {"val_loss": loss} for loss in losses]
    assert [is_kept(checkpoint, history[: number + 1]) for number in range(len(history))] == kept


@pytest.mark.unit
@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_history_row_refuses_values_that_are_not_finite(loss):
    assert history_row(0, {"loss": [3.0, 2.0]}, 0.0, "x=1")["loss"] == 2.0
    with pytest.raises(UserError, match="finite.*epoch 5.*--set x=1"):
        history_row(4, {"loss": [loss]}, 0.0, "x=1")
