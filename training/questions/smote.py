"""Why did SVMSMOTE on pixels fail, and does SMOTE on the network's features do better?

    python -m training.questions.smote --data data/leaves/train

SMOTE takes the mean of an image and one of its nearest neighbours of the same class. That makes a new example only where
such neighbours resemble each other. Measured on pixels and on a frozen InceptionV3's features:
- neighbours: how often an image's nearest neighbour is of its own species;
- fine detail: what the means of pixels keep of it (mean absolute difference of adjacent pixels, against real images);
- support vectors: the share of the rare species' images that SVMSMOTE starts from, and so how much it selects;
- what a linear classifier on the features gains, in five folds twice over, synthetic examples in training only.
"""

import sys

import numpy as np
from imblearn.over_sampling import SMOTE, SVMSMOTE, RandomOverSampler
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from training.balance import rare_targets, smote
from training.evaluate import figure_of, save_figure
from training.progress import progress
from training.questions import ask, class_f1, folds, linear_classifier, main_components

SHRUNK = 24  # pixels of a side, for the distances between pictures
REPEATS = 2


def answer(question):
    images, _ = question.images()
    (features,) = question.features(images)
    spaces = {"pixels": _shrunk(images.images), "features": StandardScaler().fit_transform(features[0])}
    rare = sorted(rare_targets(images.labels))
    result = {
        "rare": [images.names[label] for label in rare],
        "own_neighbour": {name: _own_neighbour(x, images.labels, images.names) for name, x in spaces.items()},
        "chance": {name: float((images.labels == label).mean()) for label, name in enumerate(images.names)},
        "support_vectors": {name: _support_vectors(x, images.labels, rare) for name, x in spaces.items()},
        "detail_kept": _detail_kept(images),
        "folds": _in_folds(features[0], images.labels, images.names),
    }
    _draw(result, images.names, question.picture("smote"))
    question.answer("smote", result)


def _shrunk(images):
    n, height, width, _ = images.shape
    steps = height // SHRUNK, width // SHRUNK
    cut = images[:, : SHRUNK * steps[0], : SHRUNK * steps[1]].reshape(n, SHRUNK, steps[0], SHRUNK, steps[1], 3)
    return cut.mean(axis=(2, 4), dtype=np.float32).reshape(n, -1)


def _own_neighbour(x, labels, names):
    nearest = NearestNeighbors(n_neighbors=2).fit(x).kneighbors(x, return_distance=False)[:, 1]
    own = labels[nearest] == labels
    return {name: float(own[labels == label].mean()) for label, name in enumerate(names)}


def _support_vectors(x, labels, rare):
    chosen = SVC().fit(x, labels).support_
    of_rare = np.isin(labels, rare)
    return float(of_rare[chosen].sum() / of_rare.sum())


def _detail_kept(images):
    """Median of a synthetic image's detail as a share of the real images' median, rare species alone."""
    made = smote(images, 0)
    synthetic = np.arange(len(images), len(made))
    real = np.flatnonzero(np.isin(images.labels, np.unique(made.labels[synthetic])))
    return float(np.median(_detail(made.images[synthetic])) / np.median(_detail(images.images[real])))


def _detail(images):
    grey = images.mean(axis=3, dtype=np.float32)
    return np.abs(np.diff(grey, axis=1)).mean(axis=(1, 2)) + np.abs(np.diff(grey, axis=2)).mean(axis=(1, 2))


def _in_folds(x, labels, names):
    """Method → accuracy and F1 of every class, the mean over the folds and the standard deviation of the repeats' means."""
    methods = {
        "nothing": (None, None),
        "class weights": (None, "balanced"),
        "repeated images": (RandomOverSampler, None),
        "SMOTE": (SMOTE, None),
        "SVMSMOTE": (SVMSMOTE, None),
    }
    scores = {name: [] for name in methods}
    for rows, held in progress(folds(labels, REPEATS), "folds"):
        space = main_components().fit(x[rows])
        fitting, kept = space.transform(x[rows]), space.transform(x[held])
        for name, (sampler, weight) in methods.items():
            more, targets = fitting, labels[rows]
            if sampler:
                more, targets = sampler(sampling_strategy=rare_targets(targets), random_state=0).fit_resample(fitting, targets)
            predicted = linear_classifier(weight).fit(more, targets).predict(kept)
            scores[name].append([(predicted == labels[held]).mean(), *class_f1(labels[held], predicted, len(names))])
    table = {}
    for name, values in scores.items():
        repeats = np.array(values).reshape(REPEATS, -1, 1 + len(names)).mean(axis=1)
        mean, spread = repeats.mean(axis=0), repeats.std(axis=0, ddof=1)
        keys = ("accuracy", *names)
        table[name] = {key: {"mean": float(m), "spread": float(s)} for key, m, s in zip(keys, mean, spread, strict=True)}
    return table


def _draw(result, names, path):
    figure, (left, right) = figure_of(1, 2, (12, 4))
    places = np.arange(len(names))
    for shift, (space, own) in zip((-0.2, 0.2), result["own_neighbour"].items(), strict=True):
        left.bar(places + shift, [own[name] for name in names], 0.4, label=space)
    left.plot(places, [result["chance"][name] for name in names], "k_", markersize=30, label="chance")
    left.set_xticks(places, names, rotation=45, ha="right")
    left.set_title("nearest neighbour is of the same species")
    left.legend()
    methods = list(result["folds"])
    for shift, key in zip((-0.27, 0, 0.27), ("accuracy", *result["rare"]), strict=False):
        cells = [result["folds"][method][key] for method in methods]
        right.bar(np.arange(len(methods)) + shift, [c["mean"] for c in cells], 0.27, yerr=[c["spread"] for c in cells], label=key)
    right.set_xticks(range(len(methods)), methods)
    right.set_title("on features, five folds: accuracy, and F1 of the rare species")
    right.legend(loc="lower right")
    save_figure(figure, path)


if __name__ == "__main__":
    sys.exit(ask(__doc__, answer))
