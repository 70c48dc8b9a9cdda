"""Why did good validation scores after tuning not carry over, and what estimate would have?

    python -m training.questions.selection --data data/leaves/train --test data/leaves/phase1 --search runs/tune

From a finished `python -m training tune`: the best of many trials is chosen on few images, so its score holds the luck that
made it the best.
- the trials' validation accuracy beside their accuracy on the images of --test, by which none was chosen;
- the spread that one trial's score has by its validation images alone, against the spread between trials;
- the ten best again in five stratified folds of all training images, without random views: their scores and the order they
  then have.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

import keras
import numpy as np
from scipy.stats import spearmanr

from training.architectures import softmax_head
from training.errors import UserError
from training.evaluate import figure_of, save_figure
from training.features import cached_features
from training.fit import HeadSchedule, fit_on_features, make_backbone
from training.progress import progress
from training.questions import ask, folds
from training.recipes.tuned import recipe as tuned
from training.tune import BEST, changed, fixed_fields


def answer(question, searched):
    if question.test is None:
        raise UserError("give --test, the images that no trial was chosen by")
    images, _ = question.images()
    trials = _trials(Path(searched))
    validation = _validation_size(images, trials[0]["val_accuracy"])
    chosen, reported = (np.array([trial[key] for trial in trials]) for key in ("val_accuracy", "test_accuracy"))
    in_folds = [_in_folds(question, images, trial) for trial in progress(trials[:BEST], "the ten best in folds", unit="trial")]
    best = chosen[0]
    result = {
        "trials": len(trials),
        "validation_images": validation,
        "best_validation": float(best),
        "best_test": float(reported[0]),
        "best_in_folds": in_folds[0],
        "ten_best_validation": float(chosen[:BEST].mean()),
        "ten_best_test": float(reported[:BEST].mean()),
        "ten_best_in_folds": float(np.mean(in_folds)),
        "spread_by_images": float(np.sqrt(best * (1 - best) / validation)),
        "spread_between_ten_best": float(chosen[:BEST].std(ddof=1)),
        "rank_correlation": {
            "validation and test, all trials": float(spearmanr(chosen, reported).statistic),
            "validation and test, ten best": float(spearmanr(chosen[:BEST], reported[:BEST]).statistic),
            "folds and test, ten best": float(spearmanr(in_folds, reported[:BEST]).statistic),
        },
        "rows": [{"validation": float(c), "test": float(t), "folds": f} for c, t, f in zip(chosen, reported, in_folds, strict=False)],
    }
    _draw(chosen, reported, in_folds, result, question.picture("selection"))
    question.answer("selection", result)


def _trials(folder):
    """The lines of a finished search of `tuned`, the best first."""
    try:
        recipe = json.loads((folder / "search.json").read_text("utf-8"))["recipe"]
        with open(folder / "trials.csv", newline="") as file:
            rows = [
                {key: value if key == "activation" else json.loads(value) for key, value in row.items()} for row in csv.DictReader(file)
            ]
    except OSError as error:
        raise UserError(f"no finished search in {folder} ({error.strerror}); run python -m training tune first") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"the search in {folder} is damaged ({error}); run it again") from error
    if not rows or "test_accuracy" not in rows[0]:
        raise UserError(f"the search in {folder} has no test accuracy; run it again with --test and another --out")
    if fixed_fields(recipe) != json.loads(json.dumps(fixed_fields(tuned.to_json()))):
        raise UserError(f"the search in {folder} was of another recipe than tuned as it stands; run it again without --set")
    return rows


def _validation_size(images, accuracy):
    """Images in the validation part of the tuned recipe; an accuracy must be a whole number of them."""
    held = len(images) - int(len(images) * (1 - tuned.validation))
    if abs(accuracy * held - round(accuracy * held)) > 1e-4:
        raise UserError(f"an accuracy of {accuracy} is no share of {held} images; was the search made with other data?")
    return held


def _in_folds(question, images, trial):
    """Out-of-fold accuracy of a trial's choices, trained on the images without random views, to the last epoch."""
    recipe = changed(tuned, trial)
    backbone = make_backbone(recipe, question.backbone_weights)

    plain = cached_features(question.cache, backbone, images.images, recipe.size)
    right = 0
    for rows, held in folds(images.labels):
        keras.utils.set_random_seed(recipe.seed)
        head = softmax_head(recipe, plain.shape[-1], len(images.names))
        schedule = HeadSchedule(recipe.frozen_epochs, recipe.frozen_learning_rate, recipe.batch, "frozen_learning_rate")
        nothing = plain[0, :0], images.labels[:0]
        fit_on_features(head, schedule, recipe, plain[:, rows], images.labels[rows], *nothing, images.names)
        right += int((head.predict(plain[0, held], verbose=0).argmax(axis=-1) == images.labels[held]).sum())
    return right / len(images)


def _draw(chosen, reported, in_folds, result, path):
    figure, (left, right) = figure_of(1, 2, (12, 4.5))
    left.plot(chosen, reported, "o", color="grey", label="other trials")
    left.plot(chosen[:BEST], reported[:BEST], "o", color="seagreen", label="ten best in validation")
    both = [min(chosen.min(), reported.min()), max(chosen.max(), reported.max())]
    left.plot(both, both, "k:", label="the same on both")
    left.errorbar(chosen[:1], reported[:1], xerr=1.96 * result["spread_by_images"], color="seagreen", capsize=3)
    left.set_xlabel(f"accuracy on {result['validation_images']} validation images")
    left.set_ylabel("accuracy on the test images")
    left.legend()
    places = np.arange(len(in_folds))
    for values, mark, label in ((chosen[:BEST], "s", "validation"), (in_folds, "o", "five folds"), (reported[:BEST], "x", "test")):
        right.plot(places, values, mark, label=label)
    right.set_xticks(places, [f"{place + 1}" for place in places])
    right.set_xlabel("place in validation")
    right.set_title("the ten best")
    right.legend()
    right.grid(alpha=0.3)
    save_figure(figure, path)


if __name__ == "__main__":
    before = argparse.ArgumentParser(add_help=False)
    before.add_argument("--search", default="runs/tune")
    known, sys.argv[1:] = before.parse_known_args()
    sys.exit(ask(__doc__, lambda question: answer(question, known.search)))
