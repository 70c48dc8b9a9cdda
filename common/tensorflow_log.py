"""Keeps what TensorFlow writes about itself out of every command's output.

`TF_CPP_MIN_LOG_LEVEL` does not reach the lines that are written while TensorFlow is imported (oneDNN, CUDA factories,
`absl::InitializeLog`), and the error that there is no GPU. So those are filtered.
"""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

# A line of absl's log, with or without a date, its first line, and the second line of the processor's message.
NOISE = (
    r"WARNING: All log messages before absl::InitializeLog"
    r"|(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: |)[IWE](\d{4} [\d:. ]+|) *[\w/.-]+\.cc:\d+\]"
    r"|To enable the following instructions: "
)
# The program of the process that filters. Ctrl-C is meant for the other one.
FILTER = """
import re, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
noise = re.compile(sys.argv[1].encode())
for line in sys.stdin.buffer:
    if not noise.match(line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""
SECONDS = 5  # to wait for it


def hide_tensorflow_log() -> None:
    """Hides the log of TensorFlow's C++ code. Must be called before TensorFlow is imported.

    `TF_CPP_MIN_LOG_LEVEL` is kept if it is set: 0 hides nothing.
    """
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if level != "0" and not any(isinstance(finder, _QuietImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _QuietImport())


class _QuietImport(importlib.abc.MetaPathFinder):
    """Imports TensorFlow with its log filtered, and leaves every other module alone."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "tensorflow":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_quietly(module: Any) -> None:
            with _filtered_stderr():
                load(module)
                module.config.list_physical_devices()  # a missing GPU is logged once, at the first use

        spec.loader.exec_module = load_quietly  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def _filtered_stderr() -> Iterator[None]:
    """Passes what is written to descriptor 2 through a process that leaves out the lines that are noise.

    It is a process, so that the last words of an import that aborts are shown, for example on an unsuitable processor.
    """
    if sys.stderr is None:  # the descriptor is closed
        yield
        return
    sys.stderr.flush()
    with contextlib.closing(os.fdopen(os.dup(2), "wb", 0)) as stderr:
        command = [sys.executable, "-I", "-S", "-c", FILTER, NOISE]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stderr)
        assert process.stdin
        os.dup2(process.stdin.fileno(), 2)
        process.stdin.close()
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr.fileno(), 2)
            with contextlib.suppress(subprocess.TimeoutExpired):  # if another process has inherited the descriptor
                process.wait(SECONDS)
