"""Plots, written as PNG files without a display."""

from pathlib import Path
from typing import Any

import numpy as np

from common.files import atomically

MAX_SIDE = 20  # inches, of a confusion matrix
MAX_COUNTED = 40  # classes of a confusion matrix whose cells have numbers


def plot_curves(history: list[dict], path: Path) -> None:
    """Plots loss and accuracy of each epoch, for training and validation."""
    figure, axes = new_figure(1, 2, (10, 4))
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


def plot_confusion(result: dict, path: Path) -> None:
    """Plots the confusion matrix of `metrics`, shaded by the share of the true class.

    With more than `MAX_COUNTED` classes the cells have no numbers, which nobody could read.
    """
    names, counts = list(result["classes"]), np.array(result["confusion"])
    side = min(0.7, MAX_SIDE / len(names))
    figure, axis = new_figure(1, 1, (1.5 + side * len(names), 1.2 + side * len(names)))
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axis.imshow(share, cmap="Greens", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count and len(names) <= MAX_COUNTED:
            axis.text(
                column, row, count, ha="center", va="center", color="white" if share[row, column] > 0.5 else "black"
            )
    size = min(10, 72 * side * 0.8)  # points
    axis.set_xticks(range(len(names)), names, rotation=45 if len(names) <= MAX_COUNTED else 90, ha="right", size=size)
    axis.set_yticks(range(len(names)), names, size=size)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    axis.set_title(f"accuracy {result['accuracy']:.1%} on {result['images']} images")
    save_figure(figure, path)


def plot_ranges(names: list, series: dict, path: Path, reported: dict[str, float] | None = None) -> None:
    """Plots means with their ranges: a row for each name, a panel for each series, and single values as dots.

    Args:
        names: labels of the rows.
        series: title → ([(mean, low, high), …], [[value, …], …]), one of each for each name.
        path: the PNG file.
        reported: name → value that the report has for it, drawn beside ours in the first panel.
    """
    figure, axes = new_figure(1, len(series), (4 + 4 * len(series), 1 + 0.3 * len(names)), sharey=True)
    rows = np.arange(len(names))
    for axis, (title, (spans, values)) in zip(np.atleast_1d(axes), series.items(), strict=True):
        mean, low, high = np.array(spans, float).T
        axis.errorbar(
            mean, rows, xerr=np.abs([mean - low, high - mean]), fmt="s", color="seagreen", capsize=3, markersize=4
        )
        for row, dots in zip(rows, values, strict=True):
            axis.plot(dots, [row] * len(dots), ".", color="black", alpha=0.5)
        axis.set_title(title)
        axis.grid(alpha=0.3)
    first = np.atleast_1d(axes)[0]
    if reported:
        places = [names.index(name) for name in reported]
        first.plot(list(reported.values()), places, "D", color="darkorange", label="report")
        first.legend(loc="lower left")
    first.set_yticks(rows, names)
    first.invert_yaxis()
    save_figure(figure, path)


def new_figure(rows: int, columns: int, size: tuple, math: bool = False, **arguments: Any) -> tuple[Any, Any]:
    """Creates a figure and its axes without a display. `save_figure` writes it.

    Args:
        rows, columns: number of axes.
        size: (width, height) in inches.
        math: whether text between dollar signs is math. The labels of log axes are; names of classes and files are not.
        arguments: of `pyplot.subplots`.
    """
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["text.parse_math"] = math
    from matplotlib import pyplot

    return pyplot.subplots(rows, columns, figsize=size, layout="constrained", **arguments)


def save_figure(figure: Any, path: Path) -> None:
    """Writes a figure as PNG and closes it."""
    from matplotlib import pyplot

    atomically(Path(path), lambda temporary: figure.savefig(temporary, dpi=110, format="png"))
    pyplot.close(figure)
