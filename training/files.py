"""Files that are either whole or not there, and folders that one process at a time writes to."""

import contextlib
import fcntl
import hashlib
import json
import os

import numpy as np

from training.errors import UserError


def atomically(path, save):
    """Calls save(temporary path) and renames the result, so that a half-written file never has the real name."""
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        save(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path, value):
    """Writes a value as indented JSON."""
    atomically(path, lambda temporary: temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8"))


def write_arrays(path, *arrays, **named):
    """Writes arrays as one uncompressed .npz file: the unnamed ones as arr_0, arr_1, …"""

    def save(temporary):
        with open(temporary, "wb") as file:
            np.savez(file, *arrays, **named)

    atomically(path, save)


def digest(*values):
    """SHA-256 of arrays (their type, shape and numbers) and of plain values (as JSON), as 64 hexadecimal digits."""
    result = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            result.update(f"{value.dtype} {value.shape}".encode())
            result.update(np.ascontiguousarray(value).data)
        else:
            result.update(json.dumps(value, sort_keys=True).encode())
    return result.hexdigest()


class InUse(UserError):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(path, what, wait=False):
    """Holds a lock file for as long as the block runs; the system frees it when the process ends, however it ends.

    Args:
        path: the lock file; stays there, empty or with the last holder's process number.
        what: what is locked, for the message.
        wait: wait for the other process, and say so, instead of raising.

    Raises:
        InUse: another process holds it.
    """
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = f"process {file.read().strip() or 'unknown'}"
            if not wait:
                raise InUse(f"{what} is in use by {holder}; wait until it is done, or give another --out") from None
            print(f"waiting for {holder}, which writes {what}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
