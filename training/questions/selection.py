"""Why did good validation scores after tuning not hold on the test images, and which estimate would have been better?

  python -m training.questions.selection --data data/leaves/train --test data/leaves/phase1 --search runs/tune_test

Reads a finished `python -m training tune tuned --test DIR`. The best of many trials is selected by its score on few
images, so that its score is optimistic. The command compares
- the validation accuracy of each trial with its accuracy on the images of --test, which selected nothing;
- the standard error of one trial's accuracy with the standard deviation between the ten best trials;
- the ten best trials in five stratified folds of all training images, without random views: their accuracies, and their
  ranks.
"""

import csv
import json
import sys
from pathlib import Path

import keras
import numpy as np
from scipy.stats import spearmanr

from common.errors import UserError
from common.files import digest
from common.images import Images
from common.progress import progress
from training.config.record import from_json, to_json, upgrade
from training.data.split import split_rows
from training.evaluate.plots import new_figure, save_figure
from training.fit.features import FeatureSpec, cached_features
from training.fit.finetune import make_backbone, warmup_schedule
from training.fit.head import Features, fit_on_features
from training.model.heads import softmax_head
from training.questions import FOLDS, Question, folds, question_parser, run_question
from training.recipes.tuned import recipe as tuned
from training.run_folder import weights_sha256
from training.tune import BEST, COMPARED, RECORD, TRIALS, fixed_fields, trial_recipe

LEAST = 3  # trials, which a rank correlation needs


def answer(question: Question, search: Path) -> None:
    """Writes the accuracies of a search's trials, how they agree, and the picture."""
    question.require_test()
    images = question.images(each=FOLDS)
    trials = _read_trials(search)
    val_images = _count_val_images(images, trials[0]["val_accuracy"])
    _check_inputs(question, images, search)
    if len(trials) < LEAST:
        raise UserError(f"--search must have at least {LEAST} trials, {search} has {len(trials)}; run a longer one")
    val = np.array([trial["val_accuracy"] for trial in trials])
    test = np.array([trial["test_accuracy"] for trial in trials])
    best = progress(trials[:BEST], "the ten best in folds", unit="trial")
    in_folds = [_accuracy_in_folds(question, images, trial) for trial in best]
    result = {
        "trials": len(trials),
        "val_images": val_images,
        "best_val": float(val[0]),
        "best_test": float(test[0]),
        "best_in_folds": in_folds[0],
        "ten_best_val": float(val[:BEST].mean()),
        "ten_best_test": float(test[:BEST].mean()),
        "ten_best_in_folds": float(np.mean(in_folds)),
        "standard_error": float(np.sqrt(val[0] * (1 - val[0]) / val_images)),
        "ten_best_std": float(val[:BEST].std(ddof=1)),
        "rank_correlation": {
            "val and test, all trials": float(spearmanr(val, test).statistic),
            "val and test, ten best": float(spearmanr(val[:BEST], test[:BEST]).statistic),
            "folds and test, ten best": float(spearmanr(in_folds, test[:BEST]).statistic),
        },
        "rows": [{"val": float(v), "test": float(t), "folds": f} for v, t, f in zip(val, test, in_folds, strict=False)],
    }
    _plot(val, test, result, question.picture)
    question.save(result)


def _read_trials(folder: Path) -> list[dict]:
    """The rows of a finished search of `tuned`, the best first."""
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))["recipe"]
        with open(folder / TRIALS, newline="") as file:
            rows = [{key: _parsed(key, value) for key, value in row.items()} for row in csv.DictReader(file)]
    except OSError as error:
        reason = f"{folder} has no finished one ({error.strerror})"
        raise UserError(f"--search must be a finished search, {reason}; run python -m training tune first") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"the search in {folder} is damaged ({error}); run it again") from error
    if not rows or "test_accuracy" not in rows[0]:
        raise UserError(f"the search in {folder} has no test accuracy; run it again with --test and another --out")
    if fixed_fields(to_json(from_json(upgrade(record)))) != fixed_fields(to_json(tuned)):
        raise UserError(
            f"--search must be of the recipe tuned as it is now, {folder} is not; run it again without --set"
        )
    return rows


def _check_inputs(question: Question, images: Images, search: Path) -> None:
    """Raises a UserError if the search was of other images or backbone weights, as far as its record tells."""
    test = question.test_images(images)
    own = {
        "data_sha256": digest(images.images, images.labels),
        "test_sha256": digest(test.images, test.labels),
        "backbone_sha256": weights_sha256(question.backbone_weights),
    }
    record = json.loads((search / RECORD).read_text("utf-8"))
    others = [COMPARED[key] for key, value in own.items() if record.get(key, value) != value]
    if others:
        raise UserError(
            f"--search must be of the same {', '.join(others)}, and {search} is not; give those of the search"
        )


def _parsed(name: str, value: str) -> str | float:
    return value if name == "activation" else json.loads(value)


def _count_val_images(images: Images, accuracy: float) -> int:
    """The number of validation images of the search; an accuracy must be a whole number of them."""
    count = len(split_rows(tuned.data, images)[1])
    if abs(accuracy * count - round(accuracy * count)) > 1e-4:
        raise UserError(
            f"--search must be of the images in --data: an accuracy of {accuracy} is not a fraction of {count} images"
        )
    return count


def _accuracy_in_folds(question: Question, images: Images, trial: dict) -> float:
    """Out-of-fold accuracy of a trial's recipe, trained on the images without random views up to the last epoch."""
    recipe = trial_recipe(tuned, trial)
    backbone = make_backbone(recipe, question.backbone_weights)
    spec = FeatureSpec(recipe.finetune.input_size)
    plain = cached_features(question.cache, backbone, images.images, spec)
    correct = 0
    for rows, val_rows in folds(images.labels):
        keras.utils.set_random_seed(recipe.seed)
        head = softmax_head(recipe.finetune, plain.shape[-1], len(images.names))
        nothing = plain[0, :0], images.labels[:0]
        features = Features(plain[:, rows], images.labels[rows], *nothing, images.names)
        fit_on_features(head, warmup_schedule(recipe.finetune), recipe, features)
        predicted = head.predict(plain[0, val_rows], verbose=0).argmax(axis=-1)
        correct += int((predicted == images.labels[val_rows]).sum())
    return correct / len(images)


def _plot(val: np.ndarray, test: np.ndarray, result: dict, path: Path) -> None:
    figure, (left, right) = new_figure(1, 2, (12, 4.5))
    left.plot(val, test, "o", color="grey", label="other trials")
    left.plot(val[:BEST], test[:BEST], "o", color="seagreen", label="ten best in validation")
    both = [min(val.min(), test.min()), max(val.max(), test.max())]
    left.plot(both, both, "k:", label="equal")
    left.errorbar(val[:1], test[:1], xerr=1.96 * result["standard_error"], color="seagreen", capsize=3)
    left.set_xlabel(f"accuracy on {result['val_images']} validation images")
    left.set_ylabel("accuracy on the test images")
    left.legend()
    in_folds = [row["folds"] for row in result["rows"]]
    ranks = np.arange(len(in_folds))
    for values, marker, label in ((val, "s", "validation"), (in_folds, "o", "five folds"), (test, "x", "test")):
        right.plot(ranks, values[:BEST], marker, label=label)
    right.set_xticks(ranks, [f"{rank + 1}" for rank in ranks])
    right.set_xlabel("rank in validation")
    right.set_title("accuracy of the ten best")
    right.legend()
    right.grid(alpha=0.3)
    save_figure(figure, path)


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = question_parser("selection", __doc__)
    parser.add_argument(
        "--search", type=Path, default="runs/tune_test", help="folder of the search (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    return run_question(options, lambda question: answer(question, options.search))


if __name__ == "__main__":
    sys.exit(main())
