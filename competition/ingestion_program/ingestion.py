"""Stage one on the server: run the submission on images without labels.

    python3 ingestion.py INPUT_DATA OUTPUT PROGRAM INGESTED_PROGRAM

Reads INPUT_DATA/images.npy (uint8 [n, h, w, 3]) and classes.txt (a name a line), imports INGESTED_PROGRAM/model.py and
writes to OUTPUT: predictions.txt (a class number a line) and checks.json (one record a check, with the time it took).
"""

import json
import os
import sys
import time

import numpy as np

ODD = 7  # rows of the odd batch
SAMPLE = 64  # rows that are predicted again to see whether order and repetition matter


class Failed(Exception):
    """A check does not hold; the arguments are the reason and the mend."""


class Journal:
    """The checks so far, on disk after every step, so that a crash or a hang is seen at the step that caused it."""

    def __init__(self, path):
        self.path = path
        self.records = []

    def check(self, name, step):
        """Runs one step and records how it went. Returns what the step returned, or None if it failed."""
        record = {"name": name, "passed": None, "reason": "", "mend": "", "seconds": 0.0}
        self.records.append(record)
        self._write()
        began = time.monotonic()
        result = None
        try:
            result = step()
            record["passed"] = True
        except Failed as failure:
            record["passed"] = False
            record["reason"], record["mend"] = failure.args
        except Exception as error:
            import traceback

            traceback.print_exc()
            record["passed"] = False
            record["reason"] = "{}: {}".format(type(error).__name__, str(error)[:500])
            record["mend"] = "the traceback is at the end of the log; mend model.py and build again"
        record["seconds"] = round(time.monotonic() - began, 3)
        self._write()
        return result

    def _write(self):
        temporary = self.path + ".tmp"
        with open(temporary, "w") as file:
            json.dump(self.records, file)
        os.replace(temporary, self.path)


def main(input_data, output, program, ingested_program):
    """Runs all checks. Returns 0 if a prediction for every image was written."""
    images = np.load(os.path.join(input_data, "images.npy"), allow_pickle=False)
    with open(os.path.join(input_data, "classes.txt"), encoding="utf-8") as file:
        classes = len(file.read().splitlines())
    journal = Journal(os.path.join(output, "checks.json"))
    sys.path.insert(0, ingested_program)

    network = journal.check("import and constructor", lambda: _construct(ingested_program))
    if network is None:
        return 1

    def ask(rows, dtype="float32"):
        return _answers(network, images[rows], dtype, classes)

    everything = np.arange(len(images))
    one = journal.check("one image", lambda: ask(everything[:1]))
    odd = journal.check("odd batch", lambda: ask(everything[:ODD]))
    if one is None and odd is None:
        return 1
    whole = journal.check("all images", lambda: ask(everything))
    if whole is None:
        return 1
    with open(os.path.join(output, "predictions.txt"), "w") as file:
        file.writelines("{}\n".format(answer) for answer in whole)

    sample = np.random.default_rng(0).permutation(len(images))[:SAMPLE]
    journal.check("independence of neighbours", lambda: _same(whole, {"one image": one, "odd batch": odd}))
    journal.check("row permutation", lambda: _equal(ask(sample), whole[sample], "the answers change with the order or number of the rows"))
    journal.check("repeatability", lambda: _equal(ask(sample), whole[sample], "a second call gives other answers"))
    journal.check("uint8 images", lambda: _equal(ask(sample, "uint8"), whole[sample], "uint8 images give other answers than float32"))
    return 0


def _construct(folder):
    try:
        import model
    except ImportError as error:
        raise Failed(
            "model.py cannot be imported: {}".format(error),
            "import only tensorflow, numpy and files that are in the zip",
        ) from error
    if not hasattr(model, "model"):
        raise Failed("model.py has no class model", "name the class model, in lower case")
    return model.model(folder)


def _answers(network, images, dtype, classes):
    """The submission's answers for some images, after making sure that they are what the server expects."""
    import tensorflow as tf

    answers = network.predict(tf.constant(images, dtype))
    mend = "return tf.argmax(probabilities, axis=-1): an integer tensor of shape [{}]".format(len(images))
    if not isinstance(answers, (tf.Tensor, np.ndarray)):
        raise Failed("predict returned {}, not a tensor".format(type(answers).__name__), mend)
    values = np.array(answers)
    if values.shape != (len(images),):
        raise Failed("predict returned the shape {} for {} images".format(list(values.shape), len(images)), mend)
    if values.dtype.kind not in "iu":
        raise Failed("predict returned {}, not integers".format(values.dtype), mend)
    if len(values) and not (0 <= values.min() and values.max() < classes):
        raise Failed(
            "predict returned {} to {}, there are {} classes".format(values.min(), values.max(), classes),
            "return class numbers from 0 to {}".format(classes - 1),
        )
    return values.astype(np.int64)


def _same(whole, parts):
    for name, part in parts.items():
        if part is not None:
            _equal(part, whole[: len(part)], "{} gets other answers than the same rows among all".format(name))


def _equal(got, expected, reason):
    different = int((got != expected).sum())
    if different:
        raise Failed(
            "{} ({} of {})".format(reason, different, len(expected)),
            "predict each row on its own: no random numbers, no batch statistics, no shift along axis 0",
        )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:5]))
