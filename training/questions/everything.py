"""How can a model be trained on all images and still have an estimate of its accuracy?

  python -m training.questions.everything --data data/leaves/train --test data/leaves/phase1

Five folds give both the number of epochs and the estimate. Each of five networks predicts the fifth that it was not
trained on, so that every training image has one out-of-fold prediction. The mean validation loss selects the number of
epochs. The out-of-fold predictions of networks trained for that number estimate the accuracy. The final network is
trained on all images for as many epochs. The classifier is the quasi-SVM on a frozen InceptionV3.

The images of --test show whether the estimate was correct. The accuracy of single folds shows what one validation part
of a fifth, which also selected its epoch, would have estimated.
"""

import sys
from pathlib import Path

import numpy as np

from training.config.override import change
from training.config.recipe import Recipe
from training.evaluate.metrics import metrics
from training.evaluate.plots import new_figure, save_figure
from training.fit.head import Features, fit_quasi_svm
from training.questions import FOLDS, Question, folds, question_parser, run_question
from training.recipes.inception_svm import recipe as inception_svm

RECIPE = change(inception_svm, {"head.views": 2, "head.epochs": 40})
REPORTED = ("images", "accuracy", "interval95", "macro_f1")


def answer(question: Question) -> None:
    """Writes the estimate from five folds, the test accuracy, and the picture."""
    question.require_test()
    images = question.images(each=FOLDS)
    test = question.test_images(images)
    (views,) = question.features(images, transforms=RECIPE.augmentation.transforms, views=RECIPE.head.views)
    plain, test_plain = (features[0] for features in question.features(images, test))
    everything = Features(views, images.labels, plain, images.labels, images.names)
    losses, accuracies = _select_epochs(everything)
    epochs = int(np.mean(losses, axis=0).argmin()) + 1
    recipe = change(RECIPE, {"head.epochs": epochs})
    head, _ = fit_quasi_svm(recipe, _without_validation(everything))
    estimate = metrics(images.labels, _out_of_fold(recipe, everything), images.names)
    reached = metrics(test.labels, head.predict(test_plain, verbose=0), images.names)
    result = {
        "epochs": epochs,
        "out_of_fold": {key: estimate[key] for key in REPORTED},
        "test": {key: reached[key] for key in REPORTED},
        "single_folds": accuracies,
        "val_loss": np.mean(losses, axis=0).tolist(),
    }
    _plot(losses, result, question.picture)
    question.save(result)


def _select_epochs(everything: Features) -> tuple[list, list[float]]:
    """For each fold, the validation loss of each epoch, and the accuracy at the epoch with the lowest loss."""
    losses, accuracies = [], []
    for rows, val_rows in folds(everything.train_labels):
        part = _part(everything, rows, val_rows)
        head, history = fit_quasi_svm(RECIPE, part)
        losses.append([row["val_loss"] for row in history])
        predicted = head.predict(part.val, verbose=0).argmax(axis=-1)
        accuracies.append(float((predicted == part.val_labels).mean()))
    return losses, accuracies


def _out_of_fold(recipe: Recipe, everything: Features) -> np.ndarray:
    """Out-of-fold probabilities [n, classes] of networks trained for a fixed number of epochs."""
    probabilities = np.zeros((len(everything.train_labels), len(everything.names)))
    for rows, val_rows in folds(everything.train_labels):
        part = _part(everything, rows, val_rows)
        head, _ = fit_quasi_svm(recipe, _without_validation(part))
        probabilities[val_rows] = head.predict(part.val, verbose=0)
    return probabilities


def _part(everything: Features, rows: np.ndarray, val_rows: np.ndarray) -> Features:
    """One fold. `everything` has the random views of all images as `train`, and the plain images as `val`."""
    labels = everything.train_labels
    val = everything.val[val_rows]
    return Features(everything.train[:, rows], labels[rows], val, labels[val_rows], everything.names)


def _without_validation(part: Features) -> Features:
    return Features(part.train, part.train_labels, part.val[:0], part.val_labels[:0], part.names)


def _plot(losses: list, result: dict, path: Path) -> None:
    figure, (left, right) = new_figure(1, 2, (12, 4))
    epochs = range(1, len(losses[0]) + 1)
    for fold in losses:
        left.plot(epochs, fold, color="grey", alpha=0.5)
    left.plot(epochs, np.mean(losses, axis=0), color="seagreen", label="mean of five folds")
    left.axvline(result["epochs"], color="black", linestyle=":", label=f"selected: {result['epochs']} epochs")
    left.set_xlabel("epoch")
    left.set_title("validation loss")
    left.legend()
    rows = {"out of fold": result["out_of_fold"], "test, trained on all images": result["test"]}
    for place, row in enumerate(rows.values()):
        accuracy, (low, high) = row["accuracy"], row["interval95"]
        right.errorbar([accuracy], [place], xerr=np.abs([[accuracy - low], [high - accuracy]]), fmt="s", capsize=4)
    right.plot(result["single_folds"], [2] * len(result["single_folds"]), "o", color="grey")
    right.set_yticks(range(3), [*rows, "single folds at their best epoch"])
    right.set_ylim(-0.5, 2.5)
    right.set_title("accuracy with 95 % interval")
    right.grid(alpha=0.3)
    save_figure(figure, path)


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    return run_question(question_parser("everything", __doc__).parse_args(arguments), answer)


if __name__ == "__main__":
    sys.exit(main())
