"""Exports a trained model as a SavedModel of plain TensorFlow operations, for servers with an older TensorFlow.

It contains no Keras object: BatchNormalization is folded into the convolutions, and all weights are constants, the
large ones at half precision. Preprocessing is in the graph, augmentation is not.
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from common.errors import UserError
from common.files import atomic_folder
from competition.package.trained_on import write_trained_on
from training.trained import TrainedModel, load_run

MIN_HALVED = 1024  # smaller constants stay float32: halving them would save nothing
NOISE_IMAGES = 16  # on which the SavedModel is compared with the model if there are no photographs
TOLERANCE, HALF_TOLERANCE = 1e-3, 1e-2  # of a probability, at single and at half precision


class _NotEqual(ValueError):
    """The SavedModel's probabilities differ from the model's."""


def export_run(run: Path, folder: Path) -> None:
    """Exports the model of a finished run.

    Raises:
        UserError: no run, an unfinished or a damaged one, or a model that cannot be exported.
    """
    try:
        export(load_run(run), folder)
    except ValueError as error:
        raise UserError(f"cannot export {run}: {error}") from error


def export(trained: TrainedModel, folder: Path) -> None:
    """Writes a trained model as a SavedModel.

    The SavedModel has two signatures: `probabilities` (pixels: float32 [b, h, w, 3] of 0 to 255 → probabilities:
    float32 [b, classes]) and `about` (no input → names: string [classes], tta_transforms: string [k], tta_threshold:
    float32 [], size: int32 [2], tensorflow: string []).

    Large constants are stored as float16, unless that changes a probability by more than 0.01. The SavedModel is
    compared with the model on `trained.samples`. On noise, a network with BatchNormalization can amplify rounding
    errors, so a difference on noise is only a note. `trained.trained_on` is stored as well, so that the grader can tell
    if it grades on training images.

    Args:
        trained: the model, built under the float32 policy, its class names and its test-time augmentation.
        folder: replaced if it exists, once the new one is complete.

    Raises:
        ValueError: a layer with weights that was not built in float32, names or transforms that do not fit, or a
            SavedModel whose probabilities are not the model's.
    """
    _check(trained)
    folded = fold_batch_norm(trained.model)
    try:
        _save(trained, folded, Path(folder), half=True)
    except _NotEqual as error:
        print(f"note: at half precision, {error}; the weights are stored at single precision")
        _save(trained, folded, Path(folder), half=False)


def _check(trained: TrainedModel) -> None:
    model = trained.model
    if model.output_shape[-1] != len(trained.names):
        raise ValueError(f"{model.output_shape[-1]} outputs need as many class names, got {len(trained.names)}")
    try:
        trained.prediction.check_image_shape(model.input_shape[1:3])
    except UserError as error:
        raise ValueError(str(error)) from error
    for layer in model._flatten_layers(include_self=False):
        if layer.weights and layer.dtype_policy.name != "float32":
            raise ValueError(f"the layer {layer.name} must be built in float32, got {layer.dtype_policy.name}")


def _save(trained: TrainedModel, folded: keras.Model, folder: Path, half: bool) -> None:
    """Saves and compares; `folder` is replaced only if the probabilities agree."""
    module = tf.Module()
    module.probabilities = freeze(folded, half)
    signatures = {"probabilities": module.probabilities, "about": _about(trained)}
    with atomic_folder(folder) as temporary:
        tf.saved_model.save(module, str(temporary), signatures=signatures)
        # it is random; without it, equal weights give equal bytes
        (temporary / "fingerprint.pb").unlink(missing_ok=True)
        _compare(trained, temporary, half)
        if trained.trained_on:
            write_trained_on(temporary, trained.trained_on)


def _compare(trained: TrainedModel, folder: Path, half: bool) -> None:
    """Raises _NotEqual if the SavedModel differs on photographs, or in a prediction on noise if there are none."""
    samples = _noise(trained.model) if trained.samples is None else trained.samples.astype(np.float32)
    expected = keras.ops.convert_to_numpy(trained.model(samples, training=False))
    if not np.isfinite(expected).all():
        raise UserError("the model's probabilities must be finite, and are not; train the run again")
    signature = tf.saved_model.load(str(folder)).signatures["probabilities"]
    found = signature(pixels=tf.constant(samples))["probabilities"].numpy()
    difference, tolerance = float(np.abs(found - expected).max()), HALF_TOLERANCE if half else TOLERANCE
    if difference <= tolerance:
        return
    reason = f"the SavedModel's probabilities differ from the model's by {difference:.2g}, more than {tolerance}"
    if trained.samples is None and not half and (found.argmax(axis=-1) == expected.argmax(axis=-1)).all():
        print(f"note: on noise, {reason}; all predictions are the same")
        return
    raise _NotEqual(reason)


def _about(trained: TrainedModel) -> Any:
    """A function that returns the class names, the test-time augmentation, the image size and the version."""

    @tf.function(input_signature=[])
    def about():
        return {
            "names": tf.constant(list(trained.names)),
            "tta_transforms": tf.constant(list(trained.prediction.tta_transforms)),
            "tta_threshold": tf.constant(trained.prediction.tta_threshold, tf.float32),
            "size": tf.constant(trained.model.input_shape[1:3], tf.int32),
            "tensorflow": tf.constant(tf.__version__),
        }

    return about


def _noise(model: keras.Model) -> np.ndarray:
    """Images of noise with different brightness: float32 [n, h, w, 3]."""
    height, width = model.input_shape[1:3]
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 255, (NOISE_IMAGES, 1, 1, 3)) + rng.normal(0, 40, (NOISE_IMAGES, height, width, 3))
    return np.clip(pixels, 0, 255).astype(np.float32)


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """Folds every BatchNormalization that follows a convolution into the convolution.

    y = (conv(x) - mean) / sqrt(variance + epsilon) * gamma + beta is a convolution with a scaled kernel and a bias.

    Returns:
        A new `keras.Model` with the same outputs. The given one is not changed.
    """

    def copy(layer):
        if isinstance(layer, keras.Model):
            return fold_batch_norm(layer)
        if _batch_norm_of(layer) is not None:
            return layer.__class__.from_config({**layer.get_config(), "use_bias": True})
        if isinstance(layer, keras.layers.BatchNormalization) and _is_folded(layer):
            return _Folded(name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    folded = keras.models.clone_model(model, clone_function=copy)
    for layer, twin in zip(model.layers, folded.layers, strict=True):
        if (norm := _batch_norm_of(layer)) is not None:
            twin.set_weights(_folded_weights(layer, norm))
        elif not isinstance(twin, (keras.Model, _Folded)):
            twin.set_weights(layer.get_weights())
            if isinstance(twin, keras.layers.Normalization):
                twin.finalize_state()  # set_weights alone leaves the mean at 0
    return folded


def freeze(model: keras.Model, half: bool) -> Any:
    """A model as a function of constants: float32 [b, h, w, 3] → {"probabilities": float32 [b, classes]}."""
    signature = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="pixels")
    traced = tf.function(lambda pixels: model(pixels, training=False), input_signature=[signature])
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


def halve(graph: Any) -> Any:
    """Stores the large float32 constants of a GraphDef as float16, each followed by a Cast back."""
    smaller = tf.compat.v1.GraphDef()
    smaller.CopyFrom(graph)
    del smaller.node[:]
    for node in graph.node:
        array = tf.make_ndarray(node.attr["value"].tensor) if node.op == "Const" else np.zeros(0)
        if array.dtype != np.float32 or array.size < MIN_HALVED or max(array.shape) == array.size:
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
    """Replaces a folded BatchNormalization: takes the same arguments and returns its inputs."""

    def call(self, inputs, training=None, mask=None):
        return inputs


def _batch_norm_of(layer):
    """The BatchNormalization that is the only consumer of a convolution, or None."""
    if not isinstance(layer, keras.layers.Conv2D) or layer.activation is not keras.activations.linear:
        return None
    consumers = [node.operation for node in layer._outbound_nodes]
    if (
        len(consumers) == 1
        and isinstance(consumers[0], keras.layers.BatchNormalization)
        and consumers[0].axis in (-1, 3)
    ):
        return consumers[0]
    return None


def _is_folded(norm):
    producers = [node.operation for node in norm._inbound_nodes[-1].parent_nodes]
    return len(producers) == 1 and _batch_norm_of(producers[0]) is norm


def _folded_weights(conv, norm):
    numpy = keras.ops.convert_to_numpy
    gain = 1 / np.sqrt(numpy(norm.moving_variance).astype(np.float64) + norm.epsilon)
    if norm.scale:
        gain *= numpy(norm.gamma)
    bias = numpy(conv.bias) if conv.use_bias else 0.0
    shift = (bias - numpy(norm.moving_mean)) * gain + (numpy(norm.beta) if norm.center else 0.0)
    return [(numpy(conv.kernel) * gain).astype(np.float32), shift.astype(np.float32)]
