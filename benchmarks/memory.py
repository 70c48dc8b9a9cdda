"""Peak memory of a process that predicts with the committed model, against the number of images.

  python -m benchmarks.memory
  python -m benchmarks.memory --images 100 1000 --json memory.json --picture memory.png
  python -m benchmarks.memory --python server/bin/python

Each number of images is predicted in a new process, which reads a memory-mapped file in pieces: of a file that is
mapped as a whole, the pages that were read count as resident until the system needs them. Measured without test-time
augmentation, which takes more time but no more memory: its batches have the same size. It takes half an hour or more,
most of it for 100,000 images.

`import tensorflow` imports Keras, and Keras imports JAX and scikit-learn if it finds them. A server may have TensorFlow
alone: --python names the interpreter of an environment like that.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import Failed, benchmark_parser, require_folder, run_benchmark
from common.cli import whole_number
from common.errors import UserError
from common.progress import progress

ROOT = Path(__file__).resolve().parents[1]
SUBMISSION = ROOT / "submission"
IMAGES = (100, 1000, 3543, 10_000, 100_000)  # 3,543 are the images of the competition
SHAPE = (96, 96, 3)
MANY = 10_000  # more images are predicted with the first kind only
PIECE = 100  # images that are drawn, or mapped, at once; as float32 they are 11 MB
KINDS = (("", "uint8"), ("float32", "uint8"), ("float32", "float32"))  # SUBMISSION_PRECISION, type of the images

# Runs in a process of its own. VmHWM is the largest resident memory, in kB.
PROGRAM = """
import json, re, sys
def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) * 1024 / 1e6
import tensorflow
imported = peak()
sys.path.insert(0, sys.argv[1])
import numpy as np
from model import model
network = model(sys.argv[1])
network.tta_transforms = network.tta_transforms[:1]
path, count, dtype, piece = sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
def images():
    for start in range(0, count, piece):
        yield from np.load(path, mmap_mode="r")[start : min(start + piece, count)].astype(dtype)
assert network.predict(images()).shape == (count,)
values = {"precision": network.precision, "import_mb": imported, "peak_mb": peak()}
print(json.dumps({**values, "tensorflow": tensorflow.__version__, "jax": "jax" in sys.modules}))
"""


def draw(path: Path, images: int) -> None:
    """Writes random images to an .npy file: uint8 [n, 96, 96, 3]."""
    rng = np.random.default_rng(0)
    array = np.lib.format.open_memmap(path, "w+", np.uint8, (images, *SHAPE))
    for start in range(0, images, PIECE):
        part = array[start : start + PIECE]
        part[:] = rng.integers(0, 256, part.shape, np.uint8)
    array.flush()


def measure(python: str, path: Path, images: int, dtype: str, precision: str) -> dict:
    """Predicts the first images of a file in a new process of an interpreter.

    Returns:
        The number of images, the types, in MB of 1,000,000 bytes the peak after `import tensorflow` and at the end,
        TensorFlow's version, and whether JAX was imported.

    Raises:
        Failed: the process failed; its messages are on standard error.
    """
    command = [python, "-c", PROGRAM, str(SUBMISSION), str(path), str(images), dtype, str(PIECE)]
    environment = {**os.environ, "SUBMISSION_PRECISION": precision}
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    except OSError as error:
        raise UserError(f"--python must be an interpreter with TensorFlow, got {python} ({error})") from error
    if done.returncode:
        raise Failed(f"the measured process ended with exit code {done.returncode}; its messages are above")
    return {"images": images, "dtype": dtype, **json.loads(done.stdout)}


def draw_picture(rows: list[dict], path: Path) -> None:
    """Draws the peak against the number of images, one line for each type."""
    from training.evaluate.plots import new_figure, save_figure

    figure, axes = new_figure(1, 1, (7, 3.6), math=True)
    for kind in dict.fromkeys((row["precision"], row["dtype"]) for row in rows):
        own = [row for row in rows if (row["precision"], row["dtype"]) == kind]
        x, y = [row["images"] for row in own], [row["peak_mb"] for row in own]
        axes.semilogx(x, y, marker="o", label=f"computed in {kind[0]}, {kind[1]} images")
    axes.axhline(rows[0]["import_mb"], color="grey", linestyle="--", label="import tensorflow alone")
    axes.set(xlabel="images", ylabel="largest resident memory, MB", ylim=(0, None))
    axes.legend(loc="lower right")
    save_figure(figure, path)


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints. Returns the exit code."""
    parser = benchmark_parser("memory", __doc__)
    parser.add_argument(
        "--images", type=whole_number, nargs="+", default=IMAGES, metavar="N", help="default: %(default)s"
    )
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "img" / "memory.png", metavar="FILE")
    parser.add_argument("--python", default=sys.executable, metavar="FILE", help="interpreter (default: this one)")
    return run_benchmark(parser.parse_args(arguments), _run)


def _run(options: argparse.Namespace) -> dict:
    require_folder(options.picture)
    kinds = {count: KINDS if count <= MANY else KINDS[:1] for count in options.images}
    cases = [(count, dtype, precision) for count in options.images for precision, dtype in kinds[count]]
    rows = []
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        path = Path(folder, "images.npy")
        draw(path, max(options.images))
        for case in progress(cases, "predicting", unit="process"):
            rows.append(measure(options.python, path, *case))
            print(f"{rows[-1]['images']:,} images, {case[1]}, {rows[-1]['precision']}: {rows[-1]['peak_mb']:,.0f} MB")
    draw_picture(rows, options.picture)
    return {"rows": rows}


if __name__ == "__main__":
    sys.exit(main())
