"""Fill the measured numbers into the documentation, from the files in results/.

A document has markers with the name of a value: <!-- fill NAME -->…<!-- /fill -->. The text between them is replaced.

  python -m docs.fill            write the documents
  python -m docs.fill --check    only compare, and name the differences
  python -m docs.fill --names    list the names and their values

exit codes: 0 done, or nothing differs, 1 something differs, 2 wrong input
"""

import json
import re
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from sklearn.metrics import log_loss

from common.tensorflow_log import hide_tensorflow_log

hide_tensorflow_log()

from benchmarks.result import read_result
from common.cli import argument_parser, run_command
from common.errors import UserError
from common.files import write_text
from docs.question_values import question_values
from docs.structure import measure
from docs.tables import percent
from training.evaluate.class_bias import class_bias
from training.evaluate.metrics import metrics
from training.evaluate.paired import compare_held_out, finished_folds, held_out
from training.evaluate.rows import Row, by_recipe, epochs_text, read_rows
from training.predict import TTA_TRANSFORMS
from training.recipes import load_recipe
from training.run_folder import METRICS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/*.md")
MARKER = re.compile(r"(<!-- fill (?P<name>[^ ]+) -->)(?P<text>.*?)(<!-- /fill -->)", re.DOTALL)
# The steps to the released model: what was done, the recipe, and the same recipe trained on all images. If both are the
# same, only that one was run.
STEPS = (
    ("Frozen InceptionV3, tuned softmax", "tuned", ""),
    ("All layers fine-tuned at up to 192×192, color and geometric augmentation, quasi-SVM", "inception_svm_192", ""),
    ("+ 20 epochs at 160×160 with MixUp", "inception_svm_160", ""),
    ("+ 8 epochs with SWA, TTA up to 90 % confidence", "inception_svm_averaged", "inception_svm_averaged_full"),
    ("One fine-tuning instead of three: MixUp, three resolutions", "inception_svm_mixed", "inception_svm_mixed_full"),
    ("Small initialization of missing kernels, cosine to a tenth", "inception_svm_quiet", "inception_svm_quiet_full"),
    ("+ 30 epochs in a second cycle, logit adjustment", "released", "released_full with head.views=4"),
    ("Head trained on flips and rotations", "released_full", "released_full"),
)
# Cross-validations: text, folder in results/folds, recipe and settings. The second one is compared with the first, the
# others with the second.
FOLD_STEPS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("Head trained on random views (`head.views=4`)", "augmented_head", "released", {"head.views": 4}),
    ("Head trained on flips and rotations: the released recipe", "released", "released", {}),
    (
        "Second cycle and head distilled (`teacher_share=0.5`)",
        "distilled",
        "released",
        {"finetune.teacher_share": 0.5, "head.teacher_share": 0.5},
    ),
    ("Third cycle: 12 epochs at 224×224, CutMix or MixUp (`third_cycle`)", "third_cycle", "third_cycle", {}),
    (
        "Both: distilled from the second cycle on, third cycle",
        "distilled_third_cycle",
        "third_cycle",
        {"finetune.init_from.teacher_share": 0.5, "finetune.teacher_share": 0.5, "head.teacher_share": 0.5},
    ),
)
FOLDS = 5
SPECIES = [
    "Chinee apple",
    "Lantana",
    "Parkinsonia",
    "Parthenium",
    "Prickly acacia",
    "Rubber vine",
    "Siam weed",
    "Snake weed",
]


@cache
def values() -> dict[str, str]:
    """Name → text, for every number that the documentation may use."""
    found = {**_grade(), **_folds(), **_runs(), **_benchmarks(), **_tables(), **question_values()}
    found["result.table"] = _result_table(found)
    found["structure"] = "\n```\n" + "\n".join(measure()[0]) + "\n```\n"
    return found


def filled(text: str, known: dict[str, str], place: str) -> str:
    """A document with its markers filled. Raises a UserError for a name that is not known."""

    def fill(match: re.Match) -> str:
        if match["name"] not in known:
            raise UserError(f"{place}: no value {match['name']}; see python -m docs.fill --names")
        return f"{match[1]}{known[match['name']]}{match[4]}"

    return MARKER.sub(fill, text)


def documents() -> list[Path]:
    """The documents that may have markers."""
    return [path for pattern in DOCUMENTS for path in sorted(ROOT.glob(pattern))]


def _load(name: str) -> Any:
    return json.loads((RESULTS / name).read_text("utf-8"))


def _benchmark(name: str) -> dict[str, Any]:
    return read_result(RESULTS / "benchmarks" / f"{name}.json")


def _grade() -> dict[str, str]:
    """The released zip, graded on phase 1 in float32 and in bfloat16."""
    grade = _load("grades/phase1.json")
    scores = grade["scores"]
    rows = [
        f"| Species{number + 1} {name} | "
        + " | ".join(f"{scores[f'{key}_{number}']:.3f}" for key in ("precision", "recall", "f1"))
        + " |"
        for number, name in enumerate(SPECIES)
    ]
    return {
        **_graded("phase1", scores),
        **_graded("bfloat16", _load("grades/phase1_bfloat16.json")["scores"]),
        "phase1.images": f"{grade['images']:,}",
        "phase1.classes": "\n"
        + "\n".join(["| phase 1 | precision | recall | F1 |", "| --- | --- | --- | --- |", *rows])
        + "\n",
        "phase1.species1_recall": f"{scores['recall_0']:.2f}",
        "phase1.species1_f1": f"{scores['f1_0']:.3f}",
        "phase1.prediction_seconds": f"{grade['used']['seconds']:.0f} s",
    }


def _graded(name: str, scores: dict) -> dict[str, str]:
    """The headline numbers of a grade."""
    low, high = percent(scores["accuracy_low"]), percent(scores["accuracy_high"])
    return {
        f"{name}.accuracy": percent(scores["accuracy"], 2),
        f"{name}.interval": f"{low} to {high}",
        f"{name}.macro_f1": f"{scores['macro_f1']:.3f}",
    }


def _folds() -> dict[str, str]:
    """The cross-validations: that of the released recipe, the one before it, and a table of all."""
    before, released = RESULTS / "folds" / "augmented_head", RESULTS / "folds" / "released"
    found = {
        **_cross_validation("folds", released),
        **_cross_validation("folds_before", before),
        "folds.class_bias": str(class_bias(released)[1]),
        "folds.mistakes": _mistakes(released),
        "folds.ensemble": _ensemble(released, RESULTS / "folds" / "third_cycle"),
        "released.minutes": f"{_load('runs/released_full/metrics.json')['finetuning_minutes']:.0f}",
    }
    heads = ("step", "folds", "images", "out of fold", "paired difference", "p", "log loss", "minutes per fold")
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    for step, name, *_ in FOLD_STEPS:
        folder = RESULTS / "folds" / name
        compared = None if folder == before else before if folder == released else released
        scores, runs, minutes = _out_of_fold(folder), finished_folds(folder), _minutes(folder)
        reused = compared is not None and minutes.items() <= _minutes(compared).items()
        took = "reused" if reused else f"{sum(minutes.values()) / len(minutes):.0f}"
        each = ", ".join(percent(_run_metrics(run)["accuracy"]) for run in runs)
        interval = " to ".join(map(percent, scores["interval95"]))
        cells = [each, f"{scores['images']:,}", f"{percent(scores['accuracy'])} ({interval})"]
        cells += [*_difference(compared, folder), f"{_log_loss(folder):.3f}", took]
        lines.append(f"| {step} | {' | '.join(cells)} |")
    found["folds.steps"] = "\n" + "\n".join(lines) + "\n"
    return found


def _cross_validation(name: str, folder: Path) -> dict[str, str]:
    """The headline numbers of a cross-validation."""
    scores, runs = _out_of_fold(folder), finished_folds(folder)
    return {
        f"{name}.accuracy": percent(scores["accuracy"]),
        f"{name}.interval": " to ".join(map(percent, scores["interval95"])),
        f"{name}.macro_f1": f"{scores['macro_f1']:.3f}",
        f"{name}.images": f"{scores['images']:,}",
        f"{name}.count": f"{FOLDS} folds" if len(runs) == FOLDS else f"{len(runs)} of {FOLDS} folds",
    }


def _out_of_fold(crossval: Path) -> dict:
    """The metrics of a cross-validation's finished folds together."""
    images = held_out(crossval)
    return metrics(images.labels, images.probabilities, images.names)


def _log_loss(crossval: Path) -> float:
    """The mean log loss of a cross-validation's finished folds together."""
    images = held_out(crossval)
    probabilities = images.probabilities.astype(float)
    probabilities /= probabilities.sum(axis=1, keepdims=True)  # float32 sums to 1 but for rounding
    return float(log_loss(images.labels, probabilities, labels=range(len(images.names))))


def _mistakes(crossval: Path) -> str:
    """How many images a cross-validation has wrong, and of which two classes most are."""
    images = held_out(crossval)
    wrong = images.probabilities.argmax(axis=1) != images.labels
    (first, most), (second, more) = Counter(images.labels[wrong].tolist()).most_common(2)
    of = f"{most} are of {images.names[first]} and {more} of {images.names[second]}"
    return f"Of {wrong.sum()} mistakes on {len(wrong):,} images, {of}"


def _ensemble(first: Path, second: Path) -> str:
    """The accuracy of two cross-validations' mean probabilities on their common images, and their common mistakes."""
    labels, a, b = held_out(first).in_common(held_out(second))
    wrong, also, together = (p.argmax(axis=1) != labels for p in (a, b, a + b))
    return (
        f"{percent(1 - together.mean())} of {len(labels):,} images right, the second alone {percent(1 - also.mean())}; "
        f"both have {(wrong & also).sum()} of the {wrong.sum()} mistakes of the first"
    )


def _minutes(crossval: Path) -> dict[str, float]:
    """Fold → minutes of its fine-tuning, also if that of another cross-validation was reused."""
    return {run.name: _run_metrics(run)["finetuning_minutes"] for run in finished_folds(crossval)}


def _run_metrics(run: Path) -> dict:
    return json.loads((run / METRICS).read_text("utf-8"))


def _difference(before: Path | None, after: Path) -> list[str]:
    """The cells of a paired difference in points with its interval, and of McNemar's p."""
    if before is None:
        return ["–", "–"]
    one = compare_held_out(before, after)
    return ["{} ({} to {})".format(*one.points), f"{one.p_value:.2g}"]


def _result_table(found: dict[str, str]) -> str:
    """The headline numbers: the released model, and the cross-validations of its recipe and of the one before."""
    phase1 = f"phase 1, {found['phase1.images']} images"
    out_of_fold = "out of fold, {} training images"
    rows = (
        ("committed model (trained on all images), float32", phase1, "phase1.{}"),
        ("committed model, bfloat16", phase1, "bfloat16.{}"),
        (f"same recipe, {found['folds.count']}", out_of_fold.format(found["folds.images"]), "folds.{}"),
        (
            f"head trained on random views, {found['folds_before.count']}",
            out_of_fold.format(found["folds_before.images"]),
            "folds_before.{}",
        ),
    )
    lines = ["| model | measured on | accuracy | 95 % interval | macro F1 |", "| --- | --- | --- | --- | --- |"]
    for model, images, name in rows:
        cells = [found.get(name.format(key), "–") for key in ("accuracy", "interval", "macro_f1")]
        lines.append(f"| {model} | {images} | {' | '.join(cells)} |")
    return "\n" + "\n".join(lines) + "\n"


def _runs() -> dict[str, str]:
    """Each recipe's runs in results/runs.csv: validation and phase 1 accuracy, epochs and minutes."""
    found, runs = {}, {name: _run(rows) for name, rows in by_recipe(read_rows(RESULTS / "runs.csv")).items()}
    for name, texts in runs.items():
        found.update({f"runs.{name}.{key}": text for key, text in texts.items()})
    columns = ["step", "recipe", "held out", "images", "phase 1", "trained on all, phase 1", "epochs", "minutes"]
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    for step, name, full in STEPS:
        run, trained_on_all = runs[name], runs[full]["phase1"] if full else "–"
        grade = RESULTS / "grades" / f"{name}.json"  # where phase 1 was measured with the zip and not by the run
        phase1 = percent(_load(f"grades/{name}.json")["scores"]["accuracy"]) if grade.is_file() else run["phase1"]
        phase1 = "–" if name == full else phase1
        cells = [run["val"], run["val_images"], phase1, trained_on_all, run["epochs"], run["minutes"]]
        lines.append(f"| {step} | `{name}` | {' | '.join(cells)} |")
    found["accuracy.steps"] = "\n" + "\n".join(lines) + "\n"
    return found


def _run(rows: list[Row]) -> dict[str, str]:
    val = [row.val_accuracy for row in rows if row.val_accuracy is not None]
    test = [row.accuracy for row in rows if row.accuracy is not None]
    return {
        "val": percent(sum(val) / len(val)) if val else "–",
        "val_images": f"{rows[0].val_images:,}" if rows[0].val_images else "–",
        "phase1": percent(sum(test) / len(test)) if test else "–",
        "epochs": epochs_text(rows[0]),
        "minutes": f"{sum(row.minutes for row in rows) / len(rows):.0f}",
    }


def _benchmarks() -> dict[str, str]:
    """The benchmarks' results."""
    inference, memory, grading = (_benchmark(name) for name in ("inference", "memory", "grading"))
    training, accuracy, kernels = (_benchmark(name) for name in ("training", "accuracy", "kernels"))
    images, cached = _benchmark("images"), training["quasi_svm_head"]["cached"]
    threshold = f"quasi-SVM, 192×192, 8 transforms, threshold {load_recipe('released').prediction.tta_threshold:g}"
    transforms = accuracy["rows"][threshold]["transforms_per_image"]
    return {
        **_inference(inference),
        **_memory(memory["rows"], "memory"),
        **_memory(_benchmark("memory_jax")["rows"], "memory_jax"),
        "grading.own": f"{grading['own_cost']['own_seconds']:.1f} s",
        "grading.all": f"{grading['own_cost']['grade']:.0f} s",
        "training.pipeline": _ratio(training["tf.data pipeline"]),
        "training.folders": _ratio(training["flow_from_directory"]),
        "training.cached": _ratio(cached, 0),
        "images.ratio": _ratio(images["speed"]["load_folder"]),
        "images.memory": f"{images['loading']['peak_mb']:.0f} MB",
        "images.predict": f"{images['predicting']['beyond_mb']:.0f} MB",
        "tta.transforms": f"{transforms:g}",
        "tta.share": percent((transforms - 1) / (len(TTA_TRANSFORMS) - 1), 0),
        "accuracy.rows": _accuracy_rows(accuracy["rows"]),
        "kernels.rows": _kernel_rows(kernels),
    }


def _tables() -> dict[str, str]:
    """The tables of benchmarks."""
    tables = {
        "peers": _peer_rows,
        "profile": _profile_rows,
        "growth": _growth_rows,
        "aspect": _aspect_rows,
        **{f"own_data{which}": _own_data_rows for which in ("", "_60", "_leaves", "_digits")},
    }
    found = {f"{name}.rows": rows(_benchmark(name)) for name, rows in tables.items()}
    variants = _benchmark("variants")
    found["variants.rows"] = _variant_rows(variants)
    found["variants.operations"] = _operations(variants["operations"])
    return found


def _ratio(contestant: dict, digits: int = 2) -> str:
    median, low, high = (contestant[f"ratio_{key}"] for key in ("median", "min", "max"))
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _inference(result: dict) -> dict[str, str]:
    """A table of the contestants, and the time to the first answer."""
    lines = ["| | images/s | ratio to the SavedModel |", "| --- | --- | --- |"]
    for name, row in result["speed"].items():
        lines.append(f"| {name} | {row['images_per_second']:.0f} | {_ratio(row)} |")
    clock, processor = result["start"]["clock"], result["start"]["processor"]
    return {
        "inference.rows": "\n" + "\n".join(lines) + "\n",
        "inference.start": f"{clock['answer_seconds']:.1f} s",
        "inference.start_ratio": _ratio(clock),
        "inference.start_processor": _ratio(processor),
    }


def _memory(rows: list[dict], name: str) -> dict[str, str]:
    """The largest peak of each precision, and the most images that it was measured with."""
    found = {f"{name}.import": f"{max(row['import_mb'] for row in rows):,.0f} MB"}
    for precision in ("float32", "bfloat16"):
        own = [row for row in rows if row["precision"] == precision]
        if own:
            found[f"{name}.{precision}"] = f"{max(row['peak_mb'] for row in own):,.0f} MB"
            found[f"{name}.{precision}_images"] = f"{max(row['images'] for row in own):,}"
    return found


def _accuracy_rows(rows: dict) -> str:
    lines = ["| head | held-out accuracy | 95 % interval | ECE | log loss |", "| --- | --- | --- | --- | --- |"]
    for name, row in rows.items():
        interval = " to ".join(map(percent, row["interval95"]))
        calibration = f"{row['calibration_error']:.3f} | {row['log_loss']:.3f}"
        lines.append(f"| {name} | {percent(row['accuracy'])} | {interval} | {calibration} |")
    return "\n" + "\n".join(lines) + "\n"


def _own_data_rows(rows: dict) -> str:
    lines = ["| | test images | held-out images | seconds |", "| --- | --- | --- | --- |"]
    for name, row in rows.items():
        kept = list(row.get("steps", {}).values())  # the last one ships
        held_out = percent(kept[-1]["held_out_accuracy"]) if kept else "–"
        name = name.replace(" 1 minutes", " 1 minute")
        lines.append(f"| {name} | {percent(row['test_accuracy'])} | {held_out} | {row['seconds']:.0f} |")
    return "\n" + "\n".join(lines) + "\n"


def _peer_rows(result: dict) -> str:
    fastest = result["fastest"].partition(", ")[2]
    lines = [f"| | images/s (min to max) | speed-up of the submission ({fastest}) | same labels |"]
    lines.append("| --- | --- | --- | --- |")
    for name, row in result["contestants"].items():
        speed, low, high = (row[f"images_per_second{key}"] for key in ("", "_min", "_max"))
        ours = _ratio({f"ratio_{key}": row[f"ours_{key}"] for key in ("median", "min", "max")})
        lines.append(f"| {name} | {speed:.0f} ({low:.0f} to {high:.0f}) | {ours} | {percent(row['same_labels'])} |")
    lines += [f"| {name} | not measured: {reason} | – | – |" for name, reason in result["not_measured"].items()]
    return "\n" + "\n".join(lines) + "\n"


def _variant_rows(result: dict) -> str:
    lines = ["| | images/s | ratio to the network as exported | same labels | phase 1 | MB |"]
    lines.append("| --- |" + " --- |" * 5)
    for name, row in result["variants"].items():
        cells = (f"{row['images_per_second']:.0f}", _ratio(row), percent(row["same_labels"]), percent(row["accuracy"]))
        lines.append(f"| {name} | {' | '.join(cells)} | {row['megabytes']:.0f} |")
    return "\n" + "\n".join(lines) + "\n"


def _operations(result: dict) -> str:
    """The shares of the five most expensive operations in each precision."""
    shares = {
        precision: ", ".join(f"{name} {percent(share)}" for name, share in list(operations.items())[:5])
        for precision, operations in result.items()
    }
    return ";\n".join(f"in {precision}: {text}" for precision, text in shares.items())


def _profile_rows(result: dict) -> str:
    rows = result["ways"]
    lines = [f"| seconds of an epoch of `{result['recipe']}` | {' | '.join(rows)} |", "| --- |" + " --- |" * len(rows)]
    for part in next(iter(rows.values()))["parts"]:
        cells = (f"{r['parts'][part]:.1f} ({percent(r['parts'][part] / r['epoch_seconds'])})" for r in rows.values())
        lines.append(f"| {part} | {' | '.join(cells)} |")
    lines.append("| whole epoch | " + " | ".join(f"{row['epoch_seconds']:.0f}" for row in rows.values()) + " |")
    for share, name in (("bare_share", "the epoch"), ("step_share", "a step on augmented batches")):
        cells = (
            f"{percent(row[share])} ({percent(row[f'{share}_min'])} to {percent(row[f'{share}_max'])})"
            for row in rows.values()
        )
        lines.append(f"| share of the bare step in {name} | {' | '.join(cells)} |")
    lines.append("| times as fast | " + " | ".join(map(_ratio, rows.values())) + " |")
    return "\n" + "\n".join(lines) + "\n"


def _growth_rows(result: dict) -> str:
    lines = ["| | against | exponent of the seconds | of the peak memory | at the last point |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for row in result["series"]:
        seconds, memory = (
            f"{row[f'{name}_exponent']:.2f} ({row[f'{name}_last_exponent']:.2f})" for name in ("seconds", "peak_mb")
        )
        last = f"{row['at'][-1]:,.0f} {row['axis']}: {row['seconds'][-1]:.0f} s, {row['peak_mb'][-1]:,.0f} MB"
        lines.append(f"| {row['task']} | {row['axis']} | {seconds} | {memory} | {last} |")
    return "\n![growth of time and memory](img/growth.png)\n\n" + "\n".join(lines) + "\n"


def _aspect_rows(result: dict) -> str:
    """The held-out accuracy of each way, for each kind of shapes."""
    ways = list(next(iter(result.values())))
    lines = [f"| shapes | {' | '.join(ways)} |", f"| --- |{' --- |' * len(ways)}"]
    for shapes, rows in result.items():
        lines.append(f"| {shapes} | {' | '.join(percent(rows[way]['accuracy']) for way in ways)} |")
    return "\n" + "\n".join(lines) + "\n"


def _kernel_rows(rows: dict) -> str:
    lines = ["| classifier | accuracy | 95 % interval |", "| --- | --- | --- |"]
    for name, row in rows.items():
        if isinstance(row, dict):
            lines.append(f"| {name} | {percent(row['accuracy'])} | {' to '.join(map(percent, row['interval95']))} |")
    return "\n" + "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argument_parser(__doc__, "python -m docs.fill")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a document differs")
    parser.add_argument("--names", action="store_true", help="list the names and their values")
    options = parser.parse_args(arguments)

    def command() -> int:
        known, different = values(), []
        if options.names:
            print("\n".join(f"{name}  {text.strip().splitlines()[0]}" for name, text in sorted(known.items())))
            return 0
        for path in documents():
            text = path.read_text("utf-8")
            new = filled(text, known, path.name)
            if new != text:
                different.append(path.name)
                if not options.check:
                    write_text(path, new)
        if options.check and different:
            print(
                f"these documents differ from results/, run python -m docs.fill: {', '.join(different)}",
                file=sys.stderr,
            )
            return 1
        return 0

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
