"""The linear head: logistic regression on standardized features."""

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


def test_repeated_classes_are_predicted_more_often():
    features = features_of(3, per_class=6)
    plain = change(Recipe(), head=change(Recipe(), kind="linear", c=0.001).head)
    repeated = change(plain, class_repeats={"class1": 5})
    x = features.train[0]
    one, other = (fit_linear(recipe, features).predict(x, verbose=0)[:, 1].mean() for recipe in (plain, repeated))
    assert other > one + 0.1
