"""What grading costs beyond the prediction itself, and building the bundle and the page of details for many images.

    python -m benchmarks.grading
    python -m benchmarks.grading --images 1063 --rounds 3 --json docs/benchmarks/grading.json

1. `grade_submission.grade` on the committed model and drawn images, with every check, both stages, the scores and the
   page of details. Its own cost is its whole time less the submission's: importing model.py, loading the network, the
   first call's preparation, and predicting all images once, as the ingestion program times them in the same run. Also
   how many processes of the grader's tree have TensorFlow in memory.
2. `python -m competition` on 10,000 image files, and the scoring program, page included, on the bundle's data.
"""

import argparse
import contextlib
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

from build_submission import build
from competition.drawings import draw_images
from grade_submission import grade
from training.files import write_json

ROOT = Path(__file__).resolve().parents[1]
MANY = 10_000
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
    """Seconds of the grade and of the submission in it: a plain dictionary."""
    path = build(out=folder / "submission.zip")
    data = _as_folder(draw_images(count), folder / "drawn")
    whole, submission, imported = [], [], _ImportsOfTensorFlow()
    for _ in range(rounds):
        began = time.perf_counter()
        with imported:
            result = grade(path, data, html=folder / "details.html")
        whole.append(time.perf_counter() - began)
        assert result.passed and result.scores, result.checks
        used = result.used
        preparation = used["first_seconds"] - used["seconds"] / count  # which the first call needs, whatever it is asked
        submission.append(used["load_seconds"] + preparation + used["seconds"])
    own = np.subtract(whole, submission)
    return {
        "images": count,
        "rounds": rounds,
        "grade": float(np.median(whole)),
        "submission": float(np.median(submission)),
        "own_seconds": float(np.median(own)),
        "own_seconds_min": float(own.min()),
        "own_seconds_max": float(own.max()),
        "processes_with_tensorflow": imported.most,
    }


def many(folder):
    """Seconds and peak memory of the bundle and of the scoring program for 10,000 images: a plain dictionary."""
    bundle = _run(BUNDLE, _as_folder(np.tile(draw_images(MANY // 10), (10, 1, 1, 1)), folder / "many"), folder / "competition.zip")
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
                with contextlib.suppress(OSError):
                    if process.pid not in seen and "libtensorflow" in Path(f"/proc/{process.pid}/maps").read_text():
                        seen.add(process.pid)
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
    print(f"grade {cost['grade']:.1f} s, the submission in it {cost['submission']:.1f} s on {cost['images']} images:", end=" ")
    print(f"own cost {cost['own_seconds']:.1f} s ({cost['own_seconds_min']:.1f} to {cost['own_seconds_max']:.1f})")
    print(f"processes with TensorFlow: {cost['processes_with_tensorflow']}; measured in {time.monotonic() - began:.0f} s")
    for name in ("bundle", "scoring and page"):
        print(f"{name} for {big['images']:,} images: {big[name]['seconds']:.1f} s, {big[name]['peak_mb']:,.0f} MB at most")
    if options.json:
        write_json(Path(options.json), {"own_cost": cost, "many": big})
    return 0


if __name__ == "__main__":
    sys.exit(main())
