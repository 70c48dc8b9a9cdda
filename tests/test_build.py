"""build_submission.py: the zip, the same bytes each time, and the old zip as long as there is no better one."""

import errno
import hashlib
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import tensorflow as tf
from helpers import NAMES, ROOT, python, tiny_network, tiny_submission

import build_submission
from competition.archive import inspect


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A copy of the tiny submission in the place of submission/, with the litter that a work folder has."""
    folder = tmp_path / "source"
    shutil.copytree(tiny_submission(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "model.cpython-311.pyc").write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    monkeypatch.setattr(build_submission, "SOURCE", folder)
    return folder


@pytest.fixture
def old(tmp_path):
    """An earlier zip, in a folder of its own."""
    path = tmp_path / "dist" / "submission.zip"
    path.parent.mkdir()
    path.write_bytes(b"the old zip")
    return path


def kept(old):
    """The old zip is as it was, and nothing lies beside it."""
    return old.read_bytes() == b"the old zip" and [path.name for path in old.parent.iterdir()] == [old.name]


def refused(old, capsys, *arguments):
    """Runs the command line, which must fail and leave the old zip. Returns (exit code, the one line of error)."""
    code = build_submission.main([*arguments, "--out", str(old)])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert kept(old)
    return code, printed.err


def test_the_zip_is_what_the_server_expects(source, tmp_path):
    path = build_submission.build(out=tmp_path / "new" / "folder" / "submission.zip")
    assert path == tmp_path / "new" / "folder" / "submission.zip"
    assert [p.name for p in path.parent.iterdir()] == ["submission.zip"]
    model = {f"SubmissionModel/{p.relative_to(source / 'SubmissionModel').as_posix()}" for p in (source / "SubmissionModel").rglob("*.*")}
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert names == sorted({"model.py", "metadata"} | model)
        assert "SubmissionModel/saved_model.pb" in names
        for entry in archive.infolist():
            assert entry.compress_type == zipfile.ZIP_DEFLATED
            assert archive.read(entry) == (source / entry.filename).read_bytes()
        assert path.stat().st_size < sum(entry.file_size for entry in archive.infolist())
    assert all(check.passed for check in inspect(path))


def test_the_zip_works_where_it_is_unpacked(source, tmp_path):
    with zipfile.ZipFile(build_submission.build(out=tmp_path / "a.zip")) as archive:
        archive.extractall(tmp_path / "unpacked")
    code = (
        "import sys; sys.path.insert(0, '.'); import numpy as np; from model import predict; print(predict(np.zeros((3, 96, 96, 3))).shape)"
    )
    done = python("-c", code, cwd=tmp_path / "unpacked")
    assert done.stdout.strip() == "(3,)", done.stderr


def test_the_same_inputs_give_the_same_bytes(source, tmp_path):
    first = build_submission.build(out=tmp_path / "first.zip").read_bytes()
    for number, path in enumerate(sorted(source.rglob("*.*"))):
        os.utime(path, (1_000_000_000 + number, 1_000_000_000 + number))
        path.chmod(0o600)
    moved = source.with_name("elsewhere")
    shutil.copytree(source, moved)
    build_submission.SOURCE = moved  # the fixture puts it back
    assert build_submission.build(out=tmp_path / "second.zip").read_bytes() == first
    (moved / "model.py").write_text((moved / "model.py").read_text() + "\n")
    assert build_submission.build(out=tmp_path / "third.zip").read_bytes() != first


def test_a_new_zip_replaces_the_old_one(source, old):
    build_submission.build(out=old)
    assert zipfile.is_zipfile(old)
    assert [path.name for path in old.parent.iterdir()] == [old.name]


def test_output(source, old, capsys):
    assert build_submission.main(["--out", str(old)]) == 0
    printed = capsys.readouterr().out
    lines = {tuple(line.split()) for line in printed.splitlines()}
    with zipfile.ZipFile(old) as archive:
        for entry in archive.infolist():
            assert (f"{entry.file_size:,}", entry.filename) in lines
    assert (f"{old.stat().st_size:,}", str(old)) in lines
    assert ("SHA-256", hashlib.sha256(old.read_bytes()).hexdigest()) in lines
    assert ("saved", "with", "TensorFlow", tf.__version__) in lines


def test_a_run_takes_the_place_of_the_committed_model(source, old, monkeypatch, capsys):
    import training.run

    shutil.rmtree(source / "SubmissionModel")
    monkeypatch.setattr(training.run, "load_network", lambda run: (tiny_network(seed=1), NAMES, ("none", "both"), 0.75))
    assert build_submission.main(["--run", "runs/first", "--out", str(old)]) == 0
    with zipfile.ZipFile(old) as archive:
        archive.extractall(source / "unpacked")
    about = tf.saved_model.load(str(source / "unpacked" / "SubmissionModel")).signatures["about"]()
    assert about["flips"].numpy().tolist() == [b"none", b"both"] and about["sure"].numpy() == 0.75
    assert not (source / "SubmissionModel").exists()
    assert [path.name for path in old.parent.iterdir()] == [old.name]


# --- what is refused, and the old zip stays


def test_missing_model(source, old, capsys):
    shutil.rmtree(source / "SubmissionModel")
    code, error = refused(old, capsys)
    assert code == 2
    assert f"no model at {source / 'SubmissionModel'}" in error
    assert "--run" in error


@pytest.mark.parametrize("damage", ["empty", "garbage", "truncated"])
def test_damaged_model(source, old, capsys, damage):
    graph = source / "SubmissionModel" / "saved_model.pb"
    data = graph.read_bytes()
    graph.write_bytes({"empty": b"", "garbage": b"\xff" * 5000, "truncated": data[: len(data) // 2]}[damage])
    code, error = refused(old, capsys)
    assert code in (1, 2)
    assert "saved_model.pb" in error or "SubmissionModel" in error


@pytest.mark.parametrize("name", ["model.py", "metadata"])
def test_missing_file(source, old, capsys, name):
    (source / name).unlink()
    code, error = refused(old, capsys)
    assert code == 2
    assert f"missing {source / name}" in error


def test_size_limit(source, old, capsys):
    code, error = refused(old, capsys, "--limit-mb", "0.01")
    assert code == 1
    assert "the server would refuse it: size: " in error
    assert "the limit is 0.01 MB" in error


def test_metadata_that_the_server_would_not_understand(source, old, capsys):
    (source / "metadata").write_text("image: python\n")
    code, error = refused(old, capsys)
    assert code == 1
    assert "metadata: the server would not understand its line 'image: python'" in error


def test_link_to_a_file_is_packed_as_the_file(source, tmp_path):
    (source / "metadata").rename(tmp_path / "elsewhere")
    (source / "metadata").symlink_to(tmp_path / "elsewhere")
    path = build_submission.build(out=tmp_path / "a.zip")
    with zipfile.ZipFile(path) as archive:
        assert archive.read("metadata") == (tmp_path / "elsewhere").read_bytes()


@pytest.mark.parametrize("run", ["missing", "empty", "unfinished"])
def test_unfinished_run(source, old, capsys, tmp_path, run):
    folder = tmp_path / "run"
    if run != "missing":
        folder.mkdir()
    if run == "unfinished":
        (folder / "recipe.json").write_text("{}")
    code, error = refused(old, capsys, "--run", str(folder))
    assert code == 2
    assert str(folder) in error
    assert ("is not finished" if run == "unfinished" else "no run at") in error


def test_folder_that_cannot_be_written(source, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert build_submission.main(["--out", str(tmp_path / "file" / "submission.zip")]) == 2
    assert f"error: cannot write {tmp_path / 'file' / 'submission.zip'}: " in capsys.readouterr().err
    (tmp_path / "folder.zip").mkdir()
    assert build_submission.main(["--out", str(tmp_path / "folder.zip")]) == 2
    assert "give another --out" in capsys.readouterr().err
    assert list((tmp_path / "folder.zip").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.zip", "source"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(source, old, capsys):
    old.parent.chmod(0o500)
    try:
        code, error = refused(old, capsys)
    finally:
        old.parent.chmod(0o700)
    assert code == 2
    assert "Permission denied" in error


def test_disk_that_is_full_at_the_end(source, old, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    code, error = refused(old, capsys)
    assert code == 2
    assert error == f"error: cannot write {old}: No space left on device; free the disk or give another --out\n"


def test_disk_that_is_full_in_between(source, old):
    """A real failure in the middle of a write: the process may write no file larger than 20 kB."""
    pytest.importorskip("resource", reason="limits of a process are a Unix matter")
    code = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import build_submission
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
build_submission.SOURCE = Path(sys.argv[2])
sys.exit(build_submission.main(["--out", sys.argv[3]]))
"""
    done = python("-c", code, ROOT, source, old)
    assert done.returncode == 2, done.stderr
    assert done.stderr == f"error: cannot write {old}: File too large; free the disk or give another --out\n"
    assert kept(old)


def test_interrupt(source, old, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    assert build_submission.main(["--out", str(old)]) == 130
    assert "the old file is as it was" in capsys.readouterr().err
    assert kept(old)


# --- the command line


def test_help():
    done = python(ROOT / "build_submission.py", "--help", isolated=False)
    assert done.returncode == 0
    assert re.search(r"examples:\n( +python build_submission\.py.*\n){2,}", done.stdout)
    for word in ("exit codes: 0", "--run", "--out", "--limit-mb"):
        assert word in done.stdout


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--limit-mb", "many"], ["surplus"]])
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        build_submission.main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_the_committed_model(tmp_path):
    if not (ROOT / "submission" / "SubmissionModel").is_dir():
        pytest.skip("submission/SubmissionModel is not committed yet")
    done = python(ROOT / "build_submission.py", "--out", tmp_path / "a.zip", cwd=tmp_path, isolated=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_make_help_lists_the_targets():
    if not shutil.which("make"):
        pytest.skip("no make on this system")
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listed = dict(re.findall(r"^  make (\S+) +(.+)$", done.stdout, re.MULTILINE))
    text = Path(ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE).group(1).split()
    assert sorted(listed) == sorted(phony)
    assert {"setup", "submission", "test", "lint", "clean"} <= set(listed)
    assert "DATA=" in done.stdout
    bare = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True)
    assert bare.stdout == done.stdout  # make alone must not start anything
