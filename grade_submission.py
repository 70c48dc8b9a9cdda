"""Grades a submission's zip as the competition's server does: a verdict, and with labelled images the scores.

examples:
  python grade_submission.py dist/submission.zip --data data/leaves/phase1 --html dist/grade.html
  python grade_submission.py dist/submission.zip                         synthetic images: all checks, no accuracy
  python grade_submission.py dist/submission.zip --data folder --time-limit 600 --json grade.json
  python grade_submission.py dist/submission.zip --data folder --labels labels.csv

exit codes: 0 every check holds, 1 at least one does not, 2 wrong input, 130 interrupted
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from common.cli import argument_parser, require_separate_files, run_command
from common.errors import UserError
from common.files import write_json
from competition.grade.grade import grade
from competition.grade.options import add_options, labelled_folder, rules_of
from competition.grade.report import as_json, report
from competition.grade.status import StatusLine


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argument_parser(__doc__)
    add_options(parser)
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    """Grades and prints the report. Returns the exit code."""
    data, rules = labelled_folder(options), rules_of(options)
    require_separate_files(
        {"--json": options.json, "--html": options.html}, {"zip": options.zip, "--labels": options.labels}
    )
    status = StatusLine()
    try:
        result = grade(options.zip, data, rules, options.python, options.html, status)
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
