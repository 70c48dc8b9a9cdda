"""Packs a trained model as dist/submission.zip, in the layout that the competition's server expects, and checks it.

examples:
  python build_submission.py                          pack the committed model
  python build_submission.py --run runs/first         export a finished run, then pack it
  python build_submission.py --run runs/first --limit-mb 100 --out dist/small.zip
  python build_submission.py --layout an2dl2024       class Model, no argument, numpy in and out
  python build_submission.py --layout kaggle --images data/test --sample data/sample_submission.csv

exit codes: 0 built, 1 the server would refuse the zip, 2 wrong input, 130 interrupted
An existing output file is replaced only if the command succeeds.
"""

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from common.cli import argument_parser, positive, run_command
from competition.package.archive import LIMIT_MB, MODEL_NAME
from competition.package.build import LAYOUTS, Refused, build, describe, predict_csv
from competition.package.kaggle import plan
from competition.package.sample import LABELS

KAGGLE_OPTIONS = ("images", "sample", "labels", "competition")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: _run(options), interrupted="interrupted; the old file was not changed")


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__)
    parser.add_argument("--run", help="folder of a finished run; default: the committed submission/SubmissionModel")
    parser.add_argument("--out", help="default: dist/submission.zip, for kaggle dist/submission.csv")
    parser.add_argument("--limit-mb", type=positive, help=f"the server's limit (default {LIMIT_MB})")
    parser.add_argument("--layout", choices=[*LAYOUTS, "kaggle"], default="codalab", help="default: %(default)s")
    parser.add_argument("--images", help="for kaggle: folder of the test images")
    parser.add_argument("--sample", help="for kaggle: the competition's sample_submission.csv")
    parser.add_argument(
        "--labels",
        choices=LABELS,
        help="for kaggle: what the answers are: class names, positions from 0 or from 1, or the probability "
        "of one of two classes (default: decided from the names and the sample)",
    )
    parser.add_argument("--competition", help="for kaggle: its name, for the printed command")
    return parser


def _run(options: argparse.Namespace) -> None:
    _check(options)
    if not options.run:
        _build(options, None)
        return
    os.environ["KERAS_BACKEND"] = "tensorflow"  # a SavedModel is TensorFlow's
    from training.export import export_run  # here, because packing the committed model needs no training code
    from training.run_folder import RECORD, read_record, run_file

    if options.layout == "kaggle" and run_file(Path(options.run), RECORD).is_file():
        plan(options.images, options.sample, read_record(Path(options.run)).classes, options.labels)
    with tempfile.TemporaryDirectory(prefix="export-") as folder:
        model_folder = Path(folder) / MODEL_NAME
        export_run(Path(options.run), model_folder)
        _build(options, model_folder)


def _check(options: argparse.Namespace) -> None:
    """Refuses options that would have no effect."""
    if options.layout == "kaggle":
        if not (options.images and options.sample):
            raise Refused("--layout kaggle needs --images (folder of test images) and --sample (sample_submission.csv)")
        if options.limit_mb:
            raise Refused("--limit-mb is of a zip, --layout kaggle writes a CSV file; leave out --limit-mb")
    for name in KAGGLE_OPTIONS:
        if options.layout != "kaggle" and getattr(options, name):
            raise Refused(f"--{name} has no effect without --layout kaggle; add it, or leave out --{name}")


def _build(options: argparse.Namespace, model_folder: Path | None) -> None:
    if options.layout == "kaggle":
        out = options.out or "dist/submission.csv"
        path, notes = predict_csv(options.images, options.sample, model_folder, out, options.labels)
        name = shlex.quote(options.competition or "COMPETITION")
        command = f"kaggle competitions submit -c {name} -f {shlex.quote(str(path))} -m 'message'"
        print("\n".join([*notes, f"{path}  submit it with: {command}"]))
    else:
        out = options.out or "dist/submission.zip"
        print(describe(build(model_folder, out, options.limit_mb or LIMIT_MB, options.layout)))


if __name__ == "__main__":
    sys.exit(main())
