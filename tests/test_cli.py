"""The command line, as processes of their own: what is printed, exit codes, interruptions."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from training.__main__ import main, recipe_names
from training.errors import interruptible


def training(*arguments):
    command = [sys.executable, "-m", "training", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def refused(done, *named):
    """Asserts exit code 2, nothing on stdout, and one line on stderr with the named patterns."""
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    for pattern in named:
        assert re.search(pattern, done.stderr)


def test_help_shows_examples():
    done = training("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "python -m training run inception_svm --data" in done.stdout
    assert "exit codes" in done.stdout


@pytest.mark.parametrize("command", ["list", "run", "tune", "compare", "split", "deepweeds"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"python -m training {command}" in capsys.readouterr().out


COMMANDS = {"_crossval", "_list", "_mistakes", "_run", "_tune", "_compare", "_split", "_deepweeds"}


def test_every_example_is_understood(capsys, monkeypatch):
    from training import __main__ as cli

    done = []
    for name in COMMANDS:
        monkeypatch.setattr(cli, name, lambda options, name=name: done.append(name))
    monkeypatch.setattr(cli, "_choose_backend", done.append)
    lines = [line.strip() for line in cli.EXAMPLES.splitlines() if line.strip().startswith("python -m training ")]
    for line in lines:
        import shlex

        assert cli.main(shlex.split(line)[3:]) == 0
    assert set(done) == {*COMMANDS, None, "jax"}


@pytest.mark.parametrize("arguments", [[], ["walk"], ["run", "inception_svm"], ["split", "--data", "x", "--out", "y", "--seed", "z"]])
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: python -m training" in capsys.readouterr().err


def test_list_names_every_recipe_with_its_first_line():
    done = training("list")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    names = [number for number, line in enumerate(lines) if not line.startswith(" ")]
    assert [lines[number] for number in names] == recipe_names()
    for start, end in zip(names, [*names[1:], len(lines)], strict=True):
        assert len(lines[start + 1].split()) > 5
        assert any(line.strip().startswith("Command: python -m training run") for line in lines[start:end])


def test_an_unknown_recipe_is_one_line_on_stderr(tmp_path):
    done = training("run", "inception_smv", "--data", tmp_path, "--out", tmp_path / "out")
    refused(done, "inception_smv", "did you mean .*inception_svm", "training list")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run"], "name the recipes to run, or give --all"),
        (["run", "online", "--all"], "name the recipes to run, or give --all"),
        (["run", "online", "smote"], "--out is the folder of one run; .*--runs"),
        (["run", "online", "--seeds", "2"], "--out is the folder of one run; .*--runs"),
        (["run", "inception_svm", "--set", "batsh=3"], "--set batsh=3.*did you mean.*batch"),
        (["run", "inception_svm", "--set", "batch=0"], "batch=0, expected a whole number from 1"),
        (["run", "inception_svm"], "nowhere"),
        (["split"], "nowhere"),
        (["split", "--validation", "2"], "nowhere"),
    ],
)
def test_wrong_input_is_one_line_on_stderr(arguments, named, tmp_path, capsys):
    code = main([*arguments, "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")])
    done = capsys.readouterr()
    refused(subprocess.CompletedProcess([], code, done.out, done.err), named)
    assert list(tmp_path.iterdir()) == []


def test_deepweeds_needs_a_source(tmp_path, capsys):
    assert main(["deepweeds", "--out", str(tmp_path / "out")]) == 2
    assert re.search("--images and --labels, or --download", capsys.readouterr().err)


def test_a_path_that_cannot_be_written_is_one_line_on_stderr(leaf_folder, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["split", "--data", str(leaf_folder), "--out", str(tmp_path / "file" / "out")]) == 2
    error = capsys.readouterr().err
    assert re.match("error: .*file.*check the path", error)
    assert error.count("\n") == 1


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_split_copies_every_image_into_one_of_two_parts(leaf_folder, tmp_path):
    (leaf_folder / "Species2" / "notes.txt").write_text("no image")
    out = tmp_path / "new" / "split"
    done = training("split", "--data", leaf_folder, "--out", out, "--validation", "0.25")
    assert (done.returncode, done.stderr) == (0, "")
    assert "notes.txt" in done.stdout
    train, held = files(out / "train"), files(out / "validation")
    expected = files(leaf_folder)
    del expected["Species2/notes.txt"]
    assert {**train, **held} == expected
    assert len(train) + len(held) == len(expected) == 24
    assert [sum(name.startswith(f"Species{n}/") for name in held) for n in (1, 2, 3)] == [2, 2, 2]
    assert "18 images" in done.stdout
    assert "6 images" in done.stdout
    assert [path.name for path in out.parent.iterdir()] == ["split"]


def test_split_depends_on_the_seed(leaf_folder, tmp_path):
    held = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(["split", "--data", str(leaf_folder), "--out", str(tmp_path / name), "--seed", seed]) == 0
        held.append(set(files(tmp_path / name / "validation")))
    assert held[0] == held[1] != held[2]


def test_split_overwrites_nothing(leaf_folder, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    assert main(["split", "--data", str(leaf_folder), "--out", str(tmp_path / "out")]) == 2
    assert "exists" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def hear_ctrl_c():
    """In the child: a background shell makes its commands ignore Ctrl-C, and they hand that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes to wait on")
def test_ctrl_c_ends_without_a_traceback(tmp_path):
    pipe = tmp_path / "labels.csv"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "training", "deepweeds", "--images", tmp_path, "--labels", pipe, "--out", tmp_path / "out"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c) as child:
        try:
            writer = open_for_writing(pipe, child)  # now the child reads its labels, and there are none
            child.send_signal(signal.SIGINT)
            error = child.communicate(timeout=60)[1]
            os.close(writer)
        finally:
            child.kill()
    assert child.returncode == 130
    assert "interrupted" in error
    assert "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["labels.csv"]


def open_for_writing(pipe, child):
    """Opens a pipe as soon as another process reads it: until then, that is an error."""
    while child.poll() is None:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            time.sleep(0.02)
    raise AssertionError(f"the process ended with {child.returncode} before it read")


# The command line with a backbone that is trained within seconds in place of a recipe's own.
TINY = """
import sys
sys.path[:0] = sys.argv[1:3]
import conftest
from training import __main__ as cli
from training.recipe import Recipe
cli.load_recipe = lambda name: conftest.shrunk(Recipe(warmup=0.5))
sys.exit(cli.main(sys.argv[3:]))
"""


def test_a_run_interrupted_by_ctrl_c_goes_on_where_it_was(leaf_folder, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", TINY, ROOT, ROOT / "tests", "run", "tiny", "--data", leaf_folder, "--out", out]
    command += ["--backbone-weights", "none"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c) as child:
        try:
            for line in child.stdout:
                if line.startswith("epoch 2/2"):
                    child.send_signal(signal.SIGINT)
                    break
            error = child.communicate(timeout=120)[1]
        finally:
            child.kill()
    assert child.returncode == 130, error
    assert "interrupted" in error
    assert "Traceback" not in error
    assert (out / "checkpoint.npz").exists()
    assert not (out / "metrics.json").exists()

    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "going on with the run" in done.stdout
    assert "epoch 1/2" not in done.stdout
    assert "epoch 2/2" in done.stdout
    assert f"build_submission.py --run {out}" in done.stdout
    assert (out / "metrics.json").exists()


INTERRUPTED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from training.errors import interruptible

def callback():  # what numpy does where Python hears Ctrl-C while its C++ is at work
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise SystemError("<built-in method __array__> returned a result with an exception set")

with interruptible():
    callback()
"""


def test_ctrl_c_is_one_whatever_it_came_out_as():
    command = [sys.executable, "-c", INTERRUPTED, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, preexec_fn=hear_ctrl_c)
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert "returned a result with an exception set" in done.stderr  # its cause


def test_an_error_without_ctrl_c_stays_what_it_is():
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemError, match="of its own"), interruptible():
        raise SystemError("of its own")
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_signal_that_is_ignored_on_purpose_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
