"""Train and evaluate models. The stages in order:

load (common/images.py) → split, balance, augment, batches (data/) → fine-tune, head (fit/) → evaluate (evaluate/)
→ export (export.py); run.py calls them.
"""

import argparse
import importlib.util
import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from common.cli import argument_parser, print_listing, run_command
from common.errors import InUse, UserError
from training.recipes import load_recipe, recipe_names, recipe_summary

if TYPE_CHECKING:
    from training.config.recipe import Recipe
    from training.run import Inputs

EXAMPLES = """examples:
  python -m training auto --data my/images --minutes 30 --out runs/mine
  python -m training list
  python -m training run inception_svm --data data/leaves/train --out runs/first
  python -m training run inception_svm --data data/leaves/train --set finetune.batch_size=16
  python -m training run inception_svm --data data/leaves/train --reuse runs/inception_more
  python -m training run --all --data data/leaves/train --test data/leaves/phase1
  python -m training run online smote mixup --seeds 3 --data data/leaves/train
  python -m training run released --data data/leaves/train --backend jax
  python -m training crossval released --folds 5 --data data/leaves/train
  python -m training mistakes runs/released --data data/leaves/train --out mistakes.png
  python -m training compare runs/*
  python -m training tune tuned --data data/leaves/train --out runs/tune --trials 60
  python -m training split --data data/leaves/train --out data/split
  python -m training deepweeds --images images --labels labels.csv --out data/leaves

exit codes: 0 success, 2 wrong input or a failed run, 130 interrupted (repeat the command to continue the run)
"""
BACKENDS = ("tensorflow", "jax")
MAX_SIZE = 4096  # pixels


def main(arguments: list[str] | None = None) -> int:
    """Runs one command. Returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of retracing, which several models cannot avoid

    def command() -> None:
        _choose_backend(getattr(options, "backend", None))
        options.command(options)

    return run_command(command, "interrupted; finished epochs are kept")


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
        for name in recipe_names():
            yield name
            yield f"    {recipe_summary(name)}"
            if name in report:
                yield f"    Report: {report[name].result}"
            if name in ours:
                yield f"    Ours: {ours[name]}"

    print_listing(lines())


def _run(options: argparse.Namespace) -> None:
    names = recipe_names() if options.all else options.recipe
    if bool(options.recipe) == options.all:
        raise UserError("give the names of recipes, or --all; see python -m training list")
    if options.seeds < 1:
        raise UserError(f"--seeds must be a whole number from 1, got {options.seeds}")
    if options.out and (len(names) > 1 or options.seeds > 1):
        raise UserError("--out is the folder of one run; give --runs, the folder of the runs' folders, for several")
    recipes = {name: load_recipe(name) for name in names}
    from training.config.override import override
    from training.fit.distribute import prepare

    recipes = {name: override(recipe, options.set) for name, recipe in recipes.items()}
    prepare(max(recipe.finetune.most_replicas for recipe in recipes.values()))
    if len(names) == 1 and options.seeds == 1:
        out = Path(options.out or Path(options.runs) / names[0])
        _train(recipes[names[0]], names[0], _inputs(options, require_reuse=True), out)
        print(f"done: {out}; next: python build_submission.py --run {shlex.quote(str(out))}")
        return
    _run_several(recipes, options)


def _run_several(recipes: "dict[str, Recipe]", options: argparse.Namespace) -> None:
    """Trains one run after another. Skips those that are finished or in use, and names those that failed at the end."""
    failed = []
    for seed in range(options.seeds):
        for name, recipe in recipes.items():
            out = Path(options.runs) / (f"{name}-seed{seed}" if seed else name)
            if (out / "metrics.json").is_file():
                print(f"{out}: finished")
                continue
            try:
                _train(replace(recipe, seed=recipe.seed + seed), name, _inputs(options), out)
            except InUse as error:
                print(f"{out}: skipped, {error}")
            except BrokenPipeError:  # nobody reads the output any more
                raise
            except (UserError, OSError) as error:
                print(f"{out}: {error}", file=sys.stderr)
                failed.append(str(out))
    if failed:
        raise UserError(f"{len(failed)} runs failed, the reasons are above: {', '.join(failed)}")
    print(f"done; next: python -m training compare {shlex.quote(options.runs)}/*")


def _inputs(options: argparse.Namespace, require_reuse: bool = False) -> "Inputs":
    from training.run import Inputs

    reuse = tuple(getattr(options, "reuse", ()))
    test, size = getattr(options, "test", None), getattr(options, "size", None)
    groups = getattr(options, "groups", None)
    return Inputs(options.data, options.backbone_weights, test, reuse, require_reuse, groups, size)


def _train(recipe: "Recipe", name: str, inputs: "Inputs", out: Path) -> None:
    import keras

    from training.run import train

    keras.backend.clear_session()
    train(recipe, name, inputs, out)


def _auto(options: argparse.Namespace) -> None:
    from training.auto import auto

    out = Path(options.out)
    auto(_inputs(options), out, options.minutes)
    print(f"done: {out}; next: python build_submission.py --run {shlex.quote(str(out))}")


def _crossval(options: argparse.Namespace) -> None:
    recipe = load_recipe(options.recipe)
    from training.config.override import override
    from training.evaluate.crossval import crossval
    from training.evaluate.metrics import summary
    from training.fit.distribute import prepare

    out = Path(options.out or f"runs/crossval-{options.recipe}")
    recipe = override(recipe, options.set)
    prepare(recipe.finetune.most_replicas)
    result = crossval(recipe, options.recipe, _inputs(options), out, options.folds, options.seeds)
    if result:
        folds = result["accuracy_of_folds"]
        print(summary(result))
        print(f"folds {min(folds):.1%} to {max(folds):.1%}, calibration error {result['calibration_error']:.1%}")
        print(f"done: {out / 'crossval.json'}")


def _mistakes(options: argparse.Namespace) -> None:
    from training.evaluate.mistakes import draw_mistakes

    print("\n".join(draw_mistakes(options.folder, options.data, options.out, options.count)))
    print(f"done: {options.out}")


def _compare(options: argparse.Namespace) -> None:
    from training.evaluate.compare import compare

    skipped = compare([Path(folder) for folder in options.folders], Path(options.rows), Path(options.out))
    for line in skipped:
        print(f"skipped: {line}", file=sys.stderr)
    print(f"done: {options.rows} and {options.out}")


def _tune(options: argparse.Namespace) -> None:
    recipe = load_recipe(options.recipe)
    from training.config.override import override
    from training.tune import describe, search, settings

    recipe = override(recipe, options.set)
    rows = search(recipe, _inputs(options), Path(options.out), options.trials)
    if rows:
        print("\n".join(describe(rows)))
        trials = Path(options.out) / "trials.csv"
        print(f"done: {trials}; next: python -m training run {options.recipe} {settings(rows[0])} …")


def _split(options: argparse.Namespace) -> None:
    from training.data.split import copy_split

    print("\n".join(copy_split(Path(options.data), Path(options.out), options.validation, options.seed)))


def _deepweeds(options: argparse.Namespace) -> None:
    from training.data.deepweeds import download, rebuild

    if options.download:
        images, labels = download(options.download)
    elif options.images and options.labels:
        images, labels = options.images, options.labels
    else:
        raise UserError("give --images and --labels, or --download FOLDER")
    rebuild(images, labels, options.out)
    print(f"done: {Path(options.out) / 'train'} for training, phase1 and phase2 for testing")


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__, "python -m training", EXAMPLES)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("list", help="list the recipes")
    command.set_defaults(command=_list)
    for add in (_add_auto, _add_run, _add_crossval, _add_mistakes, _add_compare, _add_tune, _add_split, _add_deepweeds):
        add(commands)
    return parser


def _add_auto(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("auto", help="train the best model for any images within a number of minutes")
    command.add_argument("--data", required=True, help="folder with one folder of images for each class")
    command.add_argument("--minutes", type=float, default=30, help="time for everything (default: %(default)s)")
    command.add_argument("--out", default="runs/auto", help="new folder, gets the best run (default: %(default)s)")
    command.add_argument("--test", help="class folders that are reported on and used for nothing else")
    command.add_argument(
        "--backbone-weights", default="imagenet", help="imagenet (the default, downloaded), a .weights.h5 file, or none"
    )
    _add_size(command)
    _add_groups(command)
    command.set_defaults(command=_auto)


def _add_run(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("run", help="train recipes")
    command.add_argument("recipe", nargs="*", help="names, see list")
    command.add_argument("--all", action="store_true", help="every recipe; finished runs are skipped")
    command.add_argument("--out", help="folder of this run (default: runs/NAME); an interrupted run is continued")
    command.add_argument("--runs", default="runs", help="folder of the folders of several runs (default: runs)")
    command.add_argument("--seeds", type=int, default=1, metavar="N", help="train each with N seeds on one split")
    command.add_argument("--test", help="class folders that are reported on and used for nothing else")
    command.add_argument(
        "--reuse",
        action="append",
        default=[],
        metavar="RUN",
        help="take over the fine-tuning of this finished run if it is the same; may be repeated",
    )
    _add_training_options(command)
    _add_size(command)
    _add_groups(command)
    command.set_defaults(command=_run)


def _add_crossval(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("crossval", help="train a recipe once for each fold and evaluate it on every image")
    command.add_argument("recipe", help="a name, see list")
    command.add_argument("--folds", type=int, default=5, help="default: %(default)s")
    command.add_argument("--seeds", type=int, default=1, help="how often the folds are trained (default: %(default)s)")
    command.add_argument("--out", help="folder of the folds' runs (default: runs/crossval-NAME)")
    _add_training_options(command)
    _add_size(command)
    _add_groups(command)
    command.set_defaults(command=_crossval)


def _add_mistakes(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("mistakes", help="draw the worst mistakes of a run or a cross-validation")
    command.add_argument("folder", help="a finished run with a validation part, or the folder of a cross-validation")
    command.add_argument("--data", required=True, help="the class folders that it was trained on")
    command.add_argument("--out", default="mistakes.png", help="the picture (default: %(default)s)")
    command.add_argument("--count", type=int, default=15, help="thumbnails at most (default: %(default)s)")
    command.set_defaults(command=_mistakes)


def _add_compare(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("compare", help="write a table of runs and its plots")
    command.add_argument("folders", nargs="*", help="run folders, for example runs/*; unfinished ones are skipped")
    command.add_argument("--rows", default="comparison.csv", help="table of runs to add to (default: %(default)s)")
    command.add_argument("--out", default="comparison.md", help="the table as Markdown (default: %(default)s)")
    command.set_defaults(command=_compare)


def _add_tune(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("tune", help="search for a recipe's best head with KerasTuner")
    command.add_argument("recipe", help="a recipe with a frozen backbone, for example tuned")
    command.add_argument("--out", required=True, help="folder of the search; an interrupted one is continued")
    command.add_argument("--trials", type=int, default=60, help="default: %(default)s")
    command.add_argument("--test", help="class folders on which each trial is reported; none is selected by them")
    _add_training_options(command)
    command.set_defaults(command=_tune)


def _add_split(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("split", help="copy class folders into a training and a validation folder")
    command.add_argument("--data", required=True, help="folder with one folder of images for each class")
    command.add_argument("--out", required=True, help="new folder, gets train/ and validation/")
    command.add_argument("--validation", type=float, default=0.2, help="share held out (default: %(default)s)")
    command.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    command.set_defaults(command=_split)


def _add_deepweeds(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("deepweeds", help="rebuild the competition's images from the public DeepWeeds")
    command.add_argument("--images", help="DeepWeeds' folder of 17,509 images")
    command.add_argument("--labels", help="DeepWeeds' labels.csv")
    command.add_argument("--download", metavar="FOLDER", help="download both into this folder (about 470 MB)")
    command.add_argument("--out", required=True, help="new folder, gets train/, phase1/ and phase2/")
    command.set_defaults(command=_deepweeds)


def _add_groups(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--groups", metavar="FILE", help="CSV with the columns path and group; a split keeps each group in one part"
    )


def _add_size(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--size",
        type=_size,
        metavar="SIZE",
        help="N or HxW, height and width in pixels at which the images are read (default: the most frequent size, "
        "reduced to 384 on the longer side if that is longer than 512)",
    )


def _size(text: str) -> tuple[int, int]:
    """(height, width) from a text such as 128 or 96x128."""
    match = re.fullmatch(r"(\d{1,4})(?:[x×](\d{1,4}))?", text)
    height, width = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not (1 <= height <= MAX_SIZE and 1 <= width <= MAX_SIZE):
        raise argparse.ArgumentTypeError(
            f"must be N or HEIGHTxWIDTH in pixels from 1 to {MAX_SIZE}, got {text!r}; for example 224 or 192x256"
        )
    return height, width


def _add_training_options(command: argparse.ArgumentParser) -> None:
    """The options of every command that trains."""
    command.add_argument("--data", required=True, help="folder with one folder of images for each class")
    command.add_argument(
        "--backbone-weights", default="imagenet", help="imagenet (the default, downloaded), a .weights.h5 file, or none"
    )
    command.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change a field; repeatable")
    command.add_argument("--backend", choices=BACKENDS, help="Keras' backend (default: KERAS_BACKEND, else tensorflow)")


if __name__ == "__main__":
    sys.exit(main())
