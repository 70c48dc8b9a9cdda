"""The shipped model against Keras' `model.predict` on the same weights: one view of each image, float32.

    python -m benchmarks.inference
    python -m benchmarks.inference --images 512 --rounds 9 --json docs/benchmarks/inference.json

The Keras network is InceptionV3 with BatchNormalization and the quasi-SVM on top, filled with the weights of
submission/SubmissionModel; its probabilities are compared with the shipped model's before anything is timed. It is given
batches, for on plain arrays `model.predict` waits at its end for a thread that tunes its pipeline; that is timed as well.
"""

import argparse
import importlib.util
import os
import re
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from benchmarks import interleaved, record, table
from competition.drawings import draw_images
from training.architectures import inception_v3, quasi_svm_head, whole_network
from training.data import natural_key
from training.files import write_json
from training.pipeline import plain_batches
from training.recipe import Recipe

SUBMISSION = Path(__file__).resolve().parents[1] / "submission"
BATCH = 32  # images that Keras is given at once, as the shipped model takes them
TOLERANCE = 1e-3  # of a probability, between the two networks


def shipped_model():
    """The submission's own class, with one view of each image."""
    spec = importlib.util.spec_from_file_location("submitted", SUBMISSION / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.model(SUBMISSION)
    network.flips = ("none",)
    return network


def keras_model():
    """The same function as a Keras network with BatchNormalization, filled from the SavedModel's constants."""
    signature = tf.saved_model.load(str(SUBMISSION / "SubmissionModel")).signatures["probabilities"]
    nodes = convert_variables_to_constants_v2(signature).graph.as_graph_def().node
    by_name = {node.name: node for node in nodes}

    def constant(name):
        """The array behind a name, through the casts and identities in between."""
        node = by_name[name.split(":")[0]]
        while node.op != "Const":
            node = by_name[node.input[0].split(":")[0]]
        return tf.make_ndarray(node.attr["value"].tensor).astype(np.float32)

    def head_constants(layer):
        found = [constant(n.name) for n in nodes if f"/{layer}" in n.name and n.op == "Const"]
        return [value for value in found if value.size > 1]

    def operand(layer, op, number):
        return next(constant(node.input[number]) for node in nodes if node.op == op and f"/{layer}" in node.name)

    kernels = [constant(node.input[1]) for node in _in_order_of_creation(nodes, "Conv2D")]
    biases = [constant(node.input[1]).ravel() for node in _in_order_of_creation(nodes, "BiasAdd")]
    mean, variance = (operand("standardise", *place).squeeze() for place in (("Sub", 1), ("Sqrt", 0)))
    frequencies, phase = head_constants("fourier")
    scale = next(constant(n.name) for n in nodes if "/fourier" in n.name and "truediv" in n.name and n.op == "Const")
    weights, bias = head_constants("softmax")
    size = next(constant(node.input[1]) for node in nodes if node.op.startswith("Resize"))[0]

    backbone = inception_v3("none")
    _fill(backbone, kernels, biases)
    head = quasi_svm_head(Recipe(head_features=len(phase), head_common_scale=mean.size == 1), len(frequencies), 1.0, len(bias))
    head.get_layer("standardise").set_weights([mean, variance, np.array(1)])
    head.get_layer("standardise").finalize_state()
    head.get_layer("fourier").set_weights([frequencies, phase, scale])
    head.get_layer("softmax").set_weights([weights, bias])
    return whole_network(backbone, head, tuple(signature.inputs[0].shape[1:3]), int(size))


def _in_order_of_creation(nodes, op):
    """The backbone's nodes of one kind, sorted by the number in the name that Keras gave the layer."""
    chosen = [(re.search(r"/(conv2d(?:_\d+)*)/", node.name), node) for node in nodes if node.op == op]
    return [node for found, node in sorted(((m[1], n) for m, n in chosen if m), key=lambda pair: natural_key(pair[0]))]


def _fill(backbone, kernels, biases):
    """Puts folded convolutions into layers that normalise: their BatchNormalization keeps the bias and changes nothing else."""
    convolutions = [layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D)]
    convolutions.sort(key=lambda layer: natural_key(layer.name))
    for layer, kernel, bias in zip(convolutions, kernels, biases, strict=True):
        norm = layer._outbound_nodes[0].operation
        layer.set_weights([kernel])
        zeros = np.zeros_like(bias)
        norm.set_weights([bias, zeros, zeros + 1 - norm.epsilon])  # beta, mean, variance


def main(arguments=None):
    """Compares and prints. Returns 0 if the two networks agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", metavar="FILE", help="write the numbers there as well")
    options = parser.parse_args(arguments)
    images = draw_images(options.images).astype(np.float32)
    shipped, trained = shipped_model(), keras_model()
    difference = float(np.abs(shipped.predict_proba(images) - trained.predict(images, verbose=0)).max())
    print(f"largest difference of a probability: {difference:.1e}")
    if difference > TOLERANCE:
        print("error: the two networks are not the same function; the benchmark would mean nothing", file=sys.stderr)
        return 1
    contestants = {
        "Keras model.predict": lambda: trained.predict(plain_batches(BATCH, images), verbose=0),
        "Keras model.predict, plain arrays": lambda: trained.predict(images, batch_size=BATCH, verbose=0),
        "submission/model.py": lambda: shipped.predict_proba(images),
    }
    seconds = interleaved(contestants, options.rounds)
    baseline = "Keras model.predict"
    print("\n".join(table(seconds, len(images), baseline)))
    if options.json:
        write_json(Path(options.json), {"images": len(images), "rounds": options.rounds, **record(seconds, len(images), baseline)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
