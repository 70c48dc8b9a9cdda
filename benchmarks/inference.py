"""Speed of the committed model compared with Keras' `model.predict` on the same weights, without TTA, in float32.

  python -m benchmarks.inference
  python -m benchmarks.inference --images 512 --rounds 9 --json inference.json

The Keras model is InceptionV3 with BatchNormalization and the quasi-SVM, filled with the weights of
submission/SubmissionModel. Its probabilities are compared with those of the committed model before anything is timed.
`model.predict` is timed on batches and on plain arrays. On plain arrays it ends by waiting for a thread that tunes its
pipeline.

exit codes: 0 measured, 1 the two models differ
"""

import argparse
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from benchmarks import Failed, benchmark_parser, run_benchmark, speed_record, speed_table, time_interleaved
from common.folders import natural_key
from competition.synthetic import draw_images
from training.config.recipe import Head
from training.data.pipeline import plain_batches
from training.model.backbones import inception_v3
from training.model.build import build_model
from training.model.heads import quasi_svm_head

SUBMISSION = Path(__file__).resolve().parents[1] / "submission"
BATCH_SIZE = 32  # of Keras; the committed model has the same
TOLERANCE = 1e-3  # of a probability, between the two models
BASELINE = "Keras model.predict"


def committed_model() -> Any:
    """The submission's own `model`, without test-time augmentation."""
    spec: Any = importlib.util.spec_from_file_location("submitted", SUBMISSION / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.model(SUBMISSION)
    network.tta_transforms = ("none",)
    return network


def keras_model() -> keras.Model:
    """The same function as a Keras model with BatchNormalization, filled with the SavedModel's constants."""
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


def _filled_head(constants: _Constants) -> keras.Model:
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


def _fill_backbone(backbone: keras.Model, kernels: list[np.ndarray], biases: list[np.ndarray]) -> None:
    """Fills the convolutions. Each BatchNormalization gets the bias as its shift, and changes nothing else."""
    convolutions = [layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D)]
    convolutions.sort(key=lambda layer: natural_key(layer.name))
    for layer, kernel, bias in zip(convolutions, kernels, biases, strict=True):
        norm = layer._outbound_nodes[0].operation
        layer.set_weights([kernel])
        beta, mean = bias.ravel(), np.zeros(bias.size, np.float32)
        norm.set_weights([beta, mean, mean + 1 - norm.epsilon])


def measure(images: np.ndarray, rounds: int) -> dict[str, np.ndarray]:
    """Times the models.

    Args:
        images: float32 [n, h, w, 3], values 0 to 255.
        rounds: number of rounds.

    Returns:
        Name → seconds, float64 [rounds].

    Raises:
        Failed: the two models are not the same function.
    """
    committed, trained = committed_model(), keras_model()
    difference = float(np.abs(committed.predict_proba(images) - trained.predict(images, verbose=0)).max())
    print(f"largest difference of a probability: {difference:.1e}")
    if difference > TOLERANCE:
        raise Failed(f"the two models must agree to {TOLERANCE}, their largest difference is {difference:.1e}")
    candidates = {
        BASELINE: lambda: trained.predict(plain_batches(BATCH_SIZE, images), verbose=0),
        f"{BASELINE}, plain arrays": lambda: trained.predict(images, batch_size=BATCH_SIZE, verbose=0),
        "submission/model.py": lambda: committed.predict_proba(images),
    }
    return time_interleaved(candidates, rounds)


def main(arguments: list[str] | None = None) -> int:
    """Compares and prints. Returns the exit code."""
    parser = benchmark_parser("inference", __doc__)
    parser.add_argument("--images", type=int, default=256, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    return run_benchmark(parser.parse_args(arguments), _run)


def _run(options: argparse.Namespace) -> dict:
    count = options.images
    seconds = measure(draw_images(count).astype(np.float32), options.rounds)
    print("\n".join(speed_table(seconds, count, BASELINE)))
    return {"images": count, "rounds": options.rounds, **speed_record(seconds, count, BASELINE)}


if __name__ == "__main__":
    sys.exit(main())
