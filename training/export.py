"""Trained network → a SavedModel of plain TensorFlow operations, for a server whose TensorFlow may be years older.

No Keras object is in it: BatchNormalization is folded into the convolutions, all weights are constants, and they are
kept at half precision. Preprocessing is in the graph, augmentation is not.
"""

import os
import shutil
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from training.augment import FLIPS

# Matrices and kernels of at least this many numbers are halved; for the rest it would save nothing and cost exactness.
SMALL = 1024
CHECKED = 16  # images on which the SavedModel is compared with the network
TOLERANCE, HALF_TOLERANCE = 1e-3, 1e-2  # of a probability, at single and at half precision


def export(network, names, flips, sure, folder, half=True):
    """Writes a network as a SavedModel.

    The SavedModel has two signatures: `probabilities` (pixels: float32 [b, h, w, 3] of 0 to 255 → probabilities:
    float32 [b, classes]) and `about` (no input → names: string [classes], flips: string [k], sure: float32 [],
    size: int32 [2], tensorflow: string []).

    Args:
        network: `keras.Model`, built under the float32 policy, [b, h, w, 3] of 0 to 255 → probabilities [b, classes].
        names: class names in the order of the probabilities.
        flips: views to average at prediction, some of `augment.FLIPS`.
        sure: an image whose first view has a class of more than this probability is not looked at again.
        folder: replaced if it exists, once the new one is complete.
        half: keep large constants as float16, unless that changes a probability by more than 0.01.

    Raises:
        ValueError: a layer that has its own weights and was not built in float32, names or views that do not fit, or a
            SavedModel whose probabilities are not the network's.
    """
    if network.output_shape[-1] != len(names):
        raise ValueError(f"{len(names)} names for {network.output_shape[-1]} outputs")
    height, width = network.input_shape[1:3]
    if height != width and (turned := [flip for flip in flips if FLIPS[flip][0]]):
        raise ValueError(f"{turned[0]} needs square images, and the network takes {height}×{width}")
    for layer in network._flatten_layers(include_self=False):
        if layer.weights and layer.dtype_policy.name != "float32":
            raise ValueError(f"the layer {layer.name} was built in {layer.dtype_policy.name}, not in float32")
    module = tf.Module()
    module.probabilities = freeze(fold_batch_norm(network), half)
    about = _about(names, flips, sure, network.input_shape[1:3])
    folder = Path(folder)
    temporary = folder.with_name(f".tmp-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        tf.saved_model.save(module, str(temporary), signatures={"probabilities": module.probabilities, "about": about})
        (temporary / "fingerprint.pb").unlink(missing_ok=True)  # a random number: without it, equal weights give equal bytes
        difference = _difference(network, temporary)
        if difference <= (HALF_TOLERANCE if half else TOLERANCE):
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(temporary, folder)
            return
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if not half:
        raise ValueError(f"the SavedModel's probabilities differ from the network's by {difference:.2g}, more than {TOLERANCE}")
    print(f"note: half precision would change a probability by {difference:.2g}, so the weights are kept at single precision")
    export(network, names, flips, sure, folder, half=False)


def _about(names, flips, sure, size):
    """A function without input that says what the model is: names, views, size and TensorFlow's version."""

    @tf.function(input_signature=[])
    def about():
        return {
            "names": tf.constant(list(names)),
            "flips": tf.constant(list(flips)),
            "sure": tf.constant(sure, tf.float32),
            "size": tf.constant(size, tf.int32),
            "tensorflow": tf.constant(tf.__version__),
        }

    return about


def _difference(network, folder):
    """Largest difference of a probability between a network and what was saved of it, on noise of many kinds of light."""
    height, width = network.input_shape[1:3]
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 255, (CHECKED, 1, 1, 3)) + rng.normal(0, 40, (CHECKED, height, width, 3))
    pixels = np.clip(pixels, 0, 255).astype(np.float32)
    saved = tf.saved_model.load(str(folder)).signatures["probabilities"](pixels=tf.constant(pixels))["probabilities"]
    return float(np.abs(saved.numpy() - keras.ops.convert_to_numpy(network(pixels, training=False))).max())


def fold_batch_norm(network):
    """The same function with every BatchNormalization that follows a convolution folded into it.

    y = (conv(x) - mean) / sqrt(variance + epsilon) * gamma + beta is a convolution with a scaled kernel and a bias.

    Returns:
        A new `keras.Model`; the given one is not changed.
    """

    def copy(layer):
        if isinstance(layer, keras.Model):
            return fold_batch_norm(layer)
        if _normalised_by(layer) is not None:
            return layer.__class__.from_config({**layer.get_config(), "use_bias": True})
        if isinstance(layer, keras.layers.BatchNormalization) and _is_folded(layer):
            return _Folded(name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    folded = keras.models.clone_model(network, clone_function=copy)
    for layer, twin in zip(network.layers, folded.layers, strict=True):
        if (norm := _normalised_by(layer)) is not None:
            twin.set_weights(_folded_weights(layer, norm))
        elif not isinstance(twin, (keras.Model, _Folded)):
            twin.set_weights(layer.get_weights())
            if isinstance(twin, keras.layers.Normalization):
                twin.finalize_state()  # set_weights alone leaves the mean at 0
    return folded


def freeze(network, half):
    """A network as a function of plain operations and constants: float32 [b, h, w, 3] → {"probabilities": [b, classes]}."""
    signature = tf.TensorSpec([None, *network.input_shape[1:]], tf.float32, name="pixels")
    traced = tf.function(lambda pixels: network(pixels, training=False), input_signature=[signature])
    frozen = convert_variables_to_constants_v2(traced.get_concrete_function())
    graph = frozen.graph.as_graph_def()
    if half:
        graph = halve(graph)
    source, result = frozen.inputs[0].name, frozen.outputs[0].name

    @tf.function(input_signature=[signature])
    def probabilities(pixels):
        (output,) = tf.graph_util.import_graph_def(graph, {source: pixels}, [result], name="")
        return {"probabilities": output}

    return probabilities


def halve(graph):
    """A GraphDef with its large float32 constants kept as float16, each followed by a Cast back."""
    smaller = tf.compat.v1.GraphDef()
    smaller.CopyFrom(graph)
    del smaller.node[:]
    for node in graph.node:
        array = tf.make_ndarray(node.attr["value"].tensor) if node.op == "Const" else np.zeros(0)
        if array.dtype != np.float32 or array.size < SMALL or max(array.shape) == array.size:
            smaller.node.add().CopyFrom(node)
            continue
        constant = smaller.node.add(op="Const", name=f"{node.name}/half")
        constant.attr["dtype"].type = tf.float16.as_datatype_enum
        constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array.astype(np.float16)))
        cast = smaller.node.add(op="Cast", name=node.name, input=[constant.name])
        cast.attr["SrcT"].type = tf.float16.as_datatype_enum
        cast.attr["DstT"].type = tf.float32.as_datatype_enum
    return smaller


class _Folded(keras.layers.Layer):
    """Stands where a BatchNormalization was; takes the same arguments and does nothing."""

    def call(self, inputs, training=None, mask=None):
        return inputs


def _normalised_by(layer):
    """The BatchNormalization that is a convolution's only consumer, or None."""
    if not isinstance(layer, keras.layers.Conv2D) or layer.activation is not keras.activations.linear:
        return None
    consumers = [node.operation for node in layer._outbound_nodes]
    if len(consumers) == 1 and isinstance(consumers[0], keras.layers.BatchNormalization) and consumers[0].axis in (-1, 3):
        return consumers[0]
    return None


def _is_folded(norm):
    producers = [node.operation for node in norm._inbound_nodes[-1].parent_nodes]
    return len(producers) == 1 and _normalised_by(producers[0]) is norm


def _folded_weights(conv, norm):
    numpy = keras.ops.convert_to_numpy
    gain = 1 / np.sqrt(numpy(norm.moving_variance).astype(np.float64) + norm.epsilon)
    if norm.scale:
        gain *= numpy(norm.gamma)
    bias = numpy(conv.bias) if conv.use_bias else 0.0
    shift = (bias - numpy(norm.moving_mean)) * gain + (numpy(norm.beta) if norm.center else 0.0)
    return [(numpy(conv.kernel) * gain).astype(np.float32), shift.astype(np.float32)]
