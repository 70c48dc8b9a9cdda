"""Stage two on the server: compare the predictions with the labels. The submission is not here any more.

    python3 score.py INPUT OUTPUT

Reads INPUT/ref: labels.txt (a class number a line), classes.txt (a name a line) and images/ (00000.jpg, …, a thumbnail
of each image); INPUT/res: predictions.txt, and where they are there probabilities.npy, checks.json and the server's own
metadata. Writes to OUTPUT: scores.json and scores.txt, finite numbers only, and detailed_results.html. Of what comes
from the prediction stage nothing is trusted: it is parsed as plain numbers and text, in the right count and range.
Standard library and numpy only.
"""

import io
import json
import math
import os
import re
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import details

CHECKS_LIMIT = 1_000_000  # bytes


def main(input_folder, output):
    """Scores one submission. Returns 0 if it could be scored, else 1 with the reason on standard error."""
    reference, result = os.path.join(input_folder, "ref"), os.path.join(input_folder, "res")
    with open(os.path.join(reference, "classes.txt"), encoding="utf-8") as file:
        names = file.read().splitlines()
    with open(os.path.join(reference, "labels.txt")) as file:
        labels = np.array([int(line) for line in file], np.int64)
    checks, used = read_checks(os.path.join(result, "checks.json"))
    refusal, predictions, probabilities, numbers = "", None, None, {}
    try:
        refuse_failed_ingestion(os.path.join(result, "metadata"))
        predictions = read_predictions(os.path.join(result, "predictions.txt"), len(labels), len(names))
        probabilities = read_probabilities(os.path.join(result, "probabilities.npy"), len(labels), len(names))
        numbers = scores(confusion(labels, predictions, len(names)))
        write(numbers, output)
    except ValueError as error:
        refusal = str(error)
        print("refused: {}".format(error), file=sys.stderr)
    page = details.page(numbers, names, labels, predictions, probabilities, checks, used, refusal, os.path.join(reference, "images"))
    with open(os.path.join(output, "detailed_results.html"), "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(page)
    return 1 if refusal else 0


def refuse_failed_ingestion(path):
    """Raises ValueError if the worker noted that stage one failed: it starts stage two all the same."""
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            codes = re.findall(r"^(?:ingestionExitCode|exitCode):\s*(-?\d+)", file.read(10_000), re.MULTILINE)
        for code in codes:
            if int(code):
                raise ValueError("the prediction stage ended with exit code {}".format(code))


def read_predictions(path, count, classes):
    """Class numbers from a text file, one a line: int64 [count]. Raises ValueError for anything else."""
    if not is_plain(path):
        raise ValueError("there is no predictions.txt")
    if os.path.getsize(path) > 20 * (count + 1):
        raise ValueError("predictions.txt is too large for {} numbers".format(count))
    with open(path, encoding="ascii", errors="replace") as file:
        lines = file.read().splitlines()
    if len(lines) != count:
        raise ValueError("{} predictions for {} images".format(len(lines), count))
    for number, line in enumerate(lines, 1):
        if not re.fullmatch("[0-9]{1,9}", line) or int(line) >= classes:
            raise ValueError("line {} is {!r}, expected 0 to {}".format(number, line[:20], classes - 1))
    return np.array([int(line) for line in lines], np.int64)


def read_probabilities(path, count, classes):
    """float32 [count, classes] from a .npy file, or None where it does not hold just that."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (count, classes)})
    size = header.tell()
    if not is_plain(path) or os.path.getsize(path) != size + 4 * count * classes:
        return None
    with open(path, "rb") as file:
        data = file.read()
    if data[:size] != header.getvalue():  # NumPy's parser of headers is not for what a stranger wrote
        return None
    values = np.frombuffer(data, "<f4", offset=size).reshape(count, classes)
    if not np.isfinite(values).all() or values.min() < 0 or np.abs(values.sum(axis=1) - 1).max() > 0.01:
        return None
    return values


def read_checks(path):
    """(list of name, passed, reason, mend; dictionary of what was used), as far as the file holds them."""
    try:
        if not is_plain(path) or os.path.getsize(path) > CHECKS_LIMIT:
            return [], {}
        with open(path, encoding="utf-8", errors="replace") as file:
            saved = json.load(file)
        checks = [(str(c["name"])[:100], c["passed"] is True, str(c["reason"])[:1000], str(c["mend"])[:1000]) for c in saved["checks"]]
        used = {key: float(value) for key, value in saved["used"].items() if key in ("images", "seconds", "peak_mb")}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return [], {}
    return checks, {key: value for key, value in used.items() if math.isfinite(value)}


def is_plain(path):
    """Whether there is a file that is no link, no folder and no pipe."""
    return os.path.isfile(path) and not os.path.islink(path)


def confusion(labels, predictions, classes):
    """Counts: int64 [classes, classes], a row for each true and a column for each predicted class."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predictions), 1)
    return counts


def scores(counts):
    """Accuracy, its 95 % interval (Wilson 1927), macro F1, and precision, recall and F1 of class_0, class_1, …"""
    total, right = int(counts.sum()), int(np.trace(counts))
    low, high = wilson(right, total)
    hits = np.diag(counts).astype(float)
    precision = hits / np.maximum(counts.sum(axis=0), 1)
    recall = hits / np.maximum(counts.sum(axis=1), 1)
    f1 = 2 * hits / np.maximum(counts.sum(axis=0) + counts.sum(axis=1), 1)
    result = {"accuracy": right / total, "accuracy_low": low, "accuracy_high": high, "macro_f1": float(f1.mean()), "images": total}
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        result.update({"{}_{}".format(name, position): float(value) for position, value in enumerate(values)})
    for row, column in np.ndindex(counts.shape):
        result["confusion_{}_{}".format(row, column)] = int(counts[row, column])
    return result


def wilson(right, total, z=1.959964):
    """95 % interval of a share: (low, high)."""
    share, spread = right / total, z * z / total
    half = z * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return (share + spread / 2 - half) / (1 + spread), (share + spread / 2 + half) / (1 + spread)


def write(result, output):
    """scores.json for Codabench, scores.txt for CodaLab 1.5."""
    assert all(math.isfinite(value) for value in result.values())
    with open(os.path.join(output, "scores.json"), "w") as file:
        json.dump(result, file, indent=2)
    with open(os.path.join(output, "scores.txt"), "w") as file:
        file.writelines("{}: {}\n".format(key, value) for key, value in result.items())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
