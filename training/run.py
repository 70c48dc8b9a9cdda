"""One run, start to end: images → split → fine-tuning → features → quasi-SVM → metrics, all in one folder."""

import hashlib
import importlib
import json
import platform
import time
from pathlib import Path

import keras
import numpy as np

from training import architectures
from training.architectures import quasi_svm, quasi_svm_head
from training.augment import FLIPS
from training.data import load_folder, split
from training.errors import UserError
from training.evaluate import metrics, plot_confusion, plot_curves, summary
from training.features import extract
from training.files import atomically, write_arrays, write_json
from training.fit import finetune, fit_head, read_history
from training.recipe import Recipe
from training.thaw import freeze

NETWORK = "quasi_svm.weights.h5"
FEATURES = "features.npz"


def train(recipe, name, data, backbone_weights, out):
    """Trains one recipe and leaves everything about it in one folder; continues a run that was interrupted.

    Args:
        recipe: `Recipe`.
        name: its name.
        data: folder of class folders.
        backbone_weights: see `architectures`.
        out: run folder: `recipe.json`, `history.csv`, `head_history.csv`, `best.weights.h5` (backbone),
            `features.npz` (of the training views and of the validation images, each with its labels),
            `quasi_svm.weights.h5` (whole network), `metrics.json`, `curves.png`, `head_curves.png`, `confusion.png`.

    Returns:
        The metrics on the validation part, as in `metrics.json`; {"images": 0, …} where nothing is held out.

    Raises:
        UserError: see `data`, `fit`; a folder that holds another run or a finished one.
    """
    out = Path(out)
    images = load_folder(data)
    for note in images.notes:
        print(note)
    train_rows, held_rows = split(images.labels, recipe.validation, recipe.seed, images.names)
    fitting, held = images.rows(train_rows), images.rows(held_rows)
    _claim(out, _identity(recipe, name, images, backbone_weights))
    print(f"{name}: {len(fitting)} images to train on, {len(held)} held out, {len(images.names)} classes")

    finetune(recipe, fitting, held, backbone_weights, out)
    backbone = _in_float32(recipe, out)
    features = extract(backbone, fitting.images, recipe.size, recipe.augmentation, recipe.head_views, recipe.seed)
    held_features = np.concatenate([extract(backbone, np.flip(held.images, FLIPS[flip]), recipe.size) for flip in recipe.test_flips])
    write_arrays(out / FEATURES, train=features, train_labels=fitting.labels, held=held_features, held_labels=held.labels)
    head = fit_head(recipe, features, fitting.labels, held_features[0], held.labels, images.names, out)
    whole = quasi_svm(backbone, head, images.images.shape[1:3], recipe.size)
    atomically(out / NETWORK, whole.save_weights)
    return _finish(out, head, held_features, held.labels, images.names)


def _finish(out, head, held_features, held_labels, names):
    """Pictures and metrics; `metrics.json`, written last, marks a finished run."""
    history = read_history(out / "history.csv")
    plot_curves(history, out / "curves.png")
    plot_curves(read_history(out / "head_history.csv"), out / "head_curves.png")
    result = {"images": 0}
    if len(held_labels):
        probabilities = np.mean([head.predict(view, verbose=0) for view in held_features], axis=0)
        result = metrics(held_labels, probabilities, names)
        plot_confusion(result, out / "confusion.png")
        print(summary(result))
    result["epochs"] = len(history)
    result["finetuning_minutes"] = round(sum(row["seconds"] for row in history) / 60, 1)
    result["finished"] = time.strftime("%Y-%m-%d")
    write_json(out / "metrics.json", result)
    return result


def load_network(out):
    """The trained network of a finished run.

    Returns:
        (`keras.Model` in float32, [b, h, w, 3] of 0 to 255 → probabilities; class names; flips for prediction).

    Raises:
        UserError: no run, or one that is not finished.
    """
    out = Path(out)
    if not (out / "recipe.json").is_file():
        raise UserError(f"no run at {out}: it has no recipe.json; give a folder that python -m training run has made")
    if not (out / "metrics.json").is_file():
        raise UserError(f"the run in {out} is not finished; repeat its python -m training run command, it goes on where it stopped")
    saved = json.loads((out / "recipe.json").read_text("utf-8"))
    fields = saved["recipe"]
    backbone = getattr(architectures, fields["backbone"])("none")
    recipe = Recipe(**{key: fields[key] for key in ("head_features", "head_kernel", "head_dropout", "head_l2", "seed")})
    head = quasi_svm_head(recipe, backbone.output_shape[-1], 1.0, len(saved["classes"]))
    network = quasi_svm(backbone, head, saved["image_shape"], fields["phases"][-1][1])
    try:
        network.load_weights(out / NETWORK)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{out / NETWORK} does not hold this recipe's weights ({error}); train the run again") from error
    return network, tuple(saved["classes"]), tuple(fields["test_flips"])


def _in_float32(recipe, out):
    """The fine-tuned backbone as it will ship: in single precision, frozen."""
    backbone = recipe.backbone("none")
    backbone.load_weights(out / "best.weights.h5")
    freeze(backbone)
    return backbone


def _identity(recipe, name, images, backbone_weights):
    return {
        "name": name,
        "recipe": recipe.to_json(),
        "classes": list(images.names),
        "image_shape": list(images.images.shape[1:3]),
        "images": len(images),
        "data_sha256": hashlib.sha256(images.images.tobytes() + images.labels.tobytes()).hexdigest(),
        "backbone_weights": Path(backbone_weights).name,
        "versions": {"python": platform.python_version(), "keras": keras.__version__, keras.backend.backend(): _backend_version()},
    }


def _backend_version():
    return importlib.import_module(keras.backend.backend()).__version__


def _claim(out, identity):
    """Makes the run's folder, or makes sure that the one there is the same run, unfinished."""
    record = out / "recipe.json"
    if not out.exists():
        out.mkdir(parents=True)
    elif not record.is_file() and any(out.iterdir()):
        raise UserError(f"{out} exists and holds no run; give another --out")
    if not record.is_file():
        write_json(record, identity)
        return
    if (out / "metrics.json").exists():
        raise UserError(f"{out} holds a finished run; give another --out")
    if not (out / "checkpoint.npz").exists():  # nothing was trained yet, so nothing is lost
        write_json(record, identity)
        return
    before = json.loads(record.read_text("utf-8"))
    for key in ("recipe", "classes", "data_sha256", "backbone_weights"):
        if before.get(key) != json.loads(json.dumps(identity[key])):
            raise UserError(f"{out} holds an unfinished run with another {key}; give another --out, or repeat its own command")
    print(f"going on with the run in {out}")
