"""Metrics of predictions."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from training.evaluate.metrics import calibration, calibration_error, metrics

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


def test_rows_of_the_confusion_matrix_are_true_classes_and_each_class_has_its_own_scores():
    labels, predicted = np.array([0, 0, 0, 0, 1, 1, 2]), [0, 0, 0, 1, 1, 0, 0]
    result = metrics(labels, np.eye(3)[predicted], ("a", "b", "c"))
    assert result["confusion"] == [[3, 1, 0], [1, 1, 0], [1, 0, 0]]
    assert (result["images"], result["accuracy"]) == (7, pytest.approx(4 / 7))
    assert result["classes"]["a"] == pytest.approx({"precision": 3 / 5, "recall": 3 / 4, "f1": 2 / 3, "images": 4})
    assert result["classes"]["b"] == pytest.approx({"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "images": 2})
    assert result["classes"]["c"] == {"precision": 0, "recall": 0, "f1": 0, "images": 1}


def test_calibration_has_ten_bins():
    confidence = np.array([0.62, 0.68, 0.72, 0.78, 1.0])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.array([0, 1, 0, 0, 0])
    expected = [(0.4, 0.65, 0.5), (0.4, 0.75, 1.0), (0.2, 1.0, 1.0)]
    assert [pytest.approx(one) for one in calibration(labels, probabilities)] == expected
    assert calibration_error(labels, probabilities) == pytest.approx(0.4 * 0.15 + 0.4 * 0.25)
