"""The ladder of accuracy: what each choice behind the fine-tuning is worth, on the images that a run held out.

    python -m benchmarks.accuracy --run runs/leaderboard --data data/leaves/train
    python -m benchmarks.accuracy --run runs/leaderboard --data data/leaves/train --json docs/benchmarks/accuracy.json \\
        --picture docs/accuracy.png

The fine-tuned backbone stays. Heads are trained anew on its cached features, one field of the recipe changed at a time;
views and sizes at prediction are those of the finished network. The run must have kept its last epoch, so that the
held-out images chose nothing in it.
"""

import argparse
import os
import sys
import tempfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from sklearn.metrics import log_loss

from training.__main__ import load_recipe
from training.architectures import whole_network
from training.augment import FLIPS
from training.compare import read_run
from training.data import load_folder
from training.errors import UserError
from training.evaluate import calibration_error, draw_ranges, wilson
from training.files import digest, write_json
from training.fit import fit_head
from training.progress import progress
from training.run import FEATURES, held_out, load_network, predict, tuned_network

# What is changed of the recipe's quasi-SVM, one thing at a time.
HEADS = {
    "quasi-SVM as in the recipe": {},
    "each feature by its own standard deviation": {"head_common_scale": False},
    "rare classes not preferred": {"head_logit_adjustment": 0.0},
    "each class as often as it is": {"repeats": {}},
    "one view of each image": {"head_views": 1},
    "256 random Fourier features": {"head_features": 256},
    "kernel twice as wide": {"head_scale": 2.0},
    "learning rate 1e-3": {"head_learning_rate": 1e-3},
}
FIELDS = ("validation", "split_seed", "folds", "fold", "keep", "repeats", "dense", "dropout")  # of the run that the rows depend on
SIZES = (160, 192, 224)  # pixels at prediction
VIEWS = {"1 view": ("none",), "2 views": ("none", "both"), "4 views": tuple(FLIPS)[:4], "8 views": tuple(FLIPS)}
SURE = (0.8, 0.85, 0.9, 0.95)  # more sure than this by its first view, an image is not seen in the other seven


def main(arguments=None):
    """Measures, prints and writes. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="a finished run with keep=last, a validation part and a quasi-SVM")
    parser.add_argument("--data", required=True, help="the folder that it was trained on")
    parser.add_argument("--seeds", type=int, default=2, help="of each head (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there as well")
    parser.add_argument("--picture", metavar="FILE", help="draw them there")
    options = parser.parse_args(arguments)
    try:
        if options.seeds < 1:
            raise UserError(f"--seeds {options.seeds}: expected a whole number from 1")
        for path in filter(None, (options.json, options.picture)):
            if not Path(path).parent.is_dir():
                raise UserError(f"no folder {Path(path).parent} for {path}; make it first")
        recipe, held, arrays = _open(Path(options.run), load_folder(options.data))
        rows = {**predictions(recipe, Path(options.run), held), **heads(recipe, arrays, held, options.seeds)}
    except (UserError, OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, row in rows.items():
        print(f"{name:44} {row['accuracy']:.1%} ({min(row['seeds']):.1%} to {max(row['seeds']):.1%}), {row['seconds']:.0f} s")
    if options.json:
        write_json(Path(options.json), {"recipe": read_run(options.run).name, "images": len(held), "rows": rows})
    if options.picture:
        spans = [(row["accuracy"], *row["interval95"]) for row in rows.values()]
        title = f"accuracy on {len(held)} held-out images\n95 % interval; dots: seeds"
        draw_ranges(list(rows), {title: (spans, [row["seeds"] for row in rows.values()])}, Path(options.picture))
    return 0


def _open(folder, images):
    run = read_run(folder)
    recipe = load_recipe(run.name)
    if recipe.keep != "last" or recipe.head != "quasi_svm" or not run.metrics["images"]:
        raise UserError(f"{folder}: expected a run with a quasi-SVM, a validation part and keep=last")
    if any(run.record["recipe"][key] != value for key, value in recipe.to_json().items() if key.startswith("head") or key in FIELDS):
        raise UserError(f"{folder} is not of the recipe {run.name} as it stands; run that one")
    if run.record["data_sha256"] != digest(images.images, images.labels):
        raise UserError(f"{folder} was trained on other images; give its own --data")
    held = images.rows(held_out(recipe, images)[1])
    with np.load(folder / FEATURES) as file:
        arrays = dict(file)
    return recipe, held, arrays


def predictions(recipe, folder, held):
    """The finished network's accuracy by size and number of views, and its fine-tuned softmax's: name → row."""
    network, *_ = load_network(folder)
    softmax = tuned_network(recipe, held, folder)
    backbone, head, shape = network.get_layer("backbone"), network.get_layer("quasi_svm"), held.images.shape[1:3]
    networks = {f"quasi-SVM, {size}×{size}": whole_network(backbone, head, shape, size) for size in SIZES}
    networks = {f"softmax, {recipe.size}×{recipe.size}": softmax, **networks}
    rows = {}
    for name, one in progress(networks.items(), "predicting", unit="network"):
        began = time.monotonic()
        views = {flip: predict(one, held.images, (flip,)) for flip, (turned, _) in FLIPS.items() if not turned or shape[0] == shape[1]}
        seconds = (time.monotonic() - began) / len(views)
        for label, flips in VIEWS.items():
            if not views.keys() >= set(flips):
                continue
            probabilities = np.mean([views[flip] for flip in flips], axis=0)
            rows[f"{name}, {label}"] = _row([probabilities], held.labels, seconds * len(flips))
        if name == f"quasi-SVM, {recipe.size}×{recipe.size}" and len(views) == len(FLIPS):
            rows.update({f"{name}, 8 views where at most {sure:.0%} sure": _in_doubt(views, sure, held.labels, seconds) for sure in SURE})
    return rows


def _in_doubt(views, sure, labels, seconds):
    """The row of `predict` with `sure`, from each view's probabilities and the seconds of one view."""
    first, mean = views["none"], np.mean(list(views.values()), axis=0)
    doubt = first.max(axis=1, keepdims=True) <= sure
    count = 1 + float(doubt.mean()) * (len(views) - 1)
    return {**_row([np.where(doubt, mean, first)], labels, seconds * count), "views": round(count, 2)}


def heads(recipe, arrays, held, seeds):
    """The accuracy of heads trained anew, the recipe's views of every image averaged: name → row."""
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, changes in progress(HEADS.items(), "training heads", unit="head"):
            began, answers = time.monotonic(), []
            for seed in range(seeds):
                one = replace(recipe, seed=seed, **changes)
                features = arrays["train"][: one.head_views]
                head = fit_head(one, features, arrays["train_labels"], arrays["held"][0], held.labels, held.names, scratch)
                answers.append(np.mean([head.predict(view, verbose=0) for view in arrays["held"]], axis=0))
            rows[name] = _row(answers, held.labels, (time.monotonic() - began) / seeds)
    return rows


def _row(answers, labels, seconds):
    each = [float((one.argmax(axis=1) == labels).mean()) for one in answers]
    share = float(np.mean(each))
    rest = {
        "interval95": wilson(share * len(labels), len(labels)),
        "calibration_error": float(np.mean([calibration_error(labels, one) for one in answers])),
        "log_loss": float(np.mean([log_loss(labels, one, labels=range(one.shape[1])) for one in answers])),
    }
    return {"accuracy": share, "seeds": each, **rest, "seconds": round(seconds, 1)}


if __name__ == "__main__":
    sys.exit(main())
