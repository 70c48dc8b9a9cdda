"""The wrapper of every command line: exit codes, one-line errors, closed pipes and Ctrl-C."""

import os
import shlex
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from helpers import ROOT

from common.cli import argument_parser, interruptible, require_separate_files, run_command
from common.errors import CommandError, InUse, UserError


@pytest.fixture(autouse=True)
def python_handler():
    """Python's own handler of Ctrl-C, also where the tests run in a shell's background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_file_to_write_is_none_that_is_read_or_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    require_separate_files({"--json": "a.json", "--html": "a.html"}, {"zip": "a.zip", "--labels": None})
    require_separate_files({"--json": None, "--html": None}, {"zip": "a.zip"})
    for outputs, words in (
        ({"--json": "a.zip"}, "--json must be another file than zip, got a.zip for both; give another --json"),
        ({"--json": tmp_path / "a.zip"}, "--json must be another file than zip"),
        ({"--json": "link/a.zip"}, "--json must be another file than zip"),
        ({"--json": "a", "--html": "./a"}, "--html must be another file than --json"),
    ):
        with pytest.raises(UserError, match=words):
            require_separate_files(outputs, {"zip": "a.zip", "--labels": "labels.csv"})


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
        (FileNotFoundError(2, "No such file or directory", ""), "No such file or directory"),
        (FileNotFoundError(2, "No such file or directory", "  "), "No such file or directory"),
        (FileNotFoundError(2, "No such file or directory", b"a\xff.jpg"), "a\\udcff.jpg: No such file or directory"),
        (OSError(9, "Bad file descriptor", 3), "Bad file descriptor"),
        (OSError(28, "No space left on device", "from.jpg", None, "to.jpg"), "to.jpg: No space left on device"),
        (OSError(13, "Permission denied", "from.jpg", None, "to.jpg"), "from.jpg: Permission denied"),
    ],
)
def test_os_error_is_one_line_and_exit_code_2(error, words, capsys):
    assert run_command(raising(error)) == 2
    out, line = capsys.readouterr()
    assert out == ""
    assert line.startswith(f"error: {words}")
    assert line.count("\n") == 1


class ResourceExhaustedError(Exception):
    """Stands in for TensorFlow's."""


@pytest.mark.unit
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 82.0 GiB for an array"),
        ResourceExhaustedError("OOM when allocating tensor\nand more"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"),
    ],
)
def test_too_little_memory_is_one_line_and_exit_code_2(error, capsys):
    assert run_command(raising(error)) == 2
    out, line = capsys.readouterr()
    assert out == ""
    assert line.startswith("error: too little memory")
    assert line.count("\n") == 1


@pytest.mark.unit
def test_an_array_that_is_too_large_is_too_little_memory(capsys):
    assert run_command(lambda: np.ones((1 << 40, 1 << 12)).sum()) == 2
    assert "Unable to allocate" in capsys.readouterr().err


@pytest.mark.unit
def test_error_is_one_line_whatever_its_text(capsys):
    assert run_command(raising(UserError("a\nb"))) == 2
    assert capsys.readouterr().err == "error: a\\nb\n"


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


def shell(script, source, **environment):
    """Runs a script of bash in which $P is a fresh interpreter with the source."""
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(source)}"
    lines = f"set -o pipefail; {script.replace('$P', command)}"
    return subprocess.run(
        ["bash", "-c", lines], cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120
    )


ENDINGS = {
    "success": ("return 0", 0, ""),
    "failed check": ("return 1", 1, ""),
    "wrong input": ("raise UserError('no images')", 2, "error: no images\n"),
    "no file": ("open('/nowhere/a')", 2, "error: /nowhere/a: No such file"),
    "interrupted": ("raise KeyboardInterrupt", 130, "interrupted"),
}
SOURCE = """
import sys
from common.cli import argument_parser, run_command
from common.errors import UserError

def command():
    print("working")
    print("note", file=sys.stderr)
    {}

argument_parser("x").parse_args([])
sys.exit(run_command(command))
"""
STREAMS = {  # a script, and whether the error can be seen
    "plain": ("$P", True),
    "both into tee": ("$P 2>&1 | tee /dev/null", True),
    "stderr closed": ("$P 2>&-", False),
    "all closed": ("$P >&- 2>&- <&-", False),
}


@pytest.mark.integration
@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("ending", ENDINGS)
def test_streams_do_not_change_the_exit_code(ending, streams):
    body, code, words = ENDINGS[ending]
    script, visible = STREAMS[streams]
    done = shell(script, SOURCE.format(body))
    assert done.returncode == code
    assert "Traceback" not in done.stderr + done.stdout
    assert "Exception ignored" not in done.stderr + done.stdout
    if visible:
        assert words in done.stdout + done.stderr
    elif "closed" in streams:
        assert "error" not in done.stdout


@pytest.mark.integration
@pytest.mark.parametrize(
    ("script", "ending", "code"),
    [
        ("$P | true", "success", 2),
        ("$P | true", "wrong input", 2),
        ("$P 2>&1 | true", "success", 2),
        ("$P 2>&1 | true", "wrong input", 2),
        ("$P > /dev/full", "success", 2),
    ],
)
def test_output_that_cannot_be_written_is_an_error(script, ending, code):
    """Also if it is noticed only when the buffer is written at the end."""
    source = SOURCE.format(ENDINGS[ending][0]).replace('    print("working', '    time.sleep(0.5)\n    print("working')
    done = shell(script, f"import time\n{source}")
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.stderr.count("error:") <= 1


@pytest.mark.integration
def test_file_is_not_opened_in_place_of_a_closed_stream(tmp_path):
    source = f"""
import os, sys
from common.cli import run_command

def command():
    with open({str(tmp_path / "data")!r}, "w") as file:
        os.write(2, b"a library's message")
        os.write(1, b"another one")
        file.write("data")

sys.exit(run_command(command))
"""
    assert shell("$P >&- 2>&-", source).returncode == 0
    assert (tmp_path / "data").read_text() == "data"


ASCII = {
    "PYTHONIOENCODING": {"PYTHONIOENCODING": "ascii"},
    "strict": {"PYTHONIOENCODING": "ascii:strict"},
    "locale": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "LANG": {"LANG": "C", "LC_ALL": ""},
}


@pytest.mark.integration
@pytest.mark.parametrize("case", ASCII)
def test_other_encodings_do_not_fail(case):
    source = SOURCE.format(r"print('96\u00d796 \u2192 299'); raise UserError('Bl\u00e4tter \u6953 \udcff')")
    done = shell("$P", source, **ASCII[case])
    assert done.returncode == 2
    assert "96" in done.stdout and "299" in done.stdout
    assert done.stderr.startswith("note\nerror: Bl")


@pytest.mark.integration
@pytest.mark.parametrize("program", ["-m training", "-m competition", "build_submission.py", "grade_submission.py"])
def test_help_is_printed_in_ascii(program):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    command = [sys.executable, *program.split(), "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.unit
@pytest.mark.parametrize("arguments", [["--name", ""], ["--name="], ["sub", ""], ["sub", "x", "--other", ""]], ids=str)
def test_empty_values_are_refused(arguments, capsys):
    parser = argument_parser("x", "program")
    parser.add_argument("--name")
    parser.add_argument("--start", default="")
    sub = parser.add_subparsers().add_parser("sub")
    sub.add_argument("place")
    sub.add_argument("--other")
    assert parser.parse_args(["--name", "x"]).start == ""
    with pytest.raises(SystemExit) as exit_:
        parser.parse_args(arguments)
    assert exit_.value.code == 2
    assert "must not be empty" in capsys.readouterr().err


@pytest.mark.integration
@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("grade_submission.py", ["some.zip", "--data", "images", "--html"]),
        ("grade_submission.py", ["some.zip", "--json"]),
        ("build_submission.py", ["--out"]),
        ("build_submission.py", ["--layout", "kaggle", "--images", "a", "--sample", "b", "--out"]),
    ],
)
def test_a_folder_is_refused_as_an_output_file_before_any_work(program, arguments, tmp_path):
    command = [sys.executable, ROOT / program, *arguments, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert f"must be a file, and {tmp_path} is a folder" in done.stderr
    assert not list(tmp_path.iterdir())


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


@pytest.mark.unit
def test_unknown_argument_of_a_command_shows_the_usage_of_this_command(capsys):
    parser = argument_parser("text", "program")
    commands = parser.add_subparsers(required=True)
    commands.add_parser("grade").add_argument("--images")
    commands.add_parser("build")
    with pytest.raises(SystemExit) as exit_:
        parser.parse_args(["grade", "--imges", "x"])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("usage: program grade [-h] [--images IMAGES]\n")
    assert error.endswith("program grade: error: unrecognized arguments: --imges x\n")
