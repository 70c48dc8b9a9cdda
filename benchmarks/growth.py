"""How time and memory of prediction, feature caching and a training epoch grow with the images and the resolution.

  python -m benchmarks.growth
  python -m benchmarks.growth --most 100000
  python -m benchmarks.growth --quick --json growth.json --picture growth.png

Each point is a process of its own, on the processor, with random pixels. Its seconds are without loading and compiling,
its memory is the peak of the process with TensorFlow and the images. The tasks are:

- prediction: submission/model.py, one view. Its network has a fixed input size, so the resolution is the images';
- feature caching: one view of each 96×96 image through InceptionV3, into a new cache;
- training epoch: all layers of InceptionV3, a fifth of the 96×96 images held out, with validation and checkpoint.

The resolution of the last two is the input size of the network. They are in bfloat16 if the processor has it. An
exponent is the slope on log axes: 1 is linear in the images, or in the pixels of an image. It is fitted to all points,
and to the last two alone, because a fixed cost flattens the first ones. Whatever is above 1.1 is printed.

--quick only shows that the measurement runs: it takes a small network and few images.

exit codes: 0 measured, 1 too few points could be measured, 2 wrong input
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import RESULTS, Failed, benchmark_parser, require_folder, run_benchmark
from benchmarks.process import Process, peak_mb, submission
from common.cli import whole_number
from common.errors import UserError
from common.progress import progress

COUNTS = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
MOST = 10_000  # images, by default
SIDE = 96  # pixels, where the number of images grows
COUNT = 300  # images, where the resolution grows
INPUT_SIZES = (96, 128, 192, 256)
QUICK_COUNTS, QUICK_SIDES = (50, 100), (48, 96)
BATCH_SIZE = 32
CLASSES = 8
PICTURE = "docs/img/growth.png"
ABOVE_LINEAR = 1.1
AXES = ("images", "pixels")
MEASURES = ("seconds", "peak_mb")
STARTING = 1000  # images whose computation takes about as long as the start of a process, for the time left


@dataclass(frozen=True)
class Point:
    """A measurement.

    task: key of TASKS.
    count: number of images.
    side: in pixels, of the images for prediction, else of the network's input.
    small: whether a small network is trained.
    """

    task: str
    count: int
    side: int
    small: bool


def prediction(point: Point) -> Callable[[], Any]:
    """Loads the submission. Returns a function that predicts the point's images."""
    network, images = submission(), _images(point.count, point.side)
    network.predict(images[:BATCH_SIZE])
    return lambda: network.predict(images)


def feature_caching(point: Point) -> Callable[[], Any]:
    """Builds a backbone. Returns a function that writes the features of the point's images into a new cache."""
    from training.fit.features import FeatureSpec, cached_features, extract_features
    from training.fit.precision import fastest
    from training.model.trainable import freeze

    backbone, images = _backbone(point)("none"), _images(point.count)
    freeze(backbone)
    spec = FeatureSpec(point.side, precision=fastest())
    extract_features(backbone, images[: BATCH_SIZE + 1], spec)

    def run() -> None:
        with tempfile.TemporaryDirectory(prefix="growth-") as folder:
            cached_features(Path(folder), backbone, images, spec)

    return run


def training_epoch(point: Point) -> Callable[[], Any]:
    """Compiles a network. Returns a function that trains, validates and saves an epoch of the point's images."""
    from benchmarks.profile import TrainingEpoch
    from common.images import Images
    from training.config.recipe import Data, Finetune, Recipe
    from training.data.split import TrainVal
    from training.fit.precision import fastest

    labels, names = np.arange(point.count) % CLASSES, tuple(f"Species{number + 1}" for number in range(CLASSES))
    images = Images(_images(point.count), labels, names, ("",) * point.count)
    finetune = Finetune(
        backbone=_backbone(point),
        resolution_schedule=((1, point.side),),
        warmup_epochs=0.0,
        batch_size=BATCH_SIZE,
        precision="mixed_bfloat16" if fastest() == "bfloat16" else "float32",
    )
    val = held_out(point.count)
    data = TrainVal(images.rows(np.flatnonzero(~val)), images.rows(np.flatnonzero(val)))
    folder = tempfile.TemporaryDirectory(prefix="growth-")
    epoch = TrainingEpoch(Recipe(data=Data(), finetune=finetune), data, Path(folder.name))
    epoch.fit(epoch.batches(), steps=1)

    def run() -> None:
        with folder:
            epoch.fit(epoch.batches())
            epoch.save()

    return run


def held_out(count: int) -> np.ndarray:
    """Which of `count` images, of the classes in turn, are the fifth that is held out: bool [count]."""
    return np.arange(count) // CLASSES % 5 == 4


TASKS = {"prediction": prediction, "feature caching": feature_caching, "training epoch": training_epoch}
IMAGE_SIDES = {"prediction": (96, 192, 384, 576)}  # of the tasks whose network has a fixed input size


def _images(count: int, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def _backbone(point: Point) -> Callable:
    from training.model.backbones import inception_v3, scratch_vgg

    return scratch_vgg if point.small else inception_v3


def timed(point: Point) -> Callable[[], dict[str, float]]:
    """Prepares a point. Returns a function that measures it: seconds, and MB of 1,000,000 bytes at the peak."""
    run = TASKS[point.task](point)

    def measured() -> dict[str, float]:
        began = time.perf_counter()
        run()
        return {"seconds": time.perf_counter() - began, "peak_mb": peak_mb()}

    return measured


def points(most: int, quick: bool) -> list[tuple[str, str, list[Point]]]:
    """(task, axis, points) of every series, each with at least two points.

    Args:
        most: largest number of images.
        quick: whether to take a small network and few images.
    """
    counts = QUICK_COUNTS if quick else [count for count in COUNTS if count <= most]
    series = []
    for task in TASKS:
        sides = QUICK_SIDES if quick else IMAGE_SIDES.get(task, INPUT_SIZES)
        count = QUICK_COUNTS[0] if quick else COUNT
        series.append((task, AXES[0], [Point(task, number, SIDE, quick) for number in counts]))
        series.append((task, AXES[1], [Point(task, count, side, quick) for side in sides]))
    return series


def measure(wanted: list[Point]) -> tuple[dict[Point, dict[str, float]], dict[Point, str]]:
    """Measures different points, each in a process of its own, the cheap ones first.

    Returns:
        Point → its values. Point → why it could not be measured, for example for lack of memory.
    """
    found: dict[Point, dict[str, float]] = {}
    failed: dict[Point, str] = {}
    with progress(total=sum(map(_cost, wanted)), desc="measuring", unit="image") as bar:
        for point in sorted(wanted, key=_cost):
            name = f"{point.task} of {point.count:,} images at {point.side}×{point.side}"
            try:
                with Process(name, timed, point) as process:
                    found[point] = process()
                print(f"{name}: {found[point]['seconds']:.1f} s, {found[point]['peak_mb']:,.0f} MB", flush=True)
            except Failed as error:
                failed[point] = str(error)
                print(f"{name}: not measured, {error}", flush=True)
            bar.update(_cost(point))
    return found, failed


def _cost(point: Point) -> int:
    return STARTING + point.count * point.side**2 // SIDE**2


def series_record(task: str, axis: str, measured: dict[Point, dict[str, float]]) -> dict:
    """A series as plain values, with its exponents.

    Args:
        task: key of TASKS.
        axis: "images" or "pixels".
        measured: the series' points and their values, at least two.
    """
    at = [float(point.count if axis == AXES[0] else point.side**2) for point in measured]
    row: dict[str, Any] = {"task": task, "axis": axis, "at": at}
    for name in MEASURES:
        values = [value[name] for value in measured.values()]
        row[name] = values
        row[f"{name}_exponent"], row[f"{name}_last_exponent"] = exponent(at, values), exponent(at[-2:], values[-2:])
    return row


def exponent(at: list[float], values: list[float]) -> float:
    """The exponent p of values ≈ c · at^p, by least squares of the logarithms."""
    return float(np.polyfit(np.log(at), np.log(values), 1)[0])


def above_linear(rows: list[dict]) -> Iterator[str]:
    """A line for each measure of a series that grows faster than linearly."""
    for row in rows:
        for measured, text in zip(MEASURES, ("seconds", "memory"), strict=True):
            every, last = row[f"{measured}_exponent"], row[f"{measured}_last_exponent"]
            if max(every, last) > ABOVE_LINEAR:
                name = f"{row['task']}, {text} against {row['axis']}"
                yield f"above linear: {name}: exponent {every:.2f}, of the last two points {last:.2f}"


def table(rows: list[dict]) -> Iterator[str]:
    """The lines of a table of the exponents."""
    yield f"{'':16}  {'against':8}  exponent of the seconds (last two points)  of the memory"
    for row in rows:
        cells = (f"{row[f'{name}_exponent']:.2f} ({row[f'{name}_last_exponent']:.2f})" for name in MEASURES)
        yield f"{row['task']:16}  {row['axis']:8}  " + "  ".join(f"{cell:>42}" for cell in cells)


def draw(rows: list[dict], path: Path) -> None:
    """Plots the series on log axes, with lines of exponent 1."""
    from training.evaluate.plots import new_figure, save_figure

    figure, axes = new_figure(2, 2, (11, 8), math=True)
    for line, axis in enumerate(AXES):
        for column, (name, label) in enumerate(zip(MEASURES, ("seconds", "peak memory in MB"), strict=True)):
            panel = axes[line, column]
            for row in (row for row in rows if row["axis"] == axis):
                legend = f"{row['task']}: exponent {row[f'{name}_exponent']:.2f}"
                (curve,) = panel.plot(row["at"], row[name], "o-", label=legend)
                linear = row[name][-1] * np.array(row["at"]) / row["at"][-1]
                panel.plot(row["at"], linear, ":", color=curve.get_color(), alpha=0.5)
            panel.set(xscale="log", yscale="log", xlabel=axis if line == 0 else "pixels of an image", ylabel=label)
            panel.set_ylim(bottom=0.5 * min(value for row in rows if row["axis"] == axis for value in row[name]))
            panel.grid(alpha=0.3)
            panel.legend(title="dotted: linear", fontsize=8)
    save_figure(figure, path)


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and draws. Returns the exit code."""
    parser = benchmark_parser("growth", __doc__)
    parser.add_argument("--picture", type=Path, default=PICTURE, metavar="FILE", help="the plot (default: %(default)s)")
    parser.add_argument(
        "--most", type=whole_number, default=MOST, metavar="N", help="most images (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="a trial of under two minutes with a small network")
    return run_benchmark(parser.parse_args(arguments), _run)


def _run(options: argparse.Namespace) -> dict:
    if options.most < COUNTS[1]:
        raise UserError(f"--most must be at least {COUNTS[1]}, got {options.most}")
    require_folder(options.picture)
    if options.quick and (options.json.parent == Path(RESULTS) or options.picture == Path(PICTURE)):
        raise UserError("--quick is only a trial; give another --json and --picture, so that it replaces no result")
    series = points(options.most, options.quick)
    found, failed = measure(list(dict.fromkeys(point for _, _, part in series for point in part)))
    rows = []
    for task, axis, part in series:
        measured = {point: found[point] for point in part if point in found}
        if len(measured) < 2:
            raise Failed(f"{task} against {axis} has {len(measured)} points, 2 are needed; the reasons are above")
        rows.append(series_record(task, axis, measured))
    print("\n".join([*table(rows), *above_linear(rows)]))
    draw(rows, options.picture)
    print(f"picture: {options.picture}")
    left_out = [f"{point.task}, {point.count} images, {point.side} pixels: {why}" for point, why in failed.items()]
    return {"quick": options.quick, "series": rows, "not_measured": left_out}


if __name__ == "__main__":
    sys.exit(main())
