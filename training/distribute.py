"""One training on several devices: each step's batch is divided among them, and their gradients are added up.

Two devices give the numbers of one, up to rounding, if two things are so: the batch statistics of BatchNormalization
are taken over the whole batch and not over each device's part, and the learning rate is the one for the whole batch.
"""

import contextlib
import functools
import os

import keras

from training.errors import UserError

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


def prepare(replicas):
    """Joins the other machines, where TF_CONFIG names any, and divides the processor into as many logical devices as
    there are replicas, where there are fewer GPUs. Call before anything is computed.

    Raises:
        UserError: TensorFlow has computed something already, or another backend of Keras has no such strategy.
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
        raise UserError(f"{replicas} replicas: the processor was in use before it was divided; start a new process") from error


def _expect_tensorflow(replicas):
    if keras.backend.backend() != "tensorflow" and (replicas > 1 or os.environ.get("TF_CONFIG")):
        raise UserError("several devices or machines train together under TensorFlow only; leave out --backend and KERAS_BACKEND")


def scope(replicas):
    """A context in which networks are built and trained on `replicas` devices of each machine.

    With the environment variable TF_CONFIG, whose cluster names the machines, all of them train together
    (MultiWorkerMirroredStrategy): each runs the same command and writes its own, equal, run folder. Without it, the
    devices of this one do (MirroredStrategy). With one replica, nothing is changed.

    Raises:
        UserError: fewer devices than replicas, or another backend of Keras, which has no such strategy.
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
        raise UserError(f"{replicas} replicas need as many devices, found {len(devices)}; call training.distribute.prepare first")
    return _one_machine(tuple(device.name for device in devices[:replicas])).scope()


def synchronise(backbone):
    """Within a `scope`, lets every BatchNormalization take its statistics over the whole batch of all devices."""
    if keras.backend.backend() != "tensorflow" or not tf.distribute.has_strategy():
        return
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


@functools.cache  # a second strategy in one process cannot agree with the first on the keys of its messages
def _one_machine(devices):
    return tf.distribute.MirroredStrategy(devices)


@functools.cache  # one to a process; it waits for the other machines
def _several_machines():
    class Machines(tf.distribute.MultiWorkerMirroredStrategy):
        """What Keras 3's `fit` asks of a strategy: the shapes of a batch, and the mean of scalars along their axis 0."""

        def reduce(self, reduce_op, value, axis=None):
            return tf.nest.map_structure(lambda one: self._reduce(reduce_op, one), value)

        def _reduce(self, reduce_op, value):
            mine = self.experimental_local_results(value)[0]
            return mine if mine.shape.rank else super().reduce(reduce_op, value, axis=None)

    return Machines()
