"""Keeps what TensorFlow writes about itself out of every command's output.

`TF_CPP_MIN_LOG_LEVEL` does not reach the lines that are written while TensorFlow is imported (oneDNN, CUDA factories,
`absl::InitializeLog`), and the error that there is no GPU. So those are filtered.
"""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

# A line of absl's log, with or without a date, its first line, and the second line of the processor's message.
NOISE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: |)[IWE](\d{4} [\d:. ]+|) *[\w/.-]+\.cc:\d+\]"
    rb"|To enable the following instructions: "
)


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
    """Collects what is written to descriptor 2, and at the end writes the lines that are no noise."""
    if sys.stderr is None:  # the descriptor is closed
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as log, os.fdopen(os.dup(2), "wb", 0) as stderr:
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr.fileno(), 2)
            log.seek(0)
            stderr.writelines(line for line in log if not NOISE.match(line))
