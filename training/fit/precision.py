"""Computation in bfloat16 on processors that have it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import keras

PRECISIONS = ("float32", "bfloat16")
CPU_FLAGS = ("avx512_bf16", "amx_bf16")
OPTION = "auto_mixed_precision_onednn_bfloat16"


def has_bfloat16() -> bool:
    """Whether this processor has bfloat16 matrix products (AVX-512 BF16 or AMX; Linux only)."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith("flags")), "").split()  # ARM's have another name
        return any(flag in flags for flag in CPU_FLAGS)
    return False


def fastest() -> str:
    """The type of matrix products that is faster here: "bfloat16" if TensorFlow runs on a processor that has it."""
    return "bfloat16" if keras.backend.backend() == "tensorflow" and has_bfloat16() and not _has_gpu() else "float32"


def _has_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Runs what TensorFlow computes within it in "float32" or "bfloat16". Other backends ignore it.

    oneDNN's automatic mixed precision is an option of the whole process, so it is set only while the block runs.
    """
    if name == "float32" or keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    before = tf.config.optimizer.get_experimental_options().get(OPTION, False)
    tf.config.optimizer.set_experimental_options({OPTION: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({OPTION: before})
