"""grade_submission.py: what is not the zip's fault, as a full local disk, and options that would have no effect."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from types import SimpleNamespace

import pytest
from helpers import ROOT, python, stub, stub_zip

import grade_submission
from competition.grade import grade as grade_module
from competition.grade.grade import Rules, grade

pytestmark = pytest.mark.integration

NO_SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def local_error(capsys, *arguments):
    """Runs the command, which must exit with 2, without a verdict. Returns the line on stderr."""
    assert grade_submission.main([*map(str, arguments), "--layout", "an2dl2024"]) == 2
    out, err = capsys.readouterr()
    assert "verdict" not in out
    assert "zip the files again" not in out + err
    assert err.startswith("error: ") and err.count("\n") == 1
    return err


def fail_with_no_space(*_):
    raise NO_SPACE


@pytest.mark.parametrize("step", ["extract", "write_input", "_lay_out"])
def test_full_disk_while_grading_is_not_the_fault_of_the_zip(tmp_path, capsys, monkeypatch, step):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "disk"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(grade_module, step, fail_with_no_space)
    error = local_error(capsys, stub_zip(tmp_path / "a.zip", stub()))
    assert re.search(rf"grading needs \d+ MB on the disk of {tmp_path / 'disk'}, [\d,]+ MB are free", error)
    assert "TMPDIR" in error
    assert list((tmp_path / "disk").iterdir()) == []


def test_disk_that_is_too_small_is_found_before_grading(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=3_000_000))
    monkeypatch.setattr(grade_module, "extract", None)  # is not called
    assert "3 MB are free" in local_error(capsys, stub_zip(tmp_path / "a.zip", stub()))


def test_small_disk(tmp_path):
    """A real one, if this system allows to mount it."""
    (tmp_path / "disk").mkdir()
    mount = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    script = f'mount -t tmpfs -o size=6m tmpfs {tmp_path / "disk"} && exec "$@"'
    if subprocess.run([*mount, script, "sh", "true"], capture_output=True).returncode:
        pytest.skip("this system does not allow to mount a disk")
    stub_zip(tmp_path / "a.zip", stub())
    arguments = [*mount, script, "sh", sys.executable, ROOT / "grade_submission.py", tmp_path / "a.zip"]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "disk")}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 2, done.stdout
    assert re.search(rf"on the disk of {tmp_path / 'disk'}, [0-6] MB are free", done.stderr)
    assert done.stderr.count("\n") == 1


def test_largest_file_of_this_process_is_not_the_fault_of_the_zip(tmp_path):
    path = stub_zip(tmp_path / "a.zip", stub())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("weights", bytes(3_000_000))
    code = f"""
import resource, sys
sys.path.insert(0, {str(ROOT)!r})
import grade_submission
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
sys.exit(grade_submission.main([{str(path)!r}]))
"""
    done = python("-B", "-c", code)
    assert done.returncode == 2, done.stdout
    assert "File too large" in done.stderr
    assert "MB are free" in done.stderr
    assert "verdict" not in done.stdout


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_the_zip_and_the_labels_are_not_overwritten(tmp_path, labelled_folder, capsys, option):
    path, labels = stub_zip(tmp_path / "a.zip", stub()), tmp_path / "labels.csv"
    labels.write_text("file,label\n")
    before = path.read_bytes(), labels.read_bytes()
    for file in (path, labels):
        error = local_error(capsys, path, "--data", labelled_folder, "--labels", labels, option, file)
        assert f"{option} must be another file than" in error
    assert (path.read_bytes(), labels.read_bytes()) == before


def test_the_page_of_an_earlier_grading_does_not_stay_beside_a_refusal(tmp_path, labelled_folder):
    path, page = tmp_path / "a.zip", tmp_path / "page.html"
    page.write_text("the accuracy of another zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.py", stub())  # no metadata
    result = grade(path, labelled_folder, Rules(layout="an2dl2024"), html=page)
    assert not result.passed and not page.exists()
    assert f"no detailed results: nothing was scored; removed {page}, the page of an earlier grading" in result.notes
    assert not any("detailed" in note for note in grade(path, labelled_folder, html=page).notes)


def test_html_without_data_is_refused(tmp_path, capsys):
    error = local_error(capsys, stub_zip(tmp_path / "a.zip", stub()), "--html", tmp_path / "a.html")
    assert "--html" in error and "--data" in error
    assert not (tmp_path / "a.html").exists()


def test_detailed_results_that_cannot_be_written_lose_no_grade(tmp_path, labelled_folder, capsys):
    (tmp_path / "file").write_text("")
    options = "--data", str(labelled_folder), "--html", str(tmp_path / "file" / "a.html"), "--layout", "an2dl2024"
    code = grade_submission.main([str(stub_zip(tmp_path / "a.zip", stub())), *options, "--json", str(tmp_path / "g")])
    output = capsys.readouterr()
    assert code == 2
    assert output.err.startswith(f"error: --html {tmp_path / 'file' / 'a.html'} cannot be written, ")
    assert output.err.count("\n") == 1
    assert "accuracy" in output.out
    assert 0 <= json.loads((tmp_path / "g").read_text())["scores"]["accuracy"] <= 1


@pytest.mark.parametrize("option", ["--limit-mb", "--time-limit", "--memory-limit-mb"])
@pytest.mark.parametrize("number", ["0", "-3", "nan", "inf"])
def test_limits_must_be_above_0(tmp_path, capsys, option, number):
    with pytest.raises(SystemExit) as exit_:
        grade_submission.main([str(tmp_path / "a.zip"), option, number])
    assert exit_.value.code == 2
    assert "above 0" in capsys.readouterr().err
