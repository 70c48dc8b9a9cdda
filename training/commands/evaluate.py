"""The commands that look at finished runs: compare, paired, class-bias, mistakes and label-errors."""

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from common.cli import add_size, output_file, require_separate_files, whole_number
from common.errors import UserError
from training.commands.options import add_command, add_data, add_validation, add_weights, inputs_of

SHOWN_ERRORS = 20  # likely label errors that are printed


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Adds these commands to the parser."""
    for add in (_add_compare, _add_paired, _add_class_bias, _add_mistakes, _add_label_errors):
        add(commands)


def _add_compare(commands: argparse._SubParsersAction) -> None:
    command = add_command(commands, "compare", "write a table of runs and its plots")
    command.add_argument("folders", nargs="*", help="run folders, for example runs/*; unfinished ones are skipped")
    command.add_argument("--rows", default="comparison.csv", help="table of runs to add to (default: %(default)s)")
    command.add_argument(
        "--out", type=output_file, default="comparison.md", help="the table as Markdown (default: %(default)s)"
    )
    command.set_defaults(command=_compare)


def _compare(options: argparse.Namespace) -> None:
    from training.evaluate.compare import compare

    require_separate_files({"--rows": options.rows, "--out": options.out}, {})
    skipped = compare([Path(folder) for folder in options.folders], Path(options.rows), Path(options.out))
    for line in skipped:
        print(f"skipped: {line}", file=sys.stderr)
    print(f"done: {options.rows} and {options.out}")


def _add_paired(commands: argparse._SubParsersAction) -> None:
    command = add_command(commands, "paired", "compare two runs on the images that both held out")
    command.add_argument("before", help="a finished run with a validation set, or a cross-validation")
    command.add_argument("after", help="another one, of the same images")
    command.set_defaults(command=_paired)


def _paired(options: argparse.Namespace) -> None:
    from training.evaluate.paired import compare_held_out

    print(f"{options.after}: {compare_held_out(Path(options.before), Path(options.after))}")


def _add_class_bias(commands: argparse._SubParsersAction) -> None:
    command = add_command(commands, "class-bias", "fit a bias for the logit of each class, on held-out images")
    command.add_argument("folder", help="a cross-validation, or a run with a validation set")
    command.set_defaults(command=_class_bias)


def _class_bias(options: argparse.Namespace) -> None:
    from training.evaluate.class_bias import class_bias

    bias, worth = class_bias(Path(options.folder))
    print(f"each image with the biases of other images: {worth}")
    print(f"done; to use them: --set {shlex.quote(f'head.class_bias={bias}')}")


def _add_mistakes(commands: argparse._SubParsersAction) -> None:
    command = add_command(commands, "mistakes", "draw the worst mistakes of a run or a cross-validation")
    command.add_argument(
        "folder", help="a finished run with a validation set, a cross-validation, or the folder of auto"
    )
    add_data(command, "the images that it was trained on")
    add_validation(command, "the images that it was validated on, if it was trained with --validation")
    command.add_argument("--out", type=output_file, default="mistakes.png", help="the picture (default: %(default)s)")
    command.add_argument("--count", type=whole_number, default=15, help="thumbnails at most (default: %(default)s)")
    command.set_defaults(command=_mistakes)


def _mistakes(options: argparse.Namespace) -> None:
    from training.evaluate.mistakes import draw_mistakes

    _require_other_files(options, {"--out": options.out})
    lines = draw_mistakes(options.folder, inputs_of(options), options.out, options.count)
    if lines:
        print("\n".join([*lines, f"done: {options.out}"]))
    else:
        print(f"no mistake among the held-out images of {options.folder}; no picture is drawn")


def _require_other_files(options: argparse.Namespace, outputs: dict[str, str | Path]) -> None:
    """Raises a UserError if a file to write is one of the files of labels."""
    read = {"--labels": options.labels, "--validation-labels": options.validation_labels}
    require_separate_files(outputs, read)


def _add_label_errors(commands: argparse._SubParsersAction) -> None:
    command = add_command(commands, "label-errors", "list images whose label is likely wrong (needs cleanlab)")
    add_data(command, "the labelled images")
    command.add_argument(
        "--folder",
        metavar="RUN",
        help="a cross-validation, or a run with a validation set, whose predictions are used (default: logistic "
        "regression on features of the pretrained backbone, in five folds)",
    )
    add_weights(command)
    add_validation(command, "more images to examine; with --folder, the --validation images of that run")
    add_size(command)
    command.add_argument("--out", type=output_file, default="label_errors.html", help="the page (default: %(default)s)")
    command.add_argument("--cache", help="folder of cached features (default: runs/.features)")
    command.set_defaults(command=_label_errors, backbone_weights=None)  # so that it is known which ones are given


def _label_errors(options: argparse.Namespace) -> None:
    from training.evaluate.label_errors import label_errors

    folder = Path(options.folder) if options.folder else None
    unused = [f"--{name}" for name in ("size", "backbone-weights", "cache") if getattr(options, name.replace("-", "_"))]
    if folder and unused:
        raise UserError(f"{', '.join(unused)} has no effect with --folder, whose predictions are used; leave it out")
    page = Path(options.out)
    _require_other_files(options, {"--out": page, "the CSV file beside --out": page.with_suffix(".csv")})
    inputs = replace(inputs_of(options), backbone_weights=options.backbone_weights or "imagenet")
    lines = label_errors(inputs, folder, Path(options.out), Path(options.cache or "runs/.features"))
    print("\n".join(lines[:SHOWN_ERRORS]))
    print(f"likely wrong labels: {len(lines)}; all are in the page and in {Path(options.out).with_suffix('.csv')}")
    print(f"done: {options.out}")
