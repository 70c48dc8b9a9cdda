"""Whether the input pipeline holds training back, and what cached features save.

    python -m benchmarks.training
    python -m benchmarks.training --data data/leaves/train --backbone-weights imagenet --json docs/benchmarks/training.json

1. An epoch's images/s as a share of the bare training step's; InceptionV3 at 96×96, everything unlocked, float32,
   batches of 32 in `fit`:
   - bare step: the same batch again and again, already a tensor in memory;
   - tf.data pipeline: this project's, shuffled and augmented;
   - flow_from_directory: Keras' ImageDataGenerator with comparable augmentation, which the report left because it
     starved the GPU.
2. Fifty epochs of the quasi-SVM on a frozen InceptionV3, its accuracy on as many images again:
   - uncached: the whole network in `fit`, which computes the features of new views in every epoch;
   - cached: on the features of eight views of each image, read from the disk; and once with computing them.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from benchmarks import interleaved, record, table
from competition.drawings import draw_folder
from training.architectures import inception_v3, quasi_svm_head, softmax_head, whole_network
from training.data import load_folder, split
from training.evaluate import wilson
from training.features import cached_features, extract
from training.files import write_json
from training.fit import HeadSchedule, fit_on_features, median_distance
from training.pipeline import array_batches, folder_batches, one_hot
from training.progress import progress
from training.recipes.inception_svm import recipe as inception_svm
from training.thaw import freeze

RECIPE = replace(inception_svm, repeats={}, batch=32, dense=())
SIZE = 96
EPOCHS = 50
CACHED_ROUNDS = 3


def pipelines(images, batches, links):
    """Name → function that trains for `batches` batches."""
    backbone = inception_v3("none")
    network = whole_network(backbone, softmax_head(RECIPE, 2048, len(images.names)), images.images.shape[1:3], SIZE)
    network.compile(keras.optimizers.AdamW(1e-5), "categorical_crossentropy")
    rows = np.resize(np.arange(len(images)), batches * RECIPE.batch)
    labels = one_hot(images.labels[: RECIPE.batch], len(images.names))
    batch = tf.data.Dataset.from_tensors((tf.constant(images.images[: RECIPE.batch], tf.float32), tf.constant(labels)))

    def fit(data):
        network.fit(data, verbose=0, shuffle=False)

    return {
        "bare step": lambda: fit(batch.repeat(batches)),
        "tf.data pipeline": lambda: fit(array_batches(images, rows, RECIPE, 0)),
        "flow_from_directory": lambda: fit(folder_batches(images, rows, RECIPE, 0, links)),
    }


def cached_head(images, held, backbone_weights, cache):
    """Seconds and accuracy of the quasi-SVM's epochs with and without cached features, as plain values."""
    backbone = inception_v3(backbone_weights)
    freeze(backbone)
    began = time.perf_counter()
    cached_features(cache, backbone, images.images, SIZE, RECIPE.augmentation, RECIPE.head_views)
    cached_features(cache, backbone, held.images, SIZE)
    computing = time.perf_counter() - began
    uncached, right = _uncached(backbone, images, held)
    results = [_cached(backbone, images, held, cache) for _ in range(CACHED_ROUNDS)]
    seconds = np.array([seconds for seconds, _ in results])
    ratio = uncached / seconds
    return {
        "images": len(images),
        "epochs": EPOCHS,
        "views": RECIPE.head_views,
        "uncached": {"seconds": uncached, "accuracy": right / len(held), "interval95": wilson(right, len(held))},
        "cached": {
            "seconds": float(np.median(seconds)),
            "accuracy": results[0][1] / len(held),
            "ratio_median": float(np.median(ratio)),
            "ratio_min": float(ratio.min()),
            "ratio_max": float(ratio.max()),
        },
        "cached, features computed first": {
            "seconds": float(np.median(seconds) + computing),
            "ratio": float(uncached / (np.median(seconds) + computing)),
        },
    }


def _head(features, classes):
    """An untrained quasi-SVM, standardised by some features [n, d]."""
    centred = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-7)
    head = quasi_svm_head(RECIPE, features.shape[-1], median_distance(centred, 0), classes)
    head.get_layer("standardise").adapt(features)
    return head


def _uncached(backbone, images, held):
    recipe = replace(RECIPE, batch=RECIPE.head_batch)
    began = time.perf_counter()
    head = _head(extract(backbone, images.images, SIZE)[0], len(images.names))
    network = whole_network(backbone, head, images.images.shape[1:3], SIZE)
    rows = np.arange(len(images))
    steps = EPOCHS * -(-len(rows) // recipe.batch)
    rate = keras.optimizers.schedules.CosineDecay(recipe.head_learning_rate, steps)
    network.compile(keras.optimizers.Adam(rate), "categorical_crossentropy")
    for epoch in progress(range(EPOCHS), "training without a cache", unit="epoch"):
        network.fit(array_batches(images, rows, recipe, epoch), verbose=0, shuffle=False)
    seconds = time.perf_counter() - began
    return seconds, int((network.predict(held.images, batch_size=32, verbose=0).argmax(axis=-1) == held.labels).sum())


def _cached(backbone, images, held, cache):
    began = time.perf_counter()
    features = cached_features(cache, backbone, images.images, SIZE, RECIPE.augmentation, RECIPE.head_views)
    held_features = cached_features(cache, backbone, held.images, SIZE)[0]
    head = _head(features[0], len(images.names))
    schedule = HeadSchedule(EPOCHS, RECIPE.head_learning_rate, RECIPE.head_batch, "head_learning_rate")
    fit_on_features(head, schedule, RECIPE, features, images.labels, held_features[:0], held.labels[:0], images.names)
    seconds = time.perf_counter() - began
    return seconds, int((head.predict(held_features, verbose=0).argmax(axis=-1) == held.labels).sum())


def main(arguments=None):
    """Compares and prints. Returns 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of class folders; default: drawn images")
    parser.add_argument("--backbone-weights", default="none", help="of part 2: imagenet, a .weights.h5 file, or none (the default)")
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images", type=int, default=512, help="of part 2, to train on (default %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there as well")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        data = options.data
        if not data:
            data = Path(folder) / "drawn"
            draw_folder(data, 2 * options.images // 8)
        images = load_folder(data)
        seconds = interleaved(pipelines(images, options.batches, Path(folder) / "links"), options.rounds)
        count = options.batches * RECIPE.batch
        print("\n".join(table(seconds, count, "bare step")), flush=True)
        keras.backend.clear_session()
        rest, rows = split(images.labels, options.images / len(images), 0)
        held = np.random.default_rng(0).choice(rest, options.images, replace=False)
        head = cached_head(images.rows(rows), images.rows(held), options.backbone_weights, Path(folder) / "cache")
    one, other = head["uncached"], head["cached"]
    print(f"{EPOCHS} epochs of the quasi-SVM on {head['images']} images: uncached {one['seconds']:.0f} s, {one['accuracy']:.1%} right")
    print(f"cached {other['seconds']:.1f} s, {other['ratio_median']:.0f} times as fast, {other['accuracy']:.1%} right; ", end="")
    print(f"with computing the features {head['cached, features computed first']['ratio']:.1f} times")
    if options.json:
        values = {"images": count, "rounds": options.rounds, **record(seconds, count, "bare step"), "quasi_svm_head": head}
        write_json(Path(options.json), values)
    return 0


if __name__ == "__main__":
    sys.exit(main())
