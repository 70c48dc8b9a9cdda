"""Compares `python -m training auto` with twenty lines of scikit-learn on any images.

  python -m benchmarks.own_data --data DIR/train --test DIR/test
  python -m benchmarks.own_data --data DIR/train --test DIR/test --minutes 1.5 10 --backbone-weights FILE

The twenty lines are logistic regression on features of a frozen InceptionV3 at 192×192. Both are trained on --data and
measured on --test, each in a process of its own. Seconds include the start of Python and the loading of the images.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import Failed, benchmark_parser, run_benchmark
from common.errors import UserError

# Arguments: folder of training images, folder of test images, weights.
TWENTY_LINES = """
import sys
import keras, numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

train_folder, test_folder, weights = sys.argv[1:]
weights = None if weights == "none" else weights
model = keras.applications.InceptionV3(include_top=False, weights=weights, pooling="avg", input_shape=(192, 192, 3))

def load(folder):
    data = keras.utils.image_dataset_from_directory(folder, image_size=(192, 192), shuffle=False, verbose=False)
    x, y = zip(*((x.numpy(), y.numpy()) for x, y in data))
    x = keras.applications.inception_v3.preprocess_input(np.concatenate(x))
    return [model.predict(view, verbose=0) for view in (x, x[:, :, ::-1])], np.concatenate(y)

(train, y), (test, truth) = load(train_folder), load(test_folder)
scaler = StandardScaler().fit(np.concatenate(train))
classifier = LogisticRegression(C=0.03, max_iter=1000).fit(scaler.transform(np.concatenate(train)), np.tile(y, 2))
probabilities = np.mean([classifier.predict_proba(scaler.transform(view)) for view in test], axis=0)
print((probabilities.argmax(axis=1) == truth).mean())
"""


def twenty_lines(options: argparse.Namespace) -> dict:
    """Runs the twenty lines. Returns their test accuracy and seconds."""
    began = time.monotonic()
    command = [sys.executable, "-c", TWENTY_LINES, options.data, options.test, options.backbone_weights]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise Failed(f"the twenty lines ended with exit code {done.returncode}; their messages are above")
    return {"test_accuracy": float(done.stdout.split()[-1]), "seconds": round(time.monotonic() - began, 1)}


def auto(options: argparse.Namespace, minutes: float, out: Path) -> dict:
    """Runs `auto`. Returns the test and held-out accuracy of each step, and the seconds of all."""
    began = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "training",
        "auto",
        "--data",
        options.data,
        "--test",
        options.test,
        "--out",
        str(out),
    ]
    command += ["--minutes", str(minutes), "--backbone-weights", options.backbone_weights]
    if subprocess.run(command).returncode:
        raise Failed("auto failed; its messages are above")
    seconds = round(time.monotonic() - began, 1)
    plan = json.loads((out / "plan.json").read_text("utf-8"))
    steps = {
        name: {
            "held_out_accuracy": step["held_out_accuracy"],
            "test_accuracy": json.loads((out / name / "metrics.json").read_text("utf-8"))["test"]["accuracy"],
        }
        for name, step in plan["steps"].items()
    }
    best = json.loads((out / "best" / "metrics.json").read_text("utf-8"))["test"]["accuracy"]
    return {
        "minutes": minutes,
        "seconds": seconds,
        "test_accuracy": best,
        "steps": steps,
        "decisions": plan["decisions"],
    }


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints. Returns the exit code."""
    parser = benchmark_parser("own_data", __doc__)
    parser.add_argument("--data", required=True, help="class folders to train on")
    parser.add_argument("--test", required=True, help="class folders to measure on")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.5, 10], help="default: 1.5 and 10")
    parser.add_argument("--backbone-weights", default="imagenet", help="imagenet, none, or a .weights.h5 file")
    return run_benchmark(parser.parse_args(arguments), _run)


def _run(options: argparse.Namespace) -> dict:
    for folder in (options.data, options.test):
        if not Path(folder).is_dir():
            raise UserError(f"--data and --test must be folders of class folders; there is no folder {folder}")
    result: dict = {"twenty lines": twenty_lines(options)}
    with tempfile.TemporaryDirectory(prefix="own-data-") as folder:
        for minutes in options.minutes:
            result[f"auto, {minutes:g} minutes"] = auto(options, minutes, Path(folder) / f"{minutes:g}")
    for name, row in result.items():
        print(f"{name:18}  {row['test_accuracy']:.1%} on the test images, {row['seconds']:.0f} s")
    return result


if __name__ == "__main__":
    sys.exit(main())
