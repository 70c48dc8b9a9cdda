"""The layouts of build_submission.py that are for Kaggle: their options, and what they write and print."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from common.cli import require_separate_files
from common.errors import UserError
from competition.package.answer import KINDS
from competition.package.build import model_line, predict_csv, write_code
from competition.package.kaggle import plan
from competition.package.kaggle_code import CodeCompetition, require_own_folder

LAYOUTS = {  # name: (options that it needs, options that it takes)
    "kaggle": (("images", "sample"), ("answer", "competition")),
    "kaggle-code": (("images", "sample", "competition", "user"), ("answer", "title")),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of these layouts to a parser."""
    parser.add_argument("--images", help="for kaggle and kaggle-code: folder of the test images")
    parser.add_argument("--sample", help="for kaggle and kaggle-code: the competition's sample_submission.csv")
    parser.add_argument(
        "--answer",
        help="for kaggle and kaggle-code: what the sample takes: class names, positions from 0 or from 1, or the "
        f"probability of one of two classes; {', '.join(KINDS)} or probability:CLASS (default: decided from the names "
        "and the sample)",
    )
    parser.add_argument(
        "--competition", help="for kaggle and kaggle-code: its name in its address, kaggle.com/competitions/NAME"
    )
    parser.add_argument("--user", help="for kaggle-code: your name in your profile's address, kaggle.com/NAME")
    parser.add_argument(
        "--title",
        help="for kaggle-code: title of dataset and notebook (default: NAME model, with the competition's NAME)",
    )


def check_options(options: argparse.Namespace) -> None:
    """Raises a UserError if an option is missing or has no effect, or a name is invalid."""
    needed, taken = LAYOUTS.get(options.layout, ((), ()))
    missing = [f"--{name}" for name in needed if not getattr(options, name)]
    if missing:
        every = ", ".join(f"--{name}" for name in needed)
        raise UserError(f"--layout {options.layout} needs {every}; add {' and '.join(missing)}")
    if needed and options.limit_mb:
        raise UserError(f"--limit-mb applies to a zip, --layout {options.layout} writes none; leave out --limit-mb")
    for name in dict.fromkeys(name for pair in LAYOUTS.values() for names in pair for name in names):
        if name not in (*needed, *taken) and getattr(options, name):
            layouts = " or ".join(layout for layout, pair in LAYOUTS.items() if name in (*pair[0], *pair[1]))
            raise UserError(f"--{name} has no effect without --layout {layouts}; add it, or leave out --{name}")
    if needed:
        require_separate_files({"--out": _out(options)}, {"--sample": options.sample})
    if options.layout == "kaggle-code":
        _target(options)
        require_own_folder(_out(options))


def read_plan(options: argparse.Namespace, names: Sequence[str]) -> list[str]:
    """Reads the sample and finds its images, see `competition.package.kaggle.plan`. Returns notes for the user."""
    return plan(options.images, options.sample, names, options.answer, options.layout == "kaggle-code")[2]


def write(options: argparse.Namespace, model_folder: Path | None, source: str = "") -> None:
    """Writes the CSV file, or the dataset and the notebook, and prints the model and the client's commands."""
    model = model_line(model_folder, source)
    if options.layout == "kaggle-code":
        target, out = _target(options), _out(options)
        lines = write_code(options.images, options.sample, target, model_folder, out, options.answer)
        print("\n".join([model, *lines]))
        return
    path, notes = predict_csv(options.images, options.sample, model_folder, _out(options), options.answer)
    name = shlex.quote(options.competition or "COMPETITION")
    command = f"kaggle competitions submit -c {name} -f {shlex.quote(str(path))} -m 'message'"
    print("\n".join([model, *notes, f"{path}  submit it with: {command}"]))


def _out(options: argparse.Namespace) -> Path:
    return Path(options.out or ("dist/kaggle" if options.layout == "kaggle-code" else "dist/submission.csv"))


def _target(options: argparse.Namespace) -> CodeCompetition:
    return CodeCompetition(options.competition, options.user, options.title or "")
