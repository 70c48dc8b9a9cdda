"""Predictions → metrics and pictures."""

import math
from pathlib import Path

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from training.files import atomically


def metrics(labels, probabilities, names):
    """Accuracy with its interval, and precision, recall and F1 of every class.

    Args:
        labels: int [n].
        probabilities: float [n, classes].
        names: class names.

    Returns:
        A dictionary of plain values; `confusion` has a row for each true and a column for each predicted class.
    """
    predicted = probabilities.argmax(axis=-1)
    classes = range(len(names))
    precision, recall, f1, count = precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0)
    right = int((predicted == labels).sum())
    return {
        "images": len(labels),
        "accuracy": right / len(labels),
        "interval95": wilson(right, len(labels)),
        "macro_f1": float(f1.mean()),
        "classes": {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "images": int(n)}
            for name, p, r, f, n in zip(names, precision, recall, f1, count, strict=True)
        },
        "confusion": confusion_matrix(labels, predicted, labels=classes).tolist(),
    }


def wilson(right, total, z=1.959964):
    """95 % interval of a share (E. B. Wilson, JASA 22, 1927), as (low, high)."""
    share, spread = right / total, z * z / total
    half = z * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return [(share + spread / 2 - half) / (1 + spread), (share + spread / 2 + half) / (1 + spread)]


def calibration_error(labels, probabilities, bins=10):
    """Expected calibration error: mean distance of how sure and how right, over bins of equal width, weighted by images.

    Source: M. P. Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015.
    """
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.minimum((sure * bins).astype(int), bins - 1)
    inside = [place == number for number in range(bins)]
    return float(sum(part.mean() * abs(sure[part].mean() - right[part].mean()) for part in inside if part.any()))


def summary(result):
    """Metrics as a few lines to read."""
    low, high = result["interval95"]
    lines = [f"accuracy {result['accuracy']:.1%} ({low:.1%} to {high:.1%}) on {result['images']} images, macro F1 {result['macro_f1']:.3f}"]
    width = max(map(len, result["classes"]))
    lines.append(f"{'':{width}}  precision  recall     F1  images")
    for name, c in result["classes"].items():
        lines.append(f"{name:{width}}  {c['precision']:9.3f}  {c['recall']:6.3f}  {c['f1']:5.3f}  {c['images']:6d}")
    return "\n".join(lines)


def plot_curves(history, path):
    """Loss and accuracy of each epoch as a picture; of the validation part where there is one."""
    figure, axes = figure_of(1, 2, (10, 4))
    for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
        for column, label in ((name, "training (augmented)"), (f"val_{name}", "validation")):
            rows = [row for row in history if column in row]
            if rows:
                axis.plot([row["epoch"] for row in rows], [row[column] for row in rows], label=label)
        axis.set_xlabel("epoch")
        axis.set_title(name)
        axis.grid(alpha=0.3)
        axis.legend()
    save_figure(figure, path)


def plot_confusion(result, path):
    """Confusion matrix as a picture, shaded by the share of the true class."""
    names, counts = list(result["classes"]), np.array(result["confusion"])
    figure, axis = figure_of(1, 1, (1.5 + 0.7 * len(names), 1.2 + 0.7 * len(names)))
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axis.imshow(share, cmap="Greens", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            axis.text(column, row, count, ha="center", va="center", color="white" if share[row, column] > 0.5 else "black")
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    axis.set_title(f"{result['accuracy']:.1%} of {result['images']} images right")
    save_figure(figure, path)


def draw_ranges(names, series, path):
    """A row for each name and a panel for each series: mean and range, and the single values as dots.

    Args:
        names: labels of the rows.
        series: title → ([(mean, low, high), …], [[value, …], …]), one of each for each name.
        path: the picture.
    """
    figure, axes = figure_of(1, len(series), (4 + 4 * len(series), 1 + 0.3 * len(names)), sharey=True)
    rows = np.arange(len(names))
    for axis, (title, (spans, values)) in zip(np.atleast_1d(axes), series.items(), strict=True):
        mean, low, high = np.array(spans, float).T
        axis.errorbar(mean, rows, xerr=np.abs([mean - low, high - mean]), fmt="s", color="seagreen", capsize=3, markersize=4)
        for row, dots in zip(rows, values, strict=True):
            axis.plot(dots, [row] * len(dots), ".", color="black", alpha=0.5)
        axis.set_title(title)
        axis.grid(alpha=0.3)
    first = np.atleast_1d(axes)[0]
    first.set_yticks(rows, names)
    first.invert_yaxis()
    save_figure(figure, path)


def figure_of(rows, columns, size, **arguments):
    """A figure and its axes, drawn without a screen; `save_figure` writes it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(rows, columns, figsize=size, layout="constrained", **arguments)


def save_figure(figure, path):
    """Writes a figure as PNG and frees it."""
    from matplotlib import pyplot

    atomically(Path(path), lambda temporary: figure.savefig(temporary, dpi=110, format="png"))
    pyplot.close(figure)
