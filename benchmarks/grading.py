"""What grading costs beyond the bare prediction, and building the bundle and the page of details for many images.

    python -m benchmarks.grading
    python -m benchmarks.grading --images 1063 --rounds 3 --json docs/benchmarks/grading.json

1. dist/submission.zip on drawn images, in turn: the bare prediction (a fresh process that unpacks nothing, imports
   model.py and predicts all images at once), and `grade_submission.grade` with every check, both stages, the scores and
   the page of details. Also how many processes of the grader's tree have imported TensorFlow.
2. `python -m competition` on 10,000 image files, and the scoring program, page included, on the bundle's data.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from benchmarks import interleaved
from build_submission import build
from competition.drawings import draw_images
from grade_submission import grade
from training.files import write_json

ROOT = Path(__file__).resolve().parents[1]
MANY = 10_000
BARE = """
import sys, numpy as np
sys.path.insert(0, sys.argv[1])
import model, tensorflow as tf
model.model(sys.argv[1]).predict(tf.constant(np.load(sys.argv[2]), tf.float32))
"""
USED = """
print(time.monotonic() - began, next(int(line.split()[1]) * 1024 / 1e6 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
BUNDLE = """
import contextlib, io, sys, time
began = time.monotonic()
from competition.__main__ import main
with contextlib.redirect_stdout(io.StringIO()):
    assert main([sys.argv[1], "--out", sys.argv[2]]) == 0
"""
SCORE = """
import sys, time
began = time.monotonic()
sys.path.insert(0, sys.argv[1])
import score
assert score.main(sys.argv[2], sys.argv[3]) == 0
"""


def own_cost(count, rounds, folder):
    """Seconds of the bare prediction and of the grade, interleaved: a plain dictionary."""
    images = draw_images(count)
    path = build(out=folder / "submission.zip")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "unpacked")
    np.save(folder / "images.npy", images)
    data = _as_folder(images, folder / "drawn")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    imported = _ImportsOfTensorFlow()

    def bare():
        subprocess.run([sys.executable, "-I", "-c", BARE, folder / "unpacked", folder / "images.npy"], check=True, env=environment)

    def graded():
        with imported:
            result = grade(path, data, html=folder / "details.html")
        assert result.passed and result.scores, result.checks

    seconds = interleaved({"bare prediction": bare, "grade": graded}, rounds, warm=False)  # minutes; the zip has just been read
    difference = seconds["grade"] - seconds["bare prediction"]
    return {
        "images": count,
        "rounds": rounds,
        "bare prediction": float(np.median(seconds["bare prediction"])),
        "grade": float(np.median(seconds["grade"])),
        "own_seconds": float(np.median(difference)),
        "own_seconds_min": float(difference.min()),
        "own_seconds_max": float(difference.max()),
        "processes_with_tensorflow": imported.most,
    }


def many(folder):
    """Seconds and peak memory of the bundle and of the scoring program for 10,000 images: a plain dictionary."""
    bundle = _run(BUNDLE, _as_folder(draw_images(MANY), folder / "many"), folder / "competition.zip")
    with zipfile.ZipFile(folder / "competition.zip") as archive:
        archive.extractall(folder / "bundle")
    answers = folder / "input" / "res"
    answers.mkdir(parents=True)
    (folder / "bundle" / "reference_data").rename(folder / "input" / "ref")
    labels = np.loadtxt(folder / "input" / "ref" / "labels.txt", dtype=np.int64)
    rng = np.random.default_rng(0)
    guesses = np.where(rng.random(MANY) < 0.9, labels, rng.integers(0, 8, MANY))
    (answers / "predictions.txt").write_text("".join(f"{guess}\n" for guess in guesses))
    sure = np.full((MANY, 8), 0.04, np.float32)
    sure[np.arange(MANY), guesses] = 0.72
    np.save(answers / "probabilities.npy", sure)
    (folder / "output").mkdir()
    page = _run(SCORE, folder / "bundle" / "scoring_program", folder / "input", folder / "output")
    return {"images": MANY, "bundle": bundle, "scoring and page": page}


class _ImportsOfTensorFlow:
    """Counts, from a thread, the processes below this one that have TensorFlow's library mapped."""

    most = 0

    def __enter__(self):
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._look)
        self.thread.start()

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()

    def _look(self):
        seen = set()
        while not self.done.wait(0.5):
            for process in psutil.Process().children(recursive=True):
                try:
                    if any("libtensorflow" in part.path for part in process.memory_maps()):
                        seen.add(process.pid)
                except psutil.Error:
                    continue
        self.most = max(self.most, len(seen))


def _as_folder(images, folder):
    """Class folders of images without loss."""
    for number, image in enumerate(images):
        path = folder / f"Species{number % 8 + 1}" / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def _run(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code + USED, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds, megabytes = map(float, done.stdout.split())
    return {"seconds": seconds, "peak_mb": megabytes}


def main(arguments=None):
    """Measures and prints. Returns 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1063)
    parser.add_argument("--rounds", type=int, default=1, help="of some minutes each (default %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there as well")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        folder = Path(folder)
        big = many(folder)
        began = time.monotonic()
        cost = own_cost(options.images, options.rounds, folder)
    print(f"bare prediction {cost['bare prediction']:.1f} s, grade {cost['grade']:.1f} s on {cost['images']} images:", end=" ")
    print(f"own cost {cost['own_seconds']:.1f} s ({cost['own_seconds_min']:.1f} to {cost['own_seconds_max']:.1f})")
    print(f"processes with TensorFlow: {cost['processes_with_tensorflow']}; measured in {time.monotonic() - began:.0f} s")
    for name in ("bundle", "scoring and page"):
        print(f"{name} for {big['images']:,} images: {big[name]['seconds']:.1f} s, {big[name]['peak_mb']:,.0f} MB at most")
    if options.json:
        write_json(Path(options.json), {"own_cost": cost, "many": big})
    return 0


if __name__ == "__main__":
    sys.exit(main())
