"""The paired difference in accuracy of two runs, or two cross-validations, on the images that both held out."""

import math
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from common.errors import UserError
from training.evaluate.metrics import wilson
from training.run_folder import METRICS, VAL, best_of, read_record, run_file, saved_probabilities

FOLD_GLOB = "seed0-fold*"  # see `fold_folder`; of the first seed


@dataclass(frozen=True)
class Difference:
    """How much more accurate a model is than another one on the same images.

    images: number of images.
    gained, lost: images that only the second, or only the first model classifies correctly.
    accuracy: of the second model minus that of the first, -1 to 1.
    low, high: its 95 % interval, by Newcombe's method for paired proportions.
    p_value: of McNemar's exact test that both models are equally accurate.
    """

    images: int
    gained: int
    lost: int
    accuracy: float
    low: float
    high: float
    p_value: float

    @property
    def points(self) -> list[str]:
        """The difference in accuracy and its interval, in points, with a sign; a rounded 0 is +0.0."""
        return [f"{round(100 * value, 1) + 0.0:+.1f}" for value in (self.accuracy, self.low, self.high)]

    def __str__(self) -> str:
        points = "{} points (95 % interval {} to {})".format(*self.points)
        images = f"on the same {self.images:,} images: {self.gained} gained, {self.lost} lost"
        return f"{points} {images}, McNemar's p = {self.p_value:.2g}"


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What a run, or the folds of a cross-validation, predicted of the images that they held out.

    rows: int64 [n], the images' rows among all, in order.
    labels: int64 [n].
    probabilities: float [n, classes].
    names: class names.
    data_sha256: of all images of the data.
    """

    rows: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    names: tuple
    data_sha256: str

    def in_common(self, other: "HeldOut") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(labels, probabilities, those of the other one) of the images that both held out."""
        _, own, others = np.intersect1d(self.rows, other.rows, return_indices=True)
        return self.labels[own], self.probabilities[own], other.probabilities[others]


def changed_answers(labels: np.ndarray, before: np.ndarray, after: np.ndarray) -> tuple[int, int]:
    """The number of images that only the second, and that only the first model classifies correctly.

    Args:
        labels: int [n].
        before, after: probabilities [n, classes] of the two models.
    """
    then, now = (probabilities.argmax(axis=-1) == labels for probabilities in (before, after))
    return int((now & ~then).sum()), int((then & ~now).sum())


def paired_difference(labels: np.ndarray, before: np.ndarray, after: np.ndarray) -> Difference:
    """Compares two models on the same images.

    The intervals of two accuracies can overlap although one model is right on nearly every image that they differ in,
    so the difference is measured on each image. It is about these two models: another seed changes both, and images of
    one scene count as independent.

    Source: Q. McNemar, "Note on the Sampling Error of the Difference between Correlated Proportions or Percentages",
    Psychometrika 12, 1947; see also `paired_interval`.

    Args:
        labels: int [n], at least one.
        before, after: probabilities [n, classes] of the two models.

    Returns:
        `Difference`.
    """
    count, (gained, lost) = len(labels), changed_answers(labels, before, after)
    both = int((before.argmax(axis=-1) == labels).sum()) - lost
    low, high = paired_interval(both, gained, lost, count)
    p_value = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    return Difference(count, gained, lost, (gained - lost) / count, low, high, float(p_value))


def paired_interval(both: int, gained: int, lost: int, count: int) -> tuple[float, float]:
    """The 95 % interval of the difference of two accuracies on the same images.

    It also holds for the few images in which two good models differ, where the bootstrap's interval is too short: it
    ends at 0 if no image was lost.

    Source: R. G. Newcombe, "Improved Confidence Intervals for the Difference between Binomial Proportions Based on
    Paired Data", Statistics in Medicine 17, 1998, method 10.

    Args:
        both: number of images that both models classify correctly.
        gained, lost: see `Difference`.
        count: number of images, at least one.

    Returns:
        (low, high), -1 to 1.
    """
    first, second = both + lost, both + gained
    (low1, high1), (low2, high2) = wilson(first, count), wilson(second, count)
    share1, share2 = first / count, second / count
    together = float(both * (count - both - gained - lost) - gained * lost)
    if together > 0:
        together = max(together - count / 2, 0.0)
    spread = math.sqrt(first * (count - first) * second * (count - second))
    correlation = together / spread if spread else 0.0
    below, above = (share2 - low2, high1 - share1), (high2 - share2, share1 - low1)
    widths = [math.sqrt(a * a - 2 * correlation * a * b + b * b) for a, b in (below, above)]
    return share2 - share1 - widths[0], share2 - share1 + widths[1]


def compare_held_out(before: Path, after: Path) -> Difference:
    """Compares two runs, or two cross-validations, on the images that both held out.

    Of a cross-validation, the finished folds of its first seed are used.

    Args:
        before, after: folders of finished runs with a validation set, also of `auto`, or of cross-validations.

    Returns:
        `Difference` of `after` to `before`.

    Raises:
        UserError: no such run, damaged files, runs on other images, or no image that both held out.
    """
    first, second = held_out(before), held_out(after)
    if (first.data_sha256, first.names) != (second.data_sha256, second.names):
        raise UserError(
            f"both must be trained on the same images and classes; {before} and {after} are not, train one again"
        )
    labels, then, now = first.in_common(second)
    if not len(labels):
        raise UserError(f"{before} and {after} held out different images; train both with the same split or folds")
    return paired_difference(labels, then, now)


def finished_folds(folder: Path) -> list[Path]:
    """The folders of a cross-validation's finished folds, of its first seed; empty if there are none.

    Raises:
        UserError: folds of different recipes or images.
    """
    runs = [run for run in sorted(folder.glob(FOLD_GLOB)) if (run / METRICS).is_file()]
    records = [read_record(run) for run in runs]
    of_first_fold = [replace(one, recipe=replace(one.recipe, data=replace(one.recipe.data, fold=0))) for one in records]
    if any(one.differences(of_first_fold[0]) or one.name != records[0].name for one in of_first_fold):
        raise UserError(f"{folder} must have the folds of one cross-validation, and has those of several; remove some")
    return runs


def held_out(folder: Path) -> HeldOut:
    """Reads the predictions of a run, or of a cross-validation's finished folds of its first seed.

    Raises:
        UserError: see `compare_held_out`.
    """
    runs = finished_folds(folder) or [best_of(folder)]
    record, parts = read_record(runs[0]), []
    # The best run of `auto` may be trained on the held-out images; `auto` keeps the predictions of before.
    for path in [folder / VAL] if (folder / VAL).is_file() else [run_file(run, VAL) for run in runs]:
        if not path.is_file():
            raise UserError(f"{folder} must be a finished run with a validation set, or a cross-validation; no {path}")
        try:
            with np.load(path) as file:
                parts.append((file["rows"], file["labels"], saved_probabilities(file, path)))
                if len(set(map(len, parts[-1]))) > 1:
                    raise ValueError("arrays of different lengths")
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is damaged or of an earlier version ({error}); train it again") from error
    rows, labels, probabilities = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = np.argsort(rows, kind="stable")
    return HeldOut(rows[order], labels[order], probabilities[order], record.classes, record.data_sha256)
