"""The submission's own process: imports model.py, and answers the ingestion program's questions over two pipes.

    python3 runner.py INPUT_DATA INGESTED_PROGRAM CLASS QUESTIONS ANSWERS      the last two are file descriptors

A question is a line of JSON, {"rows": [0, 5] or null for all, "dtype": "float32"}; the first one, {}, asks for the
constructor. An answer is a line of JSON, {"error": …, "mend": …} or {"kind", "dtype", "shape", "confidence"}, followed
by the answers as int64 where they are whole numbers in one dimension, and by float32 [n, classes] where `confidence`
is true. Whatever the submission does to this process, its answers are only bytes to the program that asks.
"""

import json
import os
import sys

import numpy as np


def main(input_data, folder, kind, questions, answers):
    sys.stdout.reconfigure(line_buffering=True)  # this process is stopped, not ended: what it printed must be out
    images = np.load(os.path.join(input_data, "images.npy"), mmap_mode="r", allow_pickle=False)
    with os.fdopen(int(questions)) as source, os.fdopen(int(answers), "wb") as sink:
        network = None
        for line in source:
            question = json.loads(line)
            try:
                if not question:
                    network = construct(folder, kind)
                    header, payload = {}, b""
                else:
                    rows = slice(None) if question["rows"] is None else question["rows"]
                    header, payload = answer(network, images[rows].astype(question["dtype"]), kind)
            except Refused as error:
                header, payload = {"error": error.args[0], "mend": error.args[1]}, b""
            except Exception as error:
                import traceback

                traceback.print_exc()
                reason = "{}: {}".format(type(error).__name__, str(error)[:500])
                header = {"error": reason, "mend": "the traceback is at the end of the log; mend model.py and build again"}
                payload = b""
            sink.write(json.dumps(header).encode() + b"\n" + payload)
            sink.flush()
    return 0


class Refused(Exception):
    """The contract does not hold; the arguments are the reason and the mend."""


def construct(folder, kind):
    """The submission's network: `model(folder)`, or `Model()` where the contract says so."""
    sys.path.insert(0, folder)
    try:
        import model
    except ImportError as error:
        reason = "model.py cannot be imported: {}".format(error)
        raise Refused(reason, "import only tensorflow, numpy and files that are in the zip") from error
    if not hasattr(model, kind):
        raise Refused("model.py has no class {}".format(kind), "name the class {}, with just these letters".format(kind))
    return model.Model() if kind == "Model" else model.model(folder)


def answer(network, pixels, kind):
    """(header, payload) for float or integer images [n, h, w, 3] of 0 to 255."""
    if kind == "Model":
        got = network.predict(pixels)
    else:
        import tensorflow as tf

        got = network.predict(tf.constant(pixels))
    values = got.numpy() if hasattr(got, "numpy") else got
    if not isinstance(values, np.ndarray):
        return {"kind": type(got).__name__}, b""
    header = {"kind": "tensor", "dtype": str(values.dtype), "shape": list(values.shape), "confidence": False}
    if values.dtype.kind not in "iu" or values.shape != (len(pixels),):
        return header, b""
    payload = values.astype("<i8").tobytes()
    sure = getattr(network, "probabilities", None)
    if isinstance(sure, np.ndarray) and sure.ndim == 2 and len(sure) == len(pixels) and sure.dtype.kind == "f":
        header.update(confidence=True, classes=int(sure.shape[1]))
        payload += sure.astype("<f4").tobytes()
    return header, payload


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:6]))
