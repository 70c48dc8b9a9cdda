"""Predicts a folder of images into one table. An interrupted call is continued by repeating it."""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from common.errors import UserError
from common.files import TEMPORARY, atomically, locked, temporary_beside, write_json, write_text
from common.folders import printable
from common.progress import progress
from competition.package.class_names import shortened
from training.predict_folder.cluster import Cluster, Work, predict_shards, require_ray
from training.predict_folder.listing import Listing, paths, write_listing
from training.predict_folder.shard import Part, ShardPredictor, Task
from training.predict_folder.submitted import PRECISION, SOURCE, class_names_of, model_sha256, unpacked
from training.predict_folder.table import ENCODERS, count_rows, join, require_writer

SHARD_SIZE = 10_000
PARTS = ".parts"  # the folder of the parts is that of the table with this at its end
PLAN = "plan.json"
FILES = "files"
NEW_FILES = ".files"  # until it is known to be the same as that of an unfinished call
LOCK = ".lock"
PRECISION_FILE = "precision"  # what the finished shards were computed in
PLAN_WORDS = {  # field of the plan → what it is, for the error
    "data": "--data",
    "model_sha256": "model",
    "files_sha256": "list of files",
    "shard_size": "--shard-size",
    "top": "--top",
}


@dataclass(frozen=True)
class Job:
    """What is predicted.

    data: folder of the images, with any subfolders.
    out: the table, .csv or .parquet.
    model: a submission's zip or its unpacked folder.
    run: folder of a finished run, in place of `model`.
    shard_size: files of a shard, which is what an interruption loses at most.
    top: see `table.columns`.
    cluster: None for this process.
    """

    data: Path
    out: Path
    model: Path = SOURCE
    run: Path | None = None
    shard_size: int = SHARD_SIZE
    top: int | None = None
    cluster: Cluster | None = None

    @property
    def parts(self) -> Path:
        """The folder of the finished shards, deleted at the end."""
        return self.out.with_name(self.out.name + PARTS)

    @property
    def errors(self) -> Path:
        """The table of the files that are not readable images: columns path and reason."""
        return self.out.with_name(f"{self.out.stem}.errors.csv")


@dataclass(frozen=True)
class Summary:
    """What was predicted.

    images: rows of the table.
    errors: rows of the table of errors.
    skipped: see `Listing`.
    predicted: number of files that this call read.
    seconds: wall time of that, without loading the model in this process.
    """

    images: int
    errors: int
    skipped: int
    predicted: int
    seconds: float


def predict_folder(job: Job) -> Summary:
    """Predicts every image in a folder. Finished shards of an interrupted call with the same choices are kept.

    Raises:
        UserError: wrong choices, no files, a model that cannot be loaded, or an unfinished call with other choices.
        OSError: a folder cannot be read, or the disk is full.
    """
    _check(job)
    with unpacked(job.model, job.run) as submission:
        names = class_names_of(submission, job.run or job.model)
        source = job.run or ("the committed leaf model; --run RUN takes yours" if job.model == SOURCE else job.model)
        print(f"model: {source}; {len(names)} classes: {shortened(names)}", flush=True)
        if job.top is not None and not 1 <= job.top <= len(names):
            raise UserError(f"--top must be a whole number from 1 to {len(names)}, the classes, got {job.top}")
        with _opened(job, model_sha256(submission)) as listing:
            predicted, seconds = _predict_pending(job, submission, listing)
            errors = sum(_checked_errors(job, number, listing.size(number)) for number in range(listing.shards))
            join([_error_file(job, number) for number in range(listing.shards)], job.errors)
            join([_part_file(job, number) for number in range(listing.shards)], job.out)
    return Summary(listing.files - errors, errors, listing.skipped, predicted, seconds)


def describe(job: Job, summary: Summary) -> str:
    """Returns the summary as lines of text."""
    lines = []
    if summary.skipped:
        lines.append(f"skipped {summary.skipped:,} hidden files and folders, links to folders, and broken links")
    if summary.errors:
        lines.append(f"{summary.errors:,} files are not readable images: {job.errors}")
    rate = summary.predicted / max(summary.seconds, 1e-9)
    speed = f"; {summary.predicted:,} files in {summary.seconds:,.1f} s, {rate:,.1f} images/s" * bool(summary.predicted)
    return "\n".join([*lines, f"done: {job.out} with {summary.images:,} images{speed}"])


def _check(job: Job) -> None:
    """Refuses wrong choices before anything is read or written."""
    require_writer(job.out)
    if job.cluster:
        require_ray()
    if not job.data.is_dir():
        raise UserError(f"--data must be a folder of images; there is no folder {printable(job.data)}, check the path")
    if job.out.resolve().is_relative_to(job.data.resolve()):
        raise UserError(f"--out must be outside of --data, got {printable(job.out)}; its files would count as images")
    if job.out.is_dir() or ((job.out.exists() or job.errors.exists()) and not (job.parts / PLAN).is_file()):
        there = job.out if job.out.exists() else job.errors
        raise UserError(f"{printable(there)} exists; remove it, or give another --out")
    other = job.out.with_suffix(next(suffix for suffix in ENCODERS if suffix != job.out.suffix))
    if job.errors.exists() and other.exists():
        raise UserError(
            f"{printable(job.errors)} is that of {printable(other)}; move both, or give an --out of another name"
        )


@contextlib.contextmanager
def _opened(job: Job, model: str) -> Iterator[Listing]:
    """Creates the folder of the parts, or opens that of an unfinished call. Deletes it after success."""
    parts = job.parts
    names = [path.name for path in parts.iterdir()] if parts.is_dir() else []
    # A call that was stopped before it wrote its plan leaves the list of files.
    if any(not name.startswith(".") and name != FILES for name in names) and not (parts / PLAN).is_file():
        raise UserError(f"{printable(parts)} holds other files; remove it, or give another --out")
    parts.mkdir(parents=True, exist_ok=True)
    with locked(parts / LOCK, f"the folder {parts}"):
        for path in parts.glob(f"{TEMPORARY}*"):  # left by a process that was killed
            path.unlink()
        yield _claim(job, model)
        removed = temporary_beside(parts)  # an incomplete folder must never be taken for an unfinished one
        os.replace(parts, removed)
    shutil.rmtree(removed)


def _claim(job: Job, model: str) -> Listing:
    """Lists the files and writes the plan, or checks that the unfinished call had the same one."""
    listing = write_listing(job.data, job.parts / NEW_FILES, job.shard_size)
    if not listing.files:
        listing.path.unlink()
        if not (job.parts / PLAN).is_file():
            shutil.rmtree(job.parts)
        raise UserError(
            f"--data must contain images, there is no visible file in {printable(job.data)}; check the path"
        )
    plan = {
        "data": printable(job.data.resolve()),
        "model_sha256": model,
        "files_sha256": listing.sha256,
        "files": listing.files,
        "shard_size": job.shard_size,
        "top": job.top,
    }
    _require_same(job.parts / PLAN, plan)
    os.replace(listing.path, job.parts / FILES)
    write_json(job.parts / PLAN, plan)
    return replace(listing, path=job.parts / FILES)


def _require_same(path: Path, plan: dict) -> None:
    """Raises a UserError if there is a plan and it differs."""
    if not path.is_file():
        return
    try:
        there = dict(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); remove {path.parent}") from error
    for field, word in PLAN_WORDS.items():
        if there.get(field) != plan[field]:
            raise UserError(
                f"{path.parent} holds unfinished predictions with another {word}; repeat their own command, remove the "
                "folder, or give another --out"
            )


def _predict_pending(job: Job, submission: Path, listing: Listing) -> tuple[int, float]:
    """Predicts and writes the shards that are not finished. Returns the number of their files, and seconds."""
    pending = [number for number in range(listing.shards) if not _is_finished(job, number)]
    count = sum(map(listing.size, pending))
    if not pending:
        return 0, 0.0
    if len(pending) < listing.shards:
        print(f"continuing: {listing.files - count:,} of {listing.files:,} files are finished", flush=True)
    task, precision = Task(job.data.resolve(), job.out.suffix, job.top), _precision(job)
    with progress(desc="predicting", total=listing.files, initial=listing.files - count, unit=" images") as bar:
        if job.cluster is None:
            predictor = ShardPredictor(submission, task, precision)
            bar.unpause()
            start = time.monotonic()
            for number in pending:
                _write(job, number, predictor.predict(paths(listing.read(number)), bar.update))
        else:
            start = time.monotonic()
            for number, part in predict_shards(job.cluster, Work(submission, task, precision, listing, pending)):
                _write(job, number, part)
                bar.update(listing.size(number))
        return count, time.monotonic() - start


def _write(job: Job, number: int, part: Part) -> None:
    """Writes a finished shard; the table last, because it marks the shard as finished."""
    _require_precision(job, part.precision)
    atomically(_error_file(job, number), lambda temporary: temporary.write_bytes(part.errors))
    atomically(_part_file(job, number), lambda temporary: temporary.write_bytes(part.table))


def _precision(job: Job) -> str:
    """The precision that the user wants, or that of the shards that are finished; "" if the model may choose."""
    path = job.parts / PRECISION_FILE
    return os.environ.get(PRECISION) or (path.read_text("utf-8") if path.is_file() else "")


def _require_precision(job: Job, precision: str) -> None:
    """Records the precision of the first finished shard. Raises a UserError if that of a later one differs."""
    path = job.parts / PRECISION_FILE
    if not path.is_file():
        write_text(path, precision)
    there = path.read_text("utf-8")
    if there != precision:
        raise UserError(
            f"all shards must be computed in one precision, got {precision} after {there}; set {PRECISION}={there}, or "
            f"remove {job.parts} and set {PRECISION}=float32 if a machine has no bfloat16"
        )


def _is_finished(job: Job, number: int) -> bool:
    """Whether a shard's table is there. One without a byte was left by a power failure."""
    path = _part_file(job, number)
    return path.is_file() and path.stat().st_size > 0


def _checked_errors(job: Job, number: int, files: int) -> int:
    """The number of errors of a finished shard. Raises a UserError if rows and errors are not as many as its files."""
    part, error_file = _part_file(job, number), _error_file(job, number)
    rows, errors = count_rows(part), count_rows(error_file)
    if rows + errors != files:
        raise UserError(
            f"{part} is damaged: it has {rows:,} rows and {errors:,} errors of {files:,} files; remove it, and repeat "
            "the command"
        )
    return errors


def _part_file(job: Job, number: int) -> Path:
    return job.parts / f"part-{number:05d}{job.out.suffix}"


def _error_file(job: Job, number: int) -> Path:
    return job.parts / f"errors-{number:05d}.csv"
