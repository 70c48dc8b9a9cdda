"""The wrapper around every command line: exit codes, Ctrl-C, closed pipes and one-line errors.

Exit codes: 0 success, 1 refused or a failed check, 2 wrong input, 130 interrupted.
"""

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator

from common.errors import CommandError

INTERRUPTED = 130


def run_command(command: Callable[[], int | None], interrupted: str = "interrupted") -> int:
    """Runs a command and turns what it raises into an exit code and one line on standard error.

    Args:
        command: the command; returns its exit code, or None for 0.
        interrupted: what is printed after Ctrl-C.

    Returns:
        The exit code: that of `command` or of a `CommandError`, 2 for an `OSError`, 130 for Ctrl-C.
    """
    try:
        with interruptible():
            return command() or 0
    except CommandError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        _discard_output()
        print("error: the program that reads the output has ended; write to a file instead", file=sys.stderr)
        return 2
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(
            f"error: {place}{error.strerror or error}; check the path, the free disk space and the permissions",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        return INTERRUPTED


def print_listing(lines: Iterable[str]) -> None:
    """Prints lines whose reader, for example `head`, may end before the last one."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()


def _discard_output() -> None:
    """Redirects standard output to nowhere, so that Python's flush at exit does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turns whatever is raised after Ctrl-C into a KeyboardInterrupt.

    Python may raise KeyboardInterrupt inside the C++ of numpy or TensorFlow, where it becomes another exception, for
    example a SystemError.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield  # not ours to handle, or ignored on purpose, as in a shell's background job
        return
    received = []

    def handle(number, frame):
        received.append(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    except Exception as error:
        if received:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def argument_parser(
    description: str | None, prog: str | None = None, epilog: str | None = None
) -> argparse.ArgumentParser:
    """An argument parser that keeps the line breaks of its description and accepts no abbreviated options."""
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
