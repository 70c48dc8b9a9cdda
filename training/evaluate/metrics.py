"""Metrics of predictions."""

import math

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

CALIBRATION_BINS = 10
Z_95 = 1.959964  # of the normal distribution, for 95 % intervals


def metrics(labels: np.ndarray, probabilities: np.ndarray, names: tuple) -> dict:
    """Accuracy with its 95 % interval, and precision, recall and F1 of every class.

    Macro F1 is the mean over the classes that occur in labels or predictions, as in scikit-learn and the grader.

    Args:
        labels: int [n].
        probabilities: float [n, classes].
        names: class names.

    Returns:
        A dictionary of plain values. `confusion` has a row for each true and a column for each predicted class.
    """
    predicted = probabilities.argmax(axis=-1)
    classes = range(len(names))
    scores = precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0)
    correct = int((predicted == labels).sum())
    occurring = np.isin(classes, [*labels, *predicted])
    return {
        "images": len(labels),
        "accuracy": correct / len(labels),
        "interval95": wilson(correct, len(labels)),
        "macro_f1": float(scores[2][occurring].mean()),
        "classes": {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "images": int(n)}
            for name, p, r, f, n in zip(names, *scores, strict=True)
        },
        "confusion": confusion_matrix(labels, predicted, labels=classes).tolist(),
    }


def wilson(correct: float, total: int) -> list[float]:
    """95 % confidence interval of a proportion, [low, high] (E. B. Wilson, JASA 22, 1927)."""
    share, spread = correct / total, Z_95 * Z_95 / total
    half = Z_95 * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    low, high = (share + spread / 2 - half) / (1 + spread), (share + spread / 2 + half) / (1 + spread)
    return [max(0.0, low), min(1.0, high)]  # rounding leads just beyond


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error: mean difference of confidence and accuracy over bins, weighted by images.

    Source: M. P. Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015.
    """
    bins = calibration(labels, probabilities)
    return sum(share * abs(confidence - accuracy) for share, confidence, accuracy in bins)


def calibration(labels: np.ndarray, probabilities: np.ndarray) -> list[tuple]:
    """For each bin of confidence that has images: (share of the images, mean confidence, accuracy)."""
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    inside = [place == number for number in np.unique(place)]
    return [(float(part.mean()), float(confidence[part].mean()), float(correct[part].mean())) for part in inside]


def summary(result: dict) -> str:
    """Metrics as a few lines of text."""
    low, high = result["interval95"]
    accuracy = f"accuracy {result['accuracy']:.1%} ({low:.1%} to {high:.1%})"
    lines = [f"{accuracy} on {result['images']} images, macro F1 {result['macro_f1']:.3f}"]
    width = max(map(len, result["classes"]))
    lines.append(f"{'':{width}}  precision  recall     F1  images")
    for name, c in result["classes"].items():
        lines.append(f"{name:{width}}  {c['precision']:9.3f}  {c['recall']:6.3f}  {c['f1']:5.3f}  {c['images']:6d}")
    return "\n".join(lines)
