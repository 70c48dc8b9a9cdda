"""Why is Species1 so hard, and what improves it?

  python -m training.questions.species1 --data data/leaves/train

A linear classifier on the features of a frozen InceptionV3, in five folds:
- confusion: which species its out-of-fold predictions name for the images of Species1;
- neighbors: the species of the nearest neighbors of these images;
- rarity or similarity: each species in turn is reduced to as many training images as Species1 has. The F1 that it loses
  is the effect of rarity in training. The gap to Species1 that remains is not due to rarity;
- remedies: class weights, repeated images, logit adjustment (A. K. Menon et al., "Long-tail learning via logit
  adjustment", ICLR 2021), and more images: F1 of Species1 with a quarter, half and three quarters of its images.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from common.progress import progress
from training.evaluate.plots import new_figure, save_figure
from training.questions import (
    FOLDS,
    Question,
    class_f1,
    fitted_components,
    folds,
    linear_classifier,
    question_parser,
    run_question,
    undersampled,
)

TARGET = 0  # the first species
SHARES = (0.25, 0.5, 0.75, 1.0)
TRAINED = 0.8  # share of the images in the training part of a fold


@dataclass(frozen=True)
class _Data:
    """Features [n, d] with their labels [n] and class names."""

    x: np.ndarray
    y: np.ndarray
    names: tuple

    def f1(self, probabilities: np.ndarray) -> np.ndarray:
        return class_f1(self.y, probabilities.argmax(axis=1), len(self.names))

    def trained(self, label: int, share: float = 1.0) -> int:
        """Images of a class in the training part of a fold, times a share."""
        return int((self.y == label).sum() * TRAINED * share)


def answer(question: Question) -> None:
    """Writes the measurements and the picture."""
    images = question.images(FOLDS)
    (features,) = question.features(images)
    data = _Data(features[0], images.labels, images.names)
    probabilities = _out_of_fold(data, "out-of-fold predictions")
    of_target = data.y == TARGET
    result = {
        "images": {name: int((data.y == label).sum()) for label, name in enumerate(data.names)},
        "predicted_as": _shares(probabilities.argmax(axis=1)[of_target], data.names),
        "nearest_neighbor": _shares(data.y[_nearest(data.x)][of_target], data.names),
        "f1": _f1_when_rare(data, data.f1(probabilities)),
        "methods": _methods(data, probabilities),
        "f1_by_share_of_images": _f1_by_share(data),
    }
    _plot(result, data.names, question.picture)
    question.save(result)


def _out_of_fold(
    data: _Data, title: str, class_weight: str | None = None, choose: Callable | None = None
) -> np.ndarray:
    """Out-of-fold probabilities [n, classes]. `choose` maps the training rows of a fold to those to train on."""
    probabilities = np.zeros((len(data.y), data.y.max() + 1))
    for rows, val_rows in progress(folds(data.y), title):
        rows = choose(rows) if choose else rows
        space = fitted_components(data.x[rows])
        model = linear_classifier(class_weight).fit(space.transform(data.x[rows]), data.y[rows])
        probabilities[val_rows] = model.predict_proba(space.transform(data.x[val_rows]))
    return probabilities


def _reduced(data: _Data, label: int, size: int, title: str) -> np.ndarray:
    """F1 of each class if one of them is reduced to `size` training images."""
    probabilities = _out_of_fold(
        data, title, choose=lambda rows: rows[undersampled(data.y[rows], {label: size}, seed=0)]
    )
    return data.f1(probabilities)


def _nearest(x: np.ndarray) -> np.ndarray:
    scaled = StandardScaler().fit_transform(x)
    return NearestNeighbors(n_neighbors=1).fit(scaled).kneighbors(return_distance=False)[:, 0]


def _shares(labels: np.ndarray, names: tuple) -> dict[str, float]:
    return {name: float((labels == label).mean()) for label, name in enumerate(names)}


def _f1_when_rare(data: _Data, f1: np.ndarray) -> dict[str, dict]:
    """F1 of each class with all of its training images, and with as many as the target has."""
    size, table = data.trained(TARGET), {}
    for label, name in enumerate(data.names):
        is_larger = (data.y == label).sum() * TRAINED > size
        reduced = _reduced(data, label, size, f"{name} reduced")[label] if is_larger else f1[label]
        table[name] = {"all_images": float(f1[label]), "as_rare": float(reduced)}
    return table


def _methods(data: _Data, probabilities: np.ndarray) -> dict[str, dict]:
    """Method → F1 of the target, macro F1 and accuracy, out of fold."""

    def three_times(rows: np.ndarray) -> np.ndarray:
        of_target = rows[data.y[rows] == TARGET]
        return np.concatenate([rows, of_target, of_target])

    methods = {
        "no balancing": probabilities,
        "class weights": _out_of_fold(data, "class weights", "balanced"),
        "images three times": _out_of_fold(data, "images three times", choose=three_times),
        "logit adjustment": probabilities / (np.bincount(data.y) / len(data.y)),
    }
    table = {}
    for name, scores in methods.items():
        f1, accuracy = data.f1(scores), float((scores.argmax(axis=1) == data.y).mean())
        table[name] = {"f1": float(f1[TARGET]), "macro_f1": float(f1.mean()), "accuracy": accuracy}
    return table


def _f1_by_share(data: _Data) -> dict[str, float]:
    """Share of the target's training images → its F1."""
    found = {}
    for share in SHARES:
        f1 = _reduced(data, TARGET, data.trained(TARGET, share), f"{share:.0%} of the images")
        found[f"{share:.2f}"] = float(f1[TARGET])
    return found


def _plot(result: dict, names: tuple, path: Path) -> None:
    figure, (first, second, third) = new_figure(1, 3, (15, 4))
    target, places, f1 = names[TARGET], np.arange(len(names)), result["f1"].values()
    first.bar(places - 0.2, [result["predicted_as"][name] for name in names], 0.4, label="predicted as")
    first.bar(places + 0.2, [result["nearest_neighbor"][name] for name in names], 0.4, label="nearest neighbor is")
    first.set_title(f"images of {target}")
    second.bar(places - 0.2, [cell["all_images"] for cell in f1], 0.4, label="all images")
    second.bar(places + 0.2, [cell["as_rare"] for cell in f1], 0.4, label=f"as rare as {target}")
    second.set_title("F1 of each species, out of fold")
    for axis in (first, second):
        axis.set_xticks(places, names, rotation=45, ha="right")
        axis.legend()
    by_share = result["f1_by_share_of_images"]
    third.plot([float(share) for share in by_share], list(by_share.values()), "o-")
    third.set_xlabel(f"share of {target}'s training images")
    third.set_title(f"F1 of {target}")
    third.grid(alpha=0.3)
    save_figure(figure, path)


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    return run_question(question_parser("species1", __doc__).parse_args(arguments), answer)


if __name__ == "__main__":
    sys.exit(main())
