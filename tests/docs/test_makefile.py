"""The Makefile's environment: never deleted, installed into, or one of the user's own; errors of one line."""

import re
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT

pytestmark = pytest.mark.integration

# An interpreter that writes down what pip would do, says which build of TensorFlow it has, and else is this one.
PYTHON = """#!/bin/sh
case "$*" in
  "-m pip install"*) echo "$@" >> "{folder}/installed";;
  *distributions*print*ready*) echo ready;;
  *distributions*) echo {build};;
  *) exec {python} "$@";;
esac
"""


@pytest.fixture
def project(tmp_path):
    """A folder with the Makefile and the requirements, and no environment."""
    for path in [ROOT / "Makefile", *ROOT.glob("requirements*.txt")]:
        shutil.copy(path, tmp_path)
    return tmp_path


def make(project, *arguments):
    command = ["make", "--no-print-directory", *map(str, arguments)]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120)


def environment(folder, build="tensorflow-cpu"):
    """An environment whose pip installs nothing. Returns its folder of programs."""
    folder.mkdir()
    (folder / "python").write_text(PYTHON.format(folder=folder, build=build, python=sys.executable))
    (folder / "python").chmod(0o755)
    return folder


def refused(done):
    """The lines of a refusal that are not make's own."""
    assert done.returncode == 2
    return [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("make")]


def test_an_existing_environment_is_installed_into_and_kept(project):
    (project / ".venv").mkdir()
    programs = environment(project / ".venv" / "bin")
    (programs / "of_the_user").touch()
    for _ in range(2):
        assert make(project, "setup").returncode == 0
    assert (programs / "installed").read_text().count("-r requirements.txt") == 1, "the second time, nothing changed"
    (project / ".venv" / "ready").unlink()  # as if the requirements were newer
    assert make(project, "setup").returncode == 0
    assert (programs / "installed").read_text().count("-r requirements.txt") == 2
    assert (programs / "of_the_user").exists()


@pytest.mark.parametrize(
    ("build", "options", "installed"),
    [
        ("tensorflow-cpu", (), "-r requirements.txt"),
        ("tensorflow", (), "tensorflow>=2.18,<2.22 -r requirements-base.txt"),
        ("", ("GPU=1",), "tensorflow[and-cuda]>=2.18,<2.22 -r requirements-base.txt"),
    ],
)
def test_the_build_of_tensorflow_is_kept(project, build, options, installed):
    programs = environment(project / "own", build)
    done = make(project, "setup", f"BIN={programs}", *options)
    assert done.returncode == 0, done.stderr
    assert (programs / "installed").read_text().endswith(f"{installed}\n")
    assert not (project / ".venv").exists()


def test_the_gpu_build_is_not_installed_over_the_cpu_build(project):
    (project / ".venv").mkdir()
    programs = environment(project / ".venv" / "bin")
    lines = refused(make(project, "setup", "GPU=1"))
    assert len(lines) == 1 and "CPU build" in lines[0]
    assert not (programs / "installed").exists()


@pytest.mark.parametrize("python", ["", "missing/python", "false"])
def test_no_usable_python_is_said_in_one_line(project, python):
    lines = refused(make(project, "setup", f"PYTHON={python}"))
    assert len(lines) == 1 and lines[0].startswith("error: ") and "3.10 to 3.13" in lines[0]
    assert not (project / ".venv").exists()


def test_an_environment_that_does_not_run_is_refused_and_kept(project):
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / ".venv" / "bin" / "python").symlink_to("/missing/python3.9")  # its Python was removed
    lines = refused(make(project, "setup"))
    assert len(lines) == 1 and ".venv/bin/python must be Python 3.10 to 3.13" in lines[0]
    assert (project / ".venv" / "bin" / "python").is_symlink()


def test_an_environment_of_ones_own_is_used_as_it_is(project):
    programs = environment(project / "own")
    assert make(project, "packages", f"BIN={programs}").returncode == 0
    lines = refused(make(project, "packages", f"BIN={programs}", "MODULES=numpy not_there neither"))
    assert lines == [f"error: {programs}/python lacks not_there, neither; make setup BIN={programs}"]
    assert not (programs / "installed").exists()


def test_an_environment_may_be_in_a_folder_with_a_space(project):
    programs = environment(project / "my own")
    assert make(project, "packages", f"BIN={programs}").returncode == 0
    done = make(project, "setup", f"BIN={programs}")
    assert done.returncode == 0, done.stderr
    assert (programs / "installed").read_text().endswith("-r requirements.txt\n")


@pytest.mark.parametrize(
    ("arguments", "environment_run", "packed"),
    [
        ((), None, ""),
        (("RUN=runs/my own",), None, '--run "runs/my own" '),
        ((), "runs/mine", '--run "runs/mine" '),
        (("TRAIN=leaves",), None, '--run "runs/auto" '),
        (("TRAIN=leaves", "RUN=runs/mine"), None, '--run "runs/mine" '),
    ],
)
def test_a_run_that_is_given_is_packed(project, monkeypatch, arguments, environment_run, packed):
    """Without one the committed model is packed, although RUN has a default for TRAIN."""
    monkeypatch.delenv("RUN", raising=False)
    if environment_run:
        monkeypatch.setenv("RUN", environment_run)
    done = make(project, "--dry-run", "submission", "BIN=own", *arguments)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "build_submission.py" in line]
    assert " ".join(line.split()) == f'"own/python" build_submission.py {packed}--out "dist/submission.zip"'


def test_labels_are_given_to_the_command_that_reads_the_images(project):
    given = ("TRAIN=leaves", "LABELS=my train.csv", "DATA=test", "DATA_LABELS=my test.csv")
    done = make(project, "--dry-run", "submission", "competition", "BIN=own", *given)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.replace("\\\n", "").split())
    assert '-m training auto --data "leaves" --labels "my train.csv" --minutes' in text
    assert '--data "test" --labels "my test.csv" --html' in text
    assert '-m competition "test" --labels "my test.csv"' in text


@pytest.mark.parametrize("given", [("LABELS=a.csv", "DATA=test"), ("DATA_LABELS=a.csv", "TRAIN=leaves")])
def test_labels_without_their_images_are_refused(project, given):
    programs = environment(project / "own")
    target = "submission" if given[1] != "DATA=test" else "competition"
    lines = refused(make(project, target, f"BIN={programs}", *given))
    assert len(lines) == 1 and re.match(f"error: {given[0].partition('=')[0]}=file is about", lines[0])


def test_the_options_of_a_submission_are_those_of_its_three_commands(project, monkeypatch):
    for name in ("RUN", "TITLE", "ZIP"):
        monkeypatch.delenv(name, raising=False)
    given = ("TRAIN=my leaves", "MINUTES=5", "WEIGHTS=my weights.h5", "DATA=my test")
    done = make(project, "--dry-run", "submission", "BIN=own", *given)
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.replace("\\\n", "").splitlines()]
    assert [line for line in lines if re.search("training auto|build_submission|grade_submission", line)] == [
        '"own/python" -m training auto --data "my leaves" --minutes 5 --out "runs/auto" '
        '--backbone-weights "my weights.h5"',
        '"own/python" build_submission.py --run "runs/auto" --out "dist/submission.zip"',
        '"own/python" grade_submission.py "dist/submission.zip" --data "my test" --html dist/grade.html '
        "--json dist/grade.json",
    ]
