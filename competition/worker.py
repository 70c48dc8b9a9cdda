"""Runs one program as the server's worker does: alone, limited, cut off from everything else, and watched."""

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
from dataclasses import dataclass
from pathlib import Path

import psutil

from competition.sandbox import APP, isolation

TAIL = 20_000  # bytes of output kept
PRINT_LIMIT = 100_000_000  # bytes of output after which a program is stopped
FILE_LIMIT = 1_000_000_000  # bytes, the largest file a program may write
DISK_LIMIT = 2_000_000_000  # bytes that a program may write in all, what was there before included
FILES_LIMIT = 20_000  # files and folders that it may make
PROCESSES_LIMIT = 200
LOOK = 0.1  # seconds between two looks at the processes
LOOK_AT_DISK = 1.0  # seconds between two looks at the files
DEATH_SIGNAL, SUBREAPER = 1, 36  # prctl's options PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER


@dataclass(frozen=True)
class Limits:
    """What a program may use: wall time in seconds, and resident memory of its whole tree in MB of 1,000,000 bytes."""

    seconds: float
    memory_mb: float


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    code: exit code, negative for a signal. stopped: why the worker stopped it, or "". seconds: wall time.
    peak_mb: most resident memory of the whole process tree, MB of 1,000,000 bytes. log: the end of its output.
    """

    code: int
    stopped: str
    seconds: float
    peak_mb: float
    log: str


def run(stage, limits, python=sys.executable, hidden=(), tick=lambda elapsed: None):
    """Runs a stage's program in a fresh isolated interpreter.

    The program sees the stage as /app, an environment without this project, a home and a temporary folder of its own,
    and, where the system allows it, no network and no other file (see `sandbox`). It is stopped, with all its
    children, at the first limit it reaches; processes that it leaves behind are stopped as well.

    Args:
        stage: folder with `program`, which holds the program and its `metadata.yaml` with the command, and the folders
            that the command names. Gets `home` and `tmp`.
        limits: `Limits`.
        python: path of the interpreter, this one by default.
        hidden: paths that the program must not be able to read, wherever they are.
        tick: called about ten times a second with the seconds gone by.

    Returns:
        `Outcome`.
    """
    stage = Path(stage).resolve()
    _adopt_orphans()
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    process = _start(stage, str(python), [Path(path).resolve() for path in hidden])
    output = _Output(process.stdout)
    began, peak, stopped, looked = time.monotonic(), 0.0, "", 0.0
    try:
        while process.poll() is None and not stopped:
            time.sleep(LOOK)
            elapsed = time.monotonic() - began
            tree = _descendants(before)
            nameless = _nameless(tree)  # on a disk or in memory, and not to be seen anywhere else
            peak = max(peak, _resident_mb(tree) + nameless / 1e6)
            tick(elapsed)
            stopped = _over(elapsed, peak, len(tree), output.bytes, limits)
            if not stopped and elapsed > looked + LOOK_AT_DISK:
                stopped, looked = _over_disk(stage, nameless), elapsed
        elapsed = time.monotonic() - began
    finally:
        _kill(process, before)
    output.thread.join(timeout=5)
    return Outcome(process.returncode, stopped, elapsed, peak, bytes(output.tail).decode("utf-8", "replace"))


def command_of(program):
    """The command in a program's `metadata.yaml`, split as a shell would."""
    for line in (program / "metadata.yaml").read_text("utf-8").splitlines():
        if line.startswith("command:"):
            return shlex.split(line.removeprefix("command:"))
    raise ValueError(f"{program / 'metadata.yaml'} has no command")


def _start(stage, python, hidden):
    """Starts a stage's command in its own session, isolated as far as the system allows."""
    for name in ("home", "tmp"):
        (stage / name).mkdir(exist_ok=True)
    allowed = isolation(python)
    home = allowed.home(stage)
    _, *arguments = command_of(stage / "program")  # the server's first word is python3
    arguments = [home + word.removeprefix(APP) if word.startswith(APP) else word for word in arguments]
    return subprocess.Popen(
        [*allowed.command(stage, python, hidden), python, "-I", "-B", *arguments],
        cwd=stage / "program",
        env={
            "PATH": os.defpath,
            "HOME": f"{home}/home",
            "TMPDIR": f"{home}/tmp",
            "LANG": "C.UTF-8",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "CUDA_VISIBLE_DEVICES": "-1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_bind,
    )


class _Output:
    """Reads a stream to its end in a thread, so that the program never blocks, and keeps only the last of it."""

    def __init__(self, stream):
        self.bytes, self.tail = 0, bytearray()
        self.thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self.thread.start()

    def _read(self, stream):
        while chunk := os.read(stream.fileno(), 1 << 16):
            self.bytes += len(chunk)
            self.tail += chunk
            del self.tail[:-TAIL]


def _bind():
    """In the new process: it ends with this one, however that ends (Linux), and writes no endless file."""
    import resource

    _prctl(DEATH_SIGNAL, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, FILE_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _over(elapsed, peak, processes, printed, limits):
    """Which limit has been reached, as a sentence, or ""."""
    if elapsed > limits.seconds:
        return f"it ran longer than the limit of {limits.seconds:g} s"
    if peak > limits.memory_mb:
        return f"it used more memory than the limit of {limits.memory_mb:g} MB"
    if printed > PRINT_LIMIT:
        return f"it printed more than {PRINT_LIMIT / 1e6:.0f} MB"
    if processes > PROCESSES_LIMIT:
        return f"it started more than {PROCESSES_LIMIT} processes"
    return ""


def walk(folder, unseen=lambda: None):
    """Every `os.DirEntry` below a folder.

    Goes on past folders that cannot be read, because they are closed or their path is too long, and calls `unseen` for
    each of them.
    """
    folders = [folder]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    yield entry
        except FileNotFoundError:  # gone by now
            continue
        except OSError:
            unseen()


def _over_disk(stage, nameless):
    """The same for what it wrote: files below the stage, and bytes of files without a name.

    Looks at no more files than are allowed, however many there are.
    """
    total, hidden = nameless, []
    for count, entry in enumerate(walk(stage, lambda: hidden.append(stage)), 1):
        if count > FILES_LIMIT:
            return f"it wrote more than {FILES_LIMIT:,} files"
        with contextlib.suppress(OSError):  # gone by now
            total += entry.stat(follow_symlinks=False).st_blocks * 512
    if hidden:
        return "it wrote folders that cannot be looked into: closed, or nested too deeply"
    return f"it wrote more than {DISK_LIMIT / 1e6:,.0f} MB" if total > DISK_LIMIT else ""


def _nameless(processes):
    """Bytes of the open files of some processes that have no name any more, or never had one (Linux)."""
    seen = {}
    for process in processes:
        with contextlib.suppress(OSError):
            for opened in Path(f"/proc/{process.pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    status = opened.stat()
                    if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                        seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


def _adopt_orphans():
    """Makes orphans of this process's tree its children, so that none gets away by leaving its session (Linux)."""
    _prctl(SUBREAPER, 1)


def _prctl(option, value):
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _descendants(before):
    """All processes below this one but those that were there `before` (a set of process numbers)."""
    return [child for child in psutil.Process().children(recursive=True) if child.pid not in before]


def _resident_mb(processes):
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total / 1e6


def _kill(process, before):
    """Stops a program and everything that came of it, until nothing is left."""
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
