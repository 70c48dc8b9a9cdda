"""Compares `python -m training auto` with scripts that a user would write by hand, on any images.

  python -m benchmarks.own_data --data DIR/train --test DIR/test
  python -m benchmarks.own_data --data DIR/train --test DIR/test --minutes 1 10 30 --epochs 8 25 --json FILE
  python -m benchmarks.own_data --digits --json FILE

The scripts are in benchmarks/baselines/: logistic regression on features of a frozen InceptionV3, and fine-tuning of
the whole network. All are trained on --data and measured on --test, one after another, each in a process of its own.
Seconds include the start of Python and the loading of the images. The result is written after each of them. --digits
takes scikit-learn's 1,797 handwritten digits, 8×8 pixels, of which every third is tested on.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks import Failed, benchmark_parser, require_folder
from benchmarks.result import write_result
from common.cli import positive, run_command, whole_number
from common.errors import UserError
from common.folders import list_classes

BASELINES = Path(__file__).parent / "baselines"
KERAS_FORMATS = {".bmp", ".gif", ".jpeg", ".jpg", ".png"}


def baseline(options: argparse.Namespace, script: str, *arguments: str) -> dict:
    """Runs a script of `baselines/`. Returns its test accuracy and seconds."""
    began = time.monotonic()
    command = [sys.executable, str(BASELINES / script), options.data, options.test, options.backbone_weights]
    done = subprocess.run([*command, *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise Failed(f"{script} ended with exit code {done.returncode}; its messages are above")
    return {"test_accuracy": float(done.stdout.split()[-1]), "seconds": round(time.monotonic() - began, 1)}


def auto(options: argparse.Namespace, minutes: float) -> dict:
    """Runs `auto`. Returns the test and held-out accuracy of each step that was kept, and the seconds of all."""
    with tempfile.TemporaryDirectory(prefix="own-data-") as folder:
        began, out = time.monotonic(), Path(folder, "auto")
        command = [sys.executable, "-m", "training", "auto", "--data", options.data, "--test", options.test]
        command += ["--out", str(out), "--minutes", str(minutes), "--backbone-weights", options.backbone_weights]
        if subprocess.run(command).returncode:
            raise Failed("auto failed; its messages are above")
        seconds = round(time.monotonic() - began, 1)
        plan = json.loads((out / "plan.json").read_text("utf-8"))
        steps = {
            name: {"held_out_accuracy": step["held_out_accuracy"], "test_accuracy": _test_accuracy(out / name)}
            for name, step in plan["steps"].items()
        }
        decisions = [line.replace(folder, "OUT") for line in plan["decisions"]]
        return {
            "seconds": seconds,
            "test_accuracy": _test_accuracy(out / "best"),
            "steps": steps,
            "decisions": decisions,
        }


def _test_accuracy(run: Path) -> float:
    return json.loads((run / "metrics.json").read_text("utf-8"))["test"]["accuracy"]


def write_digits(folder: Path) -> None:
    """Writes scikit-learn's digits as class folders of PNG files, into `train` and `test`."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for row, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / ("train" if row % 3 else "test") / str(label) / f"{row:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * (255 / 16)).astype("uint8")).save(path)


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints. Returns the exit code."""
    parser = benchmark_parser("own_data", __doc__)
    parser.add_argument("--data", help="class folders to train on")
    parser.add_argument("--test", help="class folders to measure on")
    parser.add_argument("--digits", action="store_true", help="scikit-learn's digits instead of --data and --test")
    parser.add_argument("--minutes", type=positive, nargs="*", default=[1, 10], help="of auto (default: 1 10)")
    parser.add_argument(
        "--epochs", type=whole_number, nargs="*", default=[], help="of the forty lines, for example 8 25"
    )
    parser.add_argument("--backbone-weights", default="imagenet", help="imagenet, none, or a .weights.h5 file")
    options = parser.parse_args(arguments)
    return run_command(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    require_folder(options.json)
    if options.digits == bool(options.data or options.test):
        raise UserError("give either --data and --test, or --digits")
    with tempfile.TemporaryDirectory(prefix="digits-") as folder:
        if options.digits:
            write_digits(Path(folder))
            options.data, options.test = str(Path(folder, "train")), str(Path(folder, "test"))
        for given in (options.data, options.test):
            if not given or not Path(given).is_dir():
                raise UserError(f"--data and --test must be folders of class folders; there is no folder {given}")
        require_same_images(options.data, options.test)
        _measure(options)
    print(f"done: {options.json}")


def require_same_images(data: str, test: str) -> None:
    """Raises a UserError unless Keras, with which the scripts read images, finds the classes and files of `auto`.

    Keras numbers the folders of each part by itself, skips no system folders, and leaves out other formats.
    """
    found = [sorted(path.name for path in Path(folder).iterdir() if path.is_dir()) for folder in (data, test)]
    listed = [list_classes(folder) for folder in (data, test)]
    classes = sorted(name for name, _ in listed[0].classes)
    if not found[0] == found[1] == classes:
        raise UserError("--data and --test must have folders of the same classes, and no other folders")
    others = {path.suffix.lower() for one in listed for _, files in one.classes for path in files} - KERAS_FORMATS
    if others:
        raise UserError(f"the scripts read {', '.join(sorted(KERAS_FORMATS))}, got {', '.join(sorted(others))}")


def _measure(options: argparse.Namespace) -> None:
    contestants = {"twenty lines": partial(baseline, options, "twenty_lines.py")}
    for minutes in options.minutes:
        contestants[f"auto, {minutes:g} minutes"] = partial(auto, options, minutes)
    for epochs in options.epochs:
        contestants[f"forty lines, {epochs} epochs"] = partial(baseline, options, "forty_lines.py", str(epochs))
    result: dict = {}
    for name, measure in contestants.items():
        result[name] = row = measure()
        print(f"{name:24}  {row['test_accuracy']:.1%} on the test images, {row['seconds']:.0f} s", flush=True)
        write_result(options.json, result)


if __name__ == "__main__":
    sys.exit(main())
