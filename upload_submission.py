"""Uploads a submission's zip to Codabench, waits, and prints the scores.

examples:
  python upload_submission.py --login --server https://www.codabench.org            once: name and password → token file
  python upload_submission.py dist/submission.zip --server https://www.codabench.org --phase 1234
  CODABENCH_TOKEN=… python upload_submission.py dist/submission.zip --server … --phase 1234 --dry-run

The token comes from the environment variable CODABENCH_TOKEN, or from the file that --login writes (mode 600), which
is for one server. It is never printed. The id of the phase is in SERVER/api/competitions/ID/, below "phases". The
upload is noted beside the zip, in ZIP.HOST.phaseID.upload.json. Repeating the command waits for that submission and
does not upload a second one.

exit codes: 0 scored (or --dry-run and allowed, or --login done), 1 refused or failed, 2 wrong input, 3 no response or
no scores in time: repeat the command, 130 interrupted
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from common.cli import argument_parser, positive, run_command
from competition.package.archive import LIMIT_MB, megabytes
from competition.upload.codabench import Server
from competition.upload.login import TOKEN_FILE, login, read_token
from competition.upload.submit import check_zip, send
from competition.upload.watch import score_lines, watch


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line. Exits with code 2 if it is wrong."""
    parser = argument_parser(__doc__)
    parser.add_argument("zip", nargs="?", help="the submission.zip to upload")
    parser.add_argument("--server", required=True, metavar="URL", help="for example https://www.codabench.org")
    parser.add_argument("--phase", type=int, metavar="ID", help="id of the phase; see above for where to find it")
    parser.add_argument("--competition", type=int, metavar="ID", help="the phase's competition (default: looked up)")
    parser.add_argument("--login", action="store_true", help="ask for name and password, and write the token file")
    parser.add_argument(
        "--token-file", default=TOKEN_FILE, metavar="FILE", help="file of the token (default: %(default)s)"
    )
    parser.add_argument(
        "--limit-mb",
        type=positive,
        default=LIMIT_MB,
        help="largest zip that the server takes, in MB (default: %(default)s)",
    )
    parser.add_argument(
        "--wait", type=float, default=3600, metavar="SECONDS", help="time to wait for the scores (default: %(default)s)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check the zip and whether the server allows another one"
    )
    parser.add_argument("--again", action="store_true", help="submit a zip that was submitted before")
    options = parser.parse_args(arguments)
    if not 0 <= options.wait < math.inf:
        parser.error(f"--wait must be 0 or more seconds, got {options.wait:g}")
    if not options.login and (not options.zip or options.phase is None):
        parser.error("give the zip and --phase, or --login")
    if options.login and (options.zip or options.phase is not None):
        parser.error("--login uploads nothing; give the zip and --phase in a second command")
    return options


def write_token(options: argparse.Namespace) -> None:
    """Runs --login."""
    print(f"the token is in {login(options.server, options.token_file)}")


def upload(options: argparse.Namespace) -> int:
    """Checks, submits and watches the zip. Returns the exit code."""
    server = Server(options.server, read_token(options.token_file, options.server))
    for warning in check_zip(options.zip, options.limit_mb):
        print(f"warning: {warning}", file=sys.stderr)
    submission = send(server, options.zip, options.phase, options.competition, options.again, options.dry_run)
    if submission is None:
        size = megabytes(Path(options.zip).stat().st_size)
        print(f"allowed: {options.zip} ({size} MB) can be submitted to phase {options.phase}")
        return 0
    return run_command(
        lambda: print_scores(server, submission, options),
        f"interrupted; submission {submission} goes on at the server, give the same command again to watch it",
    )


def print_scores(server: Server, submission: int, options: argparse.Namespace) -> None:
    """Waits for the scores of a submission and prints them."""
    print(f"submission {submission}", flush=True)
    states = watch(server, submission, options.wait, lambda line: print(line, flush=True), Path(options.zip))
    print("\n".join(score_lines(states, len(states) > 1)))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    options = parse(arguments)
    return run_command(lambda: write_token(options) if options.login else upload(options))


if __name__ == "__main__":
    sys.exit(main())
