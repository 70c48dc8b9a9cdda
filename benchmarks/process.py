"""Functions and contestants in processes of their own, which are started once and called over a pipe."""

import contextlib
import importlib.util
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import Failed
from common.errors import CommandError
from common.tensorflow_log import hide_tensorflow_log

SUBMISSION = Path(__file__).resolve().parents[1] / "submission"
ENDING_SECONDS = 5


def peak_mb() -> float:
    """The peak resident memory of this process, in MB of 1,000,000 bytes."""
    try:  # ru_maxrss would include the process that started this one
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    except (OSError, IndexError):  # not Linux
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


class NotMeasured(CommandError):
    """A contestant that cannot run here, and why. Exit code 1."""

    exit_code = 1


class Process:
    """A function in a process of its own, called over a pipe. No GPU is visible to it.

    Args:
        name: for the error.
        setup: a function of a module, called once in the process; it returns the function that the calls reach.
        arguments: of `setup`.

    Raises:
        CommandError: what `setup` has raised.
        Failed: the process has ended; its messages are on standard error.
    """

    def __init__(self, name: str, setup: Callable, *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, setup, arguments), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns. Raises what it raises if that is a CommandError, else Failed."""
        with contextlib.suppress(BrokenPipeError):  # the process has ended, which the answer says
            self._pipe.send(arguments)
        return self._answer()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process, as soon as it has answered or at once if it takes seconds."""
        self._pipe.close()
        self._process.join(ENDING_SECONDS)
        self._process.terminate()
        self._process.join()

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            raise Failed(f"the process of {self.name} ended with exit code {code}; its messages are above") from None
        if isinstance(answer, CommandError):
            raise answer
        return answer


def _serve(pipe: Any, setup: Callable, arguments: tuple) -> None:
    """Runs in the process of a `Process`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started it ends it
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    hide_tensorflow_log()
    try:
        function, answer = setup(*arguments), None
        while (call := _exchange(pipe, answer)) is not None:
            answer = function(*call)
    except CommandError as error:
        with contextlib.suppress(ConnectionError):
            pipe.send(error)


def _exchange(pipe: Any, answer: Any) -> tuple | None:
    """Sends an answer and waits for the arguments of the next call; None if the other process has closed the pipe."""
    with contextlib.suppress(EOFError, ConnectionError):
        pipe.send(answer)
        return pipe.recv()
    return None


def submission(precision: str = "", tta: bool = False) -> Any:
    """The submission's own `model`.

    Args:
        precision: "float32", "bfloat16", or "" for what it chooses.
        tta: with its test-time augmentation, instead of one view.

    Raises:
        NotMeasured: this processor or TensorFlow does not have the precision.
    """
    if precision:
        os.environ["SUBMISSION_PRECISION"] = precision
    spec: Any = importlib.util.spec_from_file_location("submitted", SUBMISSION / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.model(SUBMISSION)
    if precision and network.precision != precision:
        raise NotMeasured(f"this processor or TensorFlow has no {precision}")
    network.tta_transforms = network.tta_transforms[: None if tta else 1]
    return network
