"""A zip + labelled images → the verdict and the grade that the competition's server would give.

examples:
  python grade_submission.py dist/submission.zip --data data/leaves/phase1 --html dist/grade.html
  python grade_submission.py dist/submission.zip                              drawn images: all checks, no accuracy
  python grade_submission.py dist/submission.zip --data folder --time-limit 600 --json grade.json

exit codes: 0 every check holds, 1 at least one does not, 2 wrong input, 130 interrupted
"""

import argparse
import contextlib
import json
import math
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from competition.archive import LIMIT_MB, Check, extract, inspect
from competition.bundle import contract, program_files, shuffled, write_input, write_reference
from competition.drawings import draw_images
from competition.sandbox import isolation
from competition.worker import Limits, run, walk
from training.data import Images, load_folder
from training.errors import UserError, interruptible
from training.files import atomically, write_json

TIME_LIMIT = 300  # seconds, CodaLab's default
MEMORY_LIMIT_MB = 8000
GRACE = 15  # seconds that the ingestion program may take beyond the submission's
DRAWN = 64  # images drawn where none are given
SPECIES = tuple(f"Species{number}" for number in range(1, 9))
KINDS = {"codalab": "model", "codabench": "model", "an2dl2024": "Model"}  # layout → the class that model.py must have
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
USED = ("images", "load_seconds", "first_seconds", "seconds", "peak_mb")
OUTPUT = ("checks.json", "predictions.txt", "probabilities.npy")


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
    used: dict = field(default_factory=dict)
    log: str = ""

    @property
    def passed(self):
        return all(check.passed for check in self.checks)


@dataclass(frozen=True)
class Rules:
    """What the server allows: size of the zip in MB, seconds, memory of the whole process tree in MB, and its layout."""

    limit_mb: float = LIMIT_MB
    time_limit: float = TIME_LIMIT
    memory_limit_mb: float = MEMORY_LIMIT_MB
    layout: str = "codalab"


def grade(path, data=None, rules=None, python=sys.executable, html=None, tick=lambda elapsed: None):
    """Grades a zip in the server's two stages: prediction without labels, then scoring without the submission.

    Both stages are the competition's own programs, in the folders that the server's worker lays out.

    Args:
        path: the zip.
        data: folder of class folders; None draws images, and then there are no scores.
        rules: `Rules`, the defaults where None.
        python: the interpreter for the submission, for example one with the server's older TensorFlow.
        html: path for the scoring program's `detailed_results.html`, or None.
        tick: called about ten times a second with the seconds gone by.

    Returns:
        `Grade`; nothing that a submission does raises an exception here.

    Raises:
        UserError: `data` or `python` cannot be used.
    """
    rules = rules or Rules()
    found = shutil.which(python)
    if not found:
        raise UserError(f"--python {python}: no such program; give the path of a Python interpreter that has TensorFlow")
    python = str(Path(found).absolute())  # not resolved: a link into a virtual environment stands for it
    images = load_folder(data) if data else Images(draw_images(DRAWN), np.zeros(DRAWN, np.int64), SPECIES, ())
    notes = (*_unprotected(isolation(python)), *images.notes)
    result = Grade(str(path), len(images), bool(data), images.names, notes)
    result.checks = inspect(path, rules.limit_mb)
    if not result.passed:
        return result
    folder = Path(tempfile.mkdtemp(prefix="grade-")).resolve()
    try:
        prediction, order = folder / "prediction", shuffled(len(images))
        _lay_out(prediction, "ingestion_program", ("input_data", "output", "ingested_program"))
        (prediction / "program" / "contract.json").write_text(contract(rules.time_limit, KINDS[rules.layout]))
        try:
            extract(path, prediction / "ingested_program")
        except (ValueError, OSError) as error:
            result.checks.append(Check("unpacking", False, str(error), "zip the files again: python build_submission.py"))
            return result
        write_input(prediction / "input_data", images, order)
        hidden = (data, path) if data else (path,)
        outcome = _predict(result, prediction, rules, python, hidden, tick)
        if data:
            _score(result, folder / "scoring", prediction / "output", outcome, images, order, html)
    finally:
        _remove(folder)
    return result


def _predict(result, stage, rules, python, hidden, tick):
    """Stage one: the submission meets the images."""
    before = _listing(stage)
    outcome = run(stage, Limits(rules.time_limit + GRACE, rules.memory_limit_mb), python, hidden, tick)
    records, used = _read_checks(stage / "output" / "checks.json")
    result.seconds, result.peak_mb, result.log = round(outcome.seconds, 1), round(outcome.peak_mb), outcome.log
    result.used = used
    for name in STEPS:
        result.checks.append(_step(name, records.get(name), outcome))
        if not result.checks[-1].passed and name in STEPS[:4]:
            break  # the later steps never came, or say no more
    if outcome.code and all(check.passed for check in result.checks):
        result.checks.append(Check("end of the process", False, _ending(outcome), "end with exit code 0; the server does not score else"))
    timed_out = next((record["reason"] for record in records.values() if record["timed_out"]), "")
    stop = outcome.stopped or timed_out
    result.checks.append(Check("limits", not stop, stop or _used(outcome, rules), _mend_stop(stop)))
    result.checks.append(_files_left(stage, before, records.get("output folder")))
    return outcome


def _score(result, stage, output, outcome, images, order, html):
    """Stage two: the answers meet the labels, which have not been on the disk before."""
    _lay_out(stage, "scoring_program", ("input", "output"))
    reference, answers = stage / "input" / "ref", stage / "input" / "res"
    (reference / "images").mkdir(parents=True)
    answers.mkdir()
    write_reference(reference, images, order)
    for name in OUTPUT[1:]:
        if _is_plain(output / name):
            shutil.copyfile(output / name, answers / name, follow_symlinks=False)
    checks = [asdict(check) for check in result.checks]
    write_json(answers / "checks.json", {"checks": checks, "used": {**result.used, "peak_mb": result.peak_mb}})
    (answers / "metadata").write_text(f"exitCode: {outcome.code}\nelapsedTime: {outcome.seconds:.1f}\n")  # as the worker notes it
    scoring = run(stage, Limits(TIME_LIMIT, MEMORY_LIMIT_MB))
    passed = scoring.code == 0
    lines = scoring.log.strip().splitlines() or [scoring.stopped or f"exit code {scoring.code}"]
    result.checks.append(Check("scoring", passed, "" if passed else lines[-1], "" if passed else "see the checks above"))
    if passed:
        result.scores = json.loads((stage / "output" / "scores.json").read_text("utf-8"))
    details = stage / "output" / "detailed_results.html"
    if html and details.is_file():
        Path(html).parent.mkdir(parents=True, exist_ok=True)
        atomically(Path(html), lambda temporary: shutil.copyfile(details, temporary))


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
    if "wrote" in stopped:
        return "write less, and remove what is no longer needed"
    if "processes" in stopped:
        return "start no processes"
    return "print less" if stopped else ""


def _used(outcome, rules):
    return f"{outcome.seconds:.1f} of {rules.time_limit:g} s, {outcome.peak_mb:,.0f} of {rules.memory_limit_mb:,.0f} MB"


def _files_left(stage, before, record):
    """Whether the submission left files: in the output folder, as the ingestion program found, or beside it."""
    if record and record["passed"] is False:
        return Check("no files left", False, record["reason"], record["mend"])
    strange = sorted(_listing(stage) - before - {f"output/{name}" for name in OUTPUT})
    if not strange:
        return Check("no files left", True)
    reason = f"it wrote {', '.join(strange[:3])}" + (f" and {len(strange) - 3} more" if len(strange) > 3 else "")
    return Check("no files left", False, reason, "keep files in memory, or in the temporary folder, and remove them")


def _read_checks(path):
    """The journal of stage one: (name → record, what was used). Taken for no more than it says, for a submission that
    was stopped may have written it."""
    try:
        if not _is_plain(path) or path.stat().st_size > 1_000_000:
            return {}, {}
        saved = json.loads(path.read_text("utf-8", "replace"))
        records = {
            str(r["name"]): {
                "passed": r["passed"] if r["passed"] is None else r["passed"] is True,
                "reason": _printable(str(r["reason"])[:1000]),
                "mend": _printable(str(r["mend"])[:1000]),
                "seconds": _finite(r["seconds"]),
                "timed_out": r.get("timed_out") is True,
            }
            for r in saved["checks"]
        }
        return records, {key: _finite(value) for key, value in saved["used"].items() if key in USED}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return {}, {}


def _is_plain(path):
    """Whether there is a file that is no link and no pipe; one that was closed is opened. Its folder may be closed, too."""
    with contextlib.suppress(OSError):
        for part, kind in ((path.parent, stat.S_ISDIR), (path, stat.S_ISREG)):
            if not kind(part.lstat().st_mode):
                return False
            part.chmod(0o700)
        return True
    return False


def _finite(value):
    """A number. Raises a ValueError for NaN and infinity."""
    if not math.isfinite(float(value)):
        raise ValueError(value)
    return float(value)


def _printable(text):
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _lay_out(stage, program, folders):
    """A stage's folders as the worker makes them, with the program."""
    for name in ("program", *folders):
        (stage / name).mkdir(parents=True)
    for path in program_files(program):
        shutil.copyfile(path, stage / "program" / path.name)


def _listing(folder):
    """Files in the folders of a stage; home and tmp are the submission's own, and are thrown away."""
    files = (Path(entry.path).relative_to(folder) for entry in walk(folder) if not entry.is_dir(follow_symlinks=False))
    return {_printable(str(path)) for path in files if path.parts[0] not in ("home", "tmp")}


def _remove(folder):
    """Removes a folder that a submission could write to: with closed or very deep folders in it."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        subprocess.run(["chmod", "-R", "u+rwX", str(folder)], stderr=subprocess.DEVNULL)
        subprocess.run(["rm", "-rf", str(folder)], stderr=subprocess.DEVNULL)


def report(result):
    """A grade as text to read."""
    lines = []
    width = max(len(check.name) for check in result.checks)
    for check in result.checks:
        lines += _hanging(f"{'pass' if check.passed else 'FAIL'}  {check.name:{width}}  ", check.reason)
        if check.mend and not check.passed:
            lines += _hanging(f"      {'':{width}}  → ", check.mend)
    lines += [f"note  {line}" for note in result.notes for line in _shown(note)]
    if result.log.strip() and not result.passed:
        lines += ["", "the end of its log:", *("  " + line for line in _shown(result.log.strip())[-15:])]
    if result.scores:
        lines += ["", *_table(result)]
    lines += ["", *_summary(result)]
    return "\n".join(lines)


def _hanging(lead, text):
    """A text behind its lead, further lines as far to the right."""
    first, *more = _shown(text)
    return [(lead + first).rstrip(), *(" " * len(lead) + line for line in more)]


def _shown(text):
    """The lines of a text that may come from a submission, without what a terminal would obey."""
    return ["".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line) for line in text.split("\n")]


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


def _unprotected(allowed):
    powers = (("the network", allowed.network), ("the files outside its folder", allowed.files))
    return tuple(f"this system does not allow to take {what} away from the submission" for what, off in powers if not off)


def _progress(limit):
    """Shows on a terminal how long it has taken so far, and how long it may take."""

    def tick(elapsed):
        if elapsed > 2 and sys.stderr.isatty():
            print(f"\rgrading: {elapsed:.0f} s of at most {limit:g} s", end="", file=sys.stderr, flush=True)

    return tick


def main(arguments=None):
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zip")
    parser.add_argument("--data", help="folder with one folder of images for each class; default: drawn images, no accuracy")
    parser.add_argument("--limit-mb", type=float, default=LIMIT_MB, help="largest zip (default %(default)s)")
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT, help="seconds for the predictions (default %(default)s)")
    parser.add_argument("--memory-limit-mb", type=float, default=MEMORY_LIMIT_MB, help="default %(default)s")
    parser.add_argument("--python", default=sys.executable, help="interpreter for the submission, to try an older TensorFlow")
    parser.add_argument("--layout", choices=list(KINDS), default="codalab", help="what the zip was built for (default %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the grade there as well")
    parser.add_argument("--html", metavar="FILE", help="write the server's page of details there, where images are labelled")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # an exit that cleans up
    try:
        rules = Rules(options.limit_mb, options.time_limit, options.memory_limit_mb, options.layout)
        with interruptible():
            result = grade(options.zip, options.data, rules, options.python, options.html, _progress(options.time_limit))
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
