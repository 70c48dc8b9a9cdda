"""The commands that train: auto, run, crossval and tune."""

import argparse
import contextlib
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import add_size, positive, whole_number
from common.errors import InUse, UserError
from training.commands.options import (
    add_command,
    add_data,
    add_groups,
    add_test,
    add_training_options,
    add_validation,
    add_weights,
    inputs_of,
)
from training.recipes import load_recipe, recipe_names

if TYPE_CHECKING:
    from training.config.recipe import Recipe
    from training.inputs import Inputs, Loaded

AUTO_INTERRUPTED = (
    "interrupted; repeat the command to continue; the folder best of --out, if it is there, has the best model so far"
)


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Adds these commands to the parser."""
    for add in (_add_auto, _add_run, _add_crossval, _add_tune):
        add(commands)


def _add_auto(commands: argparse._SubParsersAction) -> None:
    command = add_command(commands, "auto", "train the best model for your own images within a number of minutes")
    add_data(command)
    command.add_argument("--minutes", type=positive, default=30, help="time for everything (default: %(default)s)")
    command.add_argument(
        "--out",
        default="runs/auto",
        help="new folder, or that of an interrupted auto; best/ in it is the best run (default: %(default)s)",
    )
    add_test(command)
    add_weights(command)
    add_size(command)
    add_groups(command)
    add_validation(command)
    command.set_defaults(command=_auto, interrupted=AUTO_INTERRUPTED)


def _auto(options: argparse.Namespace) -> None:
    from training.auto.search import auto

    out = Path(options.out)
    auto(inputs_of(options), out, options.minutes)
    print(f"done: {out}; next: python build_submission.py --run {shlex.quote(str(out))}")


def _add_run(commands: argparse._SubParsersAction) -> None:
    command = add_command(commands, "run", "train recipes")
    command.add_argument("recipe", nargs="*", help="recipes; python -m training list shows them")
    command.add_argument("--all", action="store_true", help="every recipe; finished runs are skipped")
    command.add_argument("--out", help="folder of this run (default: runs/NAME); an interrupted run is continued")
    command.add_argument("--runs", default="runs", help="parent folder of the run folders (default: runs)")
    command.add_argument(
        "--seeds",
        type=whole_number,
        default=1,
        metavar="N",
        help="train each recipe with N seeds on one split (default: 1)",
    )
    add_test(command)
    command.add_argument(
        "--reuse",
        action="append",
        default=[],
        metavar="RUN",
        help="take over the fine-tuning of this finished run, if settings and images are the same; may be repeated",
    )
    add_training_options(command)
    _add_teacher(command)
    add_size(command)
    command.add_argument(
        "--max-images",
        type=whole_number,
        metavar="N",
        help="read at most N images of --data, evenly spaced in each class",
    )
    add_groups(command)
    add_validation(command)
    command.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> None:
    names = recipe_names() if options.all else options.recipe
    if bool(options.recipe) == options.all:
        raise UserError("give the names of recipes, or --all; see python -m training list")
    if options.out and (len(names) > 1 or options.seeds > 1):
        raise UserError("--out is the folder of one run; give --runs, the folder of the runs' folders, for several")
    recipes = {name: load_recipe(name) for name in names}
    from training.config.override import override
    from training.fit.distribute import prepare

    recipes = {name: override(recipe, options.set) for name, recipe in recipes.items()}
    prepare(max(recipe.finetune.most_replicas for recipe in recipes.values()))
    if len(names) == 1 and options.seeds == 1:
        out = Path(options.out or Path(options.runs) / names[0])
        recipe = in_precision(recipes[names[0]], options.set, out)
        _train(recipe, names[0], inputs_of(options, require_reuse=True), out)
        print(f"done: {out}; next: python build_submission.py --run {shlex.quote(str(out))}")
        return
    _run_several(recipes, options)


def _run_several(recipes: "dict[str, Recipe]", options: argparse.Namespace) -> None:
    """Trains one run after another. Skips those that are finished or in use, and names those that failed at the end."""
    from training.inputs import load_inputs
    from training.planned import require_same
    from training.run_folder import METRICS, Finished

    runs = {
        Path(options.runs) / (f"{name}-seed{seed}" if seed else name): (name, replace(recipe, seed=recipe.seed + seed))
        for seed in range(options.seeds)
        for name, recipe in recipes.items()
    }
    inputs, failed = inputs_of(options), []
    loaded = load_inputs(inputs)
    for out, (name, recipe) in runs.items():
        try:
            if not (out / METRICS).is_file():
                with contextlib.suppress(Finished):  # by another process, in the meantime
                    _train(in_precision(recipe, options.set, out), name, inputs, out, loaded)
                    continue
            require_same(out, name, in_precision(recipe, options.set, out), loaded[0], inputs)
            print(f"{out}: finished")
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


def _add_crossval(commands: argparse._SubParsersAction) -> None:
    command = add_command(commands, "crossval", "train a recipe once for each fold and evaluate it on every image")
    command.add_argument("recipe", help="a recipe; python -m training list shows them")
    command.add_argument("--folds", type=int, default=5, help="number of folds (default: %(default)s)")
    command.add_argument(
        "--seeds",
        type=whole_number,
        default=1,
        metavar="N",
        help="number of seeds; all folds are trained with each (default: %(default)s)",
    )
    command.add_argument("--out", help="folder of the folds' runs (default: runs/crossval-NAME)")
    command.add_argument(
        "--reuse",
        action="append",
        default=[],
        metavar="CROSSVAL",
        help="take over the fine-tunings of this cross-validation's folds that are the same; may be repeated",
    )
    add_training_options(command)
    _add_teacher(command)
    add_size(command)
    add_groups(command)
    command.add_argument("--validation", help=argparse.SUPPRESS)  # refused with a reason
    command.set_defaults(command=_crossval)


def _crossval(options: argparse.Namespace) -> None:
    recipe = load_recipe(options.recipe)
    from training.config.override import override
    from training.evaluate.crossval import crossval
    from training.evaluate.metrics import summary
    from training.fit.distribute import prepare
    from training.run_folder import FIRST_FOLD

    out = Path(options.out or f"runs/crossval-{options.recipe}")
    own = {"data.folds", "data.fold", "data.validation_split", "checkpoint"}
    if chosen := own & {setting.partition("=")[0].strip() for setting in options.set}:
        raise UserError(f"crossval sets {', '.join(sorted(chosen))} itself; give --folds for the number of folds")
    recipe = in_precision(override(recipe, options.set), options.set, out / FIRST_FOLD)
    prepare(recipe.finetune.most_replicas)
    result = crossval(recipe, options.recipe, inputs_of(options), out, options.folds, options.seeds)
    if result:
        folds = result["accuracy_of_folds"]
        print(summary(result))
        print(f"folds {min(folds):.1%} to {max(folds):.1%}, calibration error {result['calibration_error']:.1%}")
        print(f"done: {out / 'crossval.json'}")


def _add_tune(commands: argparse._SubParsersAction) -> None:
    command = add_command(commands, "tune", "search for a recipe's best head with KerasTuner")
    command.add_argument("recipe", help="a recipe with a frozen backbone, for example tuned")
    command.add_argument("--out", required=True, help="folder of the search; an interrupted one is continued")
    command.add_argument(
        "--trials", type=whole_number, default=60, metavar="N", help="number of trials (default: %(default)s)"
    )
    add_test(command, "images on which each trial is reported; none is selected by them")
    add_training_options(command)
    command.set_defaults(command=_tune)


def _tune(options: argparse.Namespace) -> None:
    recipe = load_recipe(options.recipe)
    from training.config.override import override
    from training.tune import describe, search, settings

    recipe = override(recipe, options.set)
    rows = search(recipe, inputs_of(options), Path(options.out), options.trials)
    if rows:
        print("\n".join(describe(rows)))
        trials = Path(options.out) / "trials.csv"
        print(f"done: {trials}; next: python -m training run {options.recipe} {settings(rows[0])} …")


def in_precision(recipe: "Recipe", settings: list[str], out: Path) -> "Recipe":
    """The recipe in bfloat16 where that is faster, or where the run that is continued is.

    Settings decide it instead: that of a fine-tuning also for the features, that of the features for these alone.
    """
    from training.config.override import in_bfloat16, with_precision_of
    from training.fit.precision import fastest
    from training.run_folder import RECORD, read_record, run_file

    names = [setting.partition("=")[0].strip() for setting in settings]
    if any(name.startswith("finetune.") and name.endswith(".precision") for name in names):
        return recipe
    chosen = recipe
    if run_file(out, RECORD).is_file():  # also of an earlier version
        chosen = with_precision_of(recipe, read_record(out).recipe)
    elif fastest() == "bfloat16":
        chosen = in_bfloat16(recipe)
    return replace(chosen, head=recipe.head) if "head.feature_precision" in names else chosen


def _train(recipe: "Recipe", name: str, inputs: "Inputs", out: Path, loaded: "Loaded | None" = None) -> None:
    import keras

    from training.run import train

    keras.backend.clear_session()
    train(recipe, name, inputs, out, loaded)


def _add_teacher(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--teacher",
        metavar="CROSSVAL",
        help="a finished cross-validation of --data, whose predictions are soft targets (see finetune.teacher_share)",
    )
