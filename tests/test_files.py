"""Files that are whole or not there, digests, and locks between processes."""

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT

from training import run
from training.errors import UserError
from training.files import InUse, atomically, digest, locked, write_arrays, write_json

HOLD = """
import sys, time
from pathlib import Path
from training.files import locked
with locked(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(300)
"""


@contextlib.contextmanager
def held_by_another(path):
    """A process that holds a lock until it is killed."""
    with subprocess.Popen([sys.executable, "-c", HOLD, path], cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "held\n"
            yield other
        finally:
            other.kill()


def test_a_lock_that_another_process_holds_names_it_and_is_free_once_it_is_killed(tmp_path):
    path = tmp_path / ".lock"
    with held_by_another(path) as other:
        with pytest.raises(InUse, match=f"^the run x is in use by process {other.pid};.*--out"), locked(path, "the run x"):
            raise AssertionError("two hold it")
        other.send_signal(signal.SIGKILL)
        other.wait()
        with locked(path, "the run x"):
            assert path.read_text() == str(os.getpid())


def test_a_lock_is_free_after_its_block_even_when_that_failed(tmp_path):
    for _ in range(2):
        with pytest.raises(ValueError, match="inside"), locked(tmp_path / ".lock", "it"):
            raise ValueError("inside")


def test_one_who_waits_says_so_and_comes_next(tmp_path):
    path = tmp_path / ".lock"
    wait = HOLD.replace('"it")', '"the features", wait=True)').replace("time.sleep(300)", "pass")
    with held_by_another(path) as other:
        with subprocess.Popen([sys.executable, "-c", wait, path], cwd=ROOT, stdout=subprocess.PIPE, text=True) as waiting:
            assert waiting.stdout.readline() == f"waiting for process {other.pid}, which writes the features\n"
            assert waiting.poll() is None
            other.kill()
            assert waiting.communicate(timeout=60)[0] == "held\n"
        assert waiting.returncode == 0


def test_a_run_that_another_process_trains_is_refused_and_untouched(leaf_folder, tmp_path, small):
    out = tmp_path / "out"
    out.mkdir()
    with held_by_another(out / run.LOCK) as other:
        with pytest.raises(UserError, match=f"the run .*out is in use by process {other.pid}"):
            run.train(small, "small", leaf_folder, "none", out)
        assert [path.name for path in out.iterdir()] == [run.LOCK]


def test_a_start_that_was_killed_does_not_block_its_folder(leaf_folder, tmp_path, small):
    out = tmp_path / "out"
    out.mkdir()
    with held_by_another(out / run.LOCK):
        pass
    recipe = replace(small, phases=((1, 48),), warmup=0.0, head_epochs=1)
    assert run.train(recipe, "small", leaf_folder, "none", out)["epochs"] == 1


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def half(temporary):
        temporary.write_text("ha")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        atomically(path, half)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    write_json(path, {"é": 1})
    assert path.read_text("utf-8") == '{\n  "é": 1\n}\n'


def test_arrays_are_read_as_they_were_written(tmp_path):
    write_arrays(tmp_path / "a.npz", np.arange(3), np.zeros((2, 2)), labels=np.array([5]))
    with np.load(tmp_path / "a.npz") as file:
        assert sorted(file.files) == ["arr_0", "arr_1", "labels"]
        np.testing.assert_array_equal(file["arr_0"], np.arange(3))


def test_a_digest_tells_arrays_apart_by_numbers_type_and_shape():
    a = np.arange(6, dtype=np.int32)
    others = [a + 1, a.astype(np.int64), a.reshape(2, 3), a.reshape(3, 2)]
    assert len({digest(x) for x in (a, *others)}) == 5
    assert digest(a) == digest(a.copy()) == digest(np.arange(12, dtype=np.int32)[::2] // 2)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 2, "b": 1})
    assert len(digest(a)) == 64
