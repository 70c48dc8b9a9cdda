"""Why did two devices train less stably than one?

    python -m training.questions.two_devices --data data/leaves/train

The first steps of the small network with batch normalisation, the same images in the same order, on two halves of this
processor (MirroredStrategy) against one device. Loss of each step:
- one device, batches of 32: the measure of the others;
- two, statistics together: BatchNormalization over the whole batch of 32; must agree to 1e-4;
- two, statistics apart: each device normalises with its own 16 images, which is what Keras does unless told otherwise;
- two, 32 images each: a batch of 64 at the learning rate that was right for 32, as when a device is just added; the same
  images are half as many steps. One device with batches of 64 must do the same.
In double precision, so that what differs is not rounding; the first two in single precision as well, to show how every
step amplifies rounding. How noisy the statistics of 16 images are is measured beside it.
"""

import sys

import keras
import numpy as np
import tensorflow as tf

from training.architectures import scratch_vgg, whole_network
from training.distribute import prepare, scope
from training.evaluate import figure_of, save_figure
from training.pipeline import one_hot
from training.progress import progress
from training.questions import ask

STEPS, BATCH, SIDE = 12, 32, 48
RATE = 0.02
AGREED = 1e-4
TOGETHER, APART, SINGLE = "two, statistics together", "two, statistics apart", ", single precision"


def answer(question):
    images, _ = question.images()
    rows = np.resize(np.random.default_rng(0).permutation(len(images)), STEPS * BATCH)
    pixels, labels = images.images[rows].astype(np.float32), one_hot(images.labels[rows], len(images.names))
    contestants = {  # replicas, whether they take their statistics together, images of a step, precision
        "one device": (1, False, BATCH, "float64"),
        TOGETHER: (2, True, BATCH, "float64"),
        APART: (2, False, BATCH, "float64"),
        "one device, batches of 64": (1, False, 2 * BATCH, "float64"),
        "two, 32 images each": (2, True, 2 * BATCH, "float64"),
        f"one device{SINGLE}": (1, False, BATCH, "float32"),
        f"{TOGETHER}{SINGLE}": (2, True, BATCH, "float32"),
    }
    bar = progress(contestants.items(), "training", unit="run")
    losses = {name: _losses(pixels, labels, *choices) for name, choices in bar}
    one = losses["one device"]
    result = {
        "steps": STEPS,
        "losses": losses,
        "difference": {
            TOGETHER: _difference(one, losses[TOGETHER]),
            APART: _difference(one, losses[APART]),
            "at 64 images": _difference(losses["one device, batches of 64"], losses["two, 32 images each"]),
            f"{TOGETHER}{SINGLE}": _difference(losses[f"one device{SINGLE}"], losses[f"{TOGETHER}{SINGLE}"]),
        },
        "noise_of_statistics": {f"{size} images": _noise(pixels, size) for size in (BATCH, BATCH // 2)},
    }
    _draw(result, question.picture("two_devices"))
    question.answer("two_devices", result)


def _losses(pixels, labels, replicas, together, batch, precision):
    """Training loss of each step, before the step changes the weights."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(precision)
    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(0)
    try:
        with scope(replicas):
            backbone = scratch_vgg("none")
            for layer in backbone.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.synchronized = together
            head = keras.Sequential([keras.Input((backbone.output_shape[-1],)), keras.layers.Dense(labels.shape[1], "softmax")])
            network = whole_network(backbone, head, pixels.shape[1:3], SIDE)
            network.compile(keras.optimizers.SGD(RATE, momentum=0.9), "categorical_crossentropy")
        found = []

        class Record(keras.callbacks.Callback):
            def on_train_batch_end(self, step, logs):
                found.append(float(logs["loss"]) * (step + 1) - sum(found))  # Keras reports the mean of the steps so far

        data = tf.data.Dataset.from_tensor_slices((pixels, labels)).batch(batch)
        network.fit(data, shuffle=False, verbose=0, callbacks=[Record()])
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])
    return found


def _difference(losses, others):
    """Largest difference of a step's loss, and how many first steps agree to 1e-4."""
    apart = np.abs(np.array(losses) - others)
    agreeing = int((apart >= AGREED).argmax()) if (apart >= AGREED).any() else len(apart)
    return {"largest": float(apart.max()), "steps_that_agree": agreeing, "steps": len(apart)}


def _noise(pixels, size):
    """How far a batch's mean behind the first convolution lies from that of all images, in standard deviations of the
    channel: the root mean square over batches and channels."""
    keras.utils.set_random_seed(0)
    network = scratch_vgg("none")
    first = next(layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D))
    active = keras.Model(network.input, first.output).predict(pixels / 127.5 - 1, batch_size=BATCH, verbose=0)
    batches = active.reshape(len(pixels) // size, -1, active.shape[-1])
    centre, spread = batches.mean(axis=(0, 1)), batches.std(axis=(0, 1))
    return float(np.sqrt((((batches.mean(axis=1) - centre) / spread) ** 2).mean()))


def _draw(result, path):
    figure, (left, right) = figure_of(1, 2, (13, 4))
    for name, losses in result["losses"].items():
        if not name.endswith(SINGLE):
            seen = (np.arange(len(losses)) + 1) * STEPS * BATCH / len(losses)
            left.plot(seen, losses, "--" if name.startswith("one") else "-", label=name)
    left.set_xlabel("images seen")
    left.set_title("loss of each step")
    left.legend()
    for name, one in ((APART, "one device"), (f"{TOGETHER}{SINGLE}", f"one device{SINGLE}"), (TOGETHER, "one device")):
        apart = np.abs(np.array(result["losses"][name]) - result["losses"][one])
        right.semilogy(range(1, STEPS + 1), apart + 1e-16, "o-", label=name)
    right.axhline(AGREED, color="grey", linestyle=":", label="1e-4")
    right.set_xlabel("step")
    right.set_title("difference to one device")
    right.legend()
    save_figure(figure, path)


if __name__ == "__main__":
    prepare(2)
    sys.exit(ask(__doc__, answer))
