"""Atomic files and folders, digests, and locks between processes."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT

from common.errors import InUse, UserError
from common.files import (
    TEMPORARY,
    atomic_folder,
    atomically,
    digest,
    locked,
    require_space,
    temporary_beside,
    write_arrays,
    write_json,
)

HOLD = """
import sys, time
from pathlib import Path
from common.files import locked
with locked(Path(sys.argv[1]), "it"):
    print("locked", flush=True)
    time.sleep(300)
"""
WAIT = HOLD.replace('"it")', '"the features", wait=True)').replace("time.sleep(300)", "pass")


def start(code, path):
    return subprocess.Popen([sys.executable, "-c", code, path], cwd=ROOT, stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def held_by_another(path):
    """A process that holds a lock until it is killed."""
    with start(HOLD, path) as other:
        try:
            assert other.stdout.readline() == "locked\n"
            yield other
        finally:
            other.kill()


@pytest.mark.integration
def test_lock_of_another_process_names_it_and_is_free_once_it_is_killed(tmp_path):
    path = tmp_path / ".lock"
    with held_by_another(path) as other:
        with (
            pytest.raises(InUse, match=f"^the run x is in use by process {other.pid};.*--out"),
            locked(path, "the run x"),
        ):
            raise AssertionError("two processes hold the lock")
        other.send_signal(signal.SIGKILL)
        other.wait()
        with locked(path, "the run x"):
            assert path.read_text() == str(os.getpid())


@pytest.mark.integration
def test_waiting_process_says_so_and_is_next(tmp_path):
    path = tmp_path / ".lock"
    with held_by_another(path) as other:
        with start(WAIT, path) as waiting:
            line = waiting.stdout.readline()
            assert line.startswith(f"waiting for process {other.pid}")
            assert "the features" in line
            assert waiting.poll() is None
            other.kill()
            assert waiting.communicate(timeout=60)[0] == "locked\n"
        assert waiting.returncode == 0


@pytest.mark.unit
def test_lock_is_free_after_its_block_even_if_that_failed(tmp_path):
    for _ in range(2):
        with pytest.raises(ValueError, match="inside"), locked(tmp_path / ".lock", "it"):
            raise ValueError("inside")


def fail_halfway(temporary):
    temporary.write_text("ha")
    raise OSError(28, "No space left on device")


@pytest.mark.unit
def test_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="No space"):
        atomically(path, fail_halfway)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    write_json(path, {"é": 1})
    assert path.read_text("utf-8") == '{\n  "é": 1\n}\n'


@pytest.mark.unit
def test_failed_first_write_leaves_no_file(tmp_path):
    with pytest.raises(OSError, match="No space"):
        atomically(tmp_path / "file", fail_halfway)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.unit
def test_two_writers_of_one_file_never_share_a_temporary_file(tmp_path):
    path, meeting, used = tmp_path / "file.npz", threading.Barrier(2, timeout=60), []

    def write(text):
        def save(temporary):
            used.append(temporary)
            temporary.write_text(text)
            meeting.wait()  # both have written, neither has renamed
            assert temporary.read_text() == text

        atomically(path, save)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, ("one", "two")))
    assert len(set(used)) == 2
    assert path.read_text() in ("one", "two")
    assert [p.name for p in tmp_path.iterdir()] == ["file.npz"]


@pytest.mark.unit
def test_temporary_names_are_unique_marked_and_keep_the_suffix(tmp_path):
    names = [temporary_beside(tmp_path / "a.weights.h5") for _ in range(1000)]
    assert len(set(names)) == 1000
    for name in names:
        assert name.parent == tmp_path
        assert name.name.startswith(TEMPORARY)
        assert name.name.endswith("a.weights.h5")


def fill(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file").write_text(text)


@pytest.mark.unit
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_atomic_folder_keeps_the_old_folder_on_failure(tmp_path, failure):
    fill(tmp_path / "folder", "old")
    with pytest.raises(type(failure)), atomic_folder(tmp_path / "folder") as temporary:
        fill(temporary, "new")
        raise failure
    assert (tmp_path / "folder" / "file").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.mark.unit
@pytest.mark.parametrize("exists", [False, True])
def test_atomic_folder_replaces_the_old_folder_as_a_whole(tmp_path, exists):
    path = tmp_path / "parent" / "folder"
    if exists:
        fill(path / "stale", "old")
    with atomic_folder(path) as temporary:
        fill(temporary, "new")
        assert (path / "stale").exists() == exists  # untouched until the block ends
    assert [p.name for p in path.iterdir()] == ["file"]
    assert [p.name for p in path.parent.iterdir()] == ["folder"]


@pytest.mark.unit
@pytest.mark.parametrize("interrupted", [1, 2])
def test_atomic_folder_keeps_one_of_the_folders_when_a_rename_is_interrupted(tmp_path, monkeypatch, interrupted):
    fill(tmp_path / "folder", "old")
    renames = []

    def rename(source, target, replace=os.replace):
        renames.append(source)
        if len(renames) == interrupted:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("common.files.os.replace", rename)
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "folder") as temporary:
        fill(temporary, "new")
    assert (tmp_path / "folder" / "file").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.mark.unit
def test_two_writers_of_one_folder_never_share_a_temporary_folder(tmp_path):
    path = tmp_path / "folder"
    with atomic_folder(path) as one:
        fill(one, "one")
        with atomic_folder(path) as two:
            assert list(two.iterdir()) == []
            fill(two, "two")
        assert (path / "file").read_text() == "two"
        assert (one / "file").read_text() == "one"
    assert (path / "file").read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.mark.unit
def test_arrays_are_read_as_they_were_written(tmp_path):
    write_arrays(tmp_path / "a.npz", np.arange(3), np.zeros((2, 2)), labels=np.array([5]))
    with np.load(tmp_path / "a.npz") as file:
        assert sorted(file.files) == ["arr_0", "arr_1", "labels"]
        np.testing.assert_array_equal(file["arr_0"], np.arange(3))


@pytest.mark.unit
def test_digest_distinguishes_values_dtype_and_shape():
    a = np.arange(6, dtype=np.int32)
    others = [a + 1, a.astype(np.int64), a.reshape(2, 3), a.reshape(3, 2)]
    assert len({digest(x) for x in (a, *others)}) == 5
    assert digest(a) == digest(a.copy()) == digest(np.arange(12, dtype=np.int32)[::2] // 2)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 2, "b": 1})
    assert len(digest(a)) == 64


def copy_to_a_full_disk(source):
    def save(temporary):
        temporary.touch()
        raise OSError(28, "No space left on device", str(source), None, str(temporary))

    return save


@pytest.mark.unit
@pytest.mark.parametrize("kind", ["write", "copy", "folder", "copy into a folder"])
def test_full_disk_names_the_target(tmp_path, kind):
    source, target = tmp_path / "source", tmp_path / "target"
    with pytest.raises(OSError, match="No space") as caught:  # noqa: PT012
        if kind == "write":
            atomically(target, fail_halfway)
        elif kind == "copy":
            atomically(target, copy_to_a_full_disk(source))
        else:
            with atomic_folder(target) as temporary:
                if kind == "folder":
                    raise OSError(28, "No space left on device")
                copy_to_a_full_disk(source)(temporary / "file")
    assert (caught.value.filename, caught.value.filename2) == (str(target), None)


@pytest.mark.unit
def test_error_of_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        atomically(tmp_path / "target", lambda temporary: (tmp_path / "source").read_bytes())
    assert str(caught.value.filename) == str(tmp_path / "source")


@pytest.mark.unit
@pytest.mark.parametrize("path", [".", "/"])
def test_a_path_without_a_name_is_a_folder(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        atomically(Path(path), Path.touch)


@pytest.mark.unit
def test_disk_space_is_required(tmp_path):
    folder = tmp_path / "grade-x"
    folder.mkdir()
    require_space(folder, 1, "grading")
    with pytest.raises(UserError, match="grading needs 9,000,000,000 MB") as caught:
        require_space(folder, 9 * 10**15, "grading")
    assert str(tmp_path) in str(caught.value)
    assert "MB are free" in str(caught.value)
    assert "TMPDIR" in str(caught.value)
