"""How much memory `predict` needs beyond its input.

One view of each image: further ones take more time and no more memory, for a batch is as large.

python -m benchmarks.memory
python -m benchmarks.memory --images 1000 --json docs/benchmarks/memory.json
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from training.files import write_json

SUBMISSION = Path(__file__).resolve().parents[1] / "submission"

# A process of its own, so that the peak is that of predict and nothing else.
PROGRAM = """
import json, resource, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
count = int(sys.argv[2])
images = np.random.default_rng(0).integers(0, 256, (count, 96, 96, 3), np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
from model import model
network = model(sys.argv[1])
network.flips = network.flips[:1]
assert network.predict(images).shape == (count,)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"images": count, "input_mb": images.nbytes / 1e6, "beyond_mb": (after - before) * 1024 / 1e6}))
"""


def main(arguments=None):
    """Measures and prints. Returns the program's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--json", metavar="FILE", help="write the numbers there as well")
    options = parser.parse_args(arguments)
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(SUBMISSION), str(options.images)], stdout=subprocess.PIPE, text=True)
    if done.returncode == 0:
        result = json.loads(done.stdout)
        print("{images:,} images: {input_mb:.0f} MB of input, {beyond_mb:,.0f} MB beyond it, TensorFlow included".format(**result))
        if options.json:
            write_json(Path(options.json), result)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
