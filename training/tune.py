"""A random search for a recipe's best head with KerasTuner. Each trial trains a head on cached features.

Several processes or machines can share the trials through KerasTuner's environment variables: KERASTUNER_TUNER_ID is
"chief" for the process that hands out the trials and any other name for each worker. KERASTUNER_ORACLE_IP and
KERASTUNER_ORACLE_PORT are the chief's address for all of them. All processes share the folder and run the same command.
"""

import contextlib
import io
import json
import os
import shlex
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import keras
import keras_tuner
import numpy as np

from common.errors import UserError
from common.files import digest, locked, write_csv, write_json
from common.images import Images
from training.config.override import change
from training.config.recipe import Recipe
from training.config.record import to_json
from training.fit.features import FeatureSpec, cached_features
from training.fit.finetune import make_backbone, warmup_schedule
from training.fit.head import Features, fit_on_features
from training.inputs import Inputs, load_inputs, require_outside
from training.model.heads import softmax_head
from training.run import split_and_balance
from training.run_folder import CACHE, LOCK, weights_sha256

BEST = 10  # trials that are described
RECORD = "search.json"
TRIALS = "trials.csv"
# Fields of `finetune` that a trial changes.
SEARCHED = (
    "resolution_schedule",
    "dropout",
    "dense_dropout",
    "dense_units",
    "head_warmup_learning_rate",
    "activation",
)
VARIABLES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")
CHIEF_SECONDS = 3600  # that a worker waits for the chief to begin, as KerasTuner waits for an answer
# Keys of the record → how an error names them.
COMPARED = {
    "recipe": "recipe or --set",
    "data_sha256": "--data",
    "test_sha256": "--test",
    "backbone_weights": "--backbone-weights",
    "backbone_sha256": "--backbone-weights",
    "trials": "--trials",
}
SEED = 1  # of the search; KerasTuner replaces 0 by a random seed


def search_space() -> keras_tuner.HyperParameters:
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


def trial_recipe(base: Recipe, values: dict[str, Any]) -> Recipe:
    """Returns the recipe of a trial.

    Args:
        base: the recipe of the search.
        values: the trial's values, by the names of `search_space`.
    """
    return change(base, _trial_fields(values))


def fixed_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns a recipe's record (see `to_json`) without the fields that a trial changes."""
    kept = {name: value for name, value in fields["finetune"].items() if name not in SEARCHED}
    return {**fields, "finetune": kept}


def search(base: Recipe, inputs: Inputs, out: Path, trials: int) -> list[dict[str, Any]]:
    """Trains a head for each of some random values, or continues an interrupted search.

    Source: J. Bergstra and Y. Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 13, 2012.

    Args:
        base: a recipe that trains a softmax head on a frozen backbone: `finetune.head_warmup_epochs` above 0 and a
            `finetune.resolution_schedule` of 0 epochs.
        inputs: the accuracy on the validation part of `data` ranks the trials. Each trial is also measured on `test`,
            which ranks nothing. `reuse` is ignored.
        out: folder of the search. Gets `search.json`, KerasTuner's files in `trials/`, and `trials.csv`, one line for
            each trial, the best first.
        trials: number of trials, over all processes.

    Returns:
        The lines of `trials.csv`; an empty list in a worker.

    Raises:
        UserError: a recipe that fine-tunes or holds nothing out, a folder with other files or another search, a folder
            that another process uses, a worker without a chief, or no completed trial.
    """
    _check_base(base)
    out = Path(out)
    require_outside(out, inputs)
    job = _load(base, inputs, out.parent / CACHE, trials)
    is_worker = _role() not in (None, "chief")
    out.mkdir(parents=True, exist_ok=True)
    with contextlib.nullcontext() if is_worker else locked(out / LOCK, f"the search {out}"):
        if is_worker:
            _check_chief(out, job.identity)
        else:
            _claim(out, job.identity)
        tuner = _make_tuner(job, out)
        try:
            tuner.search(verbose=0)
        except (keras_tuner.errors.FatalError, RuntimeError) as error:
            raise UserError(f"the search in {out} stopped: {str(error).splitlines()[0]}") from error
        except grpc.RpcError as error:
            raise UserError(
                f"the search in {out} stopped: the chief does not answer; start all processes again"
            ) from error
        if is_worker:
            return []
        rows = _rows(out, tuner.oracle.trials.values())
        write_csv(out / TRIALS, list(rows[0]), rows)
        return rows


def describe(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yields a line of text for each of the best trials."""
    for row in rows[:BEST]:
        yield ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()
        )


def settings(row: dict[str, Any]) -> str:
    """Returns the `--set` arguments that make the recipe of a trial, quoted for a shell."""
    arguments = (f"{name}={value}" for name, value in _trial_fields(row).items())
    return " ".join(f"--set {shlex.quote(one)}" for one in arguments)


def _trial_fields(values: dict[str, Any]) -> dict[str, Any]:
    """The fields that a trial's values change."""
    return {
        "finetune.resolution_schedule": ((0, values["size"]),),
        "finetune.dropout": round(float(values["dropout"]), 2),
        "finetune.dense_dropout": round(float(values["dense_dropout"]), 2),
        "finetune.dense_units": (values["width"],) * values["layers"],
        "finetune.head_warmup_learning_rate": values["learning_rate"],
        "finetune.activation": values["activation"],
    }


def _check_base(base: Recipe) -> None:
    tune = base.finetune
    if tune.epochs or not tune.head_warmup_epochs:
        raise UserError(
            "tune needs a recipe with a frozen backbone: finetune.head_warmup_epochs must be above 0 and "
            "finetune.resolution_schedule must have 0 epochs, "
            f"got {tune.head_warmup_epochs} and {tune.epochs} epochs; see the recipe tuned"
        )
    if tune.init_from:
        raise UserError("tune starts from the pretrained backbone, not from another fine-tuning; leave out init_from")
    if len(base.prediction.tta_transforms) > 1:
        raise UserError("tune compares trials without test-time augmentation; leave out prediction.tta_transforms")


@dataclass(frozen=True)
class _Job:
    """What the trials of a search have in common.

    identity: what a repeated command must have in common with the search, as plain values.
    """

    base: Recipe
    train: Images
    val: Images
    test: Images | None
    backbone_weights: str
    cache: Path
    trials: int
    identity: dict[str, Any]


def _load(base: Recipe, inputs: Inputs, cache: Path, trials: int) -> _Job:
    images, test = load_inputs(inputs)
    data = split_and_balance(base, images)
    if not len(data.val):
        raise UserError(
            "data.validation_split must be above 0 for tune, which ranks trials by their validation accuracy"
        )
    identity = {
        "recipe": fixed_fields(to_json(base)),
        "data_sha256": digest(images.images, images.labels),
        "test_sha256": digest(test.images, test.labels) if test else None,
        "backbone_weights": Path(inputs.backbone_weights).name,
        "backbone_sha256": weights_sha256(inputs.backbone_weights),
        "trials": trials,
        "seed": SEED,
    }
    return _Job(
        base, data.train, data.val, test, inputs.backbone_weights, cache, trials, json.loads(json.dumps(identity))
    )


class _HeadTuner(keras_tuner.Tuner):
    """Trains a head for each trial. The backbone's features come from the cache."""

    def __init__(self, job: _Job, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.job, self.began, self.done = job, time.monotonic(), 0
        self.backbone: Any = None
        if _role() != "chief":  # the chief trains nothing
            self.backbone = make_backbone(job.base, job.backbone_weights)

    def run_trial(self, trial: Any, **arguments: Any) -> dict[str, float]:
        try:
            result = self._train(trial_recipe(self.job.base, trial.hyperparameters.values))
        except UserError as error:  # every other trial would raise it too
            raise keras_tuner.errors.FatalError(str(error)) from error
        self.done += 1
        number = int(trial.trial_id) + 1
        left = (self.job.trials - number) * (time.monotonic() - self.began) / self.done
        accuracy = result["val_accuracy"]
        print(f"trial {number}/{self.job.trials}: {accuracy:.1%}, about {left / 60:.0f} min left", flush=True)
        return result

    def _train(self, recipe: Recipe) -> dict[str, float]:
        """Trains the head of one recipe. Returns its accuracies."""
        job, tune = self.job, recipe.finetune
        keras.utils.set_random_seed(recipe.seed)  # a repeated trial has the same result
        head = softmax_head(tune, self.backbone.output_shape[-1], len(job.train.names))
        precision = recipe.head.feature_precision
        spec = FeatureSpec(tune.input_size, recipe.augmentation.transforms, recipe.head.views, recipe.seed, precision)
        views = cached_features(job.cache, self.backbone, job.train.images, spec)
        plain = FeatureSpec(tune.input_size, precision=precision)
        val = self._features(job.val, plain)
        features = Features(views, job.train.labels, val, job.val.labels, job.train.names)
        fit_on_features(head, warmup_schedule(tune), recipe, features)
        result = {"val_accuracy": _accuracy(head, val, job.val.labels)}
        if job.test:
            test = self._features(job.test, plain)
            result["test_accuracy"] = _accuracy(head, test, job.test.labels)
        return result

    def _features(self, images: Images, spec: FeatureSpec) -> np.ndarray:
        """Features [n, d] of one view of the images."""
        return cached_features(self.job.cache, self.backbone, images.images, spec)[0]


def _accuracy(head: keras.Model, features: np.ndarray, labels: np.ndarray) -> float:
    return float((head.predict(features, verbose=0).argmax(axis=-1) == labels).mean())


def _make_tuner(job: _Job, out: Path) -> _HeadTuner:
    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective("val_accuracy", "max"),
        max_trials=job.trials,
        seed=SEED,
        hyperparameters=search_space(),
        allow_new_entries=False,
    )
    oracle.verbose = 0
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints where it reloads from, whatever `verbose` is
            return _HeadTuner(job, oracle=oracle, directory=out, project_name="trials")
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"the search in {out} is damaged ({error}); remove the folder and start again") from error


def _role() -> str | None:
    """KerasTuner's role of this process: None if it works alone, "chief", or the name of a worker.

    Raises:
        UserError: only some of KerasTuner's three variables are set.
    """
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    if 0 < len(missing) < len(VARIABLES):
        raise UserError(f"a search over several processes needs {', '.join(VARIABLES)}; missing: {', '.join(missing)}")
    role = os.environ.get("KERASTUNER_TUNER_ID")
    return "chief" if role and "chief" in role else role


def _claim(out: Path, identity: dict[str, Any]) -> None:
    """Writes the record of a new search, or checks that the search in this folder is the same."""
    record = out / RECORD
    if not record.is_file():
        if any(path.name not in (LOCK, "trials") for path in out.iterdir()):
            raise UserError(f"--out must be a new folder or that of a search; {out} has other files")
        write_json(record, identity)
        return
    for what in _differences(record, identity):
        raise UserError(f"{out} holds a search with another {what}; repeat its own command, or give another --out")
    print(f"continuing the search in {out}")


def _check_chief(out: Path, identity: dict[str, Any]) -> None:
    """Waits for the chief's record. Raises a UserError if it is of another search: the trials would be mixed."""
    latest = time.monotonic() + CHIEF_SECONDS
    if not (out / RECORD).is_file():
        print(f"waiting for the chief to begin the search in {out}", flush=True)
    while not (out / RECORD).is_file():
        if time.monotonic() > latest:
            raise UserError(f"no chief has begun a search in {out}; start it, and give all processes the same --out")
        time.sleep(1)
    for what in _differences(out / RECORD, identity):
        raise UserError(f"the chief's search in {out} has another {what}; give all processes the same command")


def _differences(record: Path, identity: dict[str, Any]) -> list[str]:
    """The options in which a search differs from a recorded one. Raises a UserError if the record is damaged."""
    try:
        before = json.loads(record.read_text("utf-8"))
        return [COMPARED.get(key, key) for key, value in identity.items() if before.get(key) != value]
    except (ValueError, AttributeError) as error:
        raise UserError(f"{record} is damaged ({error}); remove the folder and start again") from error


def _rows(out: Path, trials: Iterable[Any]) -> list[dict[str, Any]]:
    """The completed trials as lines of a table, the best first; ties in the order of the trials."""
    completed = [trial for trial in trials if trial.status == "COMPLETED"]
    if not completed:
        raise UserError(f"no trial of the search in {out} was completed; its trials/*/trial.json say why")
    rows = []
    for trial in sorted(completed, key=lambda trial: (-trial.score, int(trial.trial_id))):
        row: dict[str, Any] = {"trial": int(trial.trial_id) + 1, "val_accuracy": float(trial.score)}
        if trial.metrics.exists("test_accuracy"):
            row["test_accuracy"] = float(trial.metrics.get_best_value("test_accuracy"))
        for parameter in search_space().space:
            value = trial.hyperparameters.values[parameter.name]
            row[parameter.name] = float(f"{value:.6g}") if isinstance(value, float) else value
        rows.append(row)
    return rows
