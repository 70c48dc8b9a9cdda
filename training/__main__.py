"""Train, cross-validate, compare and apply image classifiers.

The stages of a run: list and load the images, split, balance, augment, fine-tune the backbone, cache its features,
train the head, predict, evaluate. `build_submission.py` then exports and packs it.
"""

import argparse
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator

from common.tensorflow_log import hide_tensorflow_log

hide_tensorflow_log()

from common.cli import argument_parser, print_listing, run_command
from common.errors import UserError
from training.commands import evaluate, images, train
from training.commands.options import BACKENDS, EXAMPLES, EXIT_CODES, add_command
from training.recipes import recipe_groups, recipe_summary

INTERRUPTED = "interrupted; what is finished is kept, repeat the command to continue"
START = """Start here
  python -m training auto --data my/images --minutes 30            your own images
  python -m training run inception_svm --data data/leaves/train    the report's final model
  python -m training run released --data data/leaves/train         the committed model's, a fifth held out
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command. Returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of retracing, which several models cannot avoid

    def command() -> None:
        _choose_backend(getattr(options, "backend", None))
        options.command(options)

    return run_command(command, getattr(options, "interrupted", INTERRUPTED))


def _choose_backend(name: str | None) -> None:
    """Sets Keras' backend before Keras is imported: the given one, that of KERAS_BACKEND, or an installed one.

    The user's keras.json has no say: it may be meant for other projects.
    """
    source = "--backend" if name else "KERAS_BACKEND"
    name = name or os.environ.get("KERAS_BACKEND") or next(filter(_is_installed, BACKENDS), BACKENDS[0])
    if name not in BACKENDS:
        raise UserError(f"{source} must be {' or '.join(BACKENDS)}, got {name}; unset it, or give --backend")
    keras = sys.modules.get("keras")
    if keras and keras.backend.backend() != name:
        raise UserError(f"{source} {name}: Keras already runs on {keras.backend.backend()}; start a new process")
    if not _is_installed(name):
        raise UserError(f"{source} {name} is not installed; pip install {name}")
    os.environ["KERAS_BACKEND"] = name


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _list(options: argparse.Namespace) -> None:
    from training.evaluate.rows import measured, reported

    ours, report = measured(), reported()

    def lines() -> Iterator[str]:
        yield START
        for title, names in recipe_groups(list(report)):
            yield title
            for name in names:
                yield f"  {name}"
                yield f"      {recipe_summary(name)}"
                if name in report:
                    yield f"      Report: {report[name].result}"
                if name in ours:
                    yield f"      Ours: {ours[name]}"
            yield ""

    print_listing(lines())


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__, "python -m training", f"{EXAMPLES}\n{EXIT_CODES}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_command(commands, "list", "list the recipes").set_defaults(command=_list)
    for group in (train, evaluate, images):
        group.add_commands(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
