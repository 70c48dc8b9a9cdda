"""A zip + labelled images → the verdict and the grade that the competition's server would give.

examples:
  python grade_submission.py dist/submission.zip --data data/leaves/phase1
  python grade_submission.py dist/submission.zip                              drawn images: all checks, no accuracy
  python grade_submission.py dist/submission.zip --data folder --time-limit 600 --json grade.json

exit codes: 0 every check holds, 1 at least one does not, 2 wrong input, 130 interrupted
"""

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from competition.archive import LIMIT_MB, Check, extract, inspect
from competition.drawings import draw_images
from competition.worker import isolation, run
from training.data import load_folder
from training.errors import UserError
from training.files import write_json

PROGRAMS = Path(__file__).resolve().parent / "competition"
TIME_LIMIT = 300  # seconds, CodaLab's default
MEMORY_LIMIT_MB = 8000
DRAWN = 64  # images drawn where none are given
STEPS = (
    "import and constructor",
    "one image",
    "odd batch",
    "all images",
    "independence of neighbours",
    "row permutation",
    "repeatability",
    "uint8 images",
)


@dataclass
class Grade:
    """The verdict on one zip: its checks, and the scores where labels were given and predictions were made."""

    zip: str
    images: int
    labelled: bool
    names: tuple = ()
    notes: tuple = ()
    seconds: float = 0.0
    peak_mb: float = 0.0
    checks: list = field(default_factory=list)
    scores: dict = field(default_factory=dict)
    log: str = ""

    @property
    def passed(self):
        return all(check.passed for check in self.checks)


def grade(
    path,
    data=None,
    limit_mb=LIMIT_MB,
    time_limit=TIME_LIMIT,
    memory_limit_mb=MEMORY_LIMIT_MB,
    python=sys.executable,
    tick=lambda elapsed: None,
):
    """Grades a zip in the server's two stages: prediction without labels, then scoring without the submission.

    Args:
        path: the zip.
        data: folder of class folders; None draws images, and then there are no scores.
        limit_mb, time_limit, memory_limit_mb: limits of the zip, in MB, of a stage, in seconds, and of its process
            tree, in MB.
        python: the interpreter for the submission, for example one with the server's older TensorFlow.
        tick: called about ten times a second with the seconds gone by.

    Returns:
        `Grade`; nothing that a submission does raises an exception here.

    Raises:
        UserError: `data` cannot be used.
    """
    if not shutil.which(python):
        raise UserError(f"--python {python}: no such program; give the path of a Python interpreter that has TensorFlow")
    labelled = load_folder(data) if data else None
    images = labelled.images if labelled else draw_images(DRAWN)
    names = labelled.names if labelled else tuple(f"Species{number}" for number in range(1, 9))
    result = Grade(str(path), len(images), bool(labelled), names, (*_unprotected(), *(labelled.notes if labelled else ())))
    result.checks = inspect(path, limit_mb)
    if not result.passed:
        return result
    with tempfile.TemporaryDirectory(prefix="grade-") as folder:
        folder = Path(folder).resolve()
        prediction = _lay_out(folder / "prediction", "ingestion_program", ("input_data", "output", "ingested_program"))
        try:
            extract(path, prediction / "ingested_program")
        except (ValueError, OSError) as error:
            result.checks.append(Check("unpacking", False, str(error), "zip the files again: python build_submission.py"))
            return result
        np.save(prediction / "input_data" / "images.npy", images)
        _write_lines(prediction / "input_data" / "classes.txt", names)
        _predict(result, prediction, time_limit, memory_limit_mb, python, tick)
        if labelled and (prediction / "output" / "predictions.txt").is_file():
            _score(result, _lay_out(folder / "scoring", "scoring_program", ("input", "output")), prediction, labelled)
    return result


def _predict(result, stage, time_limit, memory_limit_mb, python, tick):
    """Stage one: the submission meets the images."""
    before = _listing(stage)
    arguments = [stage / name for name in ("input_data", "output", "program", "ingested_program")]
    outcome = run(stage / "program" / "ingestion.py", arguments, stage, time_limit, memory_limit_mb, python, tick)
    result.seconds, result.peak_mb, result.log = round(outcome.seconds, 1), round(outcome.peak_mb), outcome.log
    records = _read_checks(stage / "output" / "checks.json")
    for name in STEPS:
        result.checks.append(_step(name, records.get(name), outcome))
        if not result.checks[-1].passed and name in STEPS[:4]:
            break  # the later steps never came, or say no more
    if outcome.code and all(check.passed for check in result.checks):
        result.checks.append(Check("end of the process", False, _ending(outcome), "end with exit code 0; the server does not score else"))
    stop = outcome.stopped
    result.checks.append(Check("limits", not stop, stop or _used(outcome, time_limit, memory_limit_mb), _mend_stop(stop)))
    mend = "keep files in memory, or in the temporary folder, and remove them"
    strange = sorted(_listing(stage) - before - {"output/checks.json", "output/predictions.txt"})
    reason = f"it wrote {', '.join(strange[:3])}" + (f" and {len(strange) - 3} more" if len(strange) > 3 else "") if strange else ""
    result.checks.append(Check("no files left", not strange, reason, mend if strange else ""))


def _score(result, stage, prediction, labelled):
    """Stage two: the answers meet the labels, which have not been on the disk before."""
    reference, answers = stage / "input" / "ref", stage / "input" / "res"
    reference.mkdir()
    answers.mkdir()
    _write_lines(reference / "labels.txt", labelled.labels)
    _write_lines(reference / "classes.txt", labelled.names)
    shutil.copyfile(prediction / "output" / "predictions.txt", answers / "predictions.txt", follow_symlinks=False)
    outcome = run(stage / "program" / "score.py", [stage / "input", stage / "output"], stage, TIME_LIMIT, MEMORY_LIMIT_MB)
    scores = stage / "output" / "scores.json"
    passed = outcome.code == 0 and scores.is_file()
    lines = outcome.log.strip().splitlines() or [outcome.stopped or f"exit code {outcome.code}"]
    result.checks.append(Check("scoring", passed, "" if passed else lines[-1], "" if passed else "see the checks above"))
    if passed:
        result.scores = json.loads(scores.read_text())


def _step(name, record, outcome):
    if record is None:
        return Check(name, False, _ending(outcome), "the log below says more")
    if record["passed"] is None:
        return Check(name, False, f"it never came to an end: {_ending(outcome)}", _mend_stop(outcome.stopped) or "the log below says more")
    detail = f"{record['seconds']:.1f} s" if record["passed"] else record["reason"]
    return Check(name, record["passed"], detail, record["mend"])


def _ending(outcome):
    if outcome.stopped:
        return outcome.stopped
    if outcome.code < 0:
        return f"the process was ended by signal {-outcome.code}"
    return f"the process ended by itself with exit code {outcome.code}"


def _mend_stop(stopped):
    if "longer" in stopped:
        return "use a smaller network or image, or fewer views at prediction"
    if "memory" in stopped:
        return "predict in batches"
    return "print less" if stopped else ""


def _used(outcome, time_limit, memory_limit_mb):
    return f"{outcome.seconds:.1f} of {time_limit:g} s, {outcome.peak_mb:,.0f} of {memory_limit_mb:,.0f} MB"


def _read_checks(path):
    """The journal of stage one as name → record; it comes from beside the submission, so it is taken for no more
    than it says."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > 1_000_000:
            return {}
        records = json.loads(path.read_text("utf-8", "replace"))
        return {
            str(r["name"]): {
                "passed": r["passed"] if r["passed"] is None else r["passed"] is True,
                "reason": _printable(str(r["reason"])[:1000]),
                "mend": _printable(str(r["mend"])[:1000]),
                "seconds": float(r["seconds"]),
            }
            for r in records
        }
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}


def _printable(text):
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _lay_out(stage, program, folders):
    for name in folders:
        (stage / name).mkdir(parents=True)
    shutil.copytree(PROGRAMS / program, stage / "program", ignore=shutil.ignore_patterns("__pycache__"))
    return stage


def _listing(folder):
    """Files in the folders of a stage; home and tmp are the submission's own, and are thrown away."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {_printable(str(path)) for path in files if path.parts[0] not in ("home", "tmp")}


def _write_lines(path, values):
    path.write_text("".join(f"{value}\n" for value in values), "utf-8")


def report(result):
    """A grade as text to read."""
    lines = []
    width = max(len(check.name) for check in result.checks)
    for check in result.checks:
        lines.append(f"{'pass' if check.passed else 'FAIL'}  {check.name:{width}}  {check.reason}".rstrip())
        if check.mend and not check.passed:
            lines.append(f"      {'':{width}}  → {check.mend}")
    lines += [f"note  {note}" for note in result.notes]
    if result.log.strip() and not result.passed:
        lines += ["", "the end of its log:", *("  " + line for line in result.log.strip().splitlines()[-15:])]
    if result.scores:
        lines += ["", *_table(result)]
    lines += ["", *_summary(result)]
    return "\n".join(lines)


def _table(result):
    names, scores = result.names, result.scores
    width = max(map(len, names))
    yield f"{'':{width}}  precision  recall     F1   predicted as {' '.join(f'{n + 1:>4}' for n in range(len(names)))}"
    for row, name in enumerate(names):
        numbers = [scores[f"{key}_{row}"] for key in ("precision", "recall", "f1")]
        counts = " ".join(f"{scores[f'confusion_{row}_{column}']:>4}" for column in range(len(names)))
        yield f"{name:{width}}  {numbers[0]:9.3f}  {numbers[1]:6.3f}  {numbers[2]:5.3f}                {counts}"


def _summary(result):
    failed = [check.name for check in result.checks if not check.passed]
    yield "verdict   " + (f"the server would not accept it: {', '.join(failed)}" if failed else "the server would accept it")
    if result.scores:
        s = result.scores
        interval = f"95 % interval {s['accuracy_low']:.1%} to {s['accuracy_high']:.1%}"
        yield f"accuracy  {s['accuracy']:.2%} on {s['images']} images ({interval}), macro F1 {s['macro_f1']:.3f}"
    elif result.labelled:
        yield "accuracy  not measured, see the failed checks"
    else:
        yield f"accuracy  not measured: the {result.images} images were drawn by this project; give labelled ones with --data"
    if result.seconds:
        yield f"used      {result.seconds:.1f} s and at most {result.peak_mb:,.0f} MB for {result.images} images and all checks"


def _unprotected():
    allowed = isolation()
    powers = (("the network", allowed.network), ("writing outside its folder", allowed.files))
    return tuple(f"this system does not allow to take {what} away from the submission" for what, off in powers if not off)


def _progress(elapsed):
    if elapsed > 2 and sys.stderr.isatty():
        print(f"\rgrading: {elapsed:.0f} s", end="", file=sys.stderr, flush=True)


def main(arguments=None):
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zip")
    parser.add_argument("--data", help="folder with one folder of images for each class; default: drawn images, no accuracy")
    parser.add_argument("--limit-mb", type=float, default=LIMIT_MB, help="largest zip (default %(default)s)")
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT, help="seconds for the predictions (default %(default)s)")
    parser.add_argument("--memory-limit-mb", type=float, default=MEMORY_LIMIT_MB, help="default %(default)s")
    parser.add_argument("--python", default=sys.executable, help="interpreter for the submission, to try an older TensorFlow")
    parser.add_argument("--json", metavar="FILE", help="write the grade there as well")
    options = parser.parse_args(arguments)
    try:
        result = grade(options.zip, options.data, options.limit_mb, options.time_limit, options.memory_limit_mb, options.python, _progress)
        if sys.stderr.isatty():
            print("\r", end="", file=sys.stderr)
        print(report(result))
        if options.json:
            Path(options.json).parent.mkdir(parents=True, exist_ok=True)
            log = "" if result.passed else result.log  # only a failure's is worth keeping
            write_json(Path(options.json), {**asdict(result), "passed": result.passed, "log": log})
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"error: {error.filename or options.zip}: {error.strerror or error}; check the path, the disk and its permissions",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    return 0 if result.passed else 1


if __name__ == "__main__":
    sys.exit(main())
