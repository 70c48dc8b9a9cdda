"""Variants of the exported network: fewer operations, and 8 bits; and each operation's share of the time.

  python -m benchmarks.variants --data data/leaves/train
  python -m benchmarks.variants --data data/leaves/train --test data/leaves/phase1 --rounds 15

The variants are computed by the submission's own model.py in the precision that it chooses, except for 8 bits, which
tf.lite computes from images that TensorFlow has resized. 8-bit weights and activations are scaled on every second image
of --data; on the others, the labels of all variants are compared and they are timed in turn, one view of each image.
With --test, the accuracy with test-time augmentation is measured as well.
"""

import argparse
import contextlib
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import benchmark_parser, run_benchmark, speed_record, speed_table
from benchmarks.peers import agreement
from benchmarks.process import SUBMISSION, NotMeasured, Process, submission
from common.cli import whole_number
from common.errors import UserError
from common.images import load_folder
from common.progress import progress
from competition.package.archive import MODEL_NAME
from competition.package.class_names import class_names
from competition.synthetic import SIDE

BASELINE, MERGED, LATE, BOTH = "as exported", "1×1 convolutions merged", "pooling after 1×1 convolutions", "both"
EIGHT_BITS = "8 bits, tf.lite"
VARIANTS = (BASELINE, MERGED, LATE, BOTH, EIGHT_BITS)
TRACED = 5  # predictions
BATCH = 16


def load_variant(name: str, calibration: np.ndarray) -> Callable[[np.ndarray, bool], tuple[float, np.ndarray, int]]:
    """A variant of the submission's network.

    Args:
        name: one of VARIANTS.
        calibration: uint8 [n, 96, 96, 3], on which 8 bits are scaled.

    Returns:
        A function of images and whether they get test-time augmentation: seconds, probabilities [n, classes], bytes of
        the network.
    """
    network = submission(tta=True)
    transforms, own = network.tta_transforms, network._network
    if name == EIGHT_BITS:
        network._network, size = _eight_bits(own, calibration)
        network.precision = "8 bits"
    else:
        network._network, size = _rewritten(own, name, network.precision)

    def timed(images: np.ndarray, tta: bool) -> tuple[float, np.ndarray, int]:
        network.tta_transforms = transforms if tta else transforms[:1]
        began = time.perf_counter()
        probabilities = network.predict_proba(images)
        return time.perf_counter() - began, probabilities, size

    return timed


def _rewritten(own: Any, name: str, precision: str) -> tuple[Callable, int]:
    """A session like the submission's own, of its rewritten graph, and the bytes of the nodes that it needs."""
    import tensorflow as tf

    from benchmarks.rewrites import merge_siblings, pool_late, sorted_graph

    changed = own._session.graph.as_graph_def()
    if name in (MERGED, BOTH):
        merge_siblings(changed)
    if name in (LATE, BOTH):
        pool_late(changed)
    needed = tf.compat.v1.graph_util.extract_sub_graph(sorted_graph(changed), [own._result.split(":")[0]])
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(needed, name="")
    return type(own)(graph, own._source, own._result, precision), needed.ByteSize()


def _eight_bits(own: Any, calibration: np.ndarray) -> tuple[Callable, int]:
    """The network behind its resizing with weights and activations of 8 bits, and the bytes of its file."""
    import tensorflow as tf

    graph = own._session.graph.as_graph_def()
    (resizing,) = (f"{node.name}:0" for node in graph.node if node.op == "ResizeBicubic")

    def resize(pixels: np.ndarray) -> np.ndarray:
        return own._session.run(resizing, {own._source: pixels})

    large = resize(calibration.astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([BATCH, *large.shape[1:]], tf.float32)])
    def network(pixels):
        return tf.graph_util.import_graph_def(graph, {resizing: pixels}, [own._result], name="")[0]

    module = tf.Module()
    module.network = network
    converter = tf.lite.TFLiteConverter.from_concrete_functions([network.get_concrete_function()], module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    full = range(0, len(large) - BATCH + 1, BATCH)
    converter.representative_dataset = lambda: ([large[start : start + BATCH]] for start in full)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
    content = converter.convert()
    interpreter = tf.lite.Interpreter(model_content=content, num_threads=os.cpu_count())
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()

    def predict(pixels: np.ndarray) -> np.ndarray:
        batch = np.zeros((BATCH, *large.shape[1:]), np.float32)
        batch[: len(pixels)] = resize(pixels)
        interpreter.set_tensor(source["index"], batch)
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])[: len(pixels)]

    return predict, len(content)


def load_trace(precision: str) -> Callable[[np.ndarray], dict[str, float]]:
    """A function that measures the share of each operation in the processor time of a prediction of some images."""
    own = submission(precision)._network

    def shares(images: np.ndarray) -> dict[str, float]:
        import tensorflow as tf

        seconds: Counter = Counter()
        own(images)
        for _ in range(TRACED):
            record = tf.compat.v1.RunMetadata()
            options = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE)
            own._session.run(own._result, {own._source: images}, options=options, run_metadata=record)
            for device in record.step_stats.dev_stats:
                for node in device.node_stats:
                    operation = node.timeline_label.split(" = ")[-1].split("(")[0]
                    name = re.sub("^_Mkl(Native)?(Fused)?", "", operation)
                    seconds[name] += node.op_end_rel_micros - node.op_start_rel_micros
        return {name: value / seconds.total() for name, value in seconds.most_common()}

    return shares


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints. Returns the exit code."""
    parser = benchmark_parser("variants", __doc__)
    parser.add_argument("--data", metavar="DIR", required=True, help="class folders of training photographs")
    parser.add_argument("--test", metavar="DIR", help="class folders on which the accuracy is measured")
    parser.add_argument("--images", type=whole_number, default=192, help="of --data (default: %(default)s)")
    parser.add_argument("--rounds", type=whole_number, default=9, help="timed rounds (default: %(default)s)")
    return run_benchmark(parser.parse_args(arguments), _run)


def _run(options: argparse.Namespace) -> dict:
    if options.images < 2 * BATCH:
        raise UserError(f"--images must be from {2 * BATCH}, got {options.images}")
    folder = load_folder(options.data, (SIDE, SIDE)).images
    if len(folder) < options.images:
        raise UserError(f"--images must be at most the {len(folder)} images in {options.data}, got {options.images}")
    images = folder[np.linspace(0, len(folder) - 1, options.images).astype(int)]
    test = load_folder(options.test, (SIDE, SIDE)) if options.test else None
    if test:
        names = class_names(SUBMISSION / MODEL_NAME / "saved_model.pb") or ()
        test = test.with_classes(names, "--test", "the submission")
    operations = {}
    for precision in ("float32", "bfloat16"):
        with contextlib.suppress(NotMeasured), Process(precision, load_trace, precision) as trace:
            operations[precision] = trace(images[:BATCH].astype(np.float32))
    variants = measure(images, options.rounds, test)
    return {"images": len(images) // 2, "rounds": options.rounds, "variants": variants, "operations": operations}


def measure(images: np.ndarray, rounds: int, test: Any = None) -> dict[str, dict[str, float]]:
    """Times the variants in turn, and compares their labels with those of the network as exported.

    Args:
        images: uint8 [n, 96, 96, 3]; every second one scales the 8 bits, the others are predicted.
        rounds: number of rounds.
        test: `Images` on which the accuracy is measured, or None.

    Returns:
        Name → `speed_record` and `agreement` with the first, and megabytes, as plain values.
    """
    calibration, timed = images[::2], images[1::2]
    rows: dict[str, dict[str, float]] = {}
    with contextlib.ExitStack() as stack:
        processes = {name: stack.enter_context(Process(name, load_variant, name, calibration)) for name in VARIANTS}
        reference = processes[BASELINE](timed, False)[1]
        for name, process in processes.items():
            _, probabilities, size = process(timed, False)
            rows[name] = {**agreement(probabilities, reference), "megabytes": size / 1e6}
            if test is not None:
                rows[name]["accuracy"] = float((process(test.images, True)[1].argmax(axis=-1) == test.labels).mean())
        seconds: dict[str, list[float]] = {name: [] for name in processes}
        for _ in progress(range(rounds), "comparing", unit="round"):
            for name, process in processes.items():
                seconds[name].append(process(timed, False)[0])
    arrays = {name: np.array(values) for name, values in seconds.items()}
    print("\n".join(speed_table(arrays, len(timed), BASELINE)))
    speeds = speed_record(arrays, len(timed), BASELINE)
    return {name: {**speeds[name], **row} for name, row in rows.items()}


if __name__ == "__main__":
    sys.exit(main())
