"""The command line of training: thin, every command is one call."""

import argparse
import ast
import importlib
import os
import pkgutil
import shutil
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from training.errors import UserError

EXAMPLES = """examples:
  python -m training list
  python -m training run inception_svm --data data/leaves/train --out runs/first
  python -m training run inception_svm --data data/leaves/train --out runs/small --set batch=16 --set "phases=((5, 96),)"
  python -m training split --data data/leaves/train --out data/split
  python -m training deepweeds --images images --labels labels.csv --out data/leaves

exit codes: 0 done, 2 wrong input or a failed run, 130 interrupted (a run goes on when its command is repeated)
"""


def main(arguments=None):
    """Runs one command. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or ''}: {error.strerror or error}; check the path, the disk and its permissions", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; what was finished is kept", file=sys.stderr)
        return 130
    return 0


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


def _list(options):
    for name in recipe_names():
        source = Path(__file__).parent / "recipes" / f"{name}.py"
        print(f"{name:24}{ast.get_docstring(ast.parse(source.read_text('utf-8'))).splitlines()[0]}")


def _run(options):
    recipe = load_recipe(options.recipe)
    from training.recipe import override
    from training.run import train

    train(override(recipe, options.set), options.recipe, options.data, options.backbone_weights, options.out)
    print(f"done: {options.out}; next: python build_submission.py --run {options.out}")


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


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m training", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="the recipes")
    command.set_defaults(command=_list)

    command = commands.add_parser("run", help="train a recipe")
    command.add_argument("recipe", help="see list")
    command.add_argument("--data", required=True, help="folder with one folder of images for each class")
    command.add_argument("--out", required=True, help="folder of this run; an interrupted run goes on in its own")
    command.add_argument("--backbone-weights", default="imagenet", help="imagenet (downloaded, the default), a .weights.h5 file, or none")
    command.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change a field of the recipe; may be repeated")
    command.set_defaults(command=_run)

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
