"""Packs a trained model as dist/submission.zip, in the layout that the competition's server expects, and checks it.

examples:
  python build_submission.py                          pack the committed leaf model
  python build_submission.py --run runs/mine          export a finished run, then pack it
  python build_submission.py --run runs/mine --limit-mb 100 --out dist/small.zip
  python build_submission.py --layout an2dl2024       class Model, no argument, numpy in and out
  python build_submission.py --run runs/mine --layout kaggle --images data/test --sample data/sample_submission.csv
  python build_submission.py --run runs/mine --layout kaggle-code --images data/test \\
      --sample data/sample_submission.csv --competition NAME --user ME
                                                      a notebook without internet; see docs/kaggle.md

exit codes: 0 built, 1 the server would refuse the zip, 2 wrong input, 130 interrupted
An existing output file is replaced only if the command succeeds.
"""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common.tensorflow_log import hide_tensorflow_log

hide_tensorflow_log()

from common.cli import argument_parser, positive, run_command
from common.errors import UserError
from competition.package import kaggle_command
from competition.package.archive import LIMIT_MB, MODEL_NAME
from competition.package.build import LAYOUTS, build, describe


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: _run(options), interrupted="interrupted; no file was left half written")


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__)
    parser.add_argument("--run", help="folder of a finished run or of auto (default: the committed leaf model)")
    parser.add_argument(
        "--out", help="file to write (default: dist/submission.zip, for kaggle dist/submission.csv or dist/kaggle)"
    )
    parser.add_argument(
        "--limit-mb", type=positive, help=f"largest zip that the server takes, in MB (default: {LIMIT_MB})"
    )
    parser.add_argument(
        "--layout",
        choices=[*LAYOUTS, *kaggle_command.LAYOUTS],
        default="codalab",
        help="format of the output: codalab or codabench (zip with class model), an2dl2024 (zip with class Model), "
        "kaggle (CSV file), kaggle-code (dataset and notebook) (default: %(default)s)",
    )
    kaggle_command.add_options(parser)
    return parser


def _run(options: argparse.Namespace) -> None:
    kaggle_command.check_options(options)
    if options.out and options.layout != "kaggle-code" and Path(options.out).is_dir():
        raise UserError(f"--out must be a file, and {options.out} is a folder; give the path of a file")
    if not options.run:
        _build(options, None)
        return
    os.environ["KERAS_BACKEND"] = "tensorflow"  # a SavedModel is TensorFlow's
    from training.export import export_run  # here, because packing the committed model needs no training code
    from training.run_folder import best_of, read_record

    run = best_of(Path(options.run))
    record = read_record(run)
    if options.layout in kaggle_command.LAYOUTS:
        kaggle_command.read_plan(options, record.classes)
    with tempfile.TemporaryDirectory(prefix="export-") as folder:
        model_folder = Path(folder) / MODEL_NAME
        export_run(run, model_folder)
        recipe = re.sub(r"[^\w.+-]+", "-", record.name)  # the description must be plain text in YAML
        (Path(folder) / "metadata").write_text(
            f"description: recipe {recipe}, {len(record.classes)} classes\n", "utf-8"
        )
        _build(options, model_folder, f"{run}, recipe {recipe}")


def _build(options: argparse.Namespace, model_folder: Path | None, source: str = "") -> None:
    if options.layout in kaggle_command.LAYOUTS:
        kaggle_command.write(options, model_folder, source)
    else:
        out = options.out or "dist/submission.zip"
        path = build(model_folder, out, options.limit_mb or LIMIT_MB, options.layout)
        print(describe(path, model_folder, source))


if __name__ == "__main__":
    sys.exit(main())
