"""The time that grading takes in addition to the prediction, and the time of the bundle and scores of many images.

  python -m benchmarks.grading
  python -m benchmarks.grading --images 1063 --rounds 3 --json grading.json

1. `grade` on the committed model and synthetic images, with all checks, both stages, the scores and the page of
   details. Its own cost is its total time minus the submission's, as the ingestion program measures it in the same run:
   importing model.py, loading the model, preparing the first call, and predicting all images once. The number of the
   grader's processes that load TensorFlow is counted as well.
2. The peak memory of the prediction stage on 512×512 images and a submission that does nothing: of all its processes,
   and of the grader itself meanwhile.
3. `python -m competition` on 10,000 image files, and the scoring program with its detailed results on that bundle.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from benchmarks import Failed, benchmark_parser, run_benchmark
from common.cli import whole_number
from competition.grade.grade import Grade, grade
from competition.package.build import build
from competition.synthetic import draw_images

ROOT = Path(__file__).resolve().parents[1]
MANY = 10_000  # images
LARGE, LARGE_SIDE = 896, 512  # images and their pixels: 705 MB, as 224 of 1024×1024
CLASSES = 8
ACCURACY = 0.9  # of the predictions that are scored
CONFIDENCE, OTHERS = 0.72, 0.04  # their probabilities: of the predicted class, and of each other class
POLL_SECONDS = 0.5
USED = """
peak = next(int(line.split()[1]) * 1024 / 1e6 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(time.monotonic() - began, peak)
"""
BUNDLE = """
import contextlib, io, sys, time
began = time.monotonic()
from competition.__main__ import main
with contextlib.redirect_stdout(io.StringIO()):
    assert main([sys.argv[1], "--out", sys.argv[2], "--show-mistakes"]) == 0
"""
NOTHING = """
import tensorflow as tf

class model:
    def __init__(self, path):
        pass

    def predict(self, X):
        return tf.cast(X[:, 0, 0, 0], tf.int64) % 8
"""
SCORE = """
import sys, time
began = time.monotonic()
sys.path.insert(0, sys.argv[1])
import score
assert score.main(sys.argv[2], sys.argv[3]) == 0
"""


def own_cost(count: int, rounds: int, folder: Path) -> dict:
    """Grades the committed model on synthetic images.

    Args:
        count: number of images.
        rounds: how often.
        folder: for the zip, the images and the detailed results.

    Returns:
        Median seconds of the grade, of the submission in it, and of the difference, as plain values.

    Raises:
        Failed: a check of the grade failed.
    """
    path = build(out=folder / "submission.zip")
    data = _write_class_folders(draw_images(count), folder / "synthetic")
    total, submission, processes = [], [], _TensorFlowProcesses()
    for _ in range(rounds):
        began = time.perf_counter()
        with processes:
            result = grade(path, data, html=folder / "details.html")
        total.append(time.perf_counter() - began)
        submission.append(_submission_seconds(result))
    own = np.subtract(total, submission)
    return {
        "images": count,
        "rounds": rounds,
        "grade": float(np.median(total)),
        "submission": float(np.median(submission)),
        "own_seconds": float(np.median(own)),
        "own_seconds_min": float(own.min()),
        "own_seconds_max": float(own.max()),
        "processes_with_tensorflow": processes.most,
    }


def large_images(count: int, folder: Path) -> dict:
    """Grades a submission that does nothing. Returns the megabytes of the images and of the processes, as plain values.

    Raises:
        Failed: a check of the grade failed.
    """
    with zipfile.ZipFile(folder / "nothing.zip", "w") as archive:
        archive.writestr("model.py", NOTHING)
        archive.writestr("metadata", "")
    drawn = draw_images(CLASSES, side=LARGE_SIDE)
    data = _write_class_folders((drawn[number % CLASSES] for number in range(count)), folder / "large")
    own, process = [0.0], psutil.Process()

    def watch(text: str) -> None:
        if "grading: " in text and "scoring" not in text:
            own.append(process.memory_info().rss / 1e6)

    result = grade(folder / "nothing.zip", data, show=watch)
    failed = ", ".join(check.name for check in result.checks if not check.passed)
    if failed:
        raise Failed(f"the submission that does nothing must pass the grade; failed: {failed}")
    images_mb = count * 3 * LARGE_SIDE**2 / 1e6
    return {"images": count, "images_mb": images_mb, "stage_peak_mb": result.peak_mb, "grader_mb": own[-1]}


def many_images(folder: Path, count: int) -> dict:
    """Builds a bundle and scores predictions. Returns the seconds and the peak memory of both, as plain values."""
    images = np.tile(draw_images(count // 10), (10, 1, 1, 1))
    bundle = _timed(BUNDLE, _write_class_folders(images, folder / "many"), folder / "competition.zip")
    with zipfile.ZipFile(folder / "competition.zip") as archive:
        archive.extractall(folder / "bundle")
    reference, predictions = folder / "input" / "ref", folder / "input" / "res"
    predictions.mkdir(parents=True)
    (folder / "bundle" / "reference_data").rename(reference)
    _write_predictions(np.loadtxt(reference / "labels.txt", dtype=np.int64), predictions)
    (folder / "output").mkdir()
    page = _timed(SCORE, folder / "bundle" / "scoring_program", folder / "input", folder / "output")
    return {"images": count, "bundle": bundle, "scoring and page": page}


class _TensorFlowProcesses:
    """Counts, in a thread, the child processes that have loaded TensorFlow's library."""

    most = 0  # processes in one `with` block

    def __enter__(self) -> None:
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def __exit__(self, *_: Any) -> None:
        self.done.set()
        self.thread.join()

    def _watch(self) -> None:
        seen = set()
        while not self.done.wait(POLL_SECONDS):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(OSError):  # it may have ended
                    if process.pid not in seen and "libtensorflow" in Path(f"/proc/{process.pid}/maps").read_text():
                        seen.add(process.pid)
        self.most = max(self.most, len(seen))


def _submission_seconds(result: Grade) -> float:
    """The time that the submission itself takes in a grade: loading, preparing the first call, and predicting."""
    if not (result.passed and result.scores):
        failed = ", ".join(check.name for check in result.checks if not check.passed)
        raise Failed(f"the committed model must pass the grade; failed: {failed}")
    used = result.used
    preparation = used["first_seconds"] - used["seconds"] / result.images
    return used["load_seconds"] + preparation + used["seconds"]


def _write_class_folders(images: Iterable[np.ndarray], folder: Path) -> Path:
    """Writes images as PNG, which is lossless. Returns the folder."""
    for number, image in enumerate(images):
        path = folder / f"Species{number % CLASSES + 1}" / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def _write_predictions(labels: np.ndarray, folder: Path) -> None:
    """Writes predictions of which most are correct, and their probabilities, as the ingestion program does."""
    rng, count = np.random.default_rng(0), len(labels)
    predicted = np.where(rng.random(count) < ACCURACY, labels, rng.integers(0, CLASSES, count))
    probabilities = np.full((count, CLASSES), OTHERS, np.float32)
    probabilities[np.arange(count), predicted] = CONFIDENCE
    (folder / "predictions.txt").write_text("".join(f"{label}\n" for label in predicted))
    np.save(folder / "probabilities.npy", probabilities)
    check = {"name": "all images", "passed": True, "reason": "", "fix": ""}
    (folder / "checks.json").write_text(json.dumps({"checks": [check], "used": {}}))


def _timed(program: str, *arguments: Path) -> dict[str, float]:
    """Runs a program in a new process. Returns its seconds and peak memory."""
    command = [sys.executable, "-c", program + USED, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"a measured process ended with exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    seconds, megabytes = map(float, done.stdout.split())
    return {"seconds": seconds, "peak_mb": megabytes}


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints. Returns the exit code."""
    parser = benchmark_parser("grading", __doc__)
    parser.add_argument("--images", type=whole_number, default=1063, help="of part 1 (default: %(default)s)")
    parser.add_argument(
        "--rounds", type=whole_number, default=1, help="grades, some minutes each (default: %(default)s)"
    )
    return run_benchmark(parser.parse_args(arguments), _run)


def _run(options: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        many = many_images(Path(folder), MANY)
        large = large_images(LARGE, Path(folder))
        cost = own_cost(options.images, options.rounds, Path(folder))
    submission = f"the submission in it {cost['submission']:.1f} s"
    print(f"grade {cost['grade']:.1f} s on {cost['images']} images, {submission}")
    print(f"own cost {cost['own_seconds']:.1f} s ({cost['own_seconds_min']:.1f} to {cost['own_seconds_max']:.1f})")
    print(f"processes with TensorFlow: {cost['processes_with_tensorflow']}")
    for name in ("bundle", "scoring and page"):
        row = many[name]
        print(f"{name} of {many['images']:,} images: {row['seconds']:.1f} s, peak memory {row['peak_mb']:,.0f} MB")
    used = f"the stage at most {large['stage_peak_mb']:,.0f} MB, the grader {large['grader_mb']:.0f} MB"
    print(f"{large['images']} images of {LARGE_SIDE}×{LARGE_SIDE}, {large['images_mb']:.0f} MB: {used}")
    return {"own_cost": cost, "large": large, "many": many}


if __name__ == "__main__":
    sys.exit(main())
