"""Grades a submission's zip in the two stages of the competition's server: prediction without labels, then scoring.

`grade` checks the zip, runs the ingestion program on the images, runs the scoring program on the predictions, and
returns a `Grade`. Both stages run the competition's own programs, in the folders that the server's worker creates.
"""

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import DISK_ERRORS, UserError
from common.files import atomically, no_space, require_space, write_json
from common.images import Images, load_images
from common.labels import LabelledFolder
from common.machine import free_memory
from competition.grade.journal import (
    JOURNAL,
    STEPS,
    is_regular_file,
    printable,
    read_journal,
    without_starting_lines,
)
from competition.grade.labels import by_class_name
from competition.grade.sandbox import NOT_STARTED, Isolation, interpreter_path, isolation
from competition.grade.size import size_of_mixed
from competition.grade.status import Steps
from competition.grade.worker import Limits, Outcome, run, walk
from competition.host.bundle import CLASSES, contract, program_files, shuffled, write_input, write_reference
from competition.package.archive import LIMIT_MB, MODEL_NAME, Check, extract, inspect, unpacked_bytes
from competition.package.class_names import class_names, listed_names, order_note
from competition.package.trained_on import count_trained_on
from competition.synthetic import SIDE, draw_images

TIME_LIMIT = 300  # seconds, CodaLab's default
MEMORY_LIMIT_MB = 8000
CALL_BYTES = 500_000_000  # of the float32 images of one call of `predict`, as in the ingestion program
DISK_MARGIN = 10_000_000  # bytes, for the programs and what they write
GRACE_SECONDS = 15  # that the ingestion program may take in addition to the submission's time
SYNTHETIC_IMAGES = 64
SYNTHETIC_CLASSES = 8
ASSUMED = (
    f"the zip does not name its classes: {SYNTHETIC_CLASSES} are assumed; --classes N, or labelled images (--data), "
    "tell the number, and --size the size of the images"
)
# Prints the first package that an interpreter does not find, or "found".
FIND_PACKAGES = """
import importlib.util, sys
print(next((name for name in sys.argv[1:] if not importlib.util.find_spec(name)), "found"))
"""
LAYOUTS = {"codalab": "model", "codabench": "model", "an2dl2024": "Model"}  # layout → the class that model.py must have
REQUIRED_STEPS = STEPS[:4]  # after a failure of one of these the later steps are not run
PREDICTIONS = ("predictions.txt", "probabilities.npy")
OWN_FILES = (JOURNAL, f"{JOURNAL}.tmp", *PREDICTIONS)  # that the ingestion program writes to its output folder
SEE_LOG = "see the log below"
# A word of the exceeded limit's message → the fix.
STOP_FIXES = {
    "longer": "use a smaller network, smaller images or fewer TTA transforms",
    "memory": "predict in batches",
    "wrote": "write less, and remove what is no longer needed",
    "processes": "start no processes",
    "printed": "print less",
}


@dataclass
class Grade:
    """The result for one zip.

    zip: path of the zip.
    images: number of images that it was graded on.
    labelled: True if the images have labels; otherwise they are synthetic and there are no scores.
    names: class names.
    notes: one line for each skipped file and each protection that this system lacks.
    seconds: wall time of the prediction stage.
    peak_mb: its peak memory, in MB of 1,000,000 bytes.
    checks: every check, in the order in which they were made.
    scores: what the scoring program wrote; empty if nothing was scored.
    used: seconds and memory as the ingestion program measured them, by the names in `journal.USED`, and as `precision`
        the type in which the model says that it computes, if it says so.
    log: the end of the prediction stage's output.
    trained_on: number of these images that the model was trained on, as far as the zip tells.
    unwritten: why the detailed results could not be written; empty if they were, or if none are wanted.
    """

    zip: str
    images: int
    labelled: bool
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    peak_mb: float = 0.0
    checks: list[Check] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    used: dict[str, Any] = field(default_factory=dict)
    log: str = ""
    trained_on: int = 0
    unwritten: str = ""

    @property
    def passed(self) -> bool:
        """True if every check holds."""
        return all(check.passed for check in self.checks)


@dataclass(frozen=True)
class Rules:
    """What the server allows.

    limit_mb: size of the zip, in MB of 1,000,000 bytes.
    time_limit: seconds for all predictions.
    memory_limit_mb: memory of the whole process tree, in MB of 1,000,000 bytes.
    layout: a key of `LAYOUTS`.
    size: (height, width) of the images in pixels. None: that of `load_images`, of images of several sizes that of the
        model's training images, and 96×96 of synthetic images.
    classes: number of classes of synthetic images, if the zip does not name its classes; None: 8.
    """

    limit_mb: float = LIMIT_MB
    time_limit: float = TIME_LIMIT
    memory_limit_mb: float = MEMORY_LIMIT_MB
    layout: str = "codalab"
    size: tuple[int, int] | None = None
    classes: int | None = None


@dataclass
class _Job:
    """What both stages need to know: the arguments of `grade`, the loaded images and their secret order.

    The only reference to the images is here, so that their memory is free while the submission runs.
    """

    zip: Path
    data: LabelledFolder | None
    rules: Rules
    python: str
    html: Path | None
    show: Callable[[str], Any]
    images: Images
    order: np.ndarray
    page_written: bool = False


def grade(
    path: str | Path,
    data: str | Path | LabelledFolder | None = None,
    rules: Rules | None = None,
    python: str | Path = sys.executable,
    html: str | Path | None = None,
    show: Callable[[str], Any] = lambda text: None,
) -> Grade:
    """Grades a zip.

    Args:
        path: the zip.
        data: folder with one folder of images for each class, or a `LabelledFolder`. Without it the images are
            synthetic, and there are no scores.
        rules: the server's limits and contract; the default is CodaLab's.
        python: the interpreter that runs the submission, for example one with the server's TensorFlow version.
        html: where to write the scoring program's `detailed_results.html`, if the images are labelled. An earlier page
            there is removed if nothing is scored.
        show: called about ten times a second with one line that says what is being done, or with "" for nothing.

    Returns:
        The grade. Whatever the submission does is a failed check there, never an exception.

    Raises:
        UserError: `path`, `data` or `python` cannot be used, a folder of `data` is none of the model's classes, the
            images need more memory than there is, or the disk of temporary files is full.
    """
    rules = rules or Rules()
    python = _find_interpreter(python, ("numpy", "tensorflow") if LAYOUTS[rules.layout] == "model" else ("numpy",))
    show("grading: checking the zip")
    checks = inspect(path, rules.limit_mb)
    show("")
    labelled = data if isinstance(data, LabelledFolder) else LabelledFolder(data) if data else None
    passed = all(check.passed for check in checks)
    images = _labelled_images(labelled, rules, Path(path) if passed else None) if labelled else _synthetic_images(rules)
    job = _Job(
        zip=Path(path),
        data=labelled,
        rules=rules,
        python=python,
        html=Path(html) if html else None,
        show=show,
        images=images,
        order=shuffled(len(images)),
    )
    del images
    notes = (*_missing_protection(isolation(python)), *job.images.notes)
    result = Grade(str(path), len(job.images), bool(labelled), job.images.names, notes, checks=checks)
    if result.passed:
        _require_memory(job.images.images, rules)
        with _temporary_folder() as folder, _local_disk(folder, _disk_bytes(job)):
            _run_stages(job, folder, result)
    if job.html and not job.page_written:
        result.notes = (*result.notes, *_remove_page(job.html))
    return result


def _remove_page(path: Path) -> Iterator[str]:
    """Removes the page of an earlier grading, which would be taken for that of this one. Yields a note."""
    with contextlib.suppress(OSError):
        path.unlink()
        yield f"no detailed results: nothing was scored; removed {path}, the page of an earlier grading"


def _find_interpreter(python: str | Path, packages: tuple[str, ...]) -> str:
    """Returns the absolute path of an interpreter. Raises a UserError if it cannot run a submission."""
    needed = f"--python must be a Python interpreter that has {' and '.join(packages)}"
    found = shutil.which(python)
    if not found:
        raise UserError(f"{needed}, there is no program {python}")
    path = interpreter_path(Path(found).absolute())
    try:
        done = subprocess.run([path, "-I", "-c", FIND_PACKAGES, *packages], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{needed}, {python} cannot be run: {error}") from error
    missing = (done.stdout.split() or ["these packages"])[-1]
    if missing != "found":
        raise UserError(
            f"{needed}, {python} does not find {missing}; install into an environment, because a submission runs "
            "without the packages of pip install --user"
        )
    return path


def _synthetic_images(rules: Rules) -> Images:
    """Images of a square or a part of it, all with the label 0."""
    height, width = rules.size or (SIDE, SIDE)
    names = tuple(f"Species{number + 1}" for number in range(rules.classes or SYNTHETIC_CLASSES))
    images = draw_images(SYNTHETIC_IMAGES, len(names), side=max(height, width))[:, :height, :width]
    return Images(np.ascontiguousarray(images), np.zeros(SYNTHETIC_IMAGES, np.int64), names, ())


def _labelled_images(labelled: LabelledFolder, rules: Rules, zip: Path | None) -> Images:
    """The images with their labels, at the server's size if that is given. `zip` is None if its checks failed."""
    listed = labelled.files()
    mixed = size_of_mixed(zip, listed) if zip and not rules.size else None
    images = load_images(listed, rules.size or mixed)
    if not mixed:
        return images
    note = f"the images have several sizes and are read at the model's, {mixed[0]}×{mixed[1]}; if the server has others"
    return replace(images, notes=(*images.notes, f"{note}, --size reads them as there"))


def _missing_protection(isolated: Isolation) -> Iterator[str]:
    parts = (("the network", isolated.network), ("the files outside its folder", isolated.files))
    return (f"this system cannot withhold {what} from the submission" for what, withheld in parts if not withheld)


def _run_stages(job: _Job, folder: Path, result: Grade) -> None:
    """Runs prediction and, with labels, scoring in a temporary folder. Completes `result`."""
    stage = folder / "prediction"
    _lay_out(stage, "ingestion_program", ("input_data", "output", "ingested_program"))
    (stage / "program" / "contract.json").write_text(contract(job.rules.time_limit, LAYOUTS[job.rules.layout]))
    try:
        extract(job.zip, stage / "ingested_program")
    except (ValueError, zipfile.BadZipFile, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        result.checks.append(Check("unpacking", False, str(error), "zip the files again: python build_submission.py"))
        return
    submission = stage / "ingested_program"
    names = class_names(submission / MODEL_NAME / "saved_model.pb") or _listed_names(job, submission)
    result.notes = (*result.notes, *filter(None, [order_note(names or ())]))
    if names and not job.data:  # synthetic images have the classes of the zip
        job.images, result.names = replace(job.images, names=names), names
    if not names and not job.data and not job.rules.classes:
        result.notes = (*result.notes, ASSUMED)
    if job.data:
        job.images, notes = by_class_name(job.images, names)
        result.names, result.notes = job.images.names, (*result.notes, *notes)
        result.trained_on = count_trained_on(submission / MODEL_NAME, job.images.file_hashes)
    write_input(stage / "input_data", job.images, job.order)
    job.images = _release(job, folder)
    outcome = _predict(job, stage, result)
    if job.data:
        job.show("")  # the thumbnails have a progress bar of their own
        # The labels are written only now, when the submission's processes have ended.
        _lay_out_scoring(job, folder / "scoring", stage / "output", outcome, result)
        _score(job, folder / "scoring", result)


def _listed_names(job: _Job, submission: Path) -> tuple[str, ...] | None:
    """The class names in the zip's `classes.txt`, as the starting kit has it, unless it lacks one of the images'."""
    names = listed_names(submission / CLASSES)
    return names if names and (not job.data or set(job.images.names) <= set(names)) else None


def _release(job: _Job, folder: Path) -> Images:
    """Returns the images without their pixels in memory. The detailed results need them later: they get a file."""
    pixels = np.empty((0, *job.images.images.shape[1:]), np.uint8)
    if job.html and job.data:
        np.save(folder / "pixels.npy", job.images.images)
        pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    return replace(job.images, images=pixels)


def _require_memory(images: np.ndarray, rules: Rules) -> None:
    """Raises a UserError unless the limit and this machine have the memory that any submission needs.

    While the submission runs, the images are in memory once as uint8, and those of one call also as float32. TensorFlow
    needs up to three copies as uint8 to make these.
    """
    call = min(CALL_BYTES, 4 * images.nbytes)
    needed = images.nbytes + call + 3 * call // 4
    what = f"{len(images)} images of {images.shape[1]}×{images.shape[2]} need {needed / 1e9:.1f} GB of memory"
    if needed > rules.memory_limit_mb * 1e6:
        raise UserError(f"{what}, --memory-limit-mb is {rules.memory_limit_mb:,.0f}; raise it, or give fewer images")
    free = free_memory() + images.nbytes  # those of this process are released before
    if needed > free:
        raise UserError(f"{what}, {free / 1e9:.1f} GB are free; end other programs, or give fewer images")


def _disk_bytes(job: _Job) -> int:
    """Bytes of temporary files: the unpacked zip, the images, and for the detailed results again and as thumbnails."""
    return unpacked_bytes(job.zip) + (3 if job.html else 1) * job.images.images.nbytes + DISK_MARGIN


@contextlib.contextmanager
def _local_disk(folder: Path, needed: int) -> Iterator[None]:
    """Reports a disk of temporary files that is full or becomes full as what it is: no fault of the zip."""
    require_space(folder, needed, "grading")
    try:
        yield
    except OSError as error:
        if error.errno in DISK_ERRORS and str(error.filename or folder).startswith(str(folder)):
            raise no_space(folder, needed, "grading", error) from error
        raise


def _predict(job: _Job, stage: Path, result: Grade) -> Outcome:
    """Runs the prediction stage, and adds its checks and measurements to `result`."""
    before = _listing(stage)
    labelled = (job.data.folder, job.data.table) if job.data else ()
    hidden = [path for path in (*labelled, job.zip) if path]
    limits = Limits(job.rules.time_limit + GRACE_SECONDS, job.rules.memory_limit_mb)
    steps_line = Steps(stage / "output" / JOURNAL, len(job.images), job.rules.time_limit)
    outcome = run(stage, limits, job.python, hidden, lambda elapsed: job.show(steps_line.line(elapsed)))
    records, result.used = read_journal(stage / "output" / JOURNAL)
    if outcome.code == NOT_STARTED and not records:
        reason = (outcome.log.strip().splitlines() or ["no reason given"])[0]
        raise UserError(
            f"this machine cannot isolate the submission: {printable(reason)}; move --data, or grade elsewhere"
        )
    result.seconds, result.peak_mb = round(outcome.seconds, 1), round(outcome.peak_mb)
    result.log = without_starting_lines(outcome.log)
    steps = list(_step_checks(records, outcome))
    if outcome.code and all(check.passed for check in steps):
        fix = "exit with code 0, otherwise the server does not score"
        steps.append(Check("end of the process", False, _ending(outcome), fix))
    result.checks += [*steps, _limits_check(records, outcome, job.rules), _files_check(stage, before, records)]
    return outcome


def _step_checks(records: dict[str, dict], outcome: Outcome) -> Iterator[Check]:
    """Yields the ingestion program's checks, up to the first failure of a required step."""
    for name in STEPS:
        check = _step_check(name, records.get(name), outcome)
        yield check
        if not check.passed and name in REQUIRED_STEPS:
            return


def _step_check(name: str, record: dict | None, outcome: Outcome) -> Check:
    if record is None:
        return Check(name, False, _ending(outcome), SEE_LOG)
    if record["passed"] is None:
        return Check(name, False, f"did not finish: {_ending(outcome)}", _stop_fix(outcome.stopped) or SEE_LOG)
    reason = f"{record['seconds']:.1f} s" if record["passed"] else record["reason"]
    return Check(name, record["passed"], reason, record["fix"])


def _ending(outcome: Outcome) -> str:
    if outcome.stopped:
        return outcome.stopped
    if outcome.code < 0:
        return f"the process was killed by signal {-outcome.code}"
    return f"the process exited with code {outcome.code}"


def _stop_fix(stopped: str) -> str:
    return next((fix for word, fix in STOP_FIXES.items() if word in stopped), SEE_LOG if stopped else "")


def _limits_check(records: dict[str, dict], outcome: Outcome, rules: Rules) -> Check:
    """Whether the worker or, for the time, the ingestion program stopped the submission."""
    timed_out = next((record["reason"] for record in records.values() if record["timed_out"]), "")
    stopped = outcome.stopped or timed_out
    used = f"{outcome.seconds:.1f} of {rules.time_limit:g} s, {outcome.peak_mb:,.0f} of {rules.memory_limit_mb:,.0f} MB"
    return Check("limits", not stopped, stopped or used, _stop_fix(stopped))


def _files_check(stage: Path, before: set[str], records: dict[str, dict]) -> Check:
    """Whether the submission wrote files. As on the server, the ingestion program's check decides if it was made."""
    record = records.get("no files left")
    if record and record["passed"] is not None:
        return Check("no files left", record["passed"], record["reason"], record["fix"])
    unexpected = sorted(_listing(stage) - before - {f"output/{name}" for name in OWN_FILES})
    if not unexpected:
        return Check("no files left", True)
    more = f" and {len(unexpected) - 3} more" if len(unexpected) > 3 else ""
    fix = "keep files in memory, or in the temporary folder, and remove them"
    return Check("no files left", False, f"it wrote {', '.join(unexpected[:3])}{more}", fix)


def _lay_out_scoring(job: _Job, stage: Path, output: Path, outcome: Outcome, result: Grade) -> None:
    """Creates the scoring stage: reference data, predictions, and the worker's note on the prediction stage."""
    _lay_out(stage, "scoring_program", ("input", "output"))
    reference, predictions = stage / "input" / "ref", stage / "input" / "res"
    (reference / "images").mkdir(parents=True)
    predictions.mkdir()
    write_reference(reference, job.images, job.order, show_mistakes=bool(job.html), file_names=True)
    for name in PREDICTIONS:
        if is_regular_file(output / name):
            shutil.copyfile(output / name, predictions / name, follow_symlinks=False)
    checks = [asdict(check) for check in result.checks]
    used = {**result.used, "peak_mb": result.peak_mb, "trained_on": result.trained_on}
    write_json(predictions / JOURNAL, {"checks": checks, "used": used})
    (predictions / "metadata").write_text(f"exitCode: {outcome.code}\nelapsedTime: {outcome.seconds:.1f}\n")


def _score(job: _Job, stage: Path, result: Grade) -> None:
    """Runs the scoring stage, and adds its check and scores to `result`. Copies the detailed results to `job.html`."""
    job.show("grading: scoring")
    scoring = run(stage, Limits(TIME_LIMIT, MEMORY_LIMIT_MB))
    if scoring.code == 0:
        result.checks.append(Check("scoring", True))
        result.scores = json.loads((stage / "output" / "scores.json").read_text("utf-8"))
    else:
        lines = scoring.log.strip().splitlines() or [scoring.stopped or f"exit code {scoring.code}"]
        result.checks.append(Check("scoring", False, lines[-1], "see the checks above"))
    details = stage / "output" / "detailed_results.html"
    if job.html and details.is_file():
        try:
            job.html.parent.mkdir(parents=True, exist_ok=True)
            atomically(job.html, lambda temporary: shutil.copyfile(details, temporary))
            job.page_written = True
        except OSError as error:  # the grade is not lost
            result.unwritten = f"--html {job.html} cannot be written, {error.strerror or error}; give another file"


def _lay_out(stage: Path, program: str, folders: tuple[str, ...]) -> None:
    """Creates a stage's folders as the worker does, with the program."""
    for name in ("program", *folders):
        (stage / name).mkdir(parents=True)
    for path in program_files(program):
        shutil.copyfile(path, stage / "program" / path.name)


def _listing(stage: Path) -> set[str]:
    """Returns the files of a stage, except in home and tmp, which belong to the submission and are deleted."""
    files = (Path(entry.path).relative_to(stage) for entry in walk(stage) if not entry.is_dir(follow_symlinks=False))
    return {printable(str(path)) for path in files if path.parts[0] not in ("home", "tmp")}


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Yields a folder that a submission can write to. Removes it with its contents, whatever their permissions."""
    folder = Path(tempfile.mkdtemp(prefix="grade-")).resolve()
    try:
        yield folder
    finally:
        with contextlib.suppress(RecursionError):
            shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():  # without permissions, or nested too deeply for Python
            subprocess.run(["chmod", "-R", "u+rwX", str(folder)], stderr=subprocess.DEVNULL)
            subprocess.run(["rm", "-rf", str(folder)], stderr=subprocess.DEVNULL)
