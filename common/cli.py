"""The wrapper around every command line: exit codes, Ctrl-C, closed pipes and one-line errors.

Exit codes: 0 success, 1 refused or a failed check, 2 wrong input, 3 no response (upload), 130 interrupted.
"""

import argparse
import contextlib
import io
import math
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from common.errors import DISK_ERRORS, CommandError, UserError

INTERRUPTED = 130
MAX_SIZE = 4096  # pixels


def run_command(command: Callable[[], int | None], interrupted: str = "interrupted") -> int:
    """Runs a command and turns what it raises into an exit code and one line on standard error.

    Args:
        command: the command; returns its exit code, or None for 0.
        interrupted: what is printed after Ctrl-C.

    Returns:
        The exit code: that of `command` or of a `CommandError`, 2 for an `OSError` or too little memory, 130 for
        Ctrl-C.
    """
    prepare_streams()
    try:
        with interruptible():
            code = command() or 0
            sys.stdout.flush()  # a closed pipe is noticed here, not when Python ends
            return code
    except CommandError as error:
        text = str(error) if error.multiline else str(error).replace("\n", "\\n")  # a file name may have a line break
        _print_error(f"error: {text}")
        return error.exit_code
    except BrokenPipeError:
        _print_error("error: the program that reads the output has ended; write to a file instead")
        return 2
    except OSError as error:
        _print_error(f"error: {_describe(error)}; check the path, the free disk space and the permissions")
        return 2
    except KeyboardInterrupt:
        _print_error(f"\n{interrupted}")
        return INTERRUPTED
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        reason = (str(error).strip() or "no details").splitlines()[0]
        _print_error(f"error: too little memory ({reason}); use fewer or smaller images, or end other programs")
        return 2


def _describe(error: OSError) -> str:
    """Names the file of an error. If the disk is full, that is the target of a copy, not its source."""
    name = error.filename2 if error.errno in DISK_ERRORS and error.filename2 is not None else error.filename
    place = os.fsdecode(name).strip() if isinstance(name, (str, bytes, os.PathLike)) else ""
    return f"{place}: {error.strerror or error}" if place else f"{error.strerror or error}"


def print_listing(lines: Iterable[str]) -> None:
    """Prints lines whose reader, for example `head`, may end before the last one."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)


def prepare_streams() -> None:
    """Makes printing safe: into a closed stream, and of characters that the terminal's encoding does not have.

    A closed descriptor is opened on nothing, because otherwise the next file would get its number, and whatever a
    library prints would be written into that file.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _is_out_of_memory(error: Exception) -> bool:
    """Whether NumPy, TensorFlow or JAX had too little memory. The errors of the latter two are no MemoryError."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "ResourceExhaustedError"
        or str(error).startswith("RESOURCE_EXHAUSTED")
    )


def _print_error(text: str) -> None:
    """Prints to standard error after the pending output. The exit code does not depend on what can be written."""
    try:
        sys.stdout.flush()
    except OSError:
        _discard(sys.stdout)
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _discard(sys.stderr)


def _discard(stream: TextIO) -> None:
    """Redirects a stream to nowhere, so that Python's flush at exit does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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


class _Parser(argparse.ArgumentParser):
    """A parser that refuses empty values, for example of a shell variable that is not set.

    It keeps the line breaks of its description and accepts no abbreviated options. Its subcommands do the same, and
    show their own usage if an argument is unknown.
    """

    def __init__(self, **options: Any) -> None:
        own = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
        super().__init__(**{**own, **options})

    def parse_known_args(self, *arguments: Any, **options: Any) -> Any:
        parsed, unknown = super().parse_known_args(*arguments, **options)
        if unknown:  # argparse would leave them to the parser of the whole program
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, unknown

    def parse_args(self, *arguments: Any, **options: Any) -> Any:
        parsed = super().parse_args(*arguments, **options)
        for name, value in vars(parsed).items():
            if value == "" and self.get_default(name) != "":
                self.error(f"{name.replace('_', '-')} must not be empty")
        return parsed


def argument_parser(
    description: str | None, prog: str | None = None, epilog: str | None = None
) -> argparse.ArgumentParser:
    """An argument parser for the command line; see `_Parser`."""
    prepare_streams()
    return _Parser(prog=prog, description=description, epilog=epilog)


def add_labels(parser: argparse.ArgumentParser) -> None:
    """The options --labels and --label-columns: a CSV file with the labels of the images."""
    parser.add_argument("--labels", metavar="FILE", help="CSV file with the labels of the images")
    parser.add_argument(
        "--label-columns",
        type=_two_columns,
        metavar="FILES,LABELS",
        help="the column of file names and the column of labels in the CSV files, for example image_id,species "
        "(default: recognized)",
    )


def _two_columns(text: str) -> tuple[str, str]:
    """(column of files, column of labels) from a text such as image_id,species."""
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names):
        raise argparse.ArgumentTypeError(
            f"must be the names of two columns, got {text!r}; for example image_id,species"
        )
    return names[0], names[1]


def add_size(command: argparse.ArgumentParser) -> None:
    """The option of the size at which images are read."""
    command.add_argument(
        "--size",
        type=image_size,
        metavar="SIZE",
        help="N or HxW, height and width in pixels at which the images are read (default: the most frequent size, "
        "or the median if none is frequent, reduced to 384 on the longer side if that is longer than 512)",
    )


def output_file(text: str) -> str:
    """Returns the path of a file to write, for `add_argument(type=output_file)`. Folders are refused."""
    if Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"must be a file, and {text} is a folder")
    return text


def require_separate_files(outputs: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
    """Raises a UserError if a file to write is one that is read, or another one to write.

    Args:
        outputs, inputs: option → path, or None if it is not given.
    """
    seen = {Path(path).resolve(): option for option, path in inputs.items() if path}
    for option, path in outputs.items():
        if path and (other := seen.setdefault(Path(path).resolve(), option)) != option:
            raise UserError(f"{option} must be another file than {other}, got {path} for both; give another {option}")


def positive(text: str) -> float:
    """Returns a number above 0, for `add_argument(type=positive)`. NaN and infinity are refused."""
    number = float(text)
    if not (number > 0 and math.isfinite(number)):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text}")
    return number


def whole_number(text: str) -> int:
    """Returns a whole number from 1, for `add_argument(type=whole_number)`."""
    if not re.fullmatch(r"0*[1-9]\d{0,8}", text):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)


def image_size(text: str) -> tuple[int, int]:
    """Returns (height, width) from a text such as 128 or 96x128, for `add_argument(type=image_size)`."""
    match = re.fullmatch(r"(\d{1,4})(?:[x×](\d{1,4}))?", text)
    height, width = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not (1 <= height <= MAX_SIZE and 1 <= width <= MAX_SIZE):
        raise argparse.ArgumentTypeError(
            f"must be N or HEIGHTxWIDTH in pixels from 1 to {MAX_SIZE}, got {text!r}; for example 224 or 192x256"
        )
    return height, width
