"""Grades a submission's zip as the competition's server does: a verdict, and with labelled images the scores.

examples:
  python grade_submission.py dist/submission.zip --data data/leaves/phase1 --html dist/grade.html
  python grade_submission.py dist/submission.zip                         synthetic images: all checks, no accuracy
  python grade_submission.py dist/submission.zip --data folder --time-limit 600 --json grade.json

exit codes: 0 every check holds, 1 at least one does not, 2 wrong input, 130 interrupted
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from common.cli import argument_parser, image_size, output_file, positive, run_command, whole_number
from common.errors import UserError
from common.files import write_json
from competition.grade.grade import LAYOUTS, Rules, grade
from competition.grade.report import as_json, report
from competition.grade.status import StatusLine


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Returns the parsed command line."""
    parser, rules = argument_parser(__doc__), Rules()
    parser.add_argument("zip", help="the submission.zip to grade")
    parser.add_argument(
        "--data", help="folder with one folder of images for each class; default: synthetic images, no accuracy"
    )
    parser.add_argument("--limit-mb", type=positive, default=rules.limit_mb, help="largest zip (default %(default)s)")
    parser.add_argument(
        "--time-limit",
        type=positive,
        default=rules.time_limit,
        help="seconds for the predictions (default %(default)s)",
    )
    parser.add_argument(
        "--memory-limit-mb",
        type=positive,
        default=rules.memory_limit_mb,
        help="for all processes (default %(default)s)",
    )
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter for the submission, to test another TensorFlow version"
    )
    parser.add_argument(
        "--layout", choices=list(LAYOUTS), default=rules.layout, help="what the zip was built for (default %(default)s)"
    )
    parser.add_argument(
        "--size",
        type=image_size,
        help="N or HxW, of the images (default: the most frequent size, or the median; 96 for synthetic ones)",
    )
    parser.add_argument(
        "--classes", type=whole_number, help="number of classes, without --data and if the zip does not name them"
    )
    parser.add_argument("--json", type=output_file, metavar="FILE", help="also write the grade to this file")
    parser.add_argument(
        "--html", type=output_file, metavar="FILE", help="also write the detailed results to this file; needs --data"
    )
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    """Grades and prints the report. Returns the exit code."""
    if options.html and not options.data:
        raise UserError(
            "--html needs labelled images: the detailed results show scores; add --data, or leave out --html"
        )
    if options.classes and options.data:
        raise UserError("--classes has no effect with --data, whose folders are the classes; leave it out")
    limits = options.limit_mb, options.time_limit, options.memory_limit_mb
    rules = Rules(*limits, options.layout, options.size, options.classes)
    status = StatusLine()
    try:
        result = grade(options.zip, options.data, rules, options.python, options.html, status)
    finally:
        status("")
    print(report(result))
    if options.json:
        Path(options.json).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(options.json), as_json(result))
    if result.unwritten:
        raise UserError(result.unwritten)
    return 0 if result.passed else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    options = parse(arguments)
    # SystemExit instead of sudden death, so that processes and temporary files are cleaned up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    return run_command(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
