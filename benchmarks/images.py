"""Measures how fast a folder of large photographs is loaded, and how much memory that and `predict` need.

  python -m benchmarks.images
  python -m benchmarks.images --photographs 100 --rounds 1 --json images.json

The photographs are drawn: 4000×3000 pixels, JPEG. Speed is a ratio to Pillow decoding the same files in full, in as
many processes as there are cores. Memory is the peak of a process that loads all of them.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import Failed, benchmark_parser, run_benchmark, speed_record, speed_table, time_interleaved
from common.cli import whole_number
from common.errors import UserError
from common.images import load_folder
from common.machine import available_cores

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT = 4000, 3000
DISTINCT = 8  # photographs that are drawn; the others are links to them
PREDICTED = 8
CLASSES = ("Ash", "Oak")
PILLOW, LOADER = "Pillow alone", "load_folder"

# Each runs in a process of its own, so that its peak memory is its own.
LOAD = """
import json, sys
sys.path.insert(0, sys.argv[1])
from common.images import load_folder
images = load_folder(sys.argv[2])
from benchmarks.process import peak_mb
print(json.dumps({"images": len(images), "arrays_mb": images.images.nbytes / 1e6, "peak_mb": peak_mb()}))
"""
PREDICT = """
import json, pathlib, sys
sys.path[:0] = [sys.argv[1] + "/submission", sys.argv[1]]
import numpy as np
from model import predict
predict(np.zeros((32, 96, 96, 3), np.uint8))
from benchmarks.process import peak_mb
before = peak_mb()
answers = predict(sorted(pathlib.Path(sys.argv[2]).rglob("*.jpg"))[:int(sys.argv[3])])
print(json.dumps({"images": len(answers), "beyond_mb": peak_mb() - before}))
"""


def draw_photographs(folder: Path, count: int) -> list[Path]:
    """Writes two class folders of photographs. Returns their files."""
    rng = np.random.default_rng(0)
    files: list[Path] = []
    for number in range(count):
        path = folder / CLASSES[number % len(CLASSES)] / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < DISTINCT:
            _draw(rng).save(path, quality=90)
        else:
            os.link(files[number % DISTINCT], path)
        files.append(path)
    return files


def _draw(rng: np.random.Generator) -> Image.Image:
    """Colored surfaces with a grain, about 3 MB as a JPEG file."""
    surfaces = Image.fromarray(rng.integers(0, 256, (HEIGHT // 40, WIDTH // 40, 3), np.uint8))
    grain = Image.fromarray(rng.integers(0, 256, (HEIGHT // 2, WIDTH // 2), np.uint8))
    size = (WIDTH, HEIGHT)
    bicubic, bilinear = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR
    return Image.blend(surfaces.resize(size, bicubic), grain.resize(size, bilinear).convert("RGB"), 0.15)


def measure_speed(folder: Path, files: list[Path], rounds: int) -> dict:
    """Compares Pillow alone with `load_folder` on the same files, prints a table, and returns plain values."""
    cores = available_cores()
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        candidates = {PILLOW: lambda: list(pool.map(_decode, files)), LOADER: lambda: load_folder(folder)}
        seconds = time_interleaved(candidates, rounds)
    print("\n".join(speed_table(seconds, len(files), PILLOW)))
    return {"processes": cores, **speed_record(seconds, len(files), PILLOW)}


def _decode(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        return image.size


def measure_memory(program: str, *arguments: object) -> dict:
    """Runs a program in a new process. Returns what it prints.

    Raises:
        Failed: the process failed; its messages are on standard error.
    """
    command = [sys.executable, "-c", program, str(ROOT), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise Failed(f"the measured process ended with exit code {done.returncode}; its messages are above")
    return json.loads(done.stdout)


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints. Returns the exit code."""
    parser = benchmark_parser("images", __doc__)
    parser.add_argument(
        "--photographs", type=whole_number, default=1000, help="loaded for the memory (default: %(default)s)"
    )
    parser.add_argument("--timed", type=whole_number, default=100, help="loaded in each round (default: %(default)s)")
    parser.add_argument("--rounds", type=whole_number, default=3, help="timed rounds (default: %(default)s)")
    return run_benchmark(parser.parse_args(arguments), _run)


def _run(options: argparse.Namespace) -> dict:
    if min(options.photographs, options.timed) < PREDICTED:
        raise UserError(f"--photographs and --timed must be at least {PREDICTED}")
    with tempfile.TemporaryDirectory(prefix="photographs-") as temporary:
        timed, every = Path(temporary, "timed"), Path(temporary, "every")
        speed = measure_speed(timed, draw_photographs(timed, options.timed), options.rounds)
        draw_photographs(every, options.photographs)
        loading, predicting = measure_memory(LOAD, every), measure_memory(PREDICT, timed, PREDICTED)
    megapixels = WIDTH * HEIGHT / 1e6
    print(
        f"{loading['images']:,} photographs of {megapixels:.0f} megapixels: {loading['peak_mb']:,.0f} MB at the peak, "
        f"{loading['arrays_mb']:,.0f} MB of them the loaded images\n"
        f"predict on {predicting['images']} of them: {predicting['beyond_mb']:,.0f} MB beyond the model"
    )
    return {"megapixels": megapixels, "speed": speed, "loading": loading, "predicting": predicting}


if __name__ == "__main__":
    sys.exit(main())
