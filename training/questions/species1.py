"""Why is Species1 so hard, and what lifts it?

    python -m training.questions.species1 --data data/leaves/train --test data/leaves/phase1

On a frozen InceptionV3's features, a linear classifier, five folds:
- who takes its images: the species that its out-of-fold predictions name;
- what the features say: how often an image's nearest neighbour is of its own species, and the species of the others;
- rare or alike: every species in turn is thinned to Species1's number of training images; what its F1 loses is the price
  of being rare, and what Species1 lacks beyond that is the price of looking like another;
- what lifts it: class weights, repeated images, a prior of equal shares (A. K. Menon et al., "Long-tail learning via
  logit adjustment", ICLR 2021), and more of them: Species1's F1 with a half and three quarters of its images.
"""

import sys

import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from training.evaluate import figure_of, save_figure
from training.progress import progress
from training.questions import ask, class_f1, folds, linear_classifier, main_components, thinned

TARGET = 0  # the first species
SHARES = (0.25, 0.5, 0.75, 1.0)


def answer(question):
    images, _ = question.images()
    (features,) = question.features(images)
    x, y, names = features[0], images.labels, images.names
    probabilities = _out_of_fold(x, y, "out-of-fold predictions")
    result = {
        "images": {name: int((y == label).sum()) for label, name in enumerate(names)},
        "taken_by": _shares(probabilities.argmax(axis=1)[y == TARGET], names),
        "neighbours": _shares(y[_nearest(x)][y == TARGET], names),
        "rare_or_alike": _rare_or_alike(x, y, names, class_f1(y, probabilities.argmax(axis=1), len(names))),
        "lifts": _lifts(x, y, probabilities, len(names)),
        "with_fewer_images": _with_fewer(x, y, len(names)),
    }
    _draw(result, names, question.picture("species1"))
    question.answer("species1", result)


def _out_of_fold(x, y, what, class_weight=None, choose=None):
    """Probabilities [n, classes] of every image by the classifier that has not seen it; `choose` picks training rows."""
    probabilities = np.zeros((len(y), y.max() + 1))
    for rows, held in progress(folds(y), what):
        rows = choose(rows) if choose else rows
        space = main_components().fit(x[rows])
        model = linear_classifier(class_weight).fit(space.transform(x[rows]), y[rows])
        probabilities[held] = model.predict_proba(space.transform(x[held]))
    return probabilities


def _nearest(x):
    scaled = StandardScaler().fit_transform(x)
    return NearestNeighbors(n_neighbors=2).fit(scaled).kneighbors(scaled, return_distance=False)[:, 1]


def _shares(labels, names):
    return {name: float((labels == label).mean()) for label, name in enumerate(names)}


def _rare_or_alike(x, y, names, natural):
    """F1 of each species as it is, and thinned in training to as many images as the target has."""
    least = int(np.bincount(y)[TARGET] * 0.8)
    table = {}
    for label, name in enumerate(names):
        if (y == label).sum() * 0.8 <= least:
            thin = float(natural[label])
        else:
            chosen = _out_of_fold(x, y, f"{name} thinned", choose=lambda rows, label=label: rows[thinned(y[rows], {label: least}, 0)])
            thin = float(class_f1(y, chosen.argmax(axis=1), len(names))[label])
        table[name] = {"natural": float(natural[label]), "as_rare": thin}
    return table


def _lifts(x, y, probabilities, classes):
    """Method → F1 of the target, macro F1 and accuracy, out of fold."""
    prior = np.bincount(y) / len(y)
    repeated = lambda rows: np.concatenate([rows, rows[y[rows] == TARGET], rows[y[rows] == TARGET]])  # noqa: E731
    methods = {
        "nothing": probabilities,
        "class weights": _out_of_fold(x, y, "class weights", "balanced"),
        "images three times": _out_of_fold(x, y, "images three times", choose=repeated),
        "prior of equal shares": probabilities / prior,
    }
    table = {}
    for name, scores in methods.items():
        f1 = class_f1(y, scores.argmax(axis=1), classes)
        table[name] = {"f1": float(f1[TARGET]), "macro_f1": float(f1.mean()), "accuracy": float((scores.argmax(axis=1) == y).mean())}
    return table


def _with_fewer(x, y, classes):
    """Share of the target's training images → its F1."""
    found = {}
    for share in SHARES:
        keep = {TARGET: int(np.bincount(y)[TARGET] * 0.8 * share)}
        scores = _out_of_fold(x, y, f"{share:.0%} of the images", choose=lambda rows, keep=keep: rows[thinned(y[rows], keep, 0)])
        found[f"{share:.2f}"] = float(class_f1(y, scores.argmax(axis=1), classes)[TARGET])
    return found


def _draw(result, names, path):
    figure, (first, second, third) = figure_of(1, 3, (15, 4))
    places = np.arange(len(names))
    first.bar(places - 0.2, [result["taken_by"][name] for name in names], 0.4, label="predicted as")
    first.bar(places + 0.2, [result["neighbours"][name] for name in names], 0.4, label="nearest neighbour is")
    first.set_title(f"images of {names[TARGET]}")
    second.bar(places - 0.2, [cell["natural"] for cell in result["rare_or_alike"].values()], 0.4, label="as it is")
    second.bar(places + 0.2, [cell["as_rare"] for cell in result["rare_or_alike"].values()], 0.4, label=f"as rare as {names[TARGET]}")
    second.set_title("F1 of each species, out of fold")
    for axis in (first, second):
        axis.set_xticks(places, names, rotation=45, ha="right")
        axis.legend()
    third.plot([float(share) for share in result["with_fewer_images"]], list(result["with_fewer_images"].values()), "o-")
    third.set_xlabel(f"share of {names[TARGET]}'s training images")
    third.set_title(f"F1 of {names[TARGET]}")
    third.grid(alpha=0.3)
    save_figure(figure, path)


if __name__ == "__main__":
    sys.exit(ask(__doc__, answer))
