"""The command line of grade_submission.py."""

import argparse
import sys

from common.cli import add_labels, image_size, output_file, positive, whole_number
from common.errors import UserError
from common.labels import LabelledFolder
from competition.grade.grade import LAYOUTS, Rules


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the zip, the images, the server's limits and the files to write."""
    rules = Rules()
    parser.add_argument("zip", help="the submission.zip to grade")
    parser.add_argument(
        "--data",
        help="folder with one folder of images for each class, or any folder with --labels; default: synthetic images, "
        "no accuracy",
    )
    add_labels(parser)
    _add_limits(parser, rules)
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter for the submission, to test another TensorFlow version"
    )
    parser.add_argument(
        "--layout",
        choices=list(LAYOUTS),
        default=rules.layout,
        help="what the zip was built for (default: %(default)s)",
    )
    parser.add_argument(
        "--size",
        type=image_size,
        help="N or HxW, of the server's images (default: that of --data; if these have several sizes, that of the "
        "model's training images, or else the most frequent one; 96 for synthetic images)",
    )
    parser.add_argument(
        "--classes", type=whole_number, help="number of classes, without --data and if the zip does not name them"
    )
    parser.add_argument("--json", type=output_file, metavar="FILE", help="also write the grade to this file")
    parser.add_argument(
        "--html", type=output_file, metavar="FILE", help="also write the detailed results to this file; needs --data"
    )


def _add_limits(parser: argparse.ArgumentParser, rules: Rules) -> None:
    parser.add_argument(
        "--limit-mb", type=positive, default=rules.limit_mb, help="largest zip, in MB (default: %(default)s)"
    )
    parser.add_argument(
        "--time-limit",
        type=positive,
        default=rules.time_limit,
        help="seconds for the predictions (default: %(default)s)",
    )
    parser.add_argument(
        "--memory-limit-mb",
        type=positive,
        default=rules.memory_limit_mb,
        help="memory of all processes of the submission, in MB (default: %(default)s)",
    )


def labelled_folder(options: argparse.Namespace) -> LabelledFolder | None:
    """The labelled images that the options name, or None. Raises a UserError for options that have no effect."""
    if options.data:
        if options.classes:
            raise UserError("--classes has no effect with --data, whose labels are the classes; leave it out")
        return LabelledFolder(options.data, options.labels, options.label_columns)
    for name in ("labels", "label_columns"):
        if getattr(options, name):
            raise UserError(f"--{name.replace('_', '-')} is about the images in --data; add --data, or leave it out")
    if options.html:
        raise UserError(
            "--html needs labelled images: the detailed results show scores; add --data, or leave out --html"
        )
    return None


def rules_of(options: argparse.Namespace) -> Rules:
    """The server's limits and contract that the options name."""
    limits = options.limit_mb, options.time_limit, options.memory_limit_mb
    return Rules(*limits, options.layout, options.size, options.classes)
