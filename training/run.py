"""One run, start to end: images → split → fine-tuning → features → quasi-SVM → metrics, all in one folder."""

import importlib
import json
import platform
import shutil
import time
from pathlib import Path

import keras
import numpy as np

from training import architectures
from training.architectures import PRETRAINED, quasi_svm_head, softmax_head, whole_network
from training.augment import FLIPS, augment_offline, flip
from training.balance import natural, svmsmote
from training.data import load_folder, split, split_fold
from training.errors import UserError
from training.evaluate import metrics, plot_confusion, plot_curves, summary
from training.features import cached_features
from training.files import atomically, digest, locked, write_arrays, write_json
from training.fit import BEST, finetune, fit_head, read_history
from training.pipeline import plain_batches
from training.recipe import Recipe
from training.thaw import freeze

NETWORK = "quasi_svm.weights.h5"
FEATURES = "features.npz"
HELD = "held.npz"
START = "start"  # folder, in a run's own, of the fine-tuning that it starts from
CACHE = ".features"  # beside the run folders, for all of them
LOCK = ".lock"
BATCH = 32  # images that are predicted at once
# What the two heads are built from.
HEAD_FIELDS = (
    "head_features",
    "head_kernel",
    "head_common_scale",
    "head_dropout",
    "head_l2",
    "seed",
    "dense",
    "activation",
    "dense_l2",
    "dropout",
    "dense_dropout",
)


def train(recipe, name, data, backbone_weights, out, test=None):
    """Trains one recipe and leaves everything about it in one folder; continues a run that was interrupted.

    Args:
        recipe: `Recipe`.
        name: its name.
        data: folder of class folders.
        backbone_weights: see `architectures`.
        out: run folder: `recipe.json`, `history.csv`, `best.weights.h5` (fine-tuned, with its softmax), `metrics.json`,
            `curves.png`, `confusion.png`, `held.npz` (probabilities and labels of the validation part). With a quasi-SVM
            also `head_history.csv`, `head_curves.png`, `features.npz` (of the training views and of the validation
            images, each with its labels) and `quasi_svm.weights.h5`.
        test: another folder of class folders, of which nothing but the metrics is taken, or None.

    Returns:
        The metrics on the validation part, as in `metrics.json`; {"images": 0, …} where nothing is held out.

    Raises:
        UserError: see `data`, `fit`; a folder that holds another run or a finished one, or that another process uses.
    """
    out = Path(out)
    images = load_folder(data)
    tested = load_folder(test, images.images.shape[1:3]) if test else None
    for note in images.notes + (tested.notes if tested else ()):
        print(note)
    if tested and tested.names != images.names:
        raise UserError(f"{test} has the classes {', '.join(tested.names)}, {data} has {', '.join(images.names)}; they must be the same")
    _expect_square(recipe, images)
    if recipe.backbone not in PRETRAINED and backbone_weights != "none":
        print(f"{recipe.backbone.__name__} starts from random weights; --backbone-weights {Path(backbone_weights).name} is not used")
        backbone_weights = "none"
    identity = _identity(recipe, name, images, backbone_weights)
    _make_folder(out)
    with locked(out / LOCK, f"the run {out}"):
        _claim(out, identity)
        _take_over(out, identity)
        fitting, held = _parts(recipe, images)
        print(f"{name}: {len(fitting)} images to train on, {len(held)} held out, {len(images.names)} classes", flush=True)
        cache = out.parent / CACHE
        parameters = _finetuned(recipe, fitting, held, backbone_weights, out, cache)
        network = _fitted(recipe, fitting, held, images, out, cache)
        return _finish(recipe, out, network, held, tested, parameters, len(fitting))


def _finetuned(recipe, fitting, held, backbone_weights, out, cache):
    """Fine-tunes, after the fine-tuning that the recipe starts from, if any, which has a folder of its own."""
    start = None
    if recipe.start and not (out / "checkpoint.npz").exists():
        before = out / START
        before.mkdir(exist_ok=True)
        print(f"first the fine-tuning that this one starts from, in {before}", flush=True)
        _finetuned(recipe.start, fitting, held, backbone_weights, before, cache)
        start = before / BEST
    return finetune(recipe, fitting, held, backbone_weights, out, cache, start)


def tuned_network(recipe, images, out):
    """The fine-tuned network with its softmax, in single precision.

    Args:
        recipe: `Recipe`.
        images: `Images`, of which the names and the size are taken.
        out: the run's folder.

    Returns:
        `keras.Model`, [b, h, w, 3] of 0 to 255 → probabilities [b, classes].
    """
    backbone = recipe.backbone("none")
    head = softmax_head(recipe, backbone.output_shape[-1], len(images.names))
    network = whole_network(backbone, head, images.images.shape[1:3], recipe.size)
    network.load_weights(out / BEST)
    return network


def _parts(recipe, images):
    """Split first; then what the training part is made of. The validation part stays as it is."""
    train_rows, held_rows = held_out(recipe, images)
    if recipe.resampling is not natural:
        print(f"resampling by {recipe.resampling.__name__}" + (", some minutes" if recipe.resampling is svmsmote else ""), flush=True)
    fitting = recipe.resampling(images.rows(train_rows), recipe.seed)
    fitting = augment_offline(fitting, recipe.offline, recipe.offline_augmentation, recipe.seed)
    return fitting, images.rows(held_rows)


def held_out(recipe, images):
    """(training rows, validation rows) of a recipe: one stratified part, or one of several folds."""
    if recipe.folds:
        return split_fold(images.labels, recipe.folds, recipe.fold, recipe.split_seed, images.names)
    return split(images.labels, recipe.validation, recipe.split_seed, images.names)


def _fitted(recipe, fitting, held, images, out, cache):
    """The network that ships, in single precision: with the fine-tuned softmax, or with a quasi-SVM trained now."""
    network = tuned_network(recipe, images, out)
    if recipe.head == "softmax":
        return network
    backbone = network.get_layer("backbone")
    freeze(backbone)
    features = cached_features(cache, backbone, fitting.images, recipe.size, recipe.augmentation, recipe.head_views, recipe.seed)
    held_features = np.concatenate([cached_features(cache, backbone, flip(held.images, name), recipe.size) for name in recipe.test_flips])
    write_arrays(out / FEATURES, train=features, train_labels=fitting.labels, held=held_features, held_labels=held.labels)
    head = fit_head(recipe, features, fitting.labels, held_features[0], held.labels, images.names, out)
    network = whole_network(backbone, head, images.images.shape[1:3], recipe.size)
    atomically(out / NETWORK, network.save_weights)
    return network


def _finish(recipe, out, network, held, tested, parameters, fitted):
    """Pictures and metrics; `metrics.json`, written last, marks a finished run."""
    history = _whole_history(recipe, out)
    if history:
        plot_curves(history, out / "curves.png")
    seconds = sum(row["seconds"] for row in history)
    result = {"images": 0}
    if len(held):
        probabilities = predict(network, held.images, recipe.test_flips, recipe.test_sure)
        write_arrays(out / HELD, probabilities=probabilities, labels=held.labels)
        result = metrics(held.labels, probabilities, held.names)
        plot_confusion(result, out / "confusion.png")
        print(summary(result))
    if recipe.head == "quasi_svm":
        head = read_history(out / "head_history.csv")
        plot_curves(head, out / "head_curves.png")
        result["head_minutes"] = round(sum(row["seconds"] for row in head) / 60, 2)
    if tested:
        probabilities = predict(network, tested.images, recipe.test_flips, recipe.test_sure)
        result["test"] = metrics(tested.labels, probabilities, tested.names)
        print(f"reported only: {summary(result['test'])}")
    if recipe.frozen_epochs:
        frozen = read_history(out / "frozen_history.csv")
        result["frozen_epochs"] = len(frozen)
        result["head_minutes"] = result.get("head_minutes", 0) + round(sum(row["seconds"] for row in frozen) / 60, 2)
    result["epochs"] = len(history)
    result["finetuning_minutes"] = round(seconds / 60, 1)
    result["images_per_second"] = round(sum(row["images"] for row in history) / seconds, 1) if seconds else None
    result["trainable_parameters"] = parameters
    result["training_images"] = fitted
    result["finished"] = time.strftime("%Y-%m-%d")
    write_json(out / "metrics.json", result)
    return result


def _whole_history(recipe, out):
    """The epochs of a run, those of the fine-tuning that it starts from before its own."""
    before = _whole_history(recipe.start, out / START) if recipe.start else []
    return before + [{**row, "epoch": len(before) + row["epoch"]} for row in read_history(out / "history.csv")]


def predict(network, images, flips, sure=1.0):
    """Probabilities; of mirror images and turns as well, averaged, where the first view leaves a doubt.

    Args:
        network: `keras.Model`, [b, h, w, 3] of 0 to 255 → [b, classes].
        images: uint8 [n, h, w, 3].
        flips: names in `augment.FLIPS`.
        sure: an image whose first view has a class of more than this probability is not looked at again.

    Returns:
        float32 [n, classes].
    """
    answers = network.predict(plain_batches(BATCH, flip(images, flips[0])), verbose=0)
    unsure = np.flatnonzero(answers.max(axis=-1) <= sure)
    if len(unsure) and len(flips) > 1:
        others = [network.predict(plain_batches(BATCH, flip(images[unsure], name)), verbose=0) for name in flips[1:]]
        answers[unsure] = np.mean([answers[unsure], *others], axis=0)
    return answers


def load_network(out):
    """The trained network of a finished run.

    Returns:
        (`keras.Model` in float32, [b, h, w, 3] of 0 to 255 → probabilities; class names; `flips` and `sure` of `predict`).

    Raises:
        UserError: no run, or one that is not finished.
    """
    out = Path(out)
    if not (out / "recipe.json").is_file():
        raise UserError(f"no run at {out}: it has no recipe.json; give a folder that python -m training run has made")
    if not (out / "metrics.json").is_file():
        raise UserError(f"the run in {out} is not finished; repeat its python -m training run command, it goes on where it stopped")
    saved = whole_record(json.loads((out / "recipe.json").read_text("utf-8")))
    fields = saved["recipe"]
    backbone = getattr(architectures, fields["backbone"])("none")
    recipe = Recipe(**{key: _tuples(fields[key]) for key in HEAD_FIELDS})
    width, classes = backbone.output_shape[-1], len(saved["classes"])
    if fields["head"] == "softmax":
        head, weights = softmax_head(recipe, width, classes), out / BEST
    else:
        head, weights = quasi_svm_head(recipe, width, 1.0, classes), out / NETWORK
    network = whole_network(backbone, head, saved["image_shape"], fields["phases"][-1][1])
    try:
        network.load_weights(weights)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{weights} does not hold this recipe's weights ({error}); train the run again") from error
    return network, tuple(saved["classes"]), tuple(fields["test_flips"]), fields["test_sure"]


def _tuples(value):
    return tuple(value) if isinstance(value, list) else value


def _expect_square(recipe, images):
    turned = [name for name in recipe.test_flips if FLIPS[name][0]]
    height, width = images.images.shape[1:3]
    if turned and height != width:
        raise UserError(
            f"recipe: test_flips={recipe.test_flips}: {turned[0]} needs square images, and these are {height}×{width}; "
            "give --set \"test_flips=('none', 'horizontal', 'vertical', 'both')\""
        )


def _identity(recipe, name, images, backbone_weights):
    return {
        "name": name,
        "recipe": recipe.to_json(),
        "classes": list(images.names),
        "image_shape": list(images.images.shape[1:3]),
        "images": len(images),
        "data_sha256": digest(images.images, images.labels),
        "backbone_weights": Path(backbone_weights).name,
        "versions": {"python": platform.python_version(), "keras": keras.__version__, keras.backend.backend(): _backend_version()},
    }


def _backend_version():
    return importlib.import_module(keras.backend.backend()).__version__


def _make_folder(out):
    if out.is_dir() and not (out / "recipe.json").is_file() and any(path.name != LOCK for path in out.iterdir()):
        raise UserError(f"{out} exists and holds no run; give another --out")
    out.mkdir(parents=True, exist_ok=True)


def _claim(out, identity):
    """Makes this run's record, or makes sure that the one there is of the same run, unfinished."""
    record = out / "recipe.json"
    if (out / "metrics.json").exists():
        raise UserError(f"{out} holds a finished run; give another --out")
    if not any(out.glob("checkpoint.npz")) and not any(
        out.glob(f"{START}/**/checkpoint.npz")
    ):  # nothing was trained yet, so nothing is lost
        write_json(record, identity)
        return
    before = whole_record(json.loads(record.read_text("utf-8")))
    for key in ("recipe", "classes", "data_sha256", "backbone_weights"):
        if before.get(key) != json.loads(json.dumps(identity[key])):
            raise UserError(f"{out} holds an unfinished run with another {key}; give another --out, or repeat its own command")
    if keras.backend.backend() not in before["versions"]:  # the random states of another one are of another kind
        other = ", ".join(set(before["versions"]) - {"python", "keras"})
        raise UserError(f"{out} holds an unfinished run under the backend {other}; give --backend {other}, or another --out")
    print(f"going on with the run in {out}")


def _take_over(out, identity):
    """Takes what finished runs beside this one have fine-tuned by the same choices: all of it, or what this one starts from."""
    beside = [path for path in sorted(out.parent.glob("*/recipe.json")) if path.parent != out and _is_whole(path.parent)]
    finished = {path.parent: whole_record(json.loads(path.read_text("utf-8"))) for path in beside}
    wanted, target = json.loads(json.dumps(identity)), out
    while not (target / "checkpoint.npz").exists():
        for other, before in finished.items():
            if _finetuning(before) == _finetuning(wanted):
                print(f"fine-tuned already, by the same choices, in {other}: taking that over")
                _copy_finetuning(other, target)
                write_json(out / "recipe.json", {**identity, "finetuned_by" if target == out else "started_by": before["name"]})
                return
        if not wanted["recipe"]["start"]:
            return
        wanted, target = {**wanted, "recipe": wanted["recipe"]["start"]}, target / START


def _is_whole(folder):
    return (folder / "metrics.json").exists() and (folder / "checkpoint.npz").exists()


def _copy_finetuning(source, target):
    """The files of a fine-tuning and of what it starts from; the checkpoint, that it is complete, comes last."""
    names = ("history.csv", "frozen_history.csv", BEST, "checkpoint.npz")
    for file in (*source.glob(f"{START}/**/history.csv"), *(source / name for name in names)):
        if file.is_file():
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            atomically(copy, lambda temporary, file=file: shutil.copyfile(file, temporary))


def whole_record(record):
    """A run's `recipe.json` with the fields that recipes have got since, at their defaults."""

    def whole(fields):
        return {**Recipe().to_json(), **fields, "start": whole(fields["start"]) if fields.get("start") else None}

    return {**record, "recipe": json.loads(json.dumps(whole(record["recipe"])))}


def _finetuning(identity):
    """What the fine-tuned backbone depends on."""
    return [
        _finetuning_fields(identity["recipe"]),
        *(identity.get(key) for key in ("classes", "data_sha256", "backbone_weights", "versions")),
    ]


def _finetuning_fields(recipe):
    fields = {key: value for key, value in recipe.items() if not key.startswith(("head", "test_")) and key != "name"}  # a start has one
    if fields["frozen_epochs"]:
        fields["head_views"] = recipe["head_views"]
    if fields.get("start"):
        fields["start"] = _finetuning_fields(fields["start"])
    return fields
