"""Tables of runs: one row for each finished run, kept as a CSV file. Importing this module imports no TensorFlow."""

import csv
import dataclasses
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from common.errors import UserError
from common.files import write_csv

RESULTS = Path(__file__).resolve().parents[2] / "results"
RUNS, REPORT = RESULTS / "runs.csv", RESULTS / "report.csv"


@dataclass(frozen=True)
class Row:
    """One finished run.

    run: name of its folder. data: the start of the SHA-256 of its images and labels.
    test_images, accuracy, low, high, macro_f1: of the test images; without test images 0 and None. low and high are the
    95 % interval. class_f1: see `class_f1`.
    val_images, val_accuracy: of the validation set. parameters: trainable ones.
    epochs, planned_epochs, warmup_epochs: trained, of the recipe, and of the head alone. settings: fields that differ
    from the recipe, and other inputs than usual. test_data: the start of the SHA-256 of the test images and labels; ""
    in runs of version 2.5 and earlier.
    """

    run: str
    recipe: str
    seed: int
    data: str
    test_images: int
    accuracy: float | None
    low: float | None
    high: float | None
    macro_f1: float | None
    class_f1: str
    val_images: int
    val_accuracy: float | None
    parameters: int | None
    epochs: int
    planned_epochs: int
    warmup_epochs: int
    minutes: float
    images_per_second: float | None
    settings: str
    finished: str
    test_data: str = ""

    def f1(self, name: str) -> float | None:
        """The F1 of one class, or None."""
        values = dict(part.rsplit("=", 1) for part in self.class_f1.split(";") if part)
        return float(values[_escaped(name)]) if _escaped(name) in values else None

    @property
    def measured_on(self) -> tuple[str, float | None, int]:
        """("test" or "validation", accuracy, images)."""
        if self.test_images:
            return "test", self.accuracy, self.test_images
        return "validation", self.val_accuracy, self.val_images


def class_f1(classes: dict[str, dict]) -> str:
    """ "name=F1" of each class, separated by semicolons; a semicolon in a name is %3B.

    Args:
        classes: class name → its metrics.
    """
    return ";".join(f"{_escaped(name)}={one['f1']:.4f}" for name, one in classes.items())


def _escaped(name: str) -> str:
    return name.replace(";", "%3B")


@dataclass(frozen=True)
class Reported:
    """What the report says of one of its experiments. why: why ours differs. not_run: why there is no run of ours."""

    recipe: str
    accuracy: float | None
    result: str
    why: str
    not_run: str


def read_rows(path: Path) -> list[Row]:
    """Reads a table of runs. Raises a UserError for another kind of file."""
    return _read(path, Row)


def write_rows(path: Path, rows: list[Row]) -> None:
    """Writes a table of runs, sorted by recipe and seed."""
    columns = [field.name for field in dataclasses.fields(Row)]
    ordered = sorted(rows, key=lambda row: (row.data, row.recipe, row.seed, row.run))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(path, columns, [dataclasses.asdict(row) for row in ordered])


def measured(path: Path = RUNS) -> dict[str, str]:
    """Recipe → the accuracy of its runs in a table, in one line. Only the data set with most runs counts."""
    rows = read_rows(path) if path.is_file() else []
    usual = [data for data, _ in Counter(row.data for row in rows).most_common(1)]
    groups = by_recipe([row for row in rows if row.data in usual])
    return {name: accuracy_line(runs) + _with_settings(name, runs[0]) for name, runs in groups.items()}


def _with_settings(name: str, row: Row) -> str:
    """The settings of a run that is not that of its recipe, unless the name has them."""
    return f", with {row.settings}" if row.settings and row.settings not in name else ""


def reported(path: Path = REPORT) -> dict[str, Reported]:
    """Recipe → what the report says of it, in the report's order."""
    return {row.recipe: row for row in _read(path, Reported)} if path.is_file() else {}


def by_recipe(rows: list[Row]) -> dict[str, list[Row]]:
    """Recipe → its runs with the same settings and test images: those of the recipe if there are some.

    Runs with other settings or test images are another experiment. Their key is the recipe and what differs.

    Args:
        rows: runs on one data set.
    """
    groups = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row.recipe, bool(row.settings), -row.test_images)):
        groups[row.recipe, row.settings, row.test_images, _test_data(row, rows)].append(row)
    found: dict[str, list[Row]] = {}
    for (recipe, settings, test_images, test_data), runs in groups.items():
        name = f"{recipe} with {settings}" if recipe in found and settings else recipe
        tested = f"{name} on {test_images} test images"
        exact = f"{tested} {test_data or 'of an earlier version'}"
        found[next(key for key in (name, tested, exact) if key not in found)] = runs
    return found


def _test_data(row: Row, rows: list[Row]) -> str:
    """Which test images a run has. One of an earlier version has those of the others if these have only one set."""
    known = {other.test_data for other in rows if other.test_images == row.test_images and other.test_data}
    return row.test_data or (known.pop() if len(known) == 1 else "")


def accuracy_line(rows: list[Row]) -> str:
    """The mean accuracy of a recipe's runs, on what, and the effort, in one line."""
    minutes = f"{mean(row.minutes for row in rows):.1f} minutes"
    where, accuracy, images = rows[0].measured_on
    if accuracy is None:
        return f"nothing held out, {epochs_text(rows[0])} epochs, {minutes}"
    share = mean(row.measured_on[1] or 0.0 for row in rows)
    seeds = f", mean of {seeds_text(rows)}" if len(rows) > 1 else ""
    return f"{share:.1%} on {images} {where} images{seeds}, {epochs_text(rows[0])} epochs, {minutes}"


def seeds_text(rows: list[Row]) -> str:
    """How many runs there are, called seeds if each has another one."""
    return f"{len(rows)} {'seeds' if len({row.seed for row in rows}) == len(rows) else 'runs'}"


def epochs_text(row: Row) -> str:
    """Epochs of the fine-tuning, of how many if it is not complete, and those of the head alone before it."""
    text = f"{row.epochs} of {row.planned_epochs}" if row.epochs < row.planned_epochs else str(row.epochs)
    return f"{row.warmup_epochs} (head only) + {text}" if row.warmup_epochs else text


def _read(path: Path, kind: type) -> list:
    fields = dataclasses.fields(kind)
    names = {field.name: str(field.type) for field in fields}
    required = {field.name for field in fields if field.default is dataclasses.MISSING}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [
                kind(**{name: _value(row[name], names[name]) for name in names if name in row or name in required})
                for row in csv.DictReader(file)
            ]
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} must have the columns {', '.join(names)} ({type(error).__name__}: {error})") from error


def _value(text: str, kind: str) -> object:
    if "None" in kind and not text:
        return None
    if "int" in kind:
        return int(text)
    return float(text) if "float" in kind else text
