"""The ingestion program's journal, checks.json, and the log of its stage: both are untrusted.

A submission can write the journal itself if it is stopped early, and it prints what it likes.
"""

import contextlib
import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any

JOURNAL = "checks.json"
STEPS = (
    "import and constructor",
    "one image",
    "odd batch",
    "all images",
    "independence of neighbors",
    "row permutation",
    "repeatability",
    "uint8 images",
)
ALL_IMAGES, ODD_BATCH, ODD_BATCH_SIZE = "all images", "odd batch", 3
USED = ("images", "load_seconds", "first_seconds", "seconds", "peak_mb")
PRECISION = re.compile("[A-Za-z_][A-Za-z0-9_]{,19}")  # the name of a type
MAX_BYTES = 1_000_000
# What TensorFlow prints when it is loaded, whatever the submission does, and whatever TF_CPP_MIN_LOG_LEVEL says: how it
# computes, and that this stage has no GPU. The line starts with a date or, in later versions, as absl's log does.
STARTING = re.compile(
    r"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    r"|To enable the following instructions: [\w., ]+, in other operations, rebuild TensorFlow with .*"
    r"|(\d{4}-\d\d-\d\d \d\d:\d\d:[\d.]+: [IWE]|[IWE]\d{4} [\d:.]+ +\d+) [\w/.-]+\.cc:\d+\] ("
    r"oneDNN custom operations are on\. .*"
    r"|This TensorFlow binary is optimized (to use available CPU instructions|with oneAPI) .*"
    r"|Unable to register cu(DNN|FFT|BLAS) factory: .*"
    r"|computation placer already registered\. .*"
    r"|.*failed call to cuInit: .*"
    r"|Could not find cuda drivers on your machine, GPU will not be used\.)"
)


def read_journal(path: Path) -> tuple[dict[str, dict], dict[str, Any]]:
    """Reads the journal of an ended stage. Adds missing permissions.

    Returns:
        (name → record, what was used); both empty if the file is not a valid journal.
    """
    return parse_journal(path) if is_regular_file(path) else ({}, {})


def parse_journal(path: Path) -> tuple[dict[str, dict], dict[str, Any]]:
    """Reads the journal as it is, also of a stage that still runs: as `read_journal`, without changing permissions."""
    try:
        saved = json.loads(_read(path).decode("utf-8", "replace"))
        records = {str(record["name"]): _checked_record(record) for record in saved["checks"]}
        used: dict[str, Any] = {key: _finite(value) for key, value in saved["used"].items() if key in USED}
        precision = saved["used"].get("precision")
        if isinstance(precision, str) and PRECISION.fullmatch(precision):
            used["precision"] = precision
        return records, used
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return {}, {}


def _read(path: Path) -> bytes:
    """Returns the bytes of a regular file. A link or a pipe in its place is neither followed nor waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(MAX_BYTES + 1) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    return data if len(data) <= MAX_BYTES else b""


def _checked_record(record: dict) -> dict:
    return {
        "passed": record["passed"] if record["passed"] is None else record["passed"] is True,
        "reason": printable(str(record["reason"])[:1000]),
        "fix": printable(str(record["fix"])[:1000]),
        "seconds": _finite(record["seconds"]),
        "timed_out": record.get("timed_out") is True,
        "done": _finite(record.get("done", 0)),
    }


def _finite(value: Any) -> float:
    """Converts to a number. Raises ValueError for NaN and infinity."""
    if not math.isfinite(float(value)):
        raise ValueError(value)
    return float(value)


def printable(text: str) -> str:
    """Returns a text that every file and stream can take: halves of surrogate pairs are escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def is_regular_file(path: Path) -> bool:
    """Whether there is a file that is no link, folder or pipe. Adds missing permissions to it and to its folder."""
    with contextlib.suppress(OSError):
        for part, kind in ((path.parent, stat.S_ISDIR), (path, stat.S_ISREG)):
            if not kind(part.lstat().st_mode):
                return False
            part.chmod(0o700)
        return True
    return False


def without_starting_lines(log: str) -> str:
    """Returns a log without the lines that TensorFlow prints when it is loaded. Every other line is kept."""
    return "".join(line for line in log.splitlines(keepends=True) if not STARTING.fullmatch(line.rstrip("\r\n")))
