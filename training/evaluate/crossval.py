"""Cross-validation: every image is predicted by a model that was not trained on it."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.errors import InUse, UserError
from common.files import write_arrays, write_json
from common.images import Images
from training.config.recipe import Recipe
from training.data.split import saved_val_rows
from training.evaluate.metrics import calibration, calibration_error, metrics
from training.evaluate.plots import new_figure, plot_confusion, save_figure
from training.inputs import Inputs, load_inputs, require_outside
from training.planned import planned_record
from training.run import train
from training.run_folder import (
    METRICS,
    OUT_OF_FOLD,
    VAL,
    Finished,
    Record,
    fold_folder,
    read_record,
    run_file,
    saved_probabilities,
)

SCORES = "crossval.json"


def crossval(recipe: Recipe, name: str, inputs: Inputs, out: Path, folds: int = 5, seeds: int = 1) -> dict | None:
    """Trains the missing folds and gathers the predictions of all.

    Each fold is a run of its own, OUT/seed0-fold0 and so on, that continues where it was interrupted. Finished ones are
    skipped, and several processes may share the work. Each fold keeps its last epoch, because the best epoch would be
    selected by the images that it is measured on.

    Args:
        recipe: `Recipe`.
        name: its name.
        inputs: `Inputs`. Its `reuse` are folders of other cross-validations.
        out: folder of the runs. Gets `out_of_fold.npz` (probabilities [seeds, n, classes] in the order of the images,
            and their labels), `crossval.json`, `confusion.png` and `calibration.png`.
        folds: number of stratified folds, 2 or more.
        seeds: how often the folds are trained, each time with another seed on the same folds.

    Returns:
        The metrics as in `crossval.json`, or None if other processes are still training some folds.

    Raises:
        UserError: see `train`; finished folds of another recipe or other inputs; `inputs.validation`; a folder in
            `inputs.reuse` without folds.
    """
    if folds < 2 or seeds < 1:
        raise UserError(f"crossval needs at least 2 folds and 1 seed, got --folds {folds} --seeds {seeds}")
    if inputs.validation:
        raise UserError("crossval holds out every image of --data once, so --validation has no use; leave it out")
    for folder in inputs.reuse:
        if not any(Path(folder).glob(f"*-fold*/{METRICS}")):
            raise UserError(
                f"--reuse must be a cross-validation with a finished fold; {folder} has none, give another one"
            )
    out = Path(out)
    require_outside(out, inputs)
    recipe = replace(recipe, checkpoint="last", data=replace(recipe.data, folds=folds))
    images, test = load_inputs(inputs)
    planned = planned_record(recipe, name, images, inputs)
    _check_finished(planned, out, seeds)
    missing = []
    for seed in range(seeds):
        for fold in range(folds):
            folder = fold_folder(out, seed, fold)
            if (folder / METRICS).is_file():
                print(f"{folder}: finished")
                continue
            for stale in (OUT_OF_FOLD, SCORES) if seed == 0 else ():  # of folds that were removed
                (out / stale).unlink(missing_ok=True)
            try:
                train(_of_fold(recipe, seed, fold), name, _reusing(inputs, folder.name), folder, (images, test))
            except Finished:  # by another process, in the meantime
                print(f"{folder}: finished")
            except InUse as error:
                print(f"{folder}: skipped, {error}")
                missing.append(folder)
    missing = [folder for folder in missing if not (folder / METRICS).is_file()]  # others are finished by now
    if missing:
        print(f"{len(missing)} folds are being trained by other processes; repeat the command when they are done")
        return None
    _check_finished(planned, out, seeds)  # those of other processes as well
    return gather(recipe, name, images, out, seeds)


def _check_finished(planned: Record, out: Path, seeds: int) -> None:
    """Raises a UserError if a fold that is finished is of another recipe or has other inputs than planned."""
    for seed, fold in itertools.product(range(seeds), range(planned.recipe.data.folds)):
        folder = fold_folder(out, seed, fold)
        if not (folder / METRICS).is_file():
            continue
        there = read_record(folder)
        require_same_classes(there, planned.classes, folder)
        different = there.differences(replace(planned, recipe=_of_fold(planned.recipe, seed, fold)))
        if different or there.name != planned.name:
            what = different[0] if different else "name"
            raise UserError(f"{folder} was trained with another {what}; repeat its own command, or give another --out")


def _reusing(inputs: Inputs, fold: str) -> Inputs:
    """The inputs of one fold: of the cross-validations to reuse, the same fold if it is finished."""
    runs = [Path(folder) / fold for folder in inputs.reuse]
    return replace(inputs, reuse=tuple(run for run in runs if (run / METRICS).is_file()))


def gather(recipe: Recipe, name: str, images: Images, out: Path, seeds: int) -> dict:
    """Gathers the out-of-fold predictions of finished folds and writes their metrics and plots; see `crossval`."""
    probabilities = np.zeros((seeds, len(images), len(images.names)), np.float32)
    held_out, of_folds = np.zeros((seeds, len(images)), int), []
    for seed in range(seeds):
        for fold in range(recipe.data.folds):
            path = run_file(fold_folder(out, seed, fold), VAL)
            with np.load(path) as file:
                val = saved_val_rows(file, _of_fold(recipe, seed, fold).data, images)
                probabilities[seed, val] = saved_probabilities(file, path)
            held_out[seed, val] += 1
            of_folds.append(float((probabilities[seed, val].argmax(axis=-1) == images.labels[val]).mean()))
    if (held_out != 1).any():
        raise UserError(f"the folds in {out} must hold out each image once, and do not; give another --out")
    # One model ships, so the accuracy is that of one seed, not of the seeds' averaged predictions.
    result = metrics(images.labels, probabilities[0], images.names)
    result.update(
        name=name,
        folds=recipe.data.folds,
        seeds=seeds,
        accuracy_of_seeds=[metrics(images.labels, one, images.names)["accuracy"] for one in probabilities],
        accuracy_of_folds=of_folds,
        accuracy_of_averaged_seeds=metrics(images.labels, probabilities.mean(axis=0), images.names)["accuracy"],
        calibration_error=calibration_error(images.labels, probabilities[0]),
    )
    write_arrays(out / OUT_OF_FOLD, probabilities=probabilities, labels=images.labels)
    plot_confusion(result, out / "confusion.png")
    _plot_calibration(
        calibration(images.labels, probabilities[0]), result["calibration_error"], out / "calibration.png"
    )
    write_json(out / SCORES, result)
    return result


def require_same_classes(record: Record, names: tuple[str, ...], folder: Path) -> None:
    """Raises a UserError unless the classes are those that a run was trained on, in the same order."""
    if record.classes != names:
        raise UserError(
            f"the classes of --data must be those that {folder} was trained on, {', '.join(record.classes)}; "
            f"got {', '.join(names)}; give the images that it was trained on"
        )


def _of_fold(recipe: Recipe, seed: int, fold: int) -> Recipe:
    return replace(recipe, seed=recipe.seed + seed, data=replace(recipe.data, fold=fold))


def _plot_calibration(bins: list[tuple], error: float, path: Path) -> None:
    """Plots accuracy against confidence; a larger dot is more images."""
    figure, axis = new_figure(1, 1, (5, 5))
    axis.plot([0, 1], [0, 1], color="grey", linestyle=":")
    for share, confidence, accuracy in bins:
        axis.plot(confidence, accuracy, "o", color="seagreen", markersize=4 + 14 * share**0.5)
    axis.set_xlabel("confidence")
    axis.set_ylabel("accuracy")
    axis.set_title(f"expected calibration error {error:.1%}")
    axis.grid(alpha=0.3)
    save_figure(figure, path)
