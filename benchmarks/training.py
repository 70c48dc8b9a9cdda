"""Whether the input pipeline slows training down, and how much time cached features save.

  python -m benchmarks.training
  python -m benchmarks.training --data data/leaves/train --backbone-weights imagenet

1. Images per second compared with the training step alone: InceptionV3 at 96×96, all layers trained, float32, batches
   of 32, in `fit`:
   - step alone: one batch again and again, as a tensor in memory;
   - tf.data pipeline: that of this project, shuffled and augmented;
   - flow_from_directory: Keras' ImageDataGenerator with similar augmentation, which the report replaced because it
     could not keep the GPU busy.
2. Fifty epochs of the quasi-SVM on a frozen InceptionV3, evaluated on as many other images:
   - uncached: the whole model in `fit`, which computes the features of new random views in each epoch;
   - cached: the features of eight views of each image are read from disk; also with the time to compute them.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.tensorflow_log import hide_tensorflow_log

hide_tensorflow_log()

import keras
import numpy as np
import tensorflow as tf

from benchmarks import benchmark_parser, run_benchmark, speed_record, speed_table, time_interleaved
from common.cli import whole_number
from common.errors import UserError
from common.images import Images, load_folder
from common.progress import progress
from competition.synthetic import draw_folder
from training.config.override import change
from training.data.pipeline import array_batches, folder_batches, one_hot
from training.data.split import split
from training.evaluate.metrics import wilson
from training.fit.features import FeatureSpec, cached_features, extract_features
from training.fit.head import Features, HeadSchedule, fit_on_features, median_distance
from training.model.backbones import inception_v3
from training.model.build import build_model
from training.model.heads import quasi_svm_head, softmax_head
from training.model.trainable import freeze
from training.recipes.inception_svm import recipe as inception_svm

BATCH_SIZE = 32
CHANGES = {"data.class_repeats": {}, "finetune.batch_size": BATCH_SIZE, "finetune.dense_units": ()}
RECIPE = change(inception_svm, CHANGES)
INPUT_SIZE = 96
EPOCHS = 50  # of the head
CACHED_ROUNDS = 3
BASELINE = "step alone"


def pipelines(images: Images, batches: int, links: Path) -> dict[str, Callable]:
    """Name → function that trains for a number of batches.

    Args:
        images: to train on.
        batches: number of batches.
        links: folder for links to the images, which `flow_from_directory` reads.
    """
    backbone, classes = inception_v3("none"), len(images.names)
    head = softmax_head(RECIPE.finetune, backbone.output_shape[-1], classes)
    model = build_model(backbone, head, images.images.shape[1:3], INPUT_SIZE)
    model.compile(keras.optimizers.AdamW(1e-5), "categorical_crossentropy")
    rows = np.resize(np.arange(len(images)), batches * BATCH_SIZE)
    first = rows[:BATCH_SIZE]
    batch = (tf.constant(images.images[first], tf.float32), tf.constant(one_hot(images.labels[first], classes)))
    repeated = tf.data.Dataset.from_tensors(batch).repeat(batches)

    def fit(data: Any) -> None:
        model.fit(data, verbose=0, shuffle=False)

    return {
        BASELINE: lambda: fit(repeated),
        "tf.data pipeline": lambda: fit(array_batches(images, rows, RECIPE, 0)),
        "flow_from_directory": lambda: fit(folder_batches(images, rows, RECIPE, 0, links)),
    }


@dataclass(frozen=True)
class _HeadJob:
    """The training of the quasi-SVM: a frozen backbone, the images to train on and to evaluate, and the cache."""

    backbone: keras.Model
    train: Images
    val: Images
    cache: Path

    def features(self) -> np.ndarray:
        """Features of the random views of the training images, float32 [views, n, d]."""
        spec = FeatureSpec(INPUT_SIZE, RECIPE.augmentation.transforms, RECIPE.head.views)
        return cached_features(self.cache, self.backbone, self.train.images, spec)

    def val_features(self) -> np.ndarray:
        return cached_features(self.cache, self.backbone, self.val.images, FeatureSpec(INPUT_SIZE))[0]

    def head(self, features: np.ndarray) -> keras.Model:
        """An untrained quasi-SVM, standardized by features [n, d]."""
        scaled = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-7)
        width, classes, scale = features.shape[-1], len(self.train.names), median_distance(scaled, 0)
        head = quasi_svm_head(RECIPE.head, width, classes, scale, RECIPE.seed)
        head.get_layer("standardise").adapt(features)
        return head

    def accuracy(self, probabilities: np.ndarray) -> float:
        return float((probabilities.argmax(axis=-1) == self.val.labels).mean())


def cached_head(job: _HeadJob) -> dict:
    """Trains the quasi-SVM with and without cached features. Returns seconds and accuracies as plain values."""
    began = time.perf_counter()
    job.features()
    job.val_features()
    computing = time.perf_counter() - began
    uncached, accuracy = _train_uncached(job)
    rounds = [_train_cached(job) for _ in range(CACHED_ROUNDS)]
    seconds = np.array([one for one, _ in rounds])
    ratio, with_computing = uncached / seconds, float(np.median(seconds) + computing)
    return {
        "images": len(job.train),
        "epochs": EPOCHS,
        "views": RECIPE.head.views,
        "uncached": {
            "seconds": uncached,
            "accuracy": accuracy,
            "interval95": wilson(round(accuracy * len(job.val)), len(job.val)),
        },
        "cached": {
            "seconds": float(np.median(seconds)),
            "accuracy": rounds[0][1],
            "ratio_median": float(np.median(ratio)),
            "ratio_min": float(ratio.min()),
            "ratio_max": float(ratio.max()),
        },
        "cached, features computed first": {"seconds": with_computing, "ratio": uncached / with_computing},
    }


def _train_uncached(job: _HeadJob) -> tuple[float, float]:
    """Seconds and accuracy of the whole model in `fit`."""
    recipe, train = change(RECIPE, {"finetune.batch_size": RECIPE.head.batch_size}), job.train
    began = time.perf_counter()
    head = job.head(extract_features(job.backbone, train.images, FeatureSpec(INPUT_SIZE))[0])
    model = build_model(job.backbone, head, train.images.shape[1:3], INPUT_SIZE)
    rows = np.arange(len(train))
    steps = EPOCHS * -(-len(rows) // recipe.head.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(recipe.head.learning_rate, steps)
    model.compile(keras.optimizers.Adam(rate), "categorical_crossentropy")
    for epoch in progress(range(EPOCHS), "training without a cache", unit="epoch"):
        model.fit(array_batches(train, rows, recipe, epoch), verbose=0, shuffle=False)
    seconds = time.perf_counter() - began
    return seconds, job.accuracy(model.predict(job.val.images, batch_size=BATCH_SIZE, verbose=0))


def _train_cached(job: _HeadJob) -> tuple[float, float]:
    """Seconds and accuracy of a head on cached features."""
    began = time.perf_counter()
    features, val_features = job.features(), job.val_features()
    head = job.head(features[0])
    schedule = HeadSchedule(EPOCHS, RECIPE.head.learning_rate, RECIPE.head.batch_size, "head.learning_rate")
    data = Features(features, job.train.labels, val_features[:0], job.val.labels[:0], job.train.names)
    fit_on_features(head, schedule, RECIPE, data)
    seconds = time.perf_counter() - began
    return seconds, job.accuracy(head.predict(val_features, verbose=0))


def main(arguments: list[str] | None = None) -> int:
    """Compares and prints. Returns the exit code."""
    parser = benchmark_parser("training", __doc__)
    parser.add_argument("--data", help="class folders (default: synthetic images)")
    parser.add_argument(
        "--backbone-weights", default="none", help="of part 2: imagenet, a .weights.h5 file, or none (the default)"
    )
    parser.add_argument("--batches", type=whole_number, default=6, help="of part 1 (default: %(default)s)")
    parser.add_argument("--rounds", type=whole_number, default=15, help="of part 1 (default: %(default)s)")
    parser.add_argument(
        "--images", type=whole_number, default=512, help="of part 2, to train on (default: %(default)s)"
    )
    return run_benchmark(parser.parse_args(arguments), _run)


def _run(options: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not options.data:
            draw_folder(folder / "synthetic", -(-2 * options.images // 8))
        images = load_folder(options.data or folder / "synthetic")
        if len(images) < 2 * options.images:
            raise UserError(f"--images must be at most half of the {len(images)} images, got {options.images}")
        seconds = time_interleaved(pipelines(images, options.batches, folder / "links"), options.rounds)
        count = options.batches * BATCH_SIZE
        print("\n".join(speed_table(seconds, count, BASELINE)), flush=True)
        keras.backend.clear_session()
        head = cached_head(_head_job(images, options, folder / "cache"))
    _print_head(head)
    speeds = speed_record(seconds, count, BASELINE)
    return {"images": count, "rounds": options.rounds, **speeds, "quasi_svm_head": head}


def _head_job(images: Images, options: argparse.Namespace, cache: Path) -> _HeadJob:
    rest, rows = split(images.labels, options.images / len(images), 0)
    val = np.random.default_rng(0).choice(rest, options.images, replace=False)
    backbone = inception_v3(options.backbone_weights)
    freeze(backbone)
    return _HeadJob(backbone, images.rows(rows), images.rows(val), cache)


def _print_head(head: dict) -> None:
    uncached, cached, computed = (head[name] for name in ("uncached", "cached", "cached, features computed first"))
    print(f"{head['epochs']} epochs of the quasi-SVM on {head['images']} images:")
    print(f"uncached {uncached['seconds']:.0f} s, accuracy {uncached['accuracy']:.1%}")
    ratios = f"{cached['ratio_median']:.0f} times as fast, {computed['ratio']:.1f} times with computing the features"
    print(f"cached {cached['seconds']:.1f} s, {ratios}, accuracy {cached['accuracy']:.1%}")


if __name__ == "__main__":
    sys.exit(main())
