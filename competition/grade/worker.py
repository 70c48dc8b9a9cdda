"""Runs one program as the server's worker does: in a process of its own, isolated, limited and monitored."""

import contextlib
import ctypes
import os
import shlex
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from competition.grade.sandbox import APP, interpreter_path, isolation

LOG_BYTES = 20_000  # how much of the end of a program's output is kept
PRINT_LIMIT = 100_000_000  # bytes of output
FILE_LIMIT = 1_000_000_000  # bytes of the largest file
DISK_LIMIT = 2_000_000_000  # bytes of all files of the stage, above those that were there before
FILES_LIMIT = 20_000  # files and folders of the stage, above those that were there before
PROCESSES_LIMIT = 200
POLL_SECONDS = 0.1  # between two checks of time, memory, output and processes
DISK_POLL_SECONDS = 1.0  # between two checks of the files
PASSED_ON = "SUBMISSION_PRECISION"  # the only environment variable that reaches a program, see submission/model.py
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # options of prctl


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    seconds: wall time.
    memory_mb: resident memory of its whole process tree, in MB of 1,000,000 bytes.
    """

    seconds: float
    memory_mb: float


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    code: exit code; negative for a signal.
    stopped: the limit that it exceeded, as a sentence, or "".
    seconds: wall time.
    peak_mb: peak resident memory of the whole process tree, in MB of 1,000,000 bytes.
    log: the end of its output.
    """

    code: int
    stopped: str
    seconds: float
    peak_mb: float
    log: str


def run(
    stage: str | Path,
    limits: Limits,
    python: str | Path = sys.executable,
    hidden: Iterable[str | Path] = (),
    tick: Callable[[float], Any] = lambda elapsed: None,
) -> Outcome:
    """Runs a stage's program in a fresh isolated interpreter.

    The program sees the stage as /app, an environment without this project, and its own home and temporary folder. If
    the system allows it, the program has no network and sees no other file (see `sandbox`). The program and its
    children are killed at the first limit that they exceed. Processes that it leaves behind are killed as well.

    Args:
        stage: folder with `program`, which contains the program and a `metadata.yaml` with its command, and with the
            folders that the command names. `home` and `tmp` are created in it.
        limits: time and memory.
        python: path of the interpreter.
        hidden: paths that the program must not be able to read.
        tick: called about ten times a second with the elapsed seconds.
    """
    stage = Path(stage).resolve()
    _adopt_orphans()
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    given = [_bytes_on_disk(entry) for entry in walk(stage)]  # programs, images and thumbnails: the grader's
    process = _start(stage, interpreter_path(python), [Path(path).resolve() for path in hidden])
    assert process.stdout  # a pipe, see `_start`
    output = _Output(process.stdout)
    began, peak_mb, stopped, disk_checked = time.monotonic(), 0.0, "", 0.0
    try:
        while process.poll() is None and not stopped:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
            elapsed = time.monotonic() - began
            tree = _running(before)
            unlinked = _unlinked_bytes(tree)  # on disk or in memory, and visible nowhere else
            peak_mb = max(peak_mb, _resident_mb(tree) + unlinked / 1e6)
            tick(elapsed)
            stopped = _exceeded(limits, elapsed, peak_mb, len(tree), output.bytes)
            if not stopped and elapsed > disk_checked + DISK_POLL_SECONDS:
                stopped, disk_checked = _exceeded_on_disk(stage, given, unlinked), elapsed
        elapsed = time.monotonic() - began
    finally:
        _kill(process, before)
    output.thread.join(timeout=5)
    return Outcome(process.returncode, stopped, elapsed, peak_mb, bytes(output.tail).decode("utf-8", "replace"))


def command_of(program: Path) -> list[str]:
    """Returns the command in a program's `metadata.yaml`, split as a shell does."""
    for line in (program / "metadata.yaml").read_text("utf-8").splitlines():
        if line.startswith("command:"):
            return shlex.split(line.removeprefix("command:"))
    raise ValueError(f"{program / 'metadata.yaml'} must have a line 'command: …'")


def _start(stage: Path, python: str, hidden: Sequence[Path]) -> subprocess.Popen:
    """Starts a stage's command in a new session, isolated as far as the system allows."""
    for name in ("home", "tmp"):
        (stage / name).mkdir(exist_ok=True)
    isolated = isolation(python)
    home = isolated.home(stage)
    _, *arguments = command_of(stage / "program")  # the first word is the server's python3
    arguments = [home + word.removeprefix(APP) if word.startswith(APP) else word for word in arguments]
    return subprocess.Popen(
        [*isolated.command(stage, python, hidden), python, "-I", "-B", *arguments],
        cwd=stage / "program",
        env={
            "PATH": os.defpath,
            "HOME": f"{home}/home",
            "TMPDIR": f"{home}/tmp",
            "LANG": "C.UTF-8",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "CUDA_VISIBLE_DEVICES": "-1",
            **{name: value for name, value in os.environ.items() if name == PASSED_ON},
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_prepare_process,
    )


class _Output:
    """Reads a stream to its end in a thread, so that the program never blocks, and keeps only the last `LOG_BYTES`."""

    def __init__(self, stream: IO[bytes]):
        self.bytes, self.tail = 0, bytearray()
        self.thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self.thread.start()

    def _read(self, stream: IO[bytes]) -> None:
        while chunk := os.read(stream.fileno(), 1 << 16):
            self.bytes += len(chunk)
            self.tail += chunk
            del self.tail[:-LOG_BYTES]


def _prepare_process() -> None:
    """Runs in the new process: it is killed when this process ends (Linux), and cannot write a file without end."""
    import resource

    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, FILE_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _exceeded(limits: Limits, elapsed: float, peak_mb: float, processes: int, printed: int) -> str:
    """Returns the exceeded limit as a sentence, or ""."""
    if elapsed > limits.seconds:
        return f"it ran longer than the limit of {limits.seconds:g} s"
    if peak_mb > limits.memory_mb:
        return f"it used more memory than the limit of {limits.memory_mb:g} MB"
    if printed > PRINT_LIMIT:
        return f"it printed more than {PRINT_LIMIT / 1e6:.0f} MB"
    if processes > PROCESSES_LIMIT:
        return f"it started more than {PROCESSES_LIMIT} processes"
    return ""


def _exceeded_on_disk(stage: Path, given: Sequence[int], elsewhere: int) -> str:
    """Returns the exceeded limit of files or bytes as a sentence, or "". Reads at most `FILES_LIMIT` new entries.

    Args:
        stage: folder of the stage.
        given: bytes of each file and folder that was there before.
        elsewhere: bytes of other files that count.
    """
    total, unreadable = elsewhere - sum(given), []
    for count, entry in enumerate(walk(stage, lambda: unreadable.append(stage)), 1):
        if count > FILES_LIMIT + len(given):
            return f"it wrote more than {FILES_LIMIT:,} files"
        total += _bytes_on_disk(entry)
    if unreadable:
        return "it wrote folders that cannot be read: no permission, or nested too deeply"
    return f"it wrote more than {DISK_LIMIT / 1e6:,.0f} MB" if total > DISK_LIMIT else ""


def _bytes_on_disk(entry: os.DirEntry) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_blocks * 512
    except OSError:  # removed in the meantime
        return 0


def walk(folder: str | Path, unreadable: Callable[[], Any] = lambda: None) -> Iterator[os.DirEntry]:
    """Yields every `os.DirEntry` below a folder.

    Skips folders that cannot be read (no permission, path too long) and calls `unreadable` for each of them.
    """
    folders = [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    yield entry
        except FileNotFoundError:  # removed in the meantime
            continue
        except OSError:
            unreadable()


def _unlinked_bytes(processes: Iterable[psutil.Process]) -> int:
    """Returns the bytes of all open files without a name: unlinked, or created with O_TMPFILE or memfd (Linux)."""
    sizes = {}
    for process in processes:
        with contextlib.suppress(OSError):
            for opened in Path(f"/proc/{process.pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    status = opened.stat()
                    if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                        sizes[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())


def _adopt_orphans() -> None:
    """Makes this process the parent of all orphans below it, so that none escapes by leaving its session (Linux)."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _descendants(before: set[int]) -> list[psutil.Process]:
    """Returns all processes below this one except those whose number is in `before`."""
    return [child for child in psutil.Process().children(recursive=True) if child.pid not in before]


def _running(before: set[int]) -> list[psutil.Process]:
    """Returns what `_descendants` does, in a tenth of the time, but perhaps without one that starts or ends (Linux)."""
    found, pending = [], [os.getpid()]
    while pending:
        number = pending.pop()
        with contextlib.suppress(OSError, psutil.Error):  # it has ended meanwhile
            if number != os.getpid() and number not in before:
                found.append(psutil.Process(number))
            for path in Path(f"/proc/{number}/task").glob("*/children"):
                pending += map(int, path.read_text().split())
    return found or _descendants(before)


def _resident_mb(processes: Iterable[psutil.Process]) -> float:
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total / 1e6


def _kill(process: subprocess.Popen, before: set[int]) -> None:
    """Kills a program and all its descendants, until none is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(100):
        left = _descendants(before)
        if not left:
            return
        for other in left:
            with contextlib.suppress(psutil.Error):
                other.kill()
        psutil.wait_procs(left, timeout=1)
