"""Training on several devices: each step's batch is divided among them, and their gradients are summed.

Two devices give the same numbers as one, up to rounding, under three conditions: BatchNormalization takes its
statistics over the whole batch instead of each device's part, the learning rate is the one for the whole batch, and
there is no dropout, because Keras draws the same masks on each device.
"""

import contextlib
import functools
import os
from typing import Any

import keras

from common.errors import UserError

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


def prepare(replicas: int) -> None:
    """Connects to the other machines of TF_CONFIG, and divides the processor into logical devices if GPUs are too few.

    Call it before TensorFlow computes anything.

    Raises:
        UserError: TensorFlow has computed something already, or Keras runs on another backend.
    """
    _expect_tensorflow(replicas)
    if os.environ.get("TF_CONFIG"):
        _several_machines()
    if replicas == 1:
        return
    if len(tf.config.list_physical_devices("GPU")) >= replicas:
        return
    (processor,) = tf.config.list_physical_devices("CPU")
    try:
        tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * replicas)
    except RuntimeError as error:
        raise UserError(
            f"{replicas} replicas: TensorFlow was used before the processor was divided; start a new process"
        ) from error


def scope(replicas: int) -> Any:
    """A context in which models are built and trained on `replicas` devices of each machine.

    If the environment variable TF_CONFIG names a cluster, all its machines train together
    (MultiWorkerMirroredStrategy): each runs the same command and writes its own, equal run folder. Otherwise the
    devices of this machine do (MirroredStrategy). One replica changes nothing.

    Raises:
        UserError: fewer devices than replicas, or Keras runs on another backend.
    """
    _expect_tensorflow(replicas)
    if os.environ.get("TF_CONFIG"):
        return _several_machines().scope()
    if replicas == 1:
        return contextlib.nullcontext()
    devices = tf.config.list_logical_devices("GPU")
    if len(devices) < replicas:
        devices = tf.config.list_logical_devices("CPU")
    if len(devices) < replicas:
        raise UserError(
            f"{replicas} replicas need as many devices, found {len(devices)}; call prepare({replicas}) first"
        )
    return _one_machine(tuple(device.name for device in devices[:replicas])).scope()


def require_same_progress(epochs: int) -> None:
    """Raises a UserError unless all machines of TF_CONFIG continue after the same number of epochs.

    Otherwise each would add the gradients of the others to weights of its own.

    Args:
        epochs: that this machine has trained.
    """
    if not os.environ.get("TF_CONFIG"):
        return
    _expect_tensorflow(1)
    machines = _several_machines()
    counts = machines.gather(machines.run(lambda: tf.constant([epochs])), axis=0).numpy().tolist()
    if len(set(counts)) > 1:
        raise UserError(
            f"all machines must continue after the same epoch, got {', '.join(map(str, counts))} finished epochs; copy "
            "the run folder of one to the others"
        )


def synchronize(backbone: keras.Model) -> None:
    """Within a `scope`, makes every BatchNormalization take its statistics over the batch of all devices."""
    if keras.backend.backend() != "tensorflow" or not tf.distribute.has_strategy():
        return
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def _expect_tensorflow(replicas: int) -> None:
    if keras.backend.backend() != "tensorflow" and (replicas > 1 or os.environ.get("TF_CONFIG")):
        raise UserError(
            "several devices or machines need the TensorFlow backend; leave out --backend and KERAS_BACKEND"
        )


@functools.cache  # two strategies in one process would use different keys for their messages
def _one_machine(devices):
    return tf.distribute.MirroredStrategy(devices)


@functools.cache  # one per process; it waits for the other machines
def _several_machines():
    class Machines(tf.distribute.MultiWorkerMirroredStrategy):
        """Adds what Keras 3's `fit` needs: `reduce` of the shapes of a batch, and of scalars along axis 0."""

        def reduce(self, reduce_op, value, axis=None):
            return tf.nest.map_structure(lambda one: self._reduce(reduce_op, one), value)

        def _reduce(self, reduce_op, value):
            mine = self.experimental_local_results(value)[0]
            return mine if mine.shape.rank else super().reduce(reduce_op, value, axis=None)

    return Machines()
