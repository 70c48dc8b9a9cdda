"""Atomic file writing, free disk space, checksums and locks."""

import contextlib
import csv
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import DISK_ERRORS, InUse, UserError

TEMPORARY = ".tmp-"  # prefix of every file that is not finished


def temporary_beside(path: Path) -> Path:
    """A unique name in the folder of `path`, so that two writers of one file never share a temporary file.

    It ends with the name of `path`, because some libraries choose the format by the suffix.

    Raises:
        IsADirectoryError: `path` has no name, as "." and "/".
    """
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(6)}-{path.name}")


def atomically(path: Path, save: Callable[[Path], Any]) -> None:
    """Calls `save(temporary)` and renames the result to `path`. A failure leaves the old file as it was.

    The content is on the disk before the file is renamed, so that a power failure leaves no empty file.

    Raises:
        OSError: the file cannot be written; its `filename` is `path`.
    """
    temporary = temporary_beside(path)
    try:
        with _naming(path, temporary):
            save(temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a new temporary folder that replaces `path` when the block ends without an exception.

    There is always either the old folder or the new one, also after Ctrl-C.
    """
    temporary, old = temporary_beside(path), temporary_beside(path)
    try:
        with _naming(path, temporary):
            temporary.mkdir(parents=True)
            yield temporary
            if path.exists():  # a folder cannot replace another one, so the old one is renamed first
                os.replace(path, old)
            os.replace(temporary, path)
    finally:
        if old.exists() and not path.exists():
            os.replace(old, path)
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _naming(path: Path, temporary: Path) -> Iterator[None]:
    """Lets an error of writing name the target. Python names no file, the temporary one, or the source of a copy."""
    try:
        yield
    except OSError as error:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        if any(name.startswith(str(temporary)) for name in names) or (not names and error.errno in DISK_ERRORS):
            error.filename, error.filename2 = str(path), None
        raise


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raises a UserError unless the disk of an existing folder has as many bytes free as `what` needs."""
    if shutil.disk_usage(folder).free < needed:
        raise no_space(folder, needed, what, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))


def no_space(folder: Path, needed: int, what: str, error: OSError) -> UserError:
    """Returns the error that says which disk is full, how much is needed, and what to do."""
    free = shutil.disk_usage(folder).free
    return UserError(
        f"{what} needs {needed / 1e6:,.0f} MB on the disk of {folder.parent}, {free / 1e6:,.0f} MB are free "
        f"({error.strerror}); free the disk, or set TMPDIR to a folder on another one"
    )


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8."""
    atomically(path, lambda temporary: temporary.write_text(text, "utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_arrays(path: Path, *arrays: np.ndarray, **named: np.ndarray) -> None:
    """Writes arrays as one uncompressed .npz file. Unnamed arrays are called arr_0, arr_1, …"""

    def save(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, *arrays, **named)  # type: ignore[arg-type]  # numpy's own hint is wrong

    atomically(path, save)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a table as CSV in UTF-8.

    Args:
        path: the file.
        columns: their names.
        rows: column → value; None and missing values are empty. Names of files that are not UTF-8 keep their bytes.
    """

    def save(temporary: Path) -> None:
        with open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    atomically(path, save)


def digest(*values: Any) -> str:
    """SHA-256 of arrays (dtype, shape and values) and of plain values (as JSON): 64 hexadecimal digits."""
    result = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            result.update(f"{value.dtype} {value.shape}".encode())
            result.update(np.ascontiguousarray(value).data)
        else:
            result.update(json.dumps(value, sort_keys=True).encode())
    return result.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content: 64 hexadecimal digits."""
    result = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            result.update(block)
    return result.hexdigest()


@contextlib.contextmanager
def locked(path: Path, what: str, wait: bool = False, instead: str = "give another --out") -> Iterator[None]:
    """Holds a lock file while the block runs. The operating system releases it when the process ends.

    Args:
        path: the lock file. It is not deleted; it contains the process number of the last holder.
        what: what is locked, for the message.
        wait: wait for the other process instead of raising.
        instead: what the user can do instead of waiting, for the message.

    Raises:
        InUse: another process holds the lock.
    """
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = f"process {file.read().strip() or 'unknown'}"
            if not wait:
                raise InUse(f"{what} is in use by {holder}; wait until it ends, or {instead}") from None
            print(f"waiting for {holder}, which is writing {what}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
