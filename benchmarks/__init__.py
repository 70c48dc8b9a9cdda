"""Measurements of speed, memory and accuracy. `python -m benchmarks` lists them.

Speeds are compared as ratios: the candidates run in turn, and the median of all rounds is reported
with the smallest and the largest.
"""

import argparse
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result import write_result
from common.cli import argument_parser, run_command
from common.errors import CommandError, UserError

RESULTS = "results/benchmarks"
OLD_ARRAYS = {"held": "val", "held_labels": "val_labels"}  # names in the feature files of earlier versions


class Failed(CommandError):
    """A benchmark that cannot be measured correctly. Exit code 1."""

    exit_code = 1


def benchmark_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """An argument parser with `--json`, the file of the result."""
    parser = argument_parser(description, f"python -m benchmarks.{name}")
    default = f"{RESULTS}/{name}.json"
    parser.add_argument("--json", type=Path, default=default, metavar="FILE", help="the result (default: %(default)s)")
    return parser


def run_benchmark(options: argparse.Namespace, measure: Callable[[argparse.Namespace], dict]) -> int:
    """Measures, and writes the returned values to `options.json`. Returns the exit code."""

    def command() -> None:
        require_folder(options.json)
        write_result(options.json, measure(options))
        print(f"done: {options.json}")

    return run_command(command)


def require_folder(path: Path) -> None:
    """Raises a UserError if the folder of a file does not exist, so that no finished measurement is lost."""
    if not path.parent.is_dir():
        raise UserError(f"{path} must be in an existing folder; there is no folder {path.parent}, create it first")


def time_interleaved(candidates: dict[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Times each candidate once in each round, so that a slow moment of the machine affects all of them.

    Args:
        candidates: name → function without arguments. Each is called once before the first round, to warm up.
        rounds: number of rounds.

    Returns:
        name → seconds, float64 [rounds].
    """
    for run in candidates.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {name: np.array(values) for name, values in seconds.items()}


def speed_record(seconds: dict[str, np.ndarray], images: int, baseline: str) -> dict[str, dict[str, float]]:
    """Images per second of each candidate, and its ratio to the baseline of the same round, as plain values.

    Args:
        seconds: see `time_interleaved`.
        images: images in one call of a candidate.
        baseline: name of the candidate that the others are compared with.
    """
    return {
        name: {
            "images_per_second": float(np.median(images / values)),
            "ratio_median": float(np.median(seconds[baseline] / values)),
            "ratio_min": float((seconds[baseline] / values).min()),
            "ratio_max": float((seconds[baseline] / values).max()),
        }
        for name, values in seconds.items()
    }


def speed_table(seconds: dict[str, np.ndarray], images: int, baseline: str) -> Iterator[str]:
    """The lines of a table of `speed_record`."""
    width = max(map(len, seconds))
    yield f"{'':{width}}  {'images/s':>8}  ratio to {baseline} (min to max of {len(seconds[baseline])} rounds)"
    for name, row in speed_record(seconds, images, baseline).items():
        ratio = f"{row['ratio_median']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
        yield f"{name:{width}}  {row['images_per_second']:8.1f}  {ratio}"


def read_features(run: Path) -> dict[str, np.ndarray]:
    """Reads the features that a finished run with a quasi-SVM has written.

    Args:
        run: the run's folder.

    Returns:
        `train` [views, n, d] with `train_labels` [n], and `val` [TTA transforms, m, d] with `val_labels` [m].

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    from training.run_folder import FEATURES  # here, because it imports Keras

    path = run / FEATURES
    if not path.is_file():
        raise UserError(f"--run must be a finished run with a quasi-SVM; there is no {path}")
    try:
        with np.load(path) as file:
            arrays = {OLD_ARRAYS.get(name, name): file[name] for name in file.files}
        return {name: arrays[name] for name in ("train", "train_labels", "val", "val_labels")}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}); train the run again") from error
