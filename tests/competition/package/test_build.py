"""build_submission.py: the content of the zip, reproducible bytes, and failures that keep the old zip."""

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from helpers import NAMES, ROOT, python, tiny_submission

import build_submission
from common.errors import UserError
from common.files import write_json
from common.images import Images
from competition.package import build as package
from competition.package.archive import inspect
from competition.package.build import build

pytestmark = pytest.mark.integration


RUN = SimpleNamespace(name="my: first", classes=NAMES)  # the part of a run's record that is used here


@pytest.fixture
def old_zip(tmp_path):
    """An earlier zip, in its own folder."""
    path = tmp_path / "dist" / "submission.zip"
    path.parent.mkdir()
    path.write_bytes(b"the old zip")
    return path


def unchanged(old_zip):
    """Whether the old zip is unchanged and the only file of its folder."""
    return old_zip.read_bytes() == b"the old zip" and files_beside(old_zip) == [old_zip.name]


def files_beside(path):
    return [other.name for other in path.parent.iterdir()]


def error_of(old_zip, capsys, *arguments):
    """Runs the command line, which must fail and keep the old zip. Returns (exit code, the line on stderr)."""
    code = build_submission.main([*arguments, "--out", str(old_zip)])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(r"error: .+\n", printed.err)
    assert unchanged(old_zip)
    return code, printed.err


# --- the zip


def test_zip_has_the_code_the_metadata_and_the_model(submission_folder, tmp_path):
    path = build(out=tmp_path / "new" / "folder" / "submission.zip")
    assert path == tmp_path / "new" / "folder" / "submission.zip"
    assert files_beside(path) == ["submission.zip"]
    parts = (submission_folder / "SubmissionModel").rglob("*.*")
    model = {part.relative_to(submission_folder).as_posix() for part in parts}
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert names == sorted({"model.py", "metadata"} | model)
        assert "SubmissionModel/saved_model.pb" in names
        for entry in archive.infolist():
            assert entry.compress_type == zipfile.ZIP_DEFLATED
            assert archive.read(entry) == (submission_folder / entry.filename).read_bytes()
        assert path.stat().st_size < sum(entry.file_size for entry in archive.infolist())
    assert all(check.passed for check in inspect(path))


def test_unpacked_zip_predicts_in_a_fresh_process(submission_folder, tmp_path):
    with zipfile.ZipFile(build(out=tmp_path / "a.zip")) as archive:
        archive.extractall(tmp_path / "unpacked")
    code = """
import sys
sys.path.insert(0, ".")
import numpy as np
from model import predict
print(predict(np.zeros((3, 96, 96, 3))).shape)
"""
    done = python("-c", code, cwd=tmp_path / "unpacked")
    assert done.stdout.strip() == "(3,)", done.stderr


def test_same_inputs_give_the_same_bytes(submission_folder, tmp_path, monkeypatch):
    first = build(out=tmp_path / "first.zip").read_bytes()
    for number, path in enumerate(sorted(submission_folder.rglob("*.*"))):
        os.utime(path, (1_000_000_000 + number, 1_000_000_000 + number))
        path.chmod(0o600)
    moved = submission_folder.with_name("elsewhere")
    shutil.copytree(submission_folder, moved)
    monkeypatch.setattr(package, "SOURCE", moved)
    assert build(out=tmp_path / "second.zip").read_bytes() == first
    (moved / "model.py").write_text((moved / "model.py").read_text() + "\n")
    assert build(out=tmp_path / "third.zip").read_bytes() != first


def test_new_zip_replaces_the_old_one(submission_folder, old_zip):
    build(out=old_zip)
    assert zipfile.is_zipfile(old_zip)
    assert files_beside(old_zip) == [old_zip.name]


def test_link_to_a_file_is_packed_as_the_file(submission_folder, tmp_path):
    (submission_folder / "metadata").rename(tmp_path / "elsewhere")
    (submission_folder / "metadata").symlink_to(tmp_path / "elsewhere")
    with zipfile.ZipFile(build(out=tmp_path / "a.zip")) as archive:
        assert archive.read("metadata") == (tmp_path / "elsewhere").read_bytes()


def test_hidden_and_system_files_are_left_out(submission_folder, tmp_path):
    before = zipfile.ZipFile(build(out=tmp_path / "before.zip")).namelist()
    model = submission_folder / "SubmissionModel"
    for name in ("._saved_model.pb", ".DS_Store", "variables/.DS_Store", "__MACOSX/._a", "Thumbs.db", "desktop.ini"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_bytes(b"x")
    (model / ".ipynb_checkpoints").mkdir()
    (model / ".ipynb_checkpoints" / "saved_model.pb").write_bytes(b"x")
    assert zipfile.ZipFile(build(out=tmp_path / "after.zip")).namelist() == before


@pytest.mark.parametrize("time", [0, -1e9, 4_400_000_000], ids=["1970", "before 1970", "after 2107"])
def test_files_of_any_date_are_packed(submission_folder, tmp_path, time):
    expected = build(out=tmp_path / "before.zip").read_bytes()
    for path in submission_folder.rglob("*.*"):
        os.utime(path, (time, time))
    assert build(out=tmp_path / "after.zip").read_bytes() == expected


WRITE = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import build_submission
from competition.package import build
build.SOURCE = Path(sys.argv[2])
sys.exit(build_submission.main(["--out", sys.argv[3]]))
"""


@pytest.mark.slow
def test_two_writers_of_one_zip(submission_folder, old_zip):
    """Both end well, and the zip is whole: each writes a file of its own and renames it."""
    expected = build(out=old_zip).read_bytes()
    old_zip.unlink()
    command = [sys.executable, "-c", WRITE, ROOT, submission_folder, old_zip]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)]
    for process in processes:
        error = process.communicate(timeout=240)[1]
        assert process.returncode == 0, error
    assert old_zip.read_bytes() == expected
    assert files_beside(old_zip) == [old_zip.name]


def test_output_lists_entries_sizes_checksum_and_tensorflow(submission_folder, old_zip, capsys):
    assert build_submission.main(["--out", str(old_zip)]) == 0
    lines = {tuple(line.split()) for line in capsys.readouterr().out.splitlines()}
    with zipfile.ZipFile(old_zip) as archive:
        for entry in archive.infolist():
            assert (f"{entry.file_size:,}", entry.filename) in lines
    assert (f"{old_zip.stat().st_size:,}", str(old_zip)) in lines
    assert ("SHA-256", hashlib.sha256(old_zip.read_bytes()).hexdigest()) in lines
    assert ("saved", "with", "TensorFlow", tf.__version__) in lines
    assert ("model", "the", "committed", "one,", str(submission_folder / "SubmissionModel")) in lines
    assert ("classes", *", ".join(NAMES).split()) in lines


@pytest.mark.parametrize("source", ["model_folder", "--run"])
def test_given_model_replaces_the_committed_one(submission_folder, old_zip, monkeypatch, capsys, source):
    other = tiny_submission(tta_transforms=("none", "both"), tta_threshold=0.75) / "SubmissionModel"
    shutil.rmtree(submission_folder / "SubmissionModel")
    if source == "model_folder":
        build(other, old_zip)
    else:
        monkeypatch.setattr("training.export.export_run", lambda run, folder: shutil.copytree(other, folder))
        monkeypatch.setattr("training.run_folder.read_record", lambda folder: RUN)
        assert build_submission.main(["--run", "runs/first", "--out", str(old_zip)]) == 0
    with zipfile.ZipFile(old_zip) as archive:
        archive.extractall(submission_folder / "unpacked")
    metadata = (submission_folder / "unpacked" / "metadata").read_text("utf-8")
    if source == "--run":
        assert capsys.readouterr().out.startswith(
            f"model    runs/first, recipe my-first\nclasses  {', '.join(NAMES)}\n"
        )
        assert metadata == "description: recipe my-first, 8 classes\n"
    else:
        assert metadata == (submission_folder / "metadata").read_text("utf-8")
    about = tf.saved_model.load(str(submission_folder / "unpacked" / "SubmissionModel")).signatures["about"]()
    assert about["tta_transforms"].numpy().tolist() == [b"none", b"both"]
    assert about["tta_threshold"].numpy() == 0.75
    assert not (submission_folder / "SubmissionModel").exists()
    assert files_beside(old_zip) == [old_zip.name]


# --- imports


def test_imports_load_neither_training_nor_scikit_learn(tmp_path):
    code = """
import json, sys
sys.path.insert(0, sys.argv[1])
import build_submission
from competition.package import archive, build, kaggle
print(json.dumps(sorted(name for name in sys.modules if name.partition(".")[0] in ("training", "sklearn"))))
"""
    done = python("-c", code, ROOT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


@pytest.mark.slow
def test_packing_works_without_training_and_scikit_learn(tmp_path):
    code = """
import sys
sys.modules["training"] = sys.modules["sklearn"] = None  # importing them raises ImportError
sys.path.insert(0, sys.argv[1])
import build_submission
sys.exit(build_submission.main(["--out", "a.zip"]))
"""
    done = python("-c", code, ROOT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert zipfile.is_zipfile(tmp_path / "a.zip")


# --- failures, which keep the old zip


def test_missing_model_exits_with_2(submission_folder, old_zip, capsys):
    shutil.rmtree(submission_folder / "SubmissionModel")
    code, error = error_of(old_zip, capsys)
    assert code == 2
    assert f"no model at {submission_folder / 'SubmissionModel'}" in error
    assert "--run" in error


@pytest.mark.parametrize("damage", ["empty", "garbage", "truncated"])
def test_damaged_model_is_refused(submission_folder, old_zip, capsys, damage):
    graph = submission_folder / "SubmissionModel" / "saved_model.pb"
    data = graph.read_bytes()
    graph.write_bytes({"empty": b"", "garbage": b"\xff" * 5000, "truncated": data[: len(data) // 2]}[damage])
    code, error = error_of(old_zip, capsys)
    assert code in (1, 2)
    assert "saved_model.pb" in error or "SubmissionModel" in error


@pytest.mark.parametrize("name", ["model.py", "metadata"])
def test_missing_file_exits_with_2(submission_folder, old_zip, capsys, name):
    (submission_folder / name).unlink()
    code, error = error_of(old_zip, capsys)
    assert code == 2
    assert f"missing {submission_folder / name}" in error


def test_zip_above_the_size_limit_exits_with_1(submission_folder, old_zip, capsys):
    code, error = error_of(old_zip, capsys, "--limit-mb", "0.01")
    assert code == 1
    assert "size" in error
    assert "the limit is 0.01 MB" in error


def test_metadata_that_the_server_rejects_exits_with_1(submission_folder, old_zip, capsys):
    (submission_folder / "metadata").write_text("image: python\n")
    code, error = error_of(old_zip, capsys)
    assert code == 1
    assert "metadata" in error
    assert "'image: python'" in error


def write_run(folder, state):
    """Writes a folder of a run that has a record but no metrics, unless it is missing, empty or damaged."""
    from training.recipes.released_full import recipe
    from training.run_folder import RECORD, make_record

    if state == "missing":
        return
    folder.mkdir()
    images = Images(np.zeros((2, 8, 8, 3), np.uint8), np.array([0, 1]), ("A", "B"), ("a.png", "b.png"))
    if state == "unfinished":
        write_json(folder / RECORD, make_record("first", recipe, images, "none").to_json())
    elif state == "damaged":
        write_json(folder / RECORD, {})


@pytest.mark.parametrize(
    ("state", "reason"),
    [("missing", "no folder"), ("empty", "no run at"), ("damaged", "is damaged"), ("unfinished", "not finished")],
)
def test_run_that_cannot_be_exported_exits_with_2(submission_folder, old_zip, capsys, tmp_path, state, reason):
    write_run(tmp_path / "run", state)
    code, error = error_of(old_zip, capsys, "--run", str(tmp_path / "run"))
    assert code == 2
    assert str(tmp_path / "run") in error
    assert reason in error


def test_a_file_that_cannot_be_read_is_named_instead_of_the_zip(tmp_path):
    folder = tmp_path / "SubmissionModel"
    folder.mkdir()
    with pytest.raises(UserError, match=f"^cannot read {folder}: Is a directory$"):
        package.pack({"saved_model.pb": folder}, tmp_path / "a.zip")


def test_path_that_cannot_be_written_exits_with_2(submission_folder, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.zip").mkdir()
    path = tmp_path / "file" / "submission.zip"
    assert build_submission.main(["--out", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: cannot write {path}: ")
    assert "give another --out" in error
    assert build_submission.main(["--out", str(tmp_path / "folder.zip")]) == 2
    assert f"--out must be a file, and {tmp_path / 'folder.zip'} is a folder" in capsys.readouterr().err
    assert list((tmp_path / "folder.zip").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.zip", "source"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission_exits_with_2(submission_folder, old_zip, capsys):
    old_zip.parent.chmod(0o500)
    try:
        code, error = error_of(old_zip, capsys)
    finally:
        old_zip.parent.chmod(0o700)
    assert code == 2
    assert "Permission denied" in error


def test_full_disk_at_the_end_exits_with_2(submission_folder, old_zip, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    code, error = error_of(old_zip, capsys)
    assert code == 2
    assert f"cannot write {old_zip}: No space left on device" in error
    assert "--out" in error


def test_full_disk_while_writing_exits_with_2(submission_folder, old_zip):
    """A real failure: the process may not write files larger than 20 kB."""
    pytest.importorskip("resource", reason="only Unix limits the file size of a process")
    code = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import build_submission
from competition.package import build
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
build.SOURCE = Path(sys.argv[2])
sys.exit(build_submission.main(["--out", sys.argv[3]]))
"""
    done = python("-c", code, ROOT, submission_folder, old_zip)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: cannot write {old_zip}: File too large")
    assert done.stderr.count("\n") == 1
    assert unchanged(old_zip)


def test_interrupt_exits_with_130(submission_folder, old_zip, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    assert build_submission.main(["--out", str(old_zip)]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert unchanged(old_zip)


# --- the command line


def test_help_shows_examples_exit_codes_and_options():
    done = python(ROOT / "build_submission.py", "--help", isolated=False)
    assert done.returncode == 0
    assert re.search(r"examples:\n( +python build_submission\.py.*\n){2,}", done.stdout)
    for word in ("exit codes: 0", "--run", "--out", "--limit-mb"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["--nonsense"], "--nonsense"), (["--limit-mb", "many"], "many"), (["surplus"], "surplus")]
    + [(["--limit-mb", number], "must be a number above 0") for number in ("0", "-1", "nan", "inf")]
    + [(["--run", ""], "run must not be empty"), (["--out", ""], "out must not be empty")]
    + [(["--layout", "nonsense"], "an2dl2024")],
)
def test_wrong_arguments_exit_with_2(arguments, word, capsys):
    with pytest.raises(SystemExit) as caught:
        build_submission.main(arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "usage:" in error
    assert word in error


@pytest.mark.slow
def test_committed_model_is_packed_from_another_folder(tmp_path):
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
    assert bare.stdout == done.stdout  # make without a target must not start anything
