"""Why did two devices train less stably than one?

  python -m training.questions.two_devices --data data/leaves/train

The first steps of a small network with BatchNormalization, with the same images in the same order, on two logical CPUs
(MirroredStrategy) and on one device. The loss of each step is recorded for
- one device, batch size 32: the reference;
- two devices, synchronized: BatchNormalization over the whole batch of 32; must agree with the reference to 1e-4;
- two devices, not synchronized: each device normalizes with its own 16 images, which is Keras' default;
- two devices, batch size 64, at the learning rate for 32, as when a device is added: half as many steps for the same
  images. One device with batch size 64 must give the same losses.
The precision is double, so that differences are not rounding errors. The first two are repeated in single precision, to
show how each step amplifies rounding errors. The noise of the statistics of 16 and 32 images is measured as well.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from common.progress import progress
from training.data.pipeline import one_hot
from training.evaluate.plots import new_figure, save_figure
from training.fit.distribute import prepare, scope
from training.model.backbones import scratch_vgg
from training.model.build import build_model
from training.questions import Question, question_parser, run_question

STEPS, BATCH_SIZE, INPUT_SIZE = 12, 32, 48
LEARNING_RATE = 0.02
TOLERANCE = 1e-4
ONE, SYNCHRONIZED, NOT_SYNCHRONIZED = "one device", "two devices, synchronized", "two devices, not synchronized"
ONE_64, TWO_64 = "one device, batch size 64", "two devices, batch size 64"
SINGLE = ", single precision"


@dataclass(frozen=True)
class _Setup:
    """How a network is trained."""

    replicas: int = 1
    synchronized: bool = False
    batch_size: int = BATCH_SIZE
    precision: str = "float64"


SETUPS = {
    ONE: _Setup(),
    SYNCHRONIZED: _Setup(replicas=2, synchronized=True),
    NOT_SYNCHRONIZED: _Setup(replicas=2),
    ONE_64: _Setup(batch_size=2 * BATCH_SIZE),
    TWO_64: _Setup(replicas=2, synchronized=True, batch_size=2 * BATCH_SIZE),
    ONE + SINGLE: _Setup(precision="float32"),
    SYNCHRONIZED + SINGLE: _Setup(replicas=2, synchronized=True, precision="float32"),
}


def answer(question: Question) -> None:
    """Writes the losses, their differences, and the picture."""
    images = question.images()
    prepare(2)
    rows = np.resize(np.random.default_rng(0).permutation(len(images)), STEPS * BATCH_SIZE)
    pixels, labels = images.images[rows].astype(np.float32), one_hot(images.labels[rows], len(images.names))
    bar = progress(SETUPS.items(), "training", unit="run")
    losses = {name: _losses(pixels, labels, setup) for name, setup in bar}
    pairs = {
        SYNCHRONIZED: (ONE, SYNCHRONIZED),
        NOT_SYNCHRONIZED: (ONE, NOT_SYNCHRONIZED),
        TWO_64: (ONE_64, TWO_64),
        SYNCHRONIZED + SINGLE: (ONE + SINGLE, SYNCHRONIZED + SINGLE),
    }
    result = {
        "steps": STEPS,
        "losses": losses,
        "difference": {name: _difference(losses[one], losses[two]) for name, (one, two) in pairs.items()},
        "noise_of_statistics": {f"{size} images": _noise(pixels, size) for size in (BATCH_SIZE, BATCH_SIZE // 2)},
    }
    _plot(result, question.picture)
    question.save(result)


def _losses(pixels: np.ndarray, labels: np.ndarray, setup: _Setup) -> list[float]:
    """The training loss of each step, before the step changes the weights."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(setup.precision)
    keras.config.set_dtype_policy(setup.precision)
    keras.utils.set_random_seed(0)
    record = _StepLosses()
    try:
        with scope(setup.replicas):
            model = _model(pixels.shape[1:3], labels.shape[1], setup.synchronized)
            model.compile(keras.optimizers.SGD(LEARNING_RATE, momentum=0.9), "categorical_crossentropy")
        data = tf.data.Dataset.from_tensor_slices((pixels, labels)).batch(setup.batch_size)
        model.fit(data, shuffle=False, verbose=0, callbacks=[record])
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])
    return record.losses


class _StepLosses(keras.callbacks.Callback):
    """Records the loss of each step. Keras reports the mean of the steps so far."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]) * (batch + 1) - sum(self.losses))


def _model(image_shape: tuple, classes: int, synchronized: bool) -> keras.Model:
    backbone = scratch_vgg("none")
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = synchronized
    layers = [keras.Input((backbone.output_shape[-1],)), keras.layers.Dense(classes, "softmax")]
    return build_model(backbone, keras.Sequential(layers), image_shape, INPUT_SIZE)


def _difference(losses: list[float], others: list[float]) -> dict:
    """The largest difference of a step's loss, and how many of the first steps agree to 1e-4."""
    difference = np.abs(np.array(losses) - others)
    differs = difference >= TOLERANCE
    agreeing = int(differs.argmax()) if differs.any() else len(difference)
    return {"largest": float(difference.max()), "agreeing_steps": agreeing, "steps": len(difference)}


def _noise(pixels: np.ndarray, size: int) -> float:
    """The noise of a batch's mean after the first convolution.

    Returns:
        Root mean square over batches and channels of the difference to the mean of all images, in standard deviations
        of the channel.
    """
    keras.utils.set_random_seed(0)
    model = scratch_vgg("none")
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    outputs = keras.Model(model.input, first.output).predict(pixels / 127.5 - 1, batch_size=BATCH_SIZE, verbose=0)
    batches = outputs.reshape(len(pixels) // size, -1, outputs.shape[-1])
    mean, std = batches.mean(axis=(0, 1)), batches.std(axis=(0, 1))
    return float(np.sqrt((((batches.mean(axis=1) - mean) / std) ** 2).mean()))


def _plot(result: dict, path: Path) -> None:
    figure, (left, right) = new_figure(1, 2, (13, 4), math=True)
    for name, losses in result["losses"].items():
        if not name.endswith(SINGLE):
            seen = (np.arange(len(losses)) + 1) * STEPS * BATCH_SIZE / len(losses)
            left.plot(seen, losses, "--" if name.startswith(ONE) else "-", label=name)
    left.set_xlabel("images seen")
    left.set_title("loss of each step")
    left.legend()
    pairs = ((NOT_SYNCHRONIZED, ONE), (SYNCHRONIZED + SINGLE, ONE + SINGLE), (SYNCHRONIZED, ONE))
    for name, one in pairs:
        difference = np.abs(np.array(result["losses"][name]) - result["losses"][one])
        right.semilogy(range(1, STEPS + 1), difference + 1e-16, "o-", label=name)
    right.axhline(TOLERANCE, color="grey", linestyle=":", label="1e-4")
    right.set_xlabel("step")
    right.set_title("difference to one device")
    right.legend()
    save_figure(figure, path)


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    return run_question(question_parser("two_devices", __doc__).parse_args(arguments), answer)


if __name__ == "__main__":
    sys.exit(main())
