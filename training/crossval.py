"""One recipe, trained once for each of several folds: a prediction for every image by a network that has not seen it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from training.data import load_folder
from training.errors import UserError
from training.evaluate import calibration_error, figure_of, metrics, plot_confusion, save_figure
from training.files import InUse, write_arrays, write_json
from training.run import HELD, held_out, train, whole_record

OUT_OF_FOLD = "out_of_fold.npz"
BINS = 10  # of the calibration picture


def crossval(recipe, name, data, backbone_weights, out, folds=5, seeds=1, test=None):
    """Trains what is missing of the folds and gathers their predictions.

    Each fold is a run of its own, OUT/seed0-fold0 and so on, that goes on where it was stopped; finished ones are left out,
    and several processes may share the work. The last epoch is kept in each, for the best one would be chosen by the
    images that it is measured on.

    Args:
        recipe: `Recipe`.
        name: its name.
        data, backbone_weights, test: see `run.train`.
        out: folder of the runs. Gets `out_of_fold.npz` (probabilities [seeds, n, classes] in the order of the images,
            and their labels), `crossval.json`, `confusion.png` and `calibration.png`.
        folds: number of stratified folds, 2 or more.
        seeds: how often the folds are trained, each time with another seed on the same folds.

    Returns:
        The metrics as in `crossval.json`, or None where folds are missing that another process trains or that failed.

    Raises:
        UserError: see `run.train`; a folder of another cross-validation.
    """
    if folds < 2 or seeds < 1:
        raise UserError(f"--folds {folds} --seeds {seeds}: expected at least 2 folds and 1 seed")
    out = Path(out)
    recipe = replace(recipe, folds=folds, keep="last")
    missing = []
    for seed in range(seeds):
        for fold in range(folds):
            place = out / f"seed{seed}-fold{fold}"
            if (place / "metrics.json").is_file():
                print(f"{place}: finished already")
                continue
            try:
                train(replace(recipe, seed=recipe.seed + seed, fold=fold), name, data, backbone_weights, place, test)
            except InUse as error:
                print(f"{place}: left out, {error}")
                missing.append(place)
    if missing:
        print(f"{len(missing)} folds are in other processes' hands; give the command again when they are done")
        return None
    return gather(recipe, name, data, out, seeds)


def gather(recipe, name, data, out, seeds):
    """Out-of-fold predictions of finished folds → metrics and pictures; see `crossval`."""
    images = load_folder(data)
    probabilities = np.zeros((seeds, len(images), len(images.names)), np.float32)
    single = []
    for seed in range(seeds):
        for fold in range(recipe.folds):
            place = out / f"seed{seed}-fold{fold}"
            _expect_same(place, replace(recipe, seed=recipe.seed + seed, fold=fold), name)
            _, held = held_out(replace(recipe, fold=fold), images)
            with np.load(place / HELD) as file:
                if not np.array_equal(file["labels"], images.labels[held]):
                    raise UserError(f"{place} was trained on other images; give another --out")
                probabilities[seed, held] = file["probabilities"]
            single.append(float((probabilities[seed, held].argmax(axis=-1) == images.labels[held]).mean()))
    mean = probabilities.mean(axis=0)
    each = [metrics(images.labels, one, images.names)["accuracy"] for one in probabilities]
    # One network ships, so the accuracy is the mean over seeds of one network's, not that of their averaged answers.
    result = metrics(images.labels, probabilities[0], images.names)
    result.update(
        name=name,
        folds=recipe.folds,
        seeds=seeds,
        accuracy_of_seeds=each,
        accuracy_of_folds=single,
        accuracy_of_averaged_seeds=metrics(images.labels, mean, images.names)["accuracy"],
        calibration_error=calibration_error(images.labels, probabilities[0]),
    )
    write_arrays(out / OUT_OF_FOLD, probabilities=probabilities, labels=images.labels)
    plot_confusion(result, out / "confusion.png")
    _plot_calibration(images.labels, probabilities[0], result, out / "calibration.png")
    write_json(out / "crossval.json", result)
    return result


def _expect_same(place, recipe, name):
    record = whole_record(json.loads((place / "recipe.json").read_text("utf-8")))
    if record["name"] != name or record["recipe"] != json.loads(json.dumps(recipe.to_json())):
        raise UserError(f"{place} is of another recipe or of other fields; give another --out")


def _plot_calibration(labels, probabilities, result, path):
    """How sure against how right, in bins of equal width."""
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    figure, axis = figure_of(1, 1, (5, 5))
    axis.plot([0, 1], [0, 1], color="grey", linestyle=":")
    for number in np.unique(place):
        inside = place == number
        axis.plot(sure[inside].mean(), right[inside].mean(), "o", color="seagreen", markersize=4 + 14 * inside.mean() ** 0.5)
    axis.set_xlabel("how sure")
    axis.set_ylabel("how right")
    axis.set_title(f"calibration error {result['calibration_error']:.1%}")
    axis.grid(alpha=0.3)
    save_figure(figure, path)
