"""Why did SVMSMOTE on pixels fail, and does SMOTE on the network's features do better?

  python -m training.questions.smote --data data/leaves/train

SMOTE makes a synthetic example between an image and one of its nearest neighbors of the same class. That is useful only
if such neighbors resemble each other. Measured on pixels and on the features of a frozen InceptionV3:
- how often the nearest neighbor of an image is of the same species;
- how much fine detail a synthetic image has (mean absolute difference of adjacent pixels) compared with real images;
- which share of the rare species' images are support vectors, from which SVMSMOTE selects its examples;
- the accuracy and F1 of a linear classifier on features in five folds, twice, with synthetic examples in training only.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from imblearn.over_sampling import SMOTE, SVMSMOTE, RandomOverSampler
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from common.errors import UserError
from common.images import Images
from common.progress import progress
from training.data.balance import RARE, rare_targets, smote
from training.evaluate.plots import new_figure, save_figure
from training.questions import (
    Question,
    class_f1,
    fitted_components,
    folds,
    linear_classifier,
    question_parser,
    run_question,
)

REDUCED_SIZE = 24  # pixels, for distances between images
REPEATS = 2
SMOTE_IMAGES = 8  # of a class: SMOTE needs six in the training part of a fold
# Method → (imbalanced-learn's sampler, class weight of the classifier).
METHODS: dict[str, tuple[Any, str | None]] = {
    "no balancing": (None, None),
    "class weights": (None, "balanced"),
    "repeated images": (RandomOverSampler, None),
    "SMOTE": (SMOTE, None),
    "SVMSMOTE": (SVMSMOTE, None),
}


def answer(question: Question) -> None:
    """Writes the measurements and the picture."""
    images = question.images(SMOTE_IMAGES)
    _require_suitable(images)
    (features,) = question.features(images)
    labels, names = images.labels, images.names
    spaces = {"pixels": _reduced(images.images), "features": StandardScaler().fit_transform(features[0])}
    rare = sorted(rare_targets(labels))
    result = {
        "rare": [names[label] for label in rare],
        "same_class_neighbor": {name: _same_class_neighbor(x, labels, names) for name, x in spaces.items()},
        "chance": {name: float((labels == label).mean()) for label, name in enumerate(names)},
        "support_vectors": {name: _support_vectors(x, labels, rare) for name, x in spaces.items()},
        "detail_ratio": _detail_ratio(images),
        "folds": _scores_in_folds(features[0], labels, names),
    }
    _plot(result, names, question.picture)
    question.save(result)


def _require_suitable(images: Images) -> None:
    height, width = images.images.shape[1:3]
    if min(height, width) < REDUCED_SIZE:
        raise UserError(
            f"--data must have images of at least {REDUCED_SIZE}×{REDUCED_SIZE}, got {height}×{width}; give larger ones"
        )
    if not rare_targets(images.labels):
        raise UserError(
            f"--data must have a class with less than {RARE:.0%} of the images of the largest one, which SMOTE adds "
            "examples to; got none"
        )


def _reduced(images: np.ndarray) -> np.ndarray:
    """Images [n, h, w, 3] averaged over blocks to 24×24 pixels, as rows [n, 1728]."""
    n, height, width, _ = images.shape
    steps = height // REDUCED_SIZE, width // REDUCED_SIZE
    cropped = images[:, : REDUCED_SIZE * steps[0], : REDUCED_SIZE * steps[1]]
    blocks = cropped.reshape(n, REDUCED_SIZE, steps[0], REDUCED_SIZE, steps[1], 3)
    return blocks.mean(axis=(2, 4), dtype=np.float32).reshape(n, -1)


def _same_class_neighbor(x: np.ndarray, labels: np.ndarray, names: tuple) -> dict[str, float]:
    """For each class, the share of its images whose nearest neighbor is of the same class."""
    nearest = NearestNeighbors(n_neighbors=1).fit(x).kneighbors(return_distance=False)[:, 0]
    same = labels[nearest] == labels
    return {name: float(same[labels == label].mean()) for label, name in enumerate(names)}


def _support_vectors(x: np.ndarray, labels: np.ndarray, rare: list[int]) -> float:
    """The share of the rare classes' images that are support vectors."""
    support, is_rare = SVC().fit(x, labels).support_, np.isin(labels, rare)
    return float(is_rare[support].sum() / is_rare.sum())


def _detail_ratio(images: Images) -> float:
    """The median detail of synthetic images, divided by that of the real images of the rare classes."""
    balanced = smote(images, 0)
    synthetic = np.arange(len(images), len(balanced))
    real = np.flatnonzero(np.isin(images.labels, np.unique(balanced.labels[synthetic])))
    return float(np.median(_detail(balanced.images[synthetic])) / np.median(_detail(images.images[real])))


def _detail(images: np.ndarray) -> np.ndarray:
    """Mean absolute difference of adjacent pixels of each image, float32 [n]."""
    grey = images.mean(axis=3, dtype=np.float32)
    return np.abs(np.diff(grey, axis=1)).mean(axis=(1, 2)) + np.abs(np.diff(grey, axis=2)).mean(axis=(1, 2))


def _scores_in_folds(x: np.ndarray, labels: np.ndarray, names: tuple) -> dict[str, dict]:
    """Method → accuracy and F1 of each class: mean over the folds, and standard deviation between the repeats."""
    scores: dict[str, list] = {name: [] for name in METHODS}
    for rows, val_rows in progress(folds(labels, REPEATS), "folds"):
        space = fitted_components(x[rows])
        train, val = space.transform(x[rows]), space.transform(x[val_rows])
        for name, method in METHODS.items():
            predicted = _predict(method, train, labels[rows], val)
            accuracy = (predicted == labels[val_rows]).mean()
            scores[name].append([accuracy, *class_f1(labels[val_rows], predicted, len(names))])
    return {name: _mean_and_std(np.array(values), ("accuracy", *names)) for name, values in scores.items()}


def _predict(method: tuple[Any, str | None], train: np.ndarray, labels: np.ndarray, val: np.ndarray) -> np.ndarray:
    """The labels that a linear classifier predicts for `val`, trained with one of `METHODS`."""
    sampler, class_weight = method
    if sampler:
        targets = rare_targets(labels)
        train, labels = sampler(sampling_strategy=targets, random_state=0).fit_resample(train, labels)
    return linear_classifier(class_weight).fit(train, labels).predict(val)


def _mean_and_std(scores: np.ndarray, keys: tuple) -> dict[str, dict]:
    """The columns of scores [folds of all repeats, keys] as mean and standard deviation of the repeats' means."""
    repeats = scores.reshape(REPEATS, -1, len(keys)).mean(axis=1)
    mean, std = repeats.mean(axis=0), repeats.std(axis=0, ddof=1)
    return {key: {"mean": float(m), "std": float(s)} for key, m, s in zip(keys, mean, std, strict=True)}


def _plot(result: dict, names: tuple, path: Path) -> None:
    figure, (left, right) = new_figure(1, 2, (12, 4))
    places = np.arange(len(names))
    for shift, (space, shares) in zip((-0.2, 0.2), result["same_class_neighbor"].items(), strict=True):
        left.bar(places + shift, [shares[name] for name in names], 0.4, label=space)
    left.plot(places, [result["chance"][name] for name in names], "k_", markersize=30, label="chance")
    left.set_xticks(places, names, rotation=45, ha="right")
    left.set_title("nearest neighbor is of the same species")
    left.legend()
    methods = list(result["folds"])
    places = np.arange(len(methods))
    for shift, key in zip((-0.27, 0, 0.27), ("accuracy", *result["rare"]), strict=False):
        cells = [result["folds"][method][key] for method in methods]
        means, stds = ([cell[value] for cell in cells] for value in ("mean", "std"))
        right.bar(places + shift, means, 0.27, yerr=stds, label=key)
    right.set_xticks(places, methods, fontsize="small")
    right.set_title("on features, five folds: accuracy, and F1 of the rare species")
    right.legend(loc="lower right")
    save_figure(figure, path)


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    return run_question(question_parser("smote", __doc__).parse_args(arguments), answer)


if __name__ == "__main__":
    sys.exit(main())
