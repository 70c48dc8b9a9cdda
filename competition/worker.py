"""Runs one program as the server's worker does: alone, limited, cut off from the network, and watched."""

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

TAIL = 20_000  # bytes of output kept
PRINT_LIMIT = 100_000_000  # bytes of output after which a program is stopped
FILE_LIMIT = 1_000_000_000  # bytes, the largest file a program may write


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


@dataclass(frozen=True)
class Isolation:
    """What the system allows to take away from a program: the network, and writing outside its folder."""

    network: bool
    files: bool

    def command(self, folder):
        """The command that starts a program so isolated; `folder` stays writable."""
        if not self.network:
            return []
        mount = ["--mount", "sh", "-c", READ_ONLY, "sh", str(folder)] if self.files else []
        return ["unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", *mount]


# Every mounted disk becomes read-only in the program's own view; the bind mount of its folder keeps that writable, and
# shared memory is its own.
READ_ONLY = """
mount --bind "$1" "$1" && mount -t tmpfs -o size=1g tmpfs /dev/shm || exit 1
while read -r _ point kind _; do
  case "$kind" in ext*|xfs|btrfs|overlay|tmpfs|zfs|f2fs|nfs*|fuse*) ;; *) continue;; esac
  case "$point" in "$1"|/dev/shm) continue;; esac
  mount -o remount,bind,ro "$point" 2>/dev/null
done < /proc/self/mounts
shift
cd "$1" && shift || exit 1
for place in $PROBE; do [ -w "$place" ] && exit 1; done
setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
exit $?
"""


@functools.cache
def isolation():
    """Finds out what this system allows: `Isolation`."""
    if not shutil.which("unshare"):
        return Isolation(False, False)
    environment = {**os.environ, "PROBE": f"/ {tempfile.gettempdir()} {Path.home()}"}  # none of these may stay writable
    with tempfile.TemporaryDirectory(prefix="isolation-") as folder:
        folder = Path(folder).resolve()
        for candidate in (Isolation(True, True), Isolation(True, False)):
            where = [folder] if candidate.files else []
            if subprocess.run([*candidate.command(folder), *where, "true"], capture_output=True, env=environment).returncode == 0:
                return candidate
    return Isolation(False, False)


def run(program, arguments, folder, seconds, memory_mb, python=sys.executable, tick=lambda elapsed: None):
    """Runs a Python program in a fresh isolated interpreter.

    The program sees an environment without this project, a home and a temporary folder of its own, and no network
    where the system allows it. It is stopped, with all its children, at the time limit, the memory limit, or when it
    prints without end; processes that it leaves behind are stopped as well.

    Args:
        program: path of the program; its folder is the working directory.
        arguments: its arguments.
        folder: an existing folder that holds the program, its home and its temporary files; where the system allows
            it, the only one that it can write to.
        seconds: limit of wall time.
        memory_mb: limit of resident memory of the whole tree, in MB of 1,000,000 bytes.
        python: the interpreter, this one by default.
        tick: called about ten times a second with the seconds gone by.

    Returns:
        `Outcome`.
    """
    mark = f"worker-{os.getpid()}-{time.monotonic_ns()}"
    process = _start(program, arguments, folder, python, mark)
    output = _Output(process.stdout)
    began, peak, stopped = time.monotonic(), 0.0, ""
    try:
        while process.poll() is None and not stopped:
            time.sleep(0.1)
            elapsed = time.monotonic() - began
            peak = max(peak, _resident_mb(process.pid))
            tick(elapsed)
            if elapsed > seconds:
                stopped = f"it ran longer than the limit of {seconds:g} s"
            elif peak > memory_mb:
                stopped = f"it used more memory than the limit of {memory_mb:g} MB"
            elif output.bytes > PRINT_LIMIT:
                stopped = f"it printed more than {PRINT_LIMIT / 1e6:.0f} MB"
        elapsed = time.monotonic() - began
    finally:
        _kill(process, mark)
    output.thread.join(timeout=5)
    code = process.returncode
    if isolation().files and code > 128:  # as a shell puts a signal
        code = 128 - code
    return Outcome(code, stopped, elapsed, peak, bytes(output.tail).decode("utf-8", "replace"))


def _start(program, arguments, folder, python, mark):
    """Starts a program in its own session, isolated as far as the system allows."""
    home, temporary = folder / "home", folder / "tmp"
    for path in (home, temporary):
        path.mkdir(parents=True, exist_ok=True)
    allowed, working = isolation(), Path(program).parent
    return subprocess.Popen(
        [
            *allowed.command(folder),
            *([str(working)] if allowed.files else []),  # entered again, for the folder is mounted anew
            *(str(python), "-I", "-B", str(program)),
            *map(str, arguments),
        ],
        cwd=working,
        env={
            "PATH": os.defpath,
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "LANG": "C.UTF-8",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "CUDA_VISIBLE_DEVICES": "-1",
            "WORKER_MARK": mark,  # finds the processes that leave the session
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_limit_files,
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


def _limit_files():
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, FILE_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _resident_mb(pid):
    total = 0
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue
    except psutil.Error:
        pass
    return total / 1e6


def _kill(process, mark):
    """Stops the program's process group, and every process that carries its mark, wherever it has moved to."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for other in psutil.process_iter():
        try:
            if other.environ().get("WORKER_MARK") == mark:
                other.kill()
        except psutil.Error:
            continue
