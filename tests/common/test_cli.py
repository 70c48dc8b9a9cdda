"""The wrapper of every command line: exit codes, one-line errors, closed pipes and Ctrl-C."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from helpers import ROOT

from common.cli import argument_parser, interruptible, run_command
from common.errors import CommandError, InUse, UserError


@pytest.fixture(autouse=True)
def python_handler():
    """Python's own handler of Ctrl-C, also where the tests run in a shell's background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Refused(CommandError):
    exit_code = 1


def raising(error):
    def command():
        raise error

    return command


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.unit
@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1), (3, 3)])
def test_exit_code_is_the_one_that_the_command_returns(returned, code, capsys):
    assert run_command(lambda: returned) == code
    assert capsys.readouterr() == ("", "")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CommandError("no images"), 2),
        (UserError("no images"), 2),
        (InUse("no images"), 2),
        (Refused("no images"), 1),
    ],
)
def test_command_error_is_one_line_and_its_exit_code(error, code, capsys):
    assert run_command(raising(error)) == code
    assert capsys.readouterr() == ("", "error: no images\n")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(2, "No such file or directory", "leaves/a.jpg"), "leaves/a.jpg: No such file or directory"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("the disk is gone"), "the disk is gone"),
    ],
)
def test_os_error_is_one_line_and_exit_code_2(error, words, capsys):
    assert run_command(raising(error)) == 2
    out, line = capsys.readouterr()
    assert out == ""
    assert line.startswith(f"error: {words}")
    assert line.count("\n") == 1


@pytest.mark.unit
def test_exception_that_is_not_expected_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run_command(raising(ZeroDivisionError()))


@pytest.mark.unit
def test_ctrl_c_is_a_line_and_exit_code_130(capsys):
    assert run_command(interrupt, "interrupted; repeat the command") == 130
    assert capsys.readouterr() == ("", "\ninterrupted; repeat the command\n")


@pytest.mark.unit
@pytest.mark.parametrize("error", [SystemError("exception set"), CommandError("no images"), OSError("closed")])
def test_exception_after_ctrl_c_is_ctrl_c(error, capsys):
    def command():
        try:
            interrupt()
        except KeyboardInterrupt:
            raise error from None

    assert run_command(command) == 130
    assert capsys.readouterr() == ("", "\ninterrupted\n")


PIPE = """
import sys
from common.cli import run_command

def command():
    for number in range(100_000):
        print(number)
    return 1

sys.exit(run_command(command))
"""
LISTING = """
import sys
from common.cli import print_listing, run_command

sys.exit(run_command(lambda: print_listing(map(str, range(100_000)))))
"""


@pytest.mark.integration
@pytest.mark.parametrize(("source", "exit_code"), [(PIPE, 2), (LISTING, 0)], ids=["work", "listing"])
def test_closed_pipe_fails_except_for_a_listing(source, exit_code):
    command = [sys.executable, "-c", source]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        lines = process.stderr.read().splitlines()
        assert len(lines) == (1 if exit_code else 0)
        assert all(line.startswith("error: ") for line in lines)
        assert process.wait(timeout=60) == exit_code


@pytest.mark.unit
def test_interruptible_raises_the_exception_as_the_cause_of_ctrl_c():
    error = SystemError("returned a result with an exception set")
    with pytest.raises(KeyboardInterrupt) as caught, interruptible():
        try:
            interrupt()
        except KeyboardInterrupt:
            raise error from None
    assert caught.value.__cause__ is error


@pytest.mark.unit
def test_interruptible_does_not_change_an_exception_without_ctrl_c():
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemError, match="of its own"), interruptible():
        raise SystemError("of its own")
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.unit
def test_interruptible_restores_the_handler_after_ctrl_c():
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptible():
        interrupt()
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.unit
def test_interruptible_keeps_an_ignored_signal_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            interrupt()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.unit
def test_run_command_works_outside_the_main_thread():
    codes = []
    thread = threading.Thread(target=lambda: codes.append(run_command(lambda: 3)))
    thread.start()
    thread.join()
    assert codes == [3]


@pytest.mark.unit
def test_parser_keeps_line_breaks_and_refuses_abbreviations(capsys):
    parser = argument_parser("first\n  second", "program")
    parser.add_argument("--output")
    assert "first\n  second" in parser.format_help()
    with pytest.raises(SystemExit) as exit_:
        parser.parse_args(["--out", "x"])
    assert exit_.value.code == 2
    assert "--out" in capsys.readouterr().err
