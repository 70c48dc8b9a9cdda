"""The linear head: logistic regression on standardized features."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import change
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from training.config.recipe import Recipe
from training.fit.head import Features, fit_linear

pytestmark = pytest.mark.integration


def features_of(classes, views=2, per_class=15, width=6):
    rng = np.random.default_rng(classes)
    labels = np.repeat(np.arange(classes), per_class)
    centers = rng.normal(0, 2, (classes, width))
    train = (centers[labels] + rng.normal(size=(views, len(labels), width))).astype(np.float32) * 5 + 3
    names = tuple(f"class{number}" for number in range(classes))
    return Features(train, labels, train[0, :0], labels[:0], names)


@pytest.mark.parametrize("classes", [2, 3, 8])
@pytest.mark.parametrize("c", [0.003, 1.0])
def test_probabilities_are_those_of_scikit_learn(classes, c):
    features = features_of(classes)
    recipe = change(Recipe(), head=change(Recipe(), kind="linear", c=c).head)
    head = fit_linear(recipe, features)
    x = features.train.reshape(-1, features.train.shape[-1])
    scaled = StandardScaler().fit_transform(x)
    model = LogisticRegression(C=c, max_iter=1000).fit(scaled, np.tile(features.train_labels, 2))
    np.testing.assert_allclose(head.predict(x, verbose=0), model.predict_proba(scaled), atol=0.02)


@pytest.mark.parametrize("spread", [0.0, 1e-5])
def test_a_feature_that_is_nearly_constant_in_training_does_not_decide_the_class_of_a_new_image(spread):
    features = features_of(3, per_class=2)
    nearly = (spread * features.train_labels[None, :, None] + np.zeros((2, 6, 1))).astype(np.float32)
    train = np.concatenate([features.train, nearly], axis=2)
    head = fit_linear(change(Recipe(), kind="linear", c=0.01), replace(features, train=train, val=train[0, :0]))
    new = train[0] + np.float32([0] * 6 + [1])  # a fifth of a deviation of the other features
    assert (head.predict(new, verbose=0).argmax(axis=1) == features.train_labels).all()


def test_class_weights_are_those_of_scikit_learn():
    features = features_of(3)
    rows = np.r_[:4, 15:45]  # four images of the first class, fifteen of each of the others
    features = replace(features, train=features.train[:, rows], train_labels=features.train_labels[rows])
    recipe = change(change(Recipe(), kind="linear", c=0.003), class_weights=True)
    scaled = StandardScaler().fit_transform(x := features.train.reshape(-1, features.train.shape[-1]))
    model = LogisticRegression(C=0.003, class_weight="balanced", max_iter=1000)
    expected = model.fit(scaled, np.tile(features.train_labels, 2)).predict_proba(scaled)
    np.testing.assert_allclose(fit_linear(recipe, features).predict(x, verbose=0), expected, atol=0.02)
    plain = fit_linear(change(recipe, class_weights=False), features).predict(x, verbose=0)
    assert plain[:, 0].mean() < expected[:, 0].mean() - 0.05


def test_logit_adjustment_subtracts_the_log_of_the_class_frequency():
    features = features_of(3)
    rows = np.r_[:4, 15:45]
    features = replace(features, train=features.train[:, rows], train_labels=features.train_labels[rows])
    plain = change(Recipe(), kind="linear", c=0.003)
    kernel, bias = fit_linear(plain, features).get_layer("softmax").get_weights()
    adjusted = fit_linear(change(plain, logit_adjustment=1.0), features).get_layer("softmax").get_weights()
    np.testing.assert_array_equal(adjusted[0], kernel)
    np.testing.assert_allclose(adjusted[1], bias - np.log(np.array([4, 15, 15]) / 34), atol=1e-5)


def test_repeated_classes_are_predicted_more_often():
    features = features_of(3, per_class=6)
    plain = change(Recipe(), head=change(Recipe(), kind="linear", c=0.001).head)
    repeated = change(plain, class_repeats={"class1": 5})
    x = features.train[0]
    one, other = (fit_linear(recipe, features).predict(x, verbose=0)[:, 1].mean() for recipe in (plain, repeated))
    assert other > one + 0.1
