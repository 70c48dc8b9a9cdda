"""The submission's process: imports model.py and serves the ingestion program's requests over two pipes.

    python3 runner.py INGESTED_PROGRAM CLASS REQUESTS RESPONSES      the last two are file descriptors

A request is one line of JSON: {} constructs the model; {"shape": [n, h, w, 3], "dtype": "float32"} predicts the uint8
pixels that follow, as an array of that type. A response is one line of JSON: {"error", "fix"}, {"precision"} after the
construction, or {"kind", "dtype", "shape", "has_probabilities"}. The predictions follow as int64 if they are integers
of the right shape, then float32 [n, classes] if `has_probabilities` is true. The submission controls this process, so
the ingestion program treats every response as untrusted bytes.
"""

import functools
import json
import os
import sys

import numpy as np

MAX_CLASSES = 10_000  # for more, the ingestion program takes no probabilities


class Refused(Exception):
    """The submission breaks the contract. Arguments: the reason and the fix."""


def main(folder, class_name, requests, responses):
    """Serves requests until the pipe is closed. Returns 0."""
    sys.stdout.reconfigure(line_buffering=True)  # this process is killed at the end, so nothing may wait in a buffer
    network = None
    with os.fdopen(int(requests), "rb") as source, os.fdopen(int(responses), "wb") as sink:
        for line in source:
            request = json.loads(line)
            pixels = read_pixels(source, request["shape"]) if request else None
            header, payload = {}, b""
            try:
                if pixels is None:
                    network = construct(folder, class_name)
                    header = {"precision": precision_of(network)}
                else:
                    pixels = as_input(pixels, request["dtype"], class_name)  # the uint8 pixels are freed here
                    header, payload = predict(network, pixels)
            except Refused as error:
                header = {"error": error.args[0], "fix": error.args[1]}
            except Exception as error:
                header = _describe(error)
            pixels = None  # so that the images of two requests are never in memory at once
            sink.write(json.dumps(header).encode() + b"\n" + payload)
            sink.flush()
    return 0


def read_pixels(source, shape):
    """The pixels of a request: uint8 array of the given shape."""
    pixels = np.empty(shape, np.uint8)
    source.readinto(memoryview(pixels).cast("B"))
    return pixels


def construct(folder, class_name):
    """The submission's model: `model(folder)`, or `Model()` if `class_name` is "Model"."""
    sys.path.insert(0, folder)
    try:
        import model
    except ImportError as error:
        reason = "model.py cannot be imported: {}".format(error)
        raise Refused(reason, "import only tensorflow, numpy and files that are in the zip") from error
    if not hasattr(model, class_name):
        fix = "name the class {}, in exactly these letters".format(class_name)
        raise Refused("model.py has no class {}".format(class_name), fix)
    return model.Model() if class_name == "Model" else model.model(folder)


def precision_of(network):
    """The text in the model's attribute `precision`, or "": most submissions have none."""
    try:
        return network.precision[:100] if isinstance(network.precision, str) else ""
    except Exception:  # of a property that means something else
        return ""


def as_input(pixels, dtype, class_name):
    """The images as `predict` gets them: a TensorFlow tensor for the class "model", a NumPy array for "Model".

    Args:
        pixels: uint8 [n, h, w, 3].
        dtype: name of the images' type, "float32" or "uint8".
    """
    if class_name == "Model":
        return pixels.astype(dtype, copy=False)
    import tensorflow as tf

    return tf.cast(tf.constant(pixels), dtype)  # TensorFlow copies constants, here a fourth of the bytes


def predict(network, images):
    """One response: (header, payload).

    Args:
        network: what `construct` returned.
        images: float or integer images [n, h, w, 3] with values 0 to 255, see `as_input`.
    """
    count = len(images)
    returned = network.predict(images)
    values = returned.numpy() if hasattr(returned, "numpy") else returned
    if not isinstance(values, np.ndarray):
        return {"kind": type(returned).__name__}, b""
    if hasattr(images, "numpy") and values is returned:
        warn_of_array()
    header = {"kind": "tensor", "dtype": values.dtype.name, "shape": list(values.shape), "has_probabilities": False}
    if values.dtype.kind not in "iu" or values.shape != (count,):
        return header, b""
    payload = values.astype("<i8").tobytes()
    kept = getattr(network, "probabilities", None)
    fits = isinstance(kept, np.ndarray) and kept.ndim == 2 and len(kept) == count and kept.dtype.kind == "f"
    if fits and 0 < kept.shape[1] <= MAX_CLASSES:
        header.update(has_probabilities=True, classes=int(kept.shape[1]))
        payload += kept.astype("<f4").tobytes()
    return header, payload


@functools.lru_cache(maxsize=None)
def warn_of_array():
    """Prints, once, that the class "model" returned no tensor: a server may call its method `numpy`."""
    text = "Warning: predict returned a NumPy array, and another server may need a tensor; return tf.constant(array)"
    print(text, file=sys.stderr)


def _describe(error):
    """The header for an exception of the submission. Its traceback goes to the log."""
    import traceback

    traceback.print_exception(type(error), error, error.__traceback__)
    reason = "{}: {}".format(type(error).__name__, str(error)[:500])
    return {"error": reason, "fix": "the traceback is at the end of the log; fix model.py and build again"}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:5]))
