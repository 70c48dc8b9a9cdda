"""Speed of the submission compared with other ways to compute the same network, and the time to its first answer.

  python -m benchmarks.inference
  python -m benchmarks.inference --images 512 --rounds 9 --json inference.json

Each contestant runs in a process of its own, and all of them run alternately on the same images. Before anything is
timed, the probabilities are compared. One view is timed, and test-time augmentation of a third of the images, more than
held-out photographs need. The Keras model is InceptionV3 with BatchNormalization and the quasi-SVM, filled with the
weights of submission/SubmissionModel. The time to the first answer is that of new processes.

exit codes: 0 measured, 1 a contestant computes something else
"""

import argparse
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from common.tensorflow_log import hide_tensorflow_log

hide_tensorflow_log()

import numpy as np

from benchmarks import Failed, benchmark_parser, run_benchmark, speed_record, speed_table, time_interleaved
from benchmarks.process import SUBMISSION, NotMeasured, Process, submission
from common.cli import whole_number
from common.folders import natural_key
from common.progress import progress
from competition.synthetic import draw_images

if TYPE_CHECKING:
    import keras

BATCH_SIZE = 32  # of TensorFlow and Keras; the submission has its own
COMPARED = 16  # images whose probabilities are compared
UNSURE = 1 / 3  # share of the images that get test-time augmentation
BASELINE, BASELINE_TTA = "SavedModel", "SavedModel, TTA"

# Each runs in a process of its own: the first only imports, the second answers.
STARTS = {
    "import": "import tensorflow",
    "first answer": f"""
import sys
sys.path.insert(0, {str(SUBMISSION)!r})
import numpy as np
from model import predict
predict(np.zeros((1, 96, 96, 3), np.uint8))
""",
}

SUMMARY: dict[str, Callable] = {"median": np.median, "min": np.min, "max": np.max}

Predict = Callable[[np.ndarray], np.ndarray]  # float32 [n, h, w, 3] of 0 to 255 → probabilities [n, classes]


@dataclass(frozen=True)
class Contestant:
    """A way to compute the network.

    Attributes:
        prepare: loads the network. Gets the images that will be predicted, and returns the function that is timed. It
            raises NotMeasured or an ImportError if this machine does not have what it needs.
        tolerance: largest difference of a probability from those of `like`.
        like: another contestant.
    """

    prepare: Callable[[np.ndarray], Predict]
    tolerance: float = 1e-3
    like: str = BASELINE


def submission_model(images: np.ndarray, precision: str, tta: bool = False) -> Predict:
    """The submission's own `model`, with one view or with test-time augmentation of a third of the images."""
    if not tta:
        return submission(precision).predict_proba
    one_view, network = submission(precision), submission(precision, tta=True)
    network.tta_threshold = np.quantile(one_view.predict_proba(images).max(axis=1), UNSURE)
    return network.predict_proba


def saved_model(images: np.ndarray) -> Predict:
    """The SavedModel as TensorFlow loads it, in batches."""
    import tensorflow as tf

    saved = tf.saved_model.load(str(SUBMISSION / "SubmissionModel"))

    def predict(images: np.ndarray) -> np.ndarray:
        starts = range(0, len(images), BATCH_SIZE)
        batches = (tf.constant(images[start : start + BATCH_SIZE]) for start in starts)
        return np.concatenate([saved.signatures["probabilities"](pixels=b)["probabilities"].numpy() for b in batches])

    return predict


def saved_model_tta(images: np.ndarray) -> Predict:
    """The SavedModel with test-time augmentation batch by batch: unsure images of a batch make small batches."""
    predict_once = saved_model(images)
    threshold = np.quantile(predict_once(images).max(axis=1), UNSURE)

    def predict(images: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(images), BATCH_SIZE):
            batch = images[start : start + BATCH_SIZE]
            part = predict_once(batch)
            unsure = batch[part.max(axis=1) <= threshold]
            swapped = unsure.swapaxes(1, 2)
            views = [view[:, ::down, ::right] for view in (unsure, swapped) for down in (1, -1) for right in (1, -1)]
            if len(unsure):
                part[part.max(axis=1) <= threshold] = (
                    predict_once(np.concatenate(views)).reshape(8, len(unsure), -1).mean(0)
                )
            parts.append(part)
        return np.concatenate(parts)

    return predict


def keras_predict(images: np.ndarray) -> Predict:
    """Keras' `model.predict` on batches."""
    from training.data.pipeline import plain_batches

    trained = keras_model()
    return lambda images: trained.predict(plain_batches(BATCH_SIZE, images), verbose=0)


FLOAT32, BFLOAT16 = (partial(submission_model, precision=precision) for precision in ("float32", "bfloat16"))
CONTESTANTS = {
    BASELINE: Contestant(saved_model),
    "submission, float32": Contestant(FLOAT32),
    "submission, bfloat16": Contestant(BFLOAT16, tolerance=0.1),
    "Keras model.predict": Contestant(keras_predict),
    BASELINE_TTA: Contestant(saved_model_tta, tolerance=1),
    "submission, float32, TTA": Contestant(partial(FLOAT32, tta=True), like=BASELINE_TTA),
    "submission, bfloat16, TTA": Contestant(partial(BFLOAT16, tta=True), tolerance=0.5, like=BASELINE_TTA),
}


def keras_model() -> "keras.Model":
    """The same function as a Keras model with BatchNormalization, filled with the SavedModel's constants."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    from training.model.backbones import inception_v3
    from training.model.build import build_model

    signature = tf.saved_model.load(str(SUBMISSION / "SubmissionModel")).signatures["probabilities"]
    constants = _Constants(convert_variables_to_constants_v2(signature).graph.as_graph_def().node)
    backbone = inception_v3("none")
    _fill_backbone(backbone, constants.operands("Conv2D"), constants.operands("BiasAdd"))
    size = next(constants.value(node.input[1]) for node in constants.nodes if node.op.startswith("Resize"))[0]
    return build_model(backbone, _filled_head(constants), tuple(signature.inputs[0].shape[1:3]), int(size))


class _Constants:
    """The constants of a frozen graph."""

    def __init__(self, nodes: Sequence[Any]) -> None:
        self.nodes = nodes
        self.by_name = {node.name: node for node in nodes}

    def value(self, name: str) -> np.ndarray:
        """The array of a constant; casts and identities between `name` and the constant are followed."""
        node = self.by_name[name.split(":")[0]]
        while node.op != "Const":
            node = self.by_name[node.input[0].split(":")[0]]
        import tensorflow as tf

        return tf.make_ndarray(node.attr["value"].tensor).astype(np.float32)

    def operands(self, op: str) -> list[np.ndarray]:
        """The second operands of the backbone's nodes of one kind, in the order in which Keras created the layers."""
        found = [(re.search(r"/(conv2d(?:_\d+)*)/", node.name), node) for node in self.nodes if node.op == op]
        named = sorted(((match[1], node) for match, node in found if match), key=lambda pair: natural_key(pair[0]))
        return [self.value(node.input[1]) for _, node in named]

    def operand(self, layer: str, op: str, number: int) -> np.ndarray:
        """One operand of the first node of one kind in a layer."""
        inputs = (node.input[number] for node in self.nodes if node.op == op and f"/{layer}" in node.name)
        return self.value(next(inputs))

    def arrays(self, layer: str) -> list[np.ndarray]:
        """The constants of a layer that are no scalars."""
        values = [self.value(node.name) for node in self.nodes if f"/{layer}" in node.name and node.op == "Const"]
        return [value for value in values if value.size > 1]

    def divisor(self, layer: str) -> np.ndarray:
        """The constant by which a layer divides."""
        names = (node.name for node in self.nodes if node.op == "Const" and f"/{layer}" in node.name)
        return self.value(next(name for name in names if "truediv" in name))


def _filled_head(constants: _Constants) -> "keras.Model":
    from training.config.recipe import Head
    from training.model.heads import quasi_svm_head

    mean = constants.operand("standardise", "Sub", 1).squeeze()
    variance = constants.operand("standardise", "Sqrt", 0).squeeze()
    frequencies, phase = constants.arrays("fourier")
    weights, bias = constants.arrays("softmax")
    fields = Head(fourier_features=len(phase), shared_feature_scale=mean.size == 1)
    head = quasi_svm_head(fields, len(frequencies), len(bias), scale=1.0, seed=0)
    head.get_layer("standardise").set_weights([mean, variance, np.array(1)])
    head.get_layer("standardise").finalize_state()
    head.get_layer("fourier").set_weights([frequencies, phase, constants.divisor("fourier")])
    head.get_layer("softmax").set_weights([weights, bias])
    return head


def _fill_backbone(backbone: "keras.Model", kernels: list[np.ndarray], biases: list[np.ndarray]) -> None:
    """Fills the convolutions. Each BatchNormalization gets the bias as its shift, and changes nothing else."""
    import keras

    convolutions = [layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D)]
    convolutions.sort(key=lambda layer: natural_key(layer.name))
    for layer, kernel, bias in zip(convolutions, kernels, biases, strict=True):
        norm = layer._outbound_nodes[0].operation
        layer.set_weights([kernel])
        beta, mean = bias.ravel(), np.zeros(bias.size, np.float32)
        norm.set_weights([beta, mean, mean + 1 - norm.epsilon])


def loaded(contestant: Contestant, count: int) -> Callable[[int | None], np.ndarray | None]:
    """Loads a contestant, in a process of its own.

    Returns:
        A function that predicts all images, or the first ones if their number is given. Then it returns the
        probabilities.

    Raises:
        NotMeasured: this machine does not have what the contestant needs.
    """
    images = draw_images(count).astype(np.float32)
    try:
        predict = contestant.prepare(images)
    except ImportError as error:
        raise NotMeasured(str(error)) from error

    def answer(first: int | None = None) -> np.ndarray | None:
        probabilities = predict(images[:first])
        return None if first is None else probabilities

    return answer


def measure(contestants: Mapping[str, Contestant], images: int, rounds: int) -> dict[str, np.ndarray]:
    """Times contestants.

    Args:
        contestants: the baseline first.
        images: number of images.
        rounds: number of rounds.

    Returns:
        Name → seconds, float64 [rounds].

    Raises:
        Failed: a contestant's probabilities are not the baseline's, or its process failed.
    """
    with ExitStack() as stack:
        processes: dict[str, Process] = {}
        probabilities: dict[str, np.ndarray] = {}
        for name in progress(contestants, "loading"):
            try:
                process = stack.enter_context(Process(name, loaded, contestants[name], images))
            except NotMeasured as error:
                print(f"{name} is left out: {error}")
                continue
            processes[name], probabilities[name] = process, process(COMPARED)
            _compare(name, contestants[name], probabilities)
        return time_interleaved({**processes}, rounds)


def _compare(name: str, contestant: Contestant, probabilities: dict[str, np.ndarray]) -> None:
    """Raises Failed if a contestant computes another function than the one that it is compared with."""
    like, limit = contestant.like, contestant.tolerance
    difference = float(np.abs(probabilities[name] - probabilities[like]).max())
    print(f"{name}: largest difference of a probability from {like} {difference:.1e}")
    if not difference <= limit:
        raise Failed(f"{name} must agree with {like} to {limit}, they differ by {difference:.1e}")


def measure_start(rounds: int) -> dict[str, dict[str, float]]:
    """Times new processes: `import tensorflow`, and the submission's first answer.

    Returns:
        Medians in seconds for each of STARTS, and the ratio's median, minimum and maximum, by the clock and in
        processor time. The clock includes what other programs take.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in STARTS}
    for _ in progress(range(rounds), "starting", unit="round"):
        for name, program in STARTS.items():
            began, used = time.perf_counter(), _children_seconds()
            subprocess.run([sys.executable, "-c", program], check=True, stderr=subprocess.DEVNULL)
            times[name].append((time.perf_counter() - began, _children_seconds() - used))
    alone, answered = (np.array(times[name]).T for name in STARTS)
    return {
        clock: {
            "import_seconds": float(np.median(alone[row])),
            "answer_seconds": float(np.median(answered[row])),
            **{f"ratio_{key}": float(f(answered[row] / alone[row])) for key, f in SUMMARY.items()},
        }
        for row, clock in enumerate(("clock", "processor"))
    }


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(arguments: list[str] | None = None) -> int:
    """Compares and prints. Returns the exit code."""
    parser = benchmark_parser("inference", __doc__)
    parser.add_argument("--images", type=whole_number, default=256, help="number of images (default: %(default)s)")
    parser.add_argument("--rounds", type=whole_number, default=7, help="timed rounds (default: %(default)s)")
    return run_benchmark(parser.parse_args(arguments), _run)


def _run(options: argparse.Namespace) -> dict:
    seconds = measure(CONTESTANTS, options.images, options.rounds)
    print("\n".join(speed_table(seconds, options.images, BASELINE)))
    start = measure_start(options.rounds)
    for clock, row in start.items():
        ratio = f"{row['ratio_median']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
        print(f"first answer, {clock}: {row['answer_seconds']:.1f} s, {ratio} times import tensorflow")
    record = speed_record(seconds, options.images, BASELINE)
    return {"images": options.images, "rounds": options.rounds, "start": start, "speed": record}


if __name__ == "__main__":
    sys.exit(main())
