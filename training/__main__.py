"""The command line of training: thin, every command is one call."""

import argparse
import ast
import dataclasses
import importlib.util
import logging
import os
import pkgutil
import shutil
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from training.errors import UserError, interruptible

EXAMPLES = """examples:
  python -m training list
  python -m training run inception_svm --data data/leaves/train --out runs/first
  python -m training run inception_svm --data data/leaves/train --out runs/small --set batch=16 --set "phases=((5, 96),)"
  python -m training run --all --data data/leaves/train --test data/leaves/phase1
  python -m training run online smote mixup --seeds 3 --data data/leaves/train
  python -m training crossval leaderboard --folds 5 --data data/leaves/train
  python -m training run leaderboard --data data/leaves/train --backend jax
  python -m training mistakes runs/leaderboard --data data/leaves/train --out mistakes.png
  python -m training compare runs/* --keep docs/runs
  python -m training tune tuned --data data/leaves/train --out runs/tune --trials 60
  python -m training split --data data/leaves/train --out data/split
  python -m training deepweeds --images images --labels labels.csv --out data/leaves

exit codes: 0 done, 2 wrong input or a failed run, 130 interrupted (a run goes on when its command is repeated)
"""
BACKENDS = ("tensorflow", "jax")


def main(arguments=None):
    """Runs one command. Returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it counts retracings, which several networks cannot help
    try:
        _choose_backend(getattr(options, "backend", None))
        with interruptible():
            options.command(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `list | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"error: {error.filename or ''}: {error.strerror or error}; check the path, the disk and its permissions", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; what was finished is kept", file=sys.stderr)
        return 130
    return 0


def _choose_backend(name):
    """Keras takes its backend from the environment when it is imported, and keeps it; where TensorFlow is missing, JAX it is."""
    if name is None and "KERAS_BACKEND" not in os.environ and not _is_installed("tensorflow") and _is_installed("jax"):
        name = "jax"
    if name is None:
        return
    keras = sys.modules.get("keras")
    if keras and keras.backend.backend() != name:
        raise UserError(f"--backend {name}: Keras runs on {keras.backend.backend()} in this process already; start a new one")
    if not _is_installed(name):
        raise UserError(f"--backend {name}: not installed here; pip install {name}")
    os.environ["KERAS_BACKEND"] = name


def _is_installed(module):
    return importlib.util.find_spec(module) is not None


def load_recipe(name):
    """The recipe of that name. Raises a UserError that names the nearest ones."""
    import difflib

    known = recipe_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, 3) or known
        raise UserError(f"no recipe {name}; did you mean {', '.join(near)}? See python -m training list")
    return importlib.import_module(f"training.recipes.{name}").recipe


def recipe_names():
    """The names of all recipes, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / "recipes")]))


def docstring(name):
    """What a recipe's file says of itself, without importing it."""
    source = Path(__file__).parent / "recipes" / f"{name}.py"
    return ast.get_docstring(ast.parse(source.read_text("utf-8")))


def _list(options):
    from training.docstrings import paragraph

    for name in recipe_names():
        text = docstring(name)
        print(f"{name}\n    {text.splitlines()[0]}")
        for label in ("Report", "Ours", "Not run", "Command"):
            if found := paragraph(text, label):
                print(f"    {label}: {found}")


def _compare(options):
    from training.compare import compare

    recipes = {name: (load_recipe(name), docstring(name)) for name in recipe_names()}
    for line in compare(options.folders, recipes, options.out, options.keep):
        print(f"left out: {line}", file=sys.stderr)
    print(f"done: {options.out}")


def _run(options):
    names = recipe_names() if options.all else options.recipe
    if bool(options.recipe) == options.all:
        raise UserError("name the recipes to run, or give --all; see python -m training list")
    if options.seeds < 1:
        raise UserError(f"--seeds {options.seeds}: expected a whole number from 1")
    if options.out and (len(names) > 1 or options.seeds > 1):
        raise UserError("--out is the folder of one run; for several, --runs is the folder of their folders")
    recipes = {name: load_recipe(name) for name in names}
    from training.distribute import prepare
    from training.recipe import override

    recipes = {name: override(recipe, options.set) for name, recipe in recipes.items()}
    prepare(max(recipe.most_replicas for recipe in recipes.values()))
    if len(names) == 1 and options.seeds == 1:
        out = Path(options.out or Path(options.runs) / names[0])
        _train(recipes[names[0]], names[0], options, out)
        print(f"done: {out}; next: python build_submission.py --run {out}")
        return
    _run_several(recipes, options)


def _run_several(recipes, options):
    """One run after another. What is finished, or in another process's hands, is left out; what fails is named at the end."""
    from training.files import InUse

    failed = []
    for seed in range(options.seeds):
        for name, recipe in recipes.items():
            out = Path(options.runs) / (f"{name}-seed{seed}" if seed else name)
            if (out / "metrics.json").is_file():
                print(f"{out}: finished already")
                continue
            try:
                _train(dataclasses.replace(recipe, seed=recipe.seed + seed), name, options, out)
            except InUse as error:
                print(f"{out}: left out, {error}")
            except (UserError, OSError) as error:
                print(f"{out}: {error}", file=sys.stderr)
                failed.append(str(out))
    if failed:
        raise UserError(f"{len(failed)} runs did not finish, the reasons are above: {', '.join(failed)}")
    print(f"done; next: python -m training compare {options.runs}/*")


def _train(recipe, name, options, out):
    import keras

    from training.run import train

    keras.backend.clear_session()
    train(recipe, name, options.data, options.backbone_weights, out, options.test)


def _crossval(options):
    recipe = load_recipe(options.recipe)
    from training.crossval import crossval
    from training.distribute import prepare
    from training.evaluate import summary
    from training.recipe import override

    out = Path(options.out or f"runs/crossval-{options.recipe}")
    recipe = override(recipe, options.set)
    prepare(recipe.most_replicas)
    result = crossval(recipe, options.recipe, options.data, options.backbone_weights, out, options.folds, options.seeds)
    if result:
        print(summary(result))
        folds = result["accuracy_of_folds"]
        print(f"folds {min(folds):.1%} to {max(folds):.1%}, calibration error {result['calibration_error']:.1%}")
        print(f"done: {out / 'crossval.json'}")


def _mistakes(options):
    from training.mistakes import draw_mistakes

    print("\n".join(draw_mistakes(options.folder, options.data, options.out, options.count)))
    print(f"done: {options.out}")


def _tune(options):
    recipe = load_recipe(options.recipe)
    from training.recipe import override
    from training.tune import describe, search, settings

    rows = search(override(recipe, options.set), options.data, options.backbone_weights, options.out, options.trials, options.test)
    if rows:
        print("\n".join(describe(rows)))
        print(f"done: {Path(options.out) / 'trials.csv'}; next: python -m training run {options.recipe} {settings(rows[0])} …")


def _split(options):
    from training.data import load_folder, split

    out = Path(options.out)
    if out.exists():
        raise UserError(f"{out} exists; give another --out, or remove it first")
    images = load_folder(options.data)
    parts = dict(zip(("train", "validation"), split(images.labels, options.validation, options.seed, images.names), strict=True))
    temporary = out.with_name(f".tmp-{out.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for part, rows in parts.items():
            for row in rows:
                source = Path(images.paths[row])
                target = temporary / part / source.relative_to(options.data)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for note in images.notes:
        print(note)
    print(", ".join(f"{len(rows)} images in {out / part}" for part, rows in parts.items()))


def _deepweeds(options):
    from training.deepweeds import download, rebuild

    if options.download:
        images, labels = download(options.download)
    elif options.images and options.labels:
        images, labels = options.images, options.labels
    else:
        raise UserError("give --images and --labels, or --download FOLDER to fetch them")
    rebuild(images, labels, options.out)
    print(f"done: {Path(options.out) / 'train'} to train on, phase1 and phase2 to test on")


def _training_arguments(command):
    """What every command that trains a recipe takes."""
    command.add_argument("--data", required=True, help="folder with one folder of images for each class")
    command.add_argument("--backbone-weights", default="imagenet", help="imagenet (downloaded, the default), a .weights.h5 file, or none")
    command.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change a field of the recipe; may be repeated")
    command.add_argument("--backend", choices=BACKENDS, help="what Keras computes with (default: KERAS_BACKEND, else tensorflow)")


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m training", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="the recipes")
    command.set_defaults(command=_list)

    command = commands.add_parser("run", help="train recipes")
    command.add_argument("recipe", nargs="*", help="names, see list")
    command.add_argument("--all", action="store_true", help="every recipe, one after another; what is finished is left out")
    command.add_argument("--out", help="folder of this run (default: runs/NAME); an interrupted run goes on in its own")
    command.add_argument("--runs", default="runs", help="folder for the folders of several runs (default: runs)")
    command.add_argument("--seeds", type=int, default=1, metavar="N", help="run each recipe with N seeds on one split")
    command.add_argument("--test", help="another such folder, whose images are reported on and used for nothing else")
    _training_arguments(command)
    command.set_defaults(command=_run)

    command = commands.add_parser("crossval", help="train a recipe once for each fold, and measure it on every image")
    command.add_argument("recipe", help="its name, see list")
    command.add_argument("--folds", type=int, default=5, help="default: %(default)s")
    command.add_argument("--seeds", type=int, default=1, help="how often the folds are trained (default %(default)s)")
    command.add_argument("--out", help="folder of the folds' runs (default: runs/crossval-NAME); what is finished in it is left out")
    _training_arguments(command)
    command.set_defaults(command=_crossval)

    command = commands.add_parser("mistakes", help="draw the worst mistakes of a run or a cross-validation as thumbnails")
    command.add_argument("folder", help="a finished run that held images out, or the folder of a cross-validation")
    command.add_argument("--data", required=True, help="the folder of images that it was trained on")
    command.add_argument("--out", default="mistakes.png", help="the picture (default: %(default)s)")
    command.add_argument("--count", type=int, default=15, help="thumbnails at most (default: %(default)s)")
    command.set_defaults(command=_mistakes)

    command = commands.add_parser("tune", help="search for a recipe's best head with KerasTuner")
    command.add_argument("recipe", help="a recipe with a frozen backbone, for example tuned")
    command.add_argument("--out", required=True, help="folder of the search; an interrupted one goes on in its own")
    command.add_argument("--trials", type=int, default=60, help="default: %(default)s")
    command.add_argument("--test", help="another such folder, on which each trial is reported and by which none is chosen")
    _training_arguments(command)
    command.set_defaults(command=_tune)

    command = commands.add_parser("compare", help="write the table of all recipes and its pictures from the runs' files")
    command.add_argument("folders", nargs="+", help="run folders, for example runs/*; what is no finished run is named and left out")
    command.add_argument("--out", default="docs/experiments.md", help="default: %(default)s")
    command.add_argument("--keep", metavar="FOLDER", help="copy the runs' small text files there, for example docs/runs")
    command.set_defaults(command=_compare)

    command = commands.add_parser("split", help="copy class folders into a training and a validation part")
    command.add_argument("--data", required=True, help="folder with one folder of images for each class")
    command.add_argument("--out", required=True, help="folder to make, gets train/ and validation/")
    command.add_argument("--validation", type=float, default=0.2, help="share held out (default 0.2)")
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(command=_split)

    command = commands.add_parser("deepweeds", help="rebuild the competition's images from the public DeepWeeds")
    command.add_argument("--images", help="DeepWeeds' folder of 17,509 images")
    command.add_argument("--labels", help="DeepWeeds' labels.csv")
    command.add_argument("--download", metavar="FOLDER", help="fetch both into this folder (about 470 MB)")
    command.add_argument("--out", required=True, help="folder to make, gets train/, phase1/ and phase2/")
    command.set_defaults(command=_deepweeds)
    return parser


if __name__ == "__main__":
    sys.exit(main())
