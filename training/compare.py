"""The runs' own files → one table and two pictures: every recipe beside the report's number, or why it was not run."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.docstrings import paragraph
from training.errors import UserError
from training.evaluate import draw_ranges, wilson
from training.files import atomically
from training.fit import read_history

KEPT = ("recipe.json", "metrics.json", "history.csv", "head_history.csv", "frozen_history.csv")  # a run's small files
RARE = ("Species1", "Species6")  # what the report watched
SETTINGS = ("phases", "seed")  # fields that say how much was run, not what


@dataclass(frozen=True)
class Run:
    """One finished run, as its files tell it."""

    folder: Path
    record: dict  # recipe.json
    metrics: dict  # metrics.json
    history: list  # history.csv

    @property
    def name(self):
        return self.record["name"]

    @property
    def result(self):
        """The metrics on the images that were only reported on; where there were none, on the validation part."""
        return self.metrics.get("test") or (self.metrics if self.metrics["images"] else None)

    @property
    def minutes(self):
        return self.metrics["finetuning_minutes"] + self.metrics.get("head_minutes", 0)


def read_run(folder):
    """A finished run.

    Raises:
        UserError: no run, an unfinished one, or files that are damaged.
    """
    folder = Path(folder)
    if not (folder / "recipe.json").is_file():
        raise UserError(f"{folder}: no run, it has no recipe.json")
    if not (folder / "metrics.json").is_file():
        raise UserError(f"{folder}: not finished, it has no metrics.json")
    try:
        record, metrics = (json.loads((folder / name).read_text("utf-8")) for name in ("recipe.json", "metrics.json"))
        run = Run(folder, record, metrics, read_history(folder / "history.csv"))
        _expect_fields(run)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder}: damaged ({type(error).__name__}: {error})") from error
    return run


def _expect_fields(run):
    """Raises a KeyError, TypeError or AttributeError where a field is missing of what the table needs."""
    run.minutes, run.record["name"], run.record["recipe"].items(), run.metrics["epochs"]  # noqa: B018
    run.metrics["images"] and run.metrics["accuracy"]  # noqa: B018
    if run.result:
        run.result["accuracy"], run.result["images"], run.result["macro_f1"], run.result["classes"].items()  # noqa: B018


def compare(folders, recipes, out, keep=None):
    """Writes the table of all recipes, and its pictures beside it.

    Args:
        folders: run folders; what is no finished run is named and left out.
        recipes: name → (`Recipe`, the docstring of its file), in the order of the table.
        out: the Markdown file; its pictures are OUT_accuracy.png and OUT_rare.png, without OUT's ending.
        keep: a folder that gets a copy of each run's small text files, or None.

    Returns:
        One line for each folder that was left out.

    Raises:
        UserError: not one finished run.
    """
    runs, left_out = {}, []
    for folder in sorted(map(Path, folders)):
        try:
            run = read_run(folder)
        except UserError as error:
            left_out.append(str(error))
            continue
        if run.name not in recipes:
            left_out.append(f"{folder}: of {run.name}, which is no recipe here")
        else:
            runs.setdefault(run.name, []).append(run)
    if not runs:
        raise UserError(f"no finished run among {len(left_out)} folders; {'; '.join(left_out[:3])}")
    if keep:
        _keep([run for group in runs.values() for run in group], Path(keep))
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    measured = {name: runs[name] for name in recipes if name in runs and all(run.metrics.get("test") for run in runs[name])}
    if measured:
        _draw(measured, out)
    text = _document(recipes, runs, out.stem if measured else None)
    atomically(out, lambda temporary: temporary.write_text(text, "utf-8"))
    return left_out


def ours(group):
    """What a recipe's runs had, in one sentence: for its docstring, its row and `list`."""
    minutes = f"{np.mean([run.minutes for run in group]):.1f} minutes"
    if not group[0].result:
        return f"nothing held out, epochs: {epochs(group)}, {minutes}"
    share, low, high = accuracy(group)
    where = "phase 1" if all(run.metrics.get("test") for run in group) else "the validation part"
    seeds = f", mean of {len(group)} seeds" if len(group) > 1 else ""
    return f"{share:.1%} ({low:.1%} to {high:.1%}) on {where}{seeds}, epochs: {epochs(group)}, {minutes}".replace("%", " %")


def epochs(group):
    """Epochs of the fine-tuning, and those on the frozen backbone before it."""
    frozen = group[0].metrics.get("frozen_epochs")
    return (f"{frozen} frozen + " if frozen else "") + f"{group[0].metrics['epochs']}"


def accuracy(group):
    """Mean accuracy over seeds, and its 95 % interval for as many images as one run answered (Wilson)."""
    results = [run.result for run in group]
    share, images = float(np.mean([result["accuracy"] for result in results])), results[0]["images"]
    return share, *wilson(share * images, images)


def state(recipe, group):
    """Whether the runs are of the recipe as it stands: measured, measured short, or with which other fields."""
    planned, done = _flat(recipe.to_json()), _flat(group[0].record["recipe"])
    differs = [key for key in sorted(done) if key in planned and key.split(".")[-1] not in SETTINGS and done[key] != planned[key]]
    other = [f"{key}={done[key]}" for key in differs if _matters(key, recipe)]
    got = group[0].metrics["epochs"]
    whole = recipe.earlier_epochs + recipe.epochs
    text = f"measured short: {got} of {whole} epochs" if got < whole else "measured"
    return text + (f", with {', '.join(other)}" if other else "")


def _flat(fields):
    """A recipe's fields, those of the recipe that it starts from as `start.…`."""
    fields = json.loads(json.dumps(fields))
    first = fields.pop("start", None) or {}
    return {**fields, **{f"start.{key}": value for key, value in (_flat(first) if first else {}).items() if not key.startswith("head")}}


def _matters(field, recipe):
    """Whether a recipe uses a field: a softmax makes nothing of a quasi-SVM's, but for the views of a frozen phase."""
    if recipe.head == "quasi_svm" or not field.startswith("head_"):
        return True
    return field == "head_views" and recipe.frozen_epochs > 0


def _keep(runs, folder):
    for run in runs:
        target = folder / run.folder.name
        if target.resolve() == run.folder.resolve():
            continue
        target.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            if (run.folder / name).is_file():
                atomically(target / name, lambda temporary, source=run.folder / name: shutil.copyfile(source, temporary))


def _document(recipes, runs, pictures):
    lines = [
        "# Experiments",
        "",
        "Written by `python -m training compare docs/runs/*` from the files in [runs](runs); not by hand.",
        "",
        "Accuracy, macro F1 and the F1 of the two rare species are of phase 1, whose images were used for nothing else, with",
        "the 95 % interval of its images (Wilson); of several seeds on one split the mean, and their least and most. The",
        "validation accuracy chose the epoch, so it flatters. Parameters are the trainable ones of the fine-tuning, and minutes",
        "and images/s are those of training on one or two shared CPU cores, pauses included. The report's numbers are of the",
        "competition's server.",
        "",
    ]
    if pictures:
        lines += [f"![accuracy of each recipe with its interval]({pictures}_accuracy.png)", ""]
        lines += [f"![F1 of the rare species in each recipe]({pictures}_rare.png)", ""]
    columns = ["recipe", "report", "accuracy", "seeds", "macro F1", *(f"F1 {name}" for name in RARE)]
    columns += ["validation", "parameters", "epochs", "minutes", "images/s", "state"]
    lines += [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    lines += [f"| {' | '.join(_row(name, *recipes[name], runs.get(name)))} |" for name in recipes]
    lines += ["", "## What each recipe is", ""]
    lines += [f"- `{name}`: {' '.join(docstring.split(chr(10) * 2)[0].split())}" for name, (_, docstring) in recipes.items()]
    return "\n".join(lines) + "\n"


def _row(name, recipe, docstring, group):
    report = paragraph(docstring, "Report") or "–"
    if not group:
        return [f"`{name}`", report, *["–"] * 10, f"not run: {paragraph(docstring, 'Not run') or 'no run among the folders'}"]
    mean = _mean_of(group)
    tested = all(run.metrics.get("test") for run in group)
    share, low, high = accuracy(group) if tested else (None,) * 3
    each = [run.result["accuracy"] for run in group if run.result]
    held = [run.metrics["accuracy"] for run in group if run.metrics["images"]]
    cells = [
        f"{share:.1%} ({low:.1%} to {high:.1%})" if tested else "–",
        f"{len(each)}: {min(each):.1%} to {max(each):.1%}" if len(each) > 1 else f"{len(group)}",
        f"{mean('macro_f1'):.3f}" if tested else "–",
        *(f"{mean('classes', rare, 'f1'):.3f}" if tested and rare in group[0].result["classes"] else "–" for rare in RARE),
        f"{np.mean(held):.1%}" if held else "nothing held out",
        f"{group[0].metrics['trainable_parameters']:,}" if "trainable_parameters" in group[0].metrics else "–",
        epochs(group),
        f"{np.mean([run.minutes for run in group]):.1f}",
        f"{np.mean([run.metrics['images_per_second'] for run in group]):.0f}" if group[0].metrics.get("images_per_second") else "–",
        state(recipe, group),
    ]
    return [f"`{name}`", report, *(cell.replace("%", " %") for cell in cells)]


def _mean_of(group):
    def mean(*keys):
        values = []
        for run in group:
            value = run.result
            for key in keys:
                value = value[key]
            values.append(value)
        return float(np.mean(values))

    return mean


def _draw(measured, out):
    names = list(measured)
    spans = [accuracy(group) for group in measured.values()]
    dots = [[run.result["accuracy"] for run in group] for group in measured.values()]
    draw_ranges(names, {"accuracy on phase 1": (spans, dots)}, out.with_name(f"{out.stem}_accuracy.png"))
    series = {}
    for rare in RARE:
        values = [[run.result["classes"].get(rare, {"f1": np.nan})["f1"] for run in group] for group in measured.values()]
        series[f"F1 of {rare} on phase 1"] = ([(np.mean(v), min(v), max(v)) for v in values], values)
    draw_ranges(names, series, out.with_name(f"{out.stem}_rare.png"))
