"""Builds dist/competition.zip from labelled images: a competition to upload to Codabench without changes.

Upload it under My Resources → Competitions. Beside it, competition.organizer.md says what participants can see, and
competition.starting_kit.zip is a sample submission, which the bundle also contains.

examples:
  python -m competition my/images --title "Groceries" --text groceries.md --logo groceries.png
  python -m competition my/images --title "Leaves, round two" --start 2026-12-01
  python -m competition parts/validation --classes parts/train
  python -m competition my/images --labels my/labels.csv --title "Groceries"
  python -m competition my/images --seconds 600 --per-day 3 --out dist/mine.zip

exit codes: 0 built, 2 wrong input, 130 interrupted; an old file is replaced only by a complete new one
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.cli import add_labels, add_size, argument_parser, output_file, require_separate_files, run_command
from common.errors import UserError
from common.images import load_images
from common.labels import LabelledFolder
from competition.host.appearance import read_logo, read_text
from competition.host.bundle import Settings, build, given_away, kit_path, note_path
from competition.host.classes import require_training_classes, with_classes_of
from competition.package.class_names import numbered


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argument_parser(__doc__, prog="python -m competition")
    parser.add_argument("data", help="folder with one folder of images for each class, or any folder with --labels")
    add_labels(parser)
    add_size(parser)
    parser.add_argument(
        "--out", type=output_file, default="dist/competition.zip", help="the zip to write (default: %(default)s)"
    )
    parser.add_argument(
        "--classes",
        metavar="DIR|FILE",
        help="class folders of the training images, or a text file with a class name a line, in the order of the "
        "numbers; needed if a class has no hidden image (default: the classes of the hidden images)",
    )
    parser.add_argument("--title", default=Settings.title, help="title of the competition (default: %(default)s)")
    parser.add_argument("--text", metavar="FILE.md", help="first text of the page Overview (default: a neutral one)")
    parser.add_argument("--logo", metavar="FILE.png", help="PNG or JPEG picture (default: a neutral one)")
    _add_phase(parser)
    parser.add_argument(
        "--show-mistakes",
        action="store_true",
        help="show participants hidden images that they got wrong, with their labels (default: no image, no label)",
    )
    return parser.parse_args(arguments)


def _add_phase(parser: argparse.ArgumentParser) -> None:
    """The options of the phase, in which submissions are made."""
    parser.add_argument(
        "--start",
        default="",
        metavar="YYYY-MM-DD",
        help="first day, in UTC (default: today); the web page enforces a start in the future, the API does not",
    )
    parser.add_argument(
        "--seconds", type=int, default=Settings.seconds, help="time limit of one submission (default: %(default)s)"
    )
    parser.add_argument(
        "--per-day", type=int, default=Settings.per_day, help="submissions a day (default: %(default)s)"
    )
    parser.add_argument("--in-all", type=int, default=Settings.in_all, help="submissions in all (default: %(default)s)")
    parser.add_argument(
        "--docker-image",
        default=Settings.docker_image,
        help="Docker image with TensorFlow and NumPy, in which submissions run (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> None:
    """Reads the images, writes the bundle and prints its size."""
    if Path(options.out).suffix.lower() != ".zip":
        raise UserError(f"--out must end with .zip, got {options.out}; give {options.out}.zip")
    written = {"--out": options.out, "its note": note_path(options.out), "its starting kit": kit_path(options.out)}
    read = {"--labels": options.labels, "--logo": options.logo, "--classes": options.classes, "--text": options.text}
    require_separate_files(written, read)
    settings = Settings(
        title=options.title,
        start=options.start,
        seconds=options.seconds,
        per_day=options.per_day,
        in_all=options.in_all,
        docker_image=options.docker_image,
        show_mistakes=options.show_mistakes,
        text=read_text(options.text) if options.text else "",
        logo=read_logo(options.logo) if options.logo else b"",
    )
    images = load_images(LabelledFolder(options.data, options.labels, options.label_columns).files(), options.size)
    for note in images.notes:
        print(note)
    if options.classes:
        images = with_classes_of(images, Path(options.classes))
    elif not options.labels:
        require_training_classes(images, Path(options.data))
    try:
        path = build(images, settings, options.out)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {options.out}: {reason}; free the disk or give another --out") from error
    print(f"{path}  {path.stat().st_size / 1e6:,.1f} MB: {len(images)} images of {len(images.names)} classes")
    print(f"classes: {numbered(images.names)}")
    if not options.classes:
        print("if there are classes without a hidden image, give --classes, so that all keep their numbers")
    print(f"{note_path(path)}  what participants can see, and what you decide on the server")
    print(f"{kit_path(path)}  a sample submission; python grade_submission.py grades it with --data")
    if settings.show_mistakes:
        print(f"--show-mistakes gives away {given_away(settings, images)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    options = parse(arguments)
    return run_command(lambda: run(options), interrupted="interrupted; the old file is unchanged")


if __name__ == "__main__":
    sys.exit(main())
