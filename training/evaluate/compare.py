"""Finished runs → one table as CSV and Markdown, and two plots: every recipe beside the report's number."""

import json
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from common.errors import UserError
from common.files import digest, write_text
from training.config.override import in_bfloat16
from training.config.recipe import SOFTMAX, Recipe
from training.config.record import to_json
from training.evaluate.metrics import wilson
from training.evaluate.plots import plot_ranges
from training.evaluate.rows import Row, by_recipe, class_f1, epochs_text, read_rows, reported, seeds_text, write_rows
from training.model.backbones import PRETRAINED
from training.recipes import RENAMED, load_recipe, recipe_names, recipe_summary
from training.run_folder import Record, best_of, read_metrics, read_record

OF_AUTO = "auto: "  # before the folder's name, because each of its models has a recipe of its own
RARE = ("Species1", "Species6")  # the classes that the report watched
HEADER = """# Experiments

Written by `python -m training compare`. Accuracy, macro F1 and F1 are those of the test images, which were used for
nothing else unless a note says so. The range in brackets is the 95 % interval (Wilson) for the number of test images.
With several seeds, the table shows their mean. Validation accuracy is optimistic for recipes that select the epoch by
validation loss. Parameters are the trainable ones. Minutes are those of training, on the machine of each run. The note
names the settings that differ from the recipe. It leaves out the precision that `run` chooses for the processor
(earlier versions chose it for some recipes only).
"""
WORSE = """Here, worse means worse than `online` by more than chance on the held-out images (`python -m training
paired`), with each of three seeds unless it says how many.
"""


def compare(folders: list[Path], table: Path, out: Path) -> list[str]:
    """Adds finished runs to a table and writes it as Markdown with plots.

    Args:
        folders: run folders.
        table: the CSV file; runs that are already in it are replaced.
        out: the Markdown file. The plots are written to `img/` beside it.

    Returns:
        One line for each folder that was skipped.

    Raises:
        UserError: not one finished run, folders of the same name, also of another run in the table, or a file that is
            no table.
    """
    rows = {row.run: row for row in (read_rows(table) if table.is_file() else [])}
    skipped, places = [], {path.resolve() for path in folders}
    for folder in sorted(folders):
        namesakes = sorted(str(place) for place in places if _row_name(place) == _row_name(folder.resolve()))
        if len(namesakes) > 1:
            raise UserError(f"the folders of runs must have different names, got {' and '.join(namesakes)}; rename one")
        try:
            row = collect(folder)
        except UserError as error:
            skipped.append(str(error))
            continue
        there = rows.setdefault(row.run, row)
        if any(getattr(there, name) != getattr(row, name) for name in ("recipe", "seed", "data", "settings")):
            raise UserError(
                f"{table} has another run {row.run}, of {there.recipe} with other settings or images; give another "
                f"--rows, or rename {folder}"
            )
        rows[row.run] = row
    if not rows:
        raise UserError(f"compare needs a finished run, got {len(skipped)} other folders: {'; '.join(skipped[:3])}")
    write_rows(table, list(rows.values()))
    write_table(read_rows(table), out)
    return skipped


def _row_name(folder: Path) -> str:
    """The name of a run's row: that of its folder, or the present one of a recipe that was renamed."""
    return RENAMED.get(folder.name, folder.name)


def collect(folder: Path) -> Row:
    """The row of a finished run, or of the best one of `auto`. Raises a UserError for anything else."""
    record, metrics = read_record(best_of(folder)), read_metrics(best_of(folder))
    name = RENAMED.get(record.name, record.name) if best_of(folder) == folder else f"{OF_AUTO}{folder.name}"
    planned = load_recipe(name) if name in recipe_names() else record.recipe
    test = metrics.get("test")
    try:
        return Row(
            run=_row_name(folder),
            recipe=name,
            seed=record.recipe.seed,
            data=record.data_sha256[:12],
            test_images=test["images"] if test else 0,
            accuracy=test["accuracy"] if test else None,
            low=test["interval95"][0] if test else None,
            high=test["interval95"][1] if test else None,
            macro_f1=test["macro_f1"] if test else None,
            class_f1=class_f1(test["classes"]) if test else "",
            val_images=metrics["images"],
            val_accuracy=metrics["accuracy"] if metrics["images"] else None,
            parameters=metrics.get("trainable_parameters"),
            epochs=metrics["epochs"],
            planned_epochs=planned.finetune.all_epochs,
            warmup_epochs=metrics.get("head_warmup_epochs", 0),
            minutes=round(metrics["finetuning_minutes"] + metrics.get("head_minutes", 0), 2),
            images_per_second=metrics.get("images_per_second"),
            settings=", ".join(_settings(planned, record.recipe) + _inputs(record, name, metrics)),
            finished=metrics.get("finished", ""),
            test_data=test.get("data_sha256", "")[:12] if test else "",
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder} is damaged ({type(error).__name__}: {error}); train it again") from error


def write_table(rows: list[Row], out: Path) -> None:
    """Writes the Markdown file and its plots, one part for each data set."""
    for stem, groups in _data_sets(rows, out.stem).items():
        tested = {
            name: groups[name] for part in _order(groups).values() for name in part if _is_tested(groups.get(name))
        }
        if tested:
            _plot(tested, out.parent / "img", stem)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, document(rows, out.stem))


def document(rows: list[Row], stem: str) -> str:
    """The text of the Markdown file.

    Args:
        rows: the runs.
        stem: the file's name without its suffix; the plots' names begin with it.
    """
    data_sets = _data_sets(rows, stem)
    lines = [HEADER]
    for name, groups in data_sets.items():
        lines += [f"## Data set {name}\n"] if len(data_sets) > 1 else []
        lines += _part(groups, name)
    return "\n".join(lines)


def _data_sets(rows: list[Row], stem: str) -> dict[str, dict[str, list[Row]]]:
    """Name of the plots → experiment (see `by_recipe`) → runs, for each data set."""
    hashes = list(dict.fromkeys(row.data for row in rows))
    names = {data: f"{stem}_{data}" if number else stem for number, data in enumerate(hashes)}
    return {name: by_recipe([row for row in rows if row.data == data]) for data, name in names.items()}


def _order(groups: dict[str, list[Row]]) -> dict[str, list[str]]:
    """Title → experiments: the report's in its order, our own, and those of earlier versions."""
    report, known, recipes = reported(), recipe_names(), {name: rows[0].recipe for name, rows in groups.items()}
    of_report = [
        [name for name in groups if recipes[name] == recipe] or [recipe] * bool(report[recipe].not_run)
        for recipe in report
    ]
    return {
        "The report's experiments": sum(of_report, []) if set(recipes.values()) & set(report) else [],
        "Our own": [name for name in groups if recipes[name] in known and recipes[name] not in report],
        "Models of auto": [name for name in groups if recipes[name].startswith(OF_AUTO)],
        "Recipes of earlier versions": [
            name for name in groups if recipes[name] not in {*known, *report} and not recipes[name].startswith(OF_AUTO)
        ],
    }


def _rare(groups: dict[str, list[Row]]) -> list[str]:
    """The rare classes that the tested runs have."""
    tested = [row for rows in groups.values() if _is_tested(rows) for row in rows]
    return [name for name in RARE if tested and all(row.f1(name) is not None for row in tested)]


def _is_tested(rows: list[Row] | None) -> bool:
    return bool(rows) and all(row.test_images for row in rows or ())


def _part(groups: dict[str, list[Row]], stem: str) -> Iterator[str]:
    """The plots and tables of one data set."""
    if any(map(_is_tested, groups.values())):
        yield f"![accuracy of each recipe with its interval, and the report's](img/{stem}_accuracy.png)\n"
    if _rare(groups):
        yield f"![F1 of the rare classes](img/{stem}_rare.png)\n"
    report, order = reported(), _order(groups)
    for title, names in order.items():
        if names:
            yield f"## {title}\n"
            yield _table(names, groups) + "\n"
    yield "## What each recipe is\n"
    if any(report[name].why for name in order["The report's experiments"] if name in report):
        yield WORSE
    for name in (name for names in order.values() for name in names if name in recipe_names()):
        why = f" {report[name].why}" if name in report and report[name].why else ""
        item = f"- `{name}`: {recipe_summary(name)}{why}"
        yield textwrap.fill(item, 118, subsequent_indent="  ", break_on_hyphens=False)
    yield ""


def _table(names: list[str], groups: dict[str, list[Row]]) -> str:
    rare = _rare(groups)
    columns = ["recipe", "report", "accuracy", "macro F1", *(f"F1 {name}" for name in rare)]
    columns += ["validation", "parameters", "epochs", "minutes", "note"]
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    lines += [f"| {' | '.join(_cells(name, groups.get(name), rare))} |" for name in names]
    return "\n".join(lines)


def _cells(name: str, rows: list[Row] | None, rare: list[str]) -> list[str]:
    report = reported().get(rows[0].recipe if rows else name)
    known = "–" if report is None else report.result if report.accuracy is None else _percent(report.accuracy)
    if not rows:
        return [f"`{name}`", known, *["–"] * (6 + len(rare)), f"not run: {report.not_run if report else ''}"]
    first = rows[0]
    val = [row.val_accuracy for row in rows if row.val_accuracy is not None]
    return [
        f"`{rows[0].recipe}`",
        known,
        _accuracy_cell(rows),
        _mean_cell([row.macro_f1 for row in rows]),
        *(_mean_cell([row.f1(one) for row in rows]) for one in rare),
        _percent(mean(val)) if val else "none",
        f"{first.parameters:,}" if first.parameters else "–",
        epochs_text(first),
        f"{mean(row.minutes for row in rows):.1f}",
        f"with {first.settings}" if first.settings else "",
    ]


def _accuracy_cell(rows: list[Row]) -> str:
    if not _is_tested(rows):
        return "–"
    share, low, high = accuracy(rows)
    text = f"{_percent(share)} ({_percent(low)} to {_percent(high)})"
    each = [row.accuracy or 0.0 for row in rows]
    return text + (f", {seeds_text(rows)} {_percent(min(each))} to {_percent(max(each))}" if len(rows) > 1 else "")


def _mean_cell(values: list) -> str:
    return f"{mean(values):.3f}" if all(value is not None for value in values) else "–"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def accuracy(rows: list[Row]) -> tuple[float, float, float]:
    """Mean test accuracy over seeds, and its 95 % interval for the number of test images of one run (Wilson)."""
    share, images = mean(row.accuracy or 0.0 for row in rows), rows[0].test_images
    low, high = wilson(share * images, images)
    return share, low, high


def _plot(groups: dict[str, list[Row]], folder: Path, stem: str) -> None:
    names = list(groups)
    folder.mkdir(parents=True, exist_ok=True)
    spans = [accuracy(rows) for rows in groups.values()]
    dots = [[row.accuracy for row in rows] for rows in groups.values()]
    report = {name: one.accuracy for name, one in reported().items() if name in groups and one.accuracy is not None}
    plot_ranges(names, {"accuracy on the test images": (spans, dots)}, folder / f"{stem}_accuracy.png", report)
    series = {}
    for rare in _rare(groups):
        values = [[row.f1(rare) or 0.0 for row in rows] for rows in groups.values()]
        series[f"F1 of {rare}"] = ([(mean(v), min(v), max(v)) for v in values], values)
    if series:
        plot_ranges(names, series, folder / f"{stem}_rare.png")


def _inputs(record: Record, name: str, metrics: dict) -> list[str]:
    """What else a run's accuracy depends on, so that runs with other inputs are not taken for its seeds."""
    pretrained = record.recipe.finetune.backbone in PRETRAINED
    trained_on = metrics.get("test_images_in_training", 0)
    found = {
        f"recipe {digest(to_json(replace(record.recipe, seed=0)))[:8]}": name not in recipe_names(),
        "--backbone-weights none": pretrained and record.backbone_weights == "none",
        f"--groups or --validation {record.groups_sha256[:8]}": record.groups_sha256,
        f"--teacher {record.teacher_sha256[:8]}": record.teacher_sha256,
        f"{trained_on} of the test images in training": trained_on,
    }
    return [text for text, holds in found.items() if holds]


def _settings(planned: Recipe, done: Recipe) -> list[str]:
    """How a run differs from its recipe. The precision that `run` chooses for some processors is no difference."""
    chosen = in_bfloat16(planned)
    of_earlier_versions = replace(chosen, head=planned.head)  # whose features were in float32
    changes = [_changed_fields(one, done) for one in (planned, chosen, of_earlier_versions)]
    return min(changes, key=len)


def _changed_fields(planned: Recipe, done: Recipe) -> list[str]:
    """The fields in which a run differs from its recipe, as settings."""
    before, after = _flat(to_json(planned)), _flat(to_json(done))
    changed = [name for name in after if after[name] != before.get(name) and name != "seed"]
    return [f"{name}={json.dumps(after[name])}" for name in changed if _has_effect(name, done)]


def _flat(fields: dict, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        nested = isinstance(value, dict) and name not in ("class_repeats", "class_bias", "trainable")
        flat.update(_flat(value, f"{prefix}{name}.") if nested else {prefix + name: value})
    return flat


def _has_effect(name: str, recipe: Recipe) -> bool:
    """Whether a recipe uses a field. A softmax head uses none of `head` except the views for its warm-up."""
    if recipe.head.kind != SOFTMAX or not name.startswith("head.") or name == "head.kind":
        return True
    return name == "head.views" and recipe.finetune.head_warmup_epochs > 0
