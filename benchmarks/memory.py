"""How much memory `predict` needs beyond its input.

python -m benchmarks.memory
python -m benchmarks.memory --images 10000
"""

import argparse
import subprocess
import sys
from pathlib import Path

SUBMISSION = Path(__file__).resolve().parents[1] / "submission"

# A process of its own, so that the peak is that of predict and nothing else.
PROGRAM = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
count = int(sys.argv[2])
images = np.random.default_rng(0).integers(0, 256, (count, 96, 96, 3), np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
from model import predict
assert predict(images).shape == (count,)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(f"{count} images: {images.nbytes / 1e6:.0f} MB of input, {(after - before) * 1024 / 1e6:.0f} MB beyond it, TensorFlow included")
"""


def main(arguments=None):
    """Runs the program and returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    options = parser.parse_args(arguments)
    return subprocess.run([sys.executable, "-c", PROGRAM, str(SUBMISSION), str(options.images)]).returncode


if __name__ == "__main__":
    sys.exit(main())
