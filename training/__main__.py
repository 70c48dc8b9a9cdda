"""Train, cross-validate, compare and apply image classifiers.

The stages of a run: list and load the images, split, balance, augment, fine-tune the backbone, cache its features,
train the head, predict, evaluate. `build_submission.py` then exports and packs it.
"""

import argparse
import importlib.util
import logging
import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from common.tensorflow_log import hide_tensorflow_log

hide_tensorflow_log()

from common.cli import (
    argument_parser,
    image_size,
    output_file,
    positive,
    print_listing,
    run_command,
    whole_number,
)
from common.errors import InUse, UserError
from training.recipes import load_recipe, recipe_groups, recipe_names, recipe_summary

if TYPE_CHECKING:
    from training.config.recipe import Recipe
    from training.inputs import Inputs

EXAMPLES = """examples:
  python -m training auto --data my/images --minutes 30 --out runs/mine
  python -m training auto --data my/images --labels my/train.csv --validation my/validation
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
  python -m training deepweeds --images images --labels labels.csv --out data/leaves
  python -m training predict --data my/photos --run runs/mine --out predictions.csv

exit codes: 0 success, 2 wrong input or a failed run, 130 interrupted (the same command continues a run, but not auto)
"""
INTERRUPTED = "interrupted; what is finished is kept, repeat the command to continue"
AUTO_INTERRUPTED = (
    "interrupted; the folder best of --out, if it is there, has the best model; to start again, give a new --out"
)
START = """Start here
  python -m training auto --data my/images --minutes 30            your own images
  python -m training run inception_svm --data data/leaves/train    the report's final model
  python -m training run released --data data/leaves/train         the most accurate recipe
"""
BACKENDS = ("tensorflow", "jax")
SHOWN_ERRORS = 20  # likely label errors that are printed


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
        recipe = _in_precision(recipes[names[0]], options.set, out)
        _train(recipe, names[0], _inputs(options, require_reuse=True), out)
        print(f"done: {out}; next: python build_submission.py --run {shlex.quote(str(out))}")
        return
    _run_several(recipes, options)


def _in_precision(recipe: "Recipe", settings: list[str], out: Path) -> "Recipe":
    """The recipe in bfloat16 where that is faster, or where the run that is continued is; not if settings choose."""
    from training.config.override import in_bfloat16, with_precision_of
    from training.fit.precision import fastest
    from training.run_folder import RECORD, read_record

    names = [setting.partition("=")[0].strip() for setting in settings]
    if any(name.endswith("precision") and not name.startswith("prediction.") for name in names):
        return recipe
    if (out / RECORD).is_file():
        return with_precision_of(recipe, read_record(out).recipe)
    return in_bfloat16(recipe) if fastest() == "bfloat16" else recipe


def _run_several(recipes: "dict[str, Recipe]", options: argparse.Namespace) -> None:
    """Trains one run after another. Skips those that are finished or in use, and names those that failed at the end."""
    from training.planned import outdated
    from training.run_folder import Finished

    runs = {
        Path(options.runs) / (f"{name}-seed{seed}" if seed else name): (name, replace(recipe, seed=recipe.seed + seed))
        for seed in range(options.seeds)
        for name, recipe in recipes.items()
    }
    finished = {out: run for out, run in runs.items() if (out / "metrics.json").is_file()}
    others, failed = outdated(finished, _inputs(options)), []
    for out, (name, recipe) in runs.items():
        try:
            if out in others:
                raise UserError(others[out])
            if out in finished:
                print(f"{out}: finished")
                continue
            _train(_in_precision(recipe, options.set, out), name, _inputs(options), out)
        except Finished:  # by another process, in the meantime
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


def _inputs(options: argparse.Namespace, require_reuse: bool = False) -> "Inputs":
    from training.inputs import Inputs

    read = ("test", "groups", "size", "labels", "label_columns", "validation_folder", "max_images")
    names = ("backbone_weights", "teacher", *read)
    given = {name.removesuffix("_folder"): getattr(options, name) for name in names if hasattr(options, name)}
    return Inputs(options.data, reuse=tuple(getattr(options, "reuse", ())), require_reuse=require_reuse, **given)


def _train(recipe: "Recipe", name: str, inputs: "Inputs", out: Path) -> None:
    import keras

    from training.run import train

    keras.backend.clear_session()
    train(recipe, name, inputs, out)


def _auto(options: argparse.Namespace) -> None:
    from training.auto.search import auto

    out = Path(options.out)
    auto(_inputs(options), out, options.minutes)
    print(f"done: {out}; next: python build_submission.py --run {shlex.quote(str(out))}")


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
    recipe = _in_precision(override(recipe, options.set), options.set, out / FIRST_FOLD)
    prepare(recipe.finetune.most_replicas)
    result = crossval(recipe, options.recipe, _inputs(options), out, options.folds, options.seeds)
    if result:
        folds = result["accuracy_of_folds"]
        print(summary(result))
        print(f"folds {min(folds):.1%} to {max(folds):.1%}, calibration error {result['calibration_error']:.1%}")
        print(f"done: {out / 'crossval.json'}")


def _mistakes(options: argparse.Namespace) -> None:
    from training.evaluate.mistakes import draw_mistakes

    print("\n".join(draw_mistakes(options.folder, _inputs(options), options.out, options.count)))
    print(f"done: {options.out}")


def _label_errors(options: argparse.Namespace) -> None:
    from training.evaluate.label_errors import label_errors

    folder = Path(options.folder) if options.folder else None
    unused = [f"--{name}" for name in ("size", "backbone-weights", "cache") if getattr(options, name.replace("-", "_"))]
    if folder and unused:
        raise UserError(f"{', '.join(unused)} has no effect with --folder, whose predictions are used; leave it out")
    inputs = replace(_inputs(options), backbone_weights=options.backbone_weights or "imagenet")
    lines = label_errors(inputs, folder, Path(options.out), Path(options.cache or "runs/.features"))
    print("\n".join(lines[:SHOWN_ERRORS]))
    print(f"likely wrong labels: {len(lines)}; all are in the page and in {Path(options.out).with_suffix('.csv')}")
    print(f"done: {options.out}")


def _paired(options: argparse.Namespace) -> None:
    from training.evaluate.paired import compare_held_out

    print(f"{options.after}: {compare_held_out(Path(options.before), Path(options.after))}")


def _class_bias(options: argparse.Namespace) -> None:
    from training.evaluate.class_bias import class_bias

    bias, worth = class_bias(Path(options.folder))
    print(f"each image with the biases of other images: {worth}")
    print(f"done; to use them: --set {shlex.quote(f'head.class_bias={bias}')}")


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

    print("\n".join(copy_split(_inputs(options), Path(options.out), options.validation, options.seed)))


def _deepweeds(options: argparse.Namespace) -> None:
    from training.data.deepweeds import download, rebuild

    if options.download and (options.images or options.labels):
        raise UserError("--download gets the images and labels itself; leave out --images and --labels, or --download")
    if options.download:
        images, labels = download(options.download)
    elif options.images and options.labels:
        images, labels = options.images, options.labels
    else:
        raise UserError("give --images and --labels, or --download FOLDER")
    rebuild(images, labels, options.out)
    print(f"done: {Path(options.out) / 'train'} for training, phase1 and phase2 for testing")


def _predict(options: argparse.Namespace) -> None:
    from training.predict_folder.cluster import Cluster
    from training.predict_folder.command import Job, describe, predict_folder
    from training.predict_folder.submitted import SOURCE

    if options.workers is not None and not options.ray:
        raise UserError("--workers has no effect without --ray; add it, or leave out --workers")
    cluster = Cluster(options.ray, options.workers) if options.ray else None
    model, run = Path(options.model or SOURCE), Path(options.run) if options.run else None
    job = Job(Path(options.data), Path(options.out), model, run, options.shard_size, options.top, cluster)
    print(describe(job, predict_folder(job)))


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__, "python -m training", EXAMPLES)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = _add_command(commands, "list", "list the recipes")
    command.set_defaults(command=_list)
    experiments = (_add_run, _add_crossval, _add_compare, _add_paired, _add_tune)
    held_out = (_add_mistakes, _add_label_errors, _add_class_bias)
    for add in (_add_auto, *experiments, *held_out, _add_split, _add_deepweeds, _add_predict):
        add(commands)
    return parser


def _add_command(commands: argparse._SubParsersAction, name: str, what: str) -> argparse.ArgumentParser:
    """Adds a command, with a line in the list of commands, and its examples."""
    examples = [line for line in EXAMPLES.splitlines() if f"-m training {name}" in line]
    description = f"{what[0].upper()}{what[1:]}."
    return commands.add_parser(name, help=what, description=description, epilog="\n".join(["examples:", *examples]))


def _add_auto(commands: argparse._SubParsersAction) -> None:
    command = _add_command(commands, "auto", "train the best model for any images within a number of minutes")
    _add_data(command)
    command.add_argument("--minutes", type=positive, default=30, help="time for everything (default: %(default)s)")
    command.add_argument("--out", default="runs/auto", help="new folder; best/ is the best run (default: %(default)s)")
    command.add_argument("--test", help="class folders that are reported on and used for nothing else")
    _add_weights(command)
    _add_size(command)
    _add_groups(command)
    _add_validation(command)
    command.set_defaults(command=_auto, interrupted=AUTO_INTERRUPTED)


def _add_run(commands: argparse._SubParsersAction) -> None:
    command = _add_command(commands, "run", "train recipes")
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
    _add_teacher(command)
    _add_size(command)
    command.add_argument(
        "--max-images", type=whole_number, metavar="N", help="at most so many images of --data, spread over each class"
    )
    _add_groups(command)
    _add_validation(command)
    command.set_defaults(command=_run)


def _add_crossval(commands: argparse._SubParsersAction) -> None:
    command = _add_command(commands, "crossval", "train a recipe once for each fold and evaluate it on every image")
    command.add_argument("recipe", help="a name, see list")
    command.add_argument("--folds", type=int, default=5, help="default: %(default)s")
    command.add_argument("--seeds", type=int, default=1, help="how often the folds are trained (default: %(default)s)")
    command.add_argument("--out", help="folder of the folds' runs (default: runs/crossval-NAME)")
    command.add_argument(
        "--reuse",
        action="append",
        default=[],
        metavar="CROSSVAL",
        help="take over the fine-tunings of this cross-validation's folds that are the same; may be repeated",
    )
    _add_training_options(command)
    _add_teacher(command)
    _add_size(command)
    _add_groups(command)
    command.add_argument("--validation", dest="validation_folder", help=argparse.SUPPRESS)  # refused with a reason
    command.set_defaults(command=_crossval)


def _add_mistakes(commands: argparse._SubParsersAction) -> None:
    command = _add_command(commands, "mistakes", "draw the worst mistakes of a run or a cross-validation")
    command.add_argument("folder", help="a finished run with a validation part, or the folder of a cross-validation")
    _add_data(command, "the images that it was trained on")
    _add_validation(command, "the class folders that it was validated on, if it was trained with --validation")
    command.add_argument("--out", type=output_file, default="mistakes.png", help="the picture (default: %(default)s)")
    command.add_argument("--count", type=int, default=15, help="thumbnails at most (default: %(default)s)")
    command.set_defaults(command=_mistakes)


def _add_label_errors(commands: argparse._SubParsersAction) -> None:
    command = _add_command(commands, "label-errors", "list images whose label is likely wrong (needs cleanlab)")
    _add_data(command, "the labelled images")
    command.add_argument(
        "--folder",
        metavar="RUN",
        help="a cross-validation, or a run with a validation part, whose predictions are used (default: logistic "
        "regression on features of the pretrained backbone, in five folds)",
    )
    _add_weights(command)
    _add_validation(command, "class folders that are examined as well; those that --folder was validated on, if it was")
    _add_size(command)
    command.add_argument("--out", type=output_file, default="label_errors.html", help="the page (default: %(default)s)")
    command.add_argument("--cache", help="folder of cached features (default: runs/.features)")
    command.set_defaults(command=_label_errors, backbone_weights=None)  # so that it is known which ones are given


def _add_compare(commands: argparse._SubParsersAction) -> None:
    command = _add_command(commands, "compare", "write a table of runs and its plots")
    command.add_argument("folders", nargs="*", help="run folders, for example runs/*; unfinished ones are skipped")
    command.add_argument("--rows", default="comparison.csv", help="table of runs to add to (default: %(default)s)")
    command.add_argument(
        "--out", type=output_file, default="comparison.md", help="the table as Markdown (default: %(default)s)"
    )
    command.set_defaults(command=_compare)


def _add_paired(commands: argparse._SubParsersAction) -> None:
    command = _add_command(commands, "paired", "compare two runs on the images that both held out")
    command.add_argument("before", help="a finished run with a validation part, or the folder of a cross-validation")
    command.add_argument("after", help="another one, of the same images")
    command.set_defaults(command=_paired)


def _add_class_bias(commands: argparse._SubParsersAction) -> None:
    command = _add_command(commands, "class-bias", "fit what to add to each class's logit on held-out images")
    command.add_argument("folder", help="a cross-validation, or a run with a validation part")
    command.set_defaults(command=_class_bias)


def _add_teacher(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--teacher",
        metavar="CROSSVAL",
        help="a finished cross-validation of --data, whose predictions are soft targets (see finetune.teacher_share)",
    )


def _add_tune(commands: argparse._SubParsersAction) -> None:
    command = _add_command(commands, "tune", "search for a recipe's best head with KerasTuner")
    command.add_argument("recipe", help="a recipe with a frozen backbone, for example tuned")
    command.add_argument("--out", required=True, help="folder of the search; an interrupted one is continued")
    command.add_argument("--trials", type=whole_number, default=60, metavar="N", help="default: %(default)s")
    command.add_argument("--test", help="class folders on which each trial is reported; none is selected by them")
    _add_training_options(command)
    command.set_defaults(command=_tune)


def _add_split(commands: argparse._SubParsersAction) -> None:
    command = _add_command(commands, "split", "copy images into class folders for training and for validation")
    _add_data(command)
    command.add_argument("--out", required=True, help="new folder, gets train/ and validation/")
    command.add_argument("--validation", type=float, default=0.2, help="share held out (default: %(default)s)")
    command.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    command.set_defaults(command=_split)


def _add_deepweeds(commands: argparse._SubParsersAction) -> None:
    command = _add_command(commands, "deepweeds", "rebuild the competition's images from the public DeepWeeds")
    command.add_argument("--images", help="DeepWeeds' folder of 17,509 images")
    command.add_argument("--labels", help="DeepWeeds' labels.csv")
    command.add_argument("--download", metavar="FOLDER", help="download both into this folder (about 470 MB)")
    command.add_argument("--out", required=True, help="new folder, gets train/, phase1/ and phase2/")
    command.set_defaults(command=_deepweeds)


def _add_data(command: argparse.ArgumentParser, what: str = "the labelled images") -> None:
    command.add_argument(
        "--data", required=True, help=f"{what}: a folder with one folder for each class, or any folder with --labels"
    )
    command.add_argument("--labels", metavar="FILE", help="CSV file with the labels of the images in --data")
    command.add_argument(
        "--label-columns",
        type=_columns,
        metavar="FILES,LABELS",
        help="names of two columns of --labels, for example image_id,species (default: recognized)",
    )


def _columns(text: str) -> tuple[str, str]:
    """(column of files, column of labels) from a text such as image_id,species."""
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names):
        raise argparse.ArgumentTypeError(
            f"must be the names of two columns, got {text!r}; for example image_id,species"
        )
    return names[0], names[1]


def _add_validation(
    command: argparse.ArgumentParser,
    what: str = "class folders that are the validation part; all of --data is then trained on (default: a split)",
) -> None:
    command.add_argument("--validation", dest="validation_folder", metavar="DIR", help=what)


def _add_predict(commands: argparse._SubParsersAction) -> None:
    command = _add_command(commands, "predict", "predict every image of a folder, also millions, into a table")
    command.add_argument("--data", required=True, help="folder of images, with any subfolders")
    command.add_argument("--out", required=True, help="new table, FILE.csv or FILE.parquet (the latter needs pyarrow)")
    source = command.add_mutually_exclusive_group()
    source.add_argument("--model", help="a submission.zip or its unpacked folder (default: the committed submission/)")
    source.add_argument("--run", help="folder of a finished run")
    command.add_argument("--top", type=int, metavar="K", help="columns of the K best classes only (default: of all)")
    command.add_argument(
        "--shard-size",
        type=int,
        default=10_000,
        metavar="N",
        help="images that are kept together; an interruption loses N at most (default: %(default)s)",
    )
    command.add_argument(
        "--ray", metavar="ADDRESS", help="predict on a Ray cluster: its address, or local for a new one on this machine"
    )
    command.add_argument("--workers", type=int, metavar="N", help="processes of --ray (default: one on each machine)")
    command.set_defaults(command=_predict)


def _add_weights(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--backbone-weights", default="imagenet", help="imagenet (the default, downloaded), a .weights.h5 file, or none"
    )


def _add_groups(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--groups", metavar="FILE", help="CSV with the columns path and group; a split keeps each group in one part"
    )


def _add_size(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--size",
        type=image_size,
        metavar="SIZE",
        help="N or HxW, height and width in pixels at which the images are read (default: the most frequent size, "
        "or the median if none is frequent, reduced to 384 on the longer side if that is longer than 512)",
    )


def _add_training_options(command: argparse.ArgumentParser) -> None:
    """The options of every command that trains."""
    _add_data(command)
    _add_weights(command)
    command.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change a field; repeatable")
    command.add_argument("--backend", choices=BACKENDS, help="Keras' backend (default: KERAS_BACKEND, else tensorflow)")


if __name__ == "__main__":
    sys.exit(main())
