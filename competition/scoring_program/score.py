"""The scoring stage on the server: compares the predictions with the labels. The submission's code is not present.

    python3 score.py INPUT OUTPUT

Reads INPUT/ref: labels.txt (one class number a line), classes.txt (one name a line), and if the page may show single
images details.json, images/ (00000.jpg, …, a thumbnail of each image) and perhaps files.txt (the name of each file);
INPUT/res: predictions.txt, checks.json, and if present probabilities.npy and the worker's metadata. Writes to OUTPUT:
scores.json and scores.txt (finite numbers only) and detailed_results.html.

Nothing is scored if a check in checks.json failed. Each failed check is printed to standard error with its reason and
its fix. The files of the prediction stage are not trusted: they are parsed as plain numbers and text, and their count
and range are checked. Standard library and numpy only.
"""

import io
import json
import math
import os
import re
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads are not needed, and take time to start

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import details

MAX_CHECKS_BYTES = 1_000_000
NO_FAILURE = ("", "null", "~", "0")  # exit codes in the worker's note; it writes null for a container that did not run
USED = ("images", "seconds", "peak_mb", "trained_on")  # numbers in checks.json that are shown
MAX_PAIRED = 100  # classes of which every pair has a count in the scores


def main(input_folder, output):
    """Scores one submission. Returns 0, or 1 if it cannot be scored, with the reason on standard error."""
    reference, result = os.path.join(input_folder, "ref"), os.path.join(input_folder, "res")
    shown = thumbnails(reference)
    results = details.Results(*read_reference(reference), shown, file_names(reference) if shown else ())
    results.checks, results.used = read_checks(os.path.join(result, "checks.json"))
    images, classes = len(results.labels), len(results.names)
    try:
        refuse_failed_checks(results.checks)
        refuse_failed_prediction(os.path.join(result, "metadata"))
        if not results.checks:
            raise ValueError("there is no valid checks.json")
        results.predictions = read_predictions(os.path.join(result, "predictions.txt"), images, classes)
        results.probabilities = read_probabilities(os.path.join(result, "probabilities.npy"), images, classes)
        results.counts = confusion(results.labels, results.predictions, classes)
        results.scores = scores(results.counts)
        write(results.scores, output)
    except ValueError as error:
        results.refusal = str(error)
        print_failures(results)
    with open(os.path.join(output, "detailed_results.html"), "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(details.page(results))
    return 1 if results.refusal else 0


def read_reference(folder):
    """(class names, labels int64 [n]) of the reference data."""
    with open(os.path.join(folder, "classes.txt"), encoding="utf-8") as file:
        names = file.read().splitlines()
    with open(os.path.join(folder, "labels.txt")) as file:
        return names, np.array([int(line) for line in file], np.int64)


def thumbnails(folder):
    """The folder of thumbnails if the page may show single images with their labels, else None."""
    path = os.path.join(folder, "details.json")
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as file:
        return os.path.join(folder, "images") if json.load(file)["mistakes"] is True else None


def file_names(folder):
    """The name of each image file, or () if they are not known."""
    path = os.path.join(folder, "files.txt")
    if not os.path.isfile(path):
        return ()
    with open(path, encoding="utf-8") as file:
        return file.read().splitlines()


def refuse_failed_checks(checks):
    """Raises ValueError if a check failed or did not finish."""
    failed = [name for name, passed, _, _ in checks if not passed]
    if failed:
        raise ValueError("failed checks: {}".format(", ".join(failed)))


def print_failures(results):
    """Prints each failed check with its reason and fix, and as the last line why nothing is scored."""
    for name, passed, reason, fix in results.checks:
        if not passed:
            print("- {}: {}".format(printable(name), printable(reason)), file=sys.stderr)
            print("  fix: {}".format(printable(fix)), file=sys.stderr)
    print("refused: {}".format(printable(results.refusal)), file=sys.stderr)


def printable(text):
    """A text as one line without control characters."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in " ".join(text.split()))


def refuse_failed_prediction(path):
    """Raises ValueError if the worker noted a failed prediction stage. It runs the scoring stage all the same."""
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            codes = re.findall(r"^(?:ingestionExitCode|exitCode):[ \t]*(.*?)[ \t]*$", file.read(10_000), re.MULTILINE)
        for code in codes:
            if code not in NO_FAILURE:
                raise ValueError("the prediction stage ended with exit code {}".format(code[:100]))


def read_predictions(path, count, classes):
    """Class numbers from a text file, one a line: int64 [count]. Raises ValueError for anything else."""
    if not is_regular_file(path):
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
    """float32 [count, classes] from a .npy file, or None if the file is not exactly that."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (count, classes)})
    size = header.tell()
    if not is_regular_file(path) or os.path.getsize(path) != size + 4 * count * classes:
        return None
    with open(path, "rb") as file:
        data = file.read()
    if data[:size] != header.getvalue():  # NumPy's parser of headers is not safe for untrusted files
        return None
    values = np.frombuffer(data, "<f4", offset=size).reshape(count, classes)
    if not np.isfinite(values).all() or values.min() < 0 or np.abs(values.sum(axis=1) - 1).max() > 0.01:
        return None
    return values


def read_checks(path):
    """(list of (name, passed, reason, fix), dictionary of what was used). Both are empty if the file is not valid."""
    try:
        if not is_regular_file(path) or os.path.getsize(path) > MAX_CHECKS_BYTES:
            return [], {}
        with open(path, encoding="utf-8", errors="replace") as file:
            saved = json.load(file)
        checks = [read_check(record) for record in saved["checks"]]
        used = {key: float(value) for key, value in saved["used"].items() if key in USED}
        precision = saved["used"].get("precision")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return [], {}
    used = {key: value for key, value in used.items() if math.isfinite(value)}
    if isinstance(precision, str) and re.fullmatch("[A-Za-z_][A-Za-z0-9_]{,19}", precision):
        used["precision"] = precision
    return checks, used


def read_check(record):
    """(name, passed, reason, fix) of one check. Raises KeyError or TypeError if it is not valid."""
    name, passed, reason, fix = (record[key] for key in ("name", "passed", "reason", "fix"))
    if passed is None:
        reason, fix = str(reason) or "it did not finish", str(fix) or "see the log of the prediction stage"
    return str(name)[:100], passed is True, str(reason)[:1000], str(fix)[:1000]


def is_regular_file(path):
    """Whether there is a file that is no link, folder or pipe."""
    return os.path.isfile(path) and not os.path.islink(path)


def confusion(labels, predictions, classes):
    """Counts: int64 [classes, classes], one row for each true class, one column for each predicted class."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predictions), 1)
    return counts


def scores(counts):
    """Accuracy, its 95 % interval (Wilson 1927), macro F1, and precision, recall and F1 of class_0, class_1, …

    With more than 100 classes, only pairs of classes that occur have a count: 1,000 classes have a million pairs.

    Args:
        counts: what `confusion` returned.

    Returns:
        Key → number. The first key is the leaderboard's.
    """
    total, correct = int(counts.sum()), int(np.trace(counts))
    low, high = wilson(correct, total)
    true_positives = np.diag(counts).astype(float)
    precision = true_positives / np.maximum(counts.sum(axis=0), 1)
    recall = true_positives / np.maximum(counts.sum(axis=1), 1)
    f1 = 2 * true_positives / np.maximum(counts.sum(axis=0) + counts.sum(axis=1), 1)
    result = {
        "accuracy": correct / total,
        "accuracy_low": low,
        "accuracy_high": high,
        "macro_f1": float(f1[counts.sum(axis=0) + counts.sum(axis=1) > 0].mean()),  # classes that occur
        "images": total,
    }
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        result.update({"{}_{}".format(name, position): float(value) for position, value in enumerate(values)})
    for row, column in np.ndindex(counts.shape) if len(counts) <= MAX_PAIRED else np.argwhere(counts):
        result["confusion_{}_{}".format(row, column)] = int(counts[row, column])
    return result


def wilson(successes, total, z=1.959964):
    """95 % interval of a proportion: (low, high)."""
    share, spread = successes / total, z * z / total
    half = z * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    low, high = (share + spread / 2 - half) / (1 + spread), (share + spread / 2 + half) / (1 + spread)
    return max(0.0, low), min(1.0, high)  # rounding leads just beyond


def write(result, output):
    """Writes scores.json for Codabench and scores.txt for CodaLab 1.5."""
    assert all(math.isfinite(value) for value in result.values())
    with open(os.path.join(output, "scores.json"), "w") as file:
        json.dump(result, file, indent=2)
    with open(os.path.join(output, "scores.txt"), "w") as file:
        file.writelines("{}: {}\n".format(key, value) for key, value in result.items())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
