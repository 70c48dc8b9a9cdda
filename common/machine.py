"""How much memory is free, and how many cores a process may use."""

import contextlib
import os
from pathlib import Path

import psutil


def free_memory(group: Path = Path("/sys/fs/cgroup")) -> int:
    """Returns the bytes that may still be used: the smaller of the machine's and the container's (cgroup version 2)."""
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError, KeyError):  # no such file, or the limit is "max"
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        cached = int(statistics["inactive_file"]) + int(statistics["active_file"])  # given back when it is needed
        free = min(free, limit - used + cached)
    return free


def available_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
