"""Metrics of predictions."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from training.evaluate.metrics import metrics

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("labels", "predicted"),
    [([0, 1, 2, 2], [0, 1, 2, 0]), ([0, 1, 1], [0, 1, 1]), ([0, 0, 1], [0, 2, 1])],
    ids=["all classes", "a class without images", "a class that is only predicted"],
)
def test_macro_f1_is_that_of_scikit_learn(labels, predicted):
    result = metrics(np.array(labels), np.eye(3)[predicted], ("a", "b", "c"))
    assert result["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert list(result["classes"]) == ["a", "b", "c"]
