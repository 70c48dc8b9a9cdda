"""Whether the input pipeline holds training back: an epoch's images/s as a share of the bare training step's.

    python -m benchmarks.training
    python -m benchmarks.training --data data/leaves/train --batches 12 --rounds 9

InceptionV3 at 96×96, everything unlocked, float32, batches of 32 in `fit`:
- bare step: the same batch again and again, already a tensor in memory;
- tf.data pipeline: this project's, shuffled and augmented;
- flow_from_directory: Keras' ImageDataGenerator with comparable augmentation, which the report left because it
  starved the GPU.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from keras.src.legacy.preprocessing.image import ImageDataGenerator

from benchmarks import interleaved, record, table
from competition.drawings import draw_folder
from training.architectures import classifier, inception_v3
from training.data import load_folder
from training.files import write_json
from training.pipeline import training_batches
from training.recipes.inception_svm import recipe

BATCH = 32


def contestants(folder, batches):
    """Name → function that trains for `batches` batches."""
    images = load_folder(folder)
    network = classifier(inception_v3("none"), images.images.shape[1:3], 96, len(images.names))
    network.compile(keras.optimizers.AdamW(1e-5), "sparse_categorical_crossentropy")
    rows = np.resize(np.arange(len(images)), batches * BATCH)
    a = recipe.augmentation
    generator = ImageDataGenerator(
        rotation_range=a.rotation,
        width_shift_range=a.shift,
        height_shift_range=a.shift,
        zoom_range=a.zoom,
        horizontal_flip=True,
        vertical_flip=True,
        fill_mode="reflect",
    )
    flow = generator.flow_from_directory(
        folder, images.images.shape[1:3], classes=list(images.names), batch_size=BATCH, class_mode="sparse", seed=0
    )
    batch = tf.data.Dataset.from_tensors((tf.constant(images.images[:BATCH], tf.float32), tf.constant(images.labels[:BATCH])))

    def fit(data, **arguments):
        network.fit(data, verbose=0, shuffle=False, **arguments)

    return {
        "bare step": lambda: fit(batch.repeat(batches)),
        "tf.data pipeline": lambda: fit(training_batches(images.images, images.labels, rows, a, BATCH, 0)),
        "flow_from_directory": lambda: fit(flow, steps_per_epoch=batches),
    }


def main(arguments=None):
    """Compares and prints. Returns 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of class folders; default: drawn images")
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", metavar="FILE", help="write the numbers there as well")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        data = options.data
        if not data:
            data = Path(folder) / "drawn"
            draw_folder(data, options.batches * BATCH // 8 + 1)
        seconds = interleaved(contestants(data, options.batches), options.rounds)
    images = options.batches * BATCH
    print("\n".join(table(seconds, images, "bare step")))
    if options.json:
        write_json(Path(options.json), {"images": images, "rounds": options.rounds, **record(seconds, images, "bare step")})
    return 0


if __name__ == "__main__":
    sys.exit(main())
