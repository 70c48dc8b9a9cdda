"""The options that several commands share, and the inputs that they name."""

import argparse
import re
from typing import TYPE_CHECKING

from common.cli import add_labels
from training.config.checks import MAX_SEED

if TYPE_CHECKING:
    from training.inputs import Inputs

EXAMPLES = """examples:
  python -m training auto --data my/images --minutes 30 --out runs/mine
  python -m training auto --data my/images --labels my/train.csv --validation my/images --validation-labels my/val.csv
  python -m training auto --data my/images --groups my/patients.csv
  python -m training list
  python -m training run inception_svm --data data/leaves/train --out runs/first
  python -m training run inception_svm --data data/leaves/train --set finetune.batch_size=16
  python -m training run inception_svm --data data/leaves/train --reuse runs/inception_more --out runs/reused
  python -m training run --all --data data/leaves/train --test data/leaves/phase1
  python -m training run online smote mixup --seeds 3 --data data/leaves/train
  python -m training run released --data data/leaves/train --backend jax
  python -m training crossval released --folds 5 --data data/leaves/train
  python -m training mistakes runs/released --data data/leaves/train --out mistakes.png
  python -m training label-errors --data my/images --out label_errors.html
  python -m training compare runs/*
  python -m training paired runs/crossval-released runs/crossval-soup
  python -m training class-bias runs/crossval-released
  python -m training tune tuned --data data/leaves/train --out runs/tune --trials 60
  python -m training split --data data/leaves/train --out data/split
  python -m training deepweeds --download data/deepweeds --out data/leaves
  python -m training deepweeds --images images --labels labels.csv --out data/leaves
  python -m training predict --data my/photos --run runs/mine --out predictions.csv
  python -m training predict --data my/photos --model dist/submission.zip --top 3 --out predictions.csv

"""
EXIT_CODES = "exit codes: 0 success, 2 wrong input or a failed run, 130 interrupted"
BACKENDS = ("tensorflow", "jax")


def add_command(commands: argparse._SubParsersAction, name: str, what: str) -> argparse.ArgumentParser:
    """Adds a command, with a line in the list of commands, and its examples."""
    examples = [line for line in EXAMPLES.splitlines() if f"-m training {name}" in line]
    description = f"{what[0].upper()}{what[1:]}."
    return commands.add_parser(
        name, help=what, description=description, epilog="\n".join(["examples:", *examples, "", EXIT_CODES])
    )


def inputs_of(options: argparse.Namespace, require_reuse: bool = False) -> "Inputs":
    """The `Inputs` that a command's options name."""
    from training.inputs import Inputs

    labels = ("labels", "label_columns", "validation_labels", "test_labels")
    names = ("backbone_weights", "teacher", "test", "groups", "size", "validation", "max_images", *labels)
    given = {name: getattr(options, name) for name in names if hasattr(options, name)}
    return Inputs(options.data, reuse=tuple(getattr(options, "reuse", ())), require_reuse=require_reuse, **given)


def add_training_options(command: argparse.ArgumentParser) -> None:
    """The options of every command that trains."""
    add_data(command)
    add_weights(command)
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of the recipe, for example "
        "finetune.batch_size=16; training/config/recipe.py has all fields; may be repeated",
    )
    command.add_argument("--backend", choices=BACKENDS, help="Keras' backend (default: KERAS_BACKEND, else tensorflow)")


def add_data(command: argparse.ArgumentParser, what: str = "the labelled images") -> None:
    """The options of labelled images: class folders, or a folder and a CSV file."""
    command.add_argument(
        "--data", required=True, help=f"{what}: a folder with one folder for each class, or any folder with --labels"
    )
    add_labels(command)


def add_validation(
    command: argparse.ArgumentParser,
    what: str = "validation images; all of --data is then trained on (default: a part of --data is held out)",
) -> None:
    """The options of validation images in a folder of their own."""
    command.add_argument("--validation", metavar="DIR", help=what)
    _add_labels_of(command, "--validation")


def add_test(
    command: argparse.ArgumentParser,
    what: str = "test images: evaluated after the training, never used to train or to select",
) -> None:
    """The options of test images."""
    command.add_argument("--test", metavar="DIR", help=what)
    _add_labels_of(command, "--test")


def _add_labels_of(command: argparse.ArgumentParser, option: str) -> None:
    command.add_argument(
        f"{option}-labels", metavar="FILE", help=f"CSV file with the labels of {option} (default: class folders)"
    )


def add_weights(command: argparse.ArgumentParser) -> None:
    """The option of the pretrained backbone's weights."""
    command.add_argument(
        "--backbone-weights",
        default="imagenet",
        help="imagenet (the default, downloaded), a .h5 file of weights without top layers, or none (random)",
    )


def add_groups(command: argparse.ArgumentParser) -> None:
    """The option of groups that a split keeps together."""
    command.add_argument(
        "--groups",
        metavar="FILE",
        help="CSV file with the columns path (relative to --data) and group, with a row for each image; a split keeps "
        "each group in one part",
    )


def seed(text: str) -> int:
    """Returns the seed of random numbers, for `add_argument(type=seed)`."""
    if not re.fullmatch(r"\d{1,10}", text) or int(text) > MAX_SEED:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {MAX_SEED}, got {text!r}")
    return int(text)
