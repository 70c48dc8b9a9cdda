"""A search over recipes with KerasTuner: each trial is the base recipe with other fields, trained on cached features.

On several machines, or in several processes of one, KerasTuner's own environment variables divide the trials among
them: KERASTUNER_TUNER_ID=chief for the process that hands them out, another ID for each worker, and
KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT of the chief for all. All share the folder and run the same command.
"""

import contextlib
import csv
import io
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import keras
import keras_tuner
import numpy as np

from training.architectures import softmax_head
from training.data import load_folder, split
from training.errors import UserError
from training.features import cached_features
from training.files import atomically, digest, locked, write_json
from training.fit import HeadSchedule, fit_on_features, make_backbone
from training.run import CACHE, LOCK

BEST = 10
SEARCHED = ("phases", "dropout", "dense_dropout", "dense", "frozen_learning_rate", "activation")
VARIABLES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")
SEED = 1  # of the search; KerasTuner takes 0 for a random one


def space():
    """What the report tuned: image size, two dropouts, number and width of dense layers, learning rate, activation."""
    values = keras_tuner.HyperParameters()
    values.Choice("size", [75, 96, 128])
    values.Float("dropout", 0.0, 0.6, step=0.1)
    values.Float("dense_dropout", 0.0, 0.6, step=0.1)
    values.Int("layers", 0, 3)
    values.Choice("width", [32, 64, 128, 256, 512])
    values.Float("learning_rate", 1e-4, 1e-2, sampling="log")
    values.Choice("activation", ["relu", "elu", "gelu", "tanh"])
    return values


def changed(base, values):
    """The base recipe with a trial's values.

    Args:
        base: `Recipe` whose backbone stays frozen.
        values: name → value, names as in `space`.
    """
    return replace(
        base,
        phases=((0, values["size"]),),
        dropout=round(values["dropout"], 2),
        dense_dropout=round(values["dense_dropout"], 2),
        dense=(values["width"],) * values["layers"],
        frozen_learning_rate=values["learning_rate"],
        activation=values["activation"],
    )


def fixed_fields(fields):
    """A recipe's fields, as `to_json` has them, without those that a trial changes."""
    return {name: value for name, value in fields.items() if name not in SEARCHED}


def search(base, data, backbone_weights, out, trials, test=None):
    """Tries random values; goes on with the trials that an interrupted search has left.

    Source: J. Bergstra and Y. Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 13, 2012.

    Args:
        base: `Recipe` with `frozen_epochs` and no fine-tuning epochs.
        data: folder of class folders; the recipe's validation part decides which trial is best.
        backbone_weights: see `architectures`.
        out: folder of the search. Gets `search.json`, KerasTuner's own files in `trials/`, and at the end `trials.csv`, a
            line for each trial, the best first.
        trials: number of trials, over all processes.
        test: another folder of class folders, on which each trial is reported and by which none is chosen, or None.

    Returns:
        The lines of `trials.csv`, dictionaries; empty in a worker.

    Raises:
        UserError: a recipe that fine-tunes, a folder that holds something else, or that another process uses.
    """
    if base.epochs or not base.frozen_epochs:
        raise UserError("a search trains heads on a frozen backbone: the recipe needs frozen_epochs, and 0 epochs in its phases")
    out = Path(out)
    images = load_folder(data)
    tested = load_folder(test, images.images.shape[1:3]) if test else None
    identity = {
        "recipe": fixed_fields(base.to_json()),
        "data_sha256": digest(images.images, images.labels),
        "test_sha256": digest(tested.images, tested.labels) if tested else None,
        "backbone_weights": Path(backbone_weights).name,
        "trials": trials,
        "seed": SEED,
    }
    worker = _role() not in (None, "chief")
    out.mkdir(parents=True, exist_ok=True)
    with contextlib.nullcontext() if worker else locked(out / LOCK, f"the search {out}"):
        if not worker:
            _claim(out, json.loads(json.dumps(identity)))
        tuner = _tuner(out, base, images, tested, backbone_weights, trials)
        try:
            tuner.search(verbose=0)
        except (keras_tuner.errors.FatalError, RuntimeError) as error:
            raise UserError(f"the search in {out} stopped: {str(error).splitlines()[0]}") from error
        return [] if worker else _finish(out, tuner.oracle.trials.values(), tested)


class _HeadTuner(keras_tuner.Tuner):
    """Trains a head for each trial; the backbone's features come from the cache."""

    def __init__(self, base, images, tested, backbone_weights, cache, trials, **arguments):
        super().__init__(**arguments)
        self.base, self.trials, self.began, self.done, self.cache = base, trials, time.monotonic(), 0, cache
        rows, held_rows = split(images.labels, base.validation, base.split_seed, images.names)
        self.fitting, self.held, self.tested = images.rows(rows), images.rows(held_rows), tested
        self.backbone = make_backbone(base, backbone_weights) if _role() != "chief" else None

    def run_trial(self, trial, **arguments):
        try:
            return self._run_trial(trial)
        except UserError as error:  # the same in every trial, so the search is over
            raise keras_tuner.errors.FatalError(str(error)) from error

    def _run_trial(self, trial):
        recipe = changed(self.base, trial.hyperparameters.values)
        keras.utils.set_random_seed(recipe.seed)  # a trial that is repeated has the same result
        head = softmax_head(recipe, self.backbone.output_shape[-1], len(self.fitting.names))
        schedule = HeadSchedule(recipe.frozen_epochs, recipe.frozen_learning_rate, recipe.batch, "frozen_learning_rate")
        features = self._features(self.fitting, recipe, recipe.augmentation, recipe.head_views)
        held = self._features(self.held, recipe)[0]
        fit_on_features(head, schedule, recipe, features, self.fitting.labels, held, self.held.labels, self.fitting.names)
        result = {"val_accuracy": _accuracy(head, held, self.held.labels)}
        if self.tested:
            result["test_accuracy"] = _accuracy(head, self._features(self.tested, recipe)[0], self.tested.labels)
        self.done += 1
        left = (self.trials - int(trial.trial_id) - 1) * (time.monotonic() - self.began) / self.done
        print(f"trial {int(trial.trial_id) + 1}/{self.trials}: {result['val_accuracy']:.1%}, about {left / 60:.0f} min left", flush=True)
        return result

    def _features(self, images, recipe, augmentation=None, views=1):
        return cached_features(self.cache, self.backbone, images.images, recipe.size, augmentation, views, recipe.seed)


def _tuner(out, base, images, tested, backbone_weights, trials):
    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective("val_accuracy", "max"),
        max_trials=trials,
        seed=SEED,
        hyperparameters=space(),
        allow_new_entries=False,
    )
    oracle.verbose = 0
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it says where it reloads from, whatever `verbose` is
            return _HeadTuner(
                base, images, tested, backbone_weights, out.parent / CACHE, trials, oracle=oracle, directory=out, project_name="trials"
            )
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"the search in {out} is damaged ({error}); remove the folder and start again") from error


def _role():
    """What KerasTuner takes this process for: None alone, "chief", or a worker's name.

    Raises:
        UserError: some of its three variables are set and some are not.
    """
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    if 0 < len(missing) < len(VARIABLES):
        raise UserError(f"a search over several processes needs {', '.join(VARIABLES)}; missing: {', '.join(missing)}")
    role = os.environ.get("KERASTUNER_TUNER_ID")
    return "chief" if role and "chief" in role else role


def _claim(out, identity):
    record = out / "search.json"
    if not record.is_file():
        if any(path.name not in (LOCK, "trials") for path in out.iterdir()):
            raise UserError(f"{out} exists and holds no search; give another --out")
        write_json(record, identity)
        return
    try:
        before = json.loads(record.read_text("utf-8"))
        other = [key for key, value in identity.items() if before.get(key) != value]
    except (ValueError, AttributeError) as error:
        raise UserError(f"{record} is damaged ({error}); remove the folder and start again") from error
    if other:
        raise UserError(f"{out} holds a search with another {other[0]}; give another --out, or repeat its own command")
    print(f"going on with the search in {out}")


def _accuracy(head, features, labels):
    return float((head.predict(features, verbose=0).argmax(axis=-1) == labels).mean())


def _finish(out, trials, tested):
    """The trials as lines, the best first; ties in the order of the trials."""
    done = [trial for trial in trials if trial.status == "COMPLETED"]
    if not done:
        raise UserError(f"no trial of the search in {out} was completed; its trials/*/trial.json say why")
    rows = []
    for trial in sorted(done, key=lambda trial: (-trial.score, int(trial.trial_id))):
        values = {hp.name: trial.hyperparameters.values[hp.name] for hp in space().space}
        row = {"trial": int(trial.trial_id) + 1, "val_accuracy": float(trial.score)}
        if tested:
            row["test_accuracy"] = float(trial.metrics.get_best_value("test_accuracy"))
        rows.append({**row, **{name: float(f"{v:.6g}") if isinstance(v, float) else v for name, v in values.items()}})

    def save(temporary):
        with open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    atomically(out / "trials.csv", save)
    return rows


def describe(rows):
    """The best trials as lines to read."""
    for row in rows[:BEST]:
        yield ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items())


def settings(row):
    """The `--set` arguments that make a recipe of a trial."""
    return " ".join(
        (
            f'--set "phases=((0, {row["size"]}),)"',
            f"--set dropout={np.round(row['dropout'], 2)}",
            f"--set dense_dropout={np.round(row['dense_dropout'], 2)}",
            f'--set "dense={(row["width"],) * row["layers"]}"',
            f"--set frozen_learning_rate={row['learning_rate']}",
            f"--set activation={row['activation']}",
        )
    )
