"""How to train on everything and still have an estimate?

    python -m training.questions.everything --data data/leaves/train --test data/leaves/phase1

With nothing held out there is neither an epoch to stop at nor a number to expect. Both come from folds: each of five
networks predicts the fifth it has not seen, so that every training image has one out-of-fold prediction. Their mean
validation loss says after how many epochs to stop, a number then fixed; their predictions say what to expect. The released
network is trained on all images for so many epochs. Shown with the quasi-SVM on a frozen InceptionV3; the images of --test
tell whether the estimate held, and beside it what one validation part of a fifth would have promised.
"""

import sys
import tempfile
from dataclasses import replace

import numpy as np

from training.errors import UserError
from training.evaluate import figure_of, metrics, save_figure
from training.fit import fit_head, read_history
from training.questions import ask, folds
from training.recipes.inception_svm import recipe as inception_svm

RECIPE = replace(inception_svm, head_views=2, head_epochs=40)


def answer(question):
    images, tested = question.images()
    if tested is None:
        raise UserError("give --test, to see whether the estimate held")
    (views,) = question.features(images, augmentation=RECIPE.augmentation, views=RECIPE.head_views)
    plain, test_plain = (features[0] for features in question.features(images, tested))
    y = images.labels
    losses, single = [], []
    parts = folds(y)
    for rows, held in parts:
        history, probabilities = _fit(RECIPE, views[:, rows], y[rows], plain[held], y[held], images.names)
        losses.append([row["val_loss"] for row in history])
        single.append(float((probabilities(plain[held]).argmax(axis=-1) == y[held]).mean()))  # at its own best epoch
    epochs = int(np.mean(losses, axis=0).argmin()) + 1

    fixed = np.zeros((len(y), len(images.names)))
    for rows, held in parts:  # again, to the fixed epoch and with a schedule that ends there
        _, probabilities = _fit(replace(RECIPE, head_epochs=epochs), views[:, rows], y[rows], plain[:0], y[:0], images.names)
        fixed[held] = probabilities(plain[held])
    _, final = _fit(replace(RECIPE, head_epochs=epochs), views, y, plain[:0], y[:0], images.names)
    estimate, reached = metrics(y, fixed, images.names), metrics(tested.labels, final(test_plain), images.names)
    result = {
        "epochs": epochs,
        "out_of_fold": {key: estimate[key] for key in ("images", "accuracy", "interval95", "macro_f1")},
        "test": {key: reached[key] for key in ("images", "accuracy", "interval95", "macro_f1")},
        "single_folds": single,
        "validation_loss": np.mean(losses, axis=0).tolist(),
    }
    _draw(losses, result, question.picture("everything"))
    question.answer("everything", result)


def _fit(recipe, views, labels, held, held_labels, names):
    """(history, function features → probabilities) of a quasi-SVM."""
    with tempfile.TemporaryDirectory() as folder:
        head = fit_head(recipe, views, labels, held, held_labels, names, folder)
        return read_history(f"{folder}/head_history.csv"), lambda x: head.predict(x, verbose=0)


def _draw(losses, result, path):
    figure, (left, right) = figure_of(1, 2, (12, 4))
    for fold in losses:
        left.plot(range(1, len(fold) + 1), fold, color="grey", alpha=0.5)
    left.plot(range(1, len(losses[0]) + 1), np.mean(losses, axis=0), color="seagreen", label="mean of five folds")
    left.axvline(result["epochs"], color="black", linestyle=":", label=f"stop after {result['epochs']}")
    left.set_xlabel("epoch")
    left.set_title("validation loss")
    left.legend()
    rows = {"out of fold": result["out_of_fold"], "test, trained on everything": result["test"]}
    for place, (_, row) in enumerate(rows.items()):
        low, high = row["interval95"]
        right.errorbar([row["accuracy"]], [place], xerr=[[row["accuracy"] - low], [high - row["accuracy"]]], fmt="s", capsize=4)
    right.plot(result["single_folds"], [2] * len(result["single_folds"]), "o", color="grey")
    right.set_yticks(range(3), [*rows, "single folds, each its best epoch"])
    right.set_ylim(-0.5, 2.5)
    right.set_title("accuracy, 95 % interval")
    right.grid(alpha=0.3)
    save_figure(figure, path)


if __name__ == "__main__":
    sys.exit(ask(__doc__, answer))
