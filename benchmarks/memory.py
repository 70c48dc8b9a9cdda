"""How much memory `predict` of the committed model needs in addition to its input, TensorFlow included.

  python -m benchmarks.memory
  python -m benchmarks.memory --images 1000 --json memory.json

Measured without test-time augmentation, which takes more time but no more memory: its batches have the same size.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks import Failed, benchmark_parser, run_benchmark

SUBMISSION = Path(__file__).resolve().parents[1] / "submission"

# Runs in a process of its own, so that its peak memory is that of `predict`.
PROGRAM = """
import json, resource, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
count = int(sys.argv[2])
images = np.random.default_rng(0).integers(0, 256, (count, 96, 96, 3), np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
from model import model
network = model(sys.argv[1])
network.tta_transforms = network.tta_transforms[:1]
assert network.predict(images).shape == (count,)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"images": count, "input_mb": images.nbytes / 1e6, "beyond_mb": (after - before) * 1024 / 1e6}))
"""


def measure(images: int) -> dict:
    """Predicts random images in a new process. Returns the memory in MB of 1,000,000 bytes, as plain values.

    Raises:
        Failed: the process failed; its messages are on standard error.
    """
    command = [sys.executable, "-c", PROGRAM, str(SUBMISSION), str(images)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise Failed(f"the measured process ended with exit code {done.returncode}; its messages are above")
    return json.loads(done.stdout)


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints. Returns the exit code."""
    parser = benchmark_parser("memory", __doc__)
    parser.add_argument("--images", type=int, default=10_000, help="default: %(default)s")
    return run_benchmark(parser.parse_args(arguments), _run)


def _run(options: argparse.Namespace) -> dict:
    result = measure(options.images)
    print(
        f"{result['images']:,} images: {result['input_mb']:.0f} MB of input, {result['beyond_mb']:,.0f} MB in addition"
    )
    return result


if __name__ == "__main__":
    sys.exit(main())
