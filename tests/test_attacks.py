"""Hostile submissions (tests/attacks) and good ones (tests/good): the verdict on each, and that nothing of it stays behind.

A folder becomes a zip as it is. Its expected.json says which checks must fail ("failed", in their order), what the
reason of the first one must match ("reason"), which others fail on some draws ("may_fail"), whether it is scored all
the same ("scored"), and the rules that it is graded by ("layout", "time_limit", "memory_limit_mb").
"""

import contextlib
import json
import math
import os
import re
import secrets
import socket
import subprocess
import tempfile
import time
import zipfile
from pathlib import Path

import psutil
import pytest
from helpers import ROOT, load_module

import grade_submission
from competition import worker
from competition.bundle import shuffled, write_reference
from competition.drawings import draw_folder
from competition.sandbox import Isolation, isolation
from grade_submission import Rules, grade, report
from training.data import load_folder

HERE = Path(__file__).resolve().parent


def source_of(name):
    """The attack's model.py, where it has one."""
    path = HERE / "attacks" / name / "model.py"
    return path.read_text("utf-8") if path.is_file() else ""


ATTACKS = sorted(path.parent.name for path in (HERE / "attacks").glob("*/expected.json"))
GOOD = sorted(path.parent.name for path in (HERE / "good").glob("*/expected.json"))
LOOK_FOR_LABELS = [name for name in ATTACKS if re.search(r"\.model\(\)|answering\(", source_of(name))]
MARK = f"61.{secrets.randbelow(10**9):09}"  # seconds that an attack's child sleeps: nobody else's does
support = load_module(HERE / "attacks" / "support.py", "support")


@pytest.fixture(scope="module")
def leaves(tmp_path_factory):
    """Eight classes of two drawn leaves."""
    folder = tmp_path_factory.mktemp("labelled") / "leaves"
    draw_folder(folder, 2)
    return folder


@pytest.fixture(scope="module")
def listener(tmp_path_factory):
    """Three sockets that accept: a port on this machine, a name without a file, a file."""
    abstract, path = f"leaf-{secrets.token_hex(8)}", Path(tempfile.mkdtemp(prefix="s-")) / "s"
    servers = [socket.create_server(("127.0.0.1", 0))]
    for address in ("\0" + abstract, str(path)):
        servers.append(socket.socket(socket.AF_UNIX))
        servers[-1].bind(address)
        servers[-1].listen()
    for server in servers:
        server.setblocking(False)
    yield servers, {"port": servers[0].getsockname()[1], "abstract": abstract, "socket": str(path)}
    for server in servers:
        server.close()
    path.unlink()
    path.parent.rmdir()


@pytest.fixture
def untouched(tmp_path, monkeypatch):
    """Fails the test if it leaves a process, a file or shared memory."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    processes, files = set(psutil.pids()), snapshot()
    yield
    left = [process for process in psutil.process_iter() if process.pid not in processes and is_ours(process)]
    new = lasting(snapshot() - files) + [f"{path.name} in the temporary folder" for path in temporary.iterdir()]
    described = [describe(process) for process in left]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    subprocess.run(["rm", "-rf", str(temporary)])  # whatever its depth, which pytest could not remove
    assert described == []
    assert new == []


def lasting(new):
    """What of it is still there a little later: tests in other processes have files that come and go."""
    if new:
        time.sleep(2)
        new &= snapshot()
    return sorted(new)


def snapshot():
    """What is in the places that a submission might write to."""
    found = {f"shared memory {line.split()[1]}" for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}
    for folder in (Path.home(), Path("/dev/shm")):
        found |= {str(path) for path in folder.iterdir()}
    found |= {str(path) for path in Path("/tmp").glob("*left-by*")}
    for folder, below, files in os.walk(ROOT):
        below[:] = [name for name in below if name not in (".git", ".venv", "runs", "dist", "__pycache__", ".pytest_cache", ".ruff_cache")]
        found |= {f"{folder}/{name}" for name in (*below, *files)}
    return found


def is_ours(process):
    """Whether a process comes of this one, or sleeps as the attacks' children do."""
    with contextlib.suppress(psutil.Error):
        return os.getpid() in [parent.pid for parent in process.parents()] or any(MARK in word for word in process.cmdline())
    return False


def describe(process):
    with contextlib.suppress(psutil.Error):
        return process.pid, process.status(), process.cmdline()
    return process.pid, "gone", []


def expected_of(kind, name):
    return json.loads((HERE / kind / name / "expected.json").read_text("utf-8"))


def rules_of(expected):
    return Rules(
        time_limit=expected.get("time_limit", 10),
        memory_limit_mb=expected.get("memory_limit_mb", 500),
        layout=expected.get("layout", "codalab"),
    )


def zipped(kind, name, path, targets=None):
    """The folder as a zip; an attack gets what it needs to know, and the attacks' tools."""
    folder = HERE / kind / name
    if (folder / "make_zip.py").is_file():
        load_module(folder / "make_zip.py").make(path)
        return path
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.name != "expected.json" and "__pycache__" not in file.parts:
                archive.write(file, file.relative_to(folder))
        if kind == "attacks":
            archive.write(HERE / "attacks" / "support.py", "support.py")
            archive.writestr("target.json", json.dumps({"mark": MARK, **(targets or {})}))
    return path


def failed_of(result):
    return {check.name: check for check in result.checks if not check.passed}


def clean_text(text):
    """Whether a text can be shown on a terminal: nothing that moves the cursor, no half character."""
    return not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", text)


# --- attacks


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(tmp_path, monkeypatch, leaves, listener, untouched, name):
    if isolation(grade_submission.sys.executable) != Isolation(True, True):
        pytest.skip("this system does not allow to cut a process off")
    servers, addresses = listener
    expected, began = expected_of("attacks", name), time.monotonic()
    monkeypatch.setenv("LEAF_LABELS", " ".join(str(number // 2) for number in range(16)))
    path = tmp_path / "attack.zip"
    zipped("attacks", name, path, {"data": str(leaves), "zip": str(path), **addresses})
    result = grade(path, leaves, rules_of(expected), html=tmp_path / "page.html")
    failed = failed_of(result)
    assert [check for check in failed if check not in expected.get("may_fail", ())] == expected["failed"], report(result)
    assert re.search(expected["reason"], failed[expected["failed"][0]].reason)
    assert not result.passed
    for server in servers:
        with pytest.raises(BlockingIOError):
            server.accept()
    if expected.get("scored"):
        assert all(math.isfinite(value) for value in result.scores.values())
        assert 0 <= result.scores["accuracy"] < 0.9
    else:
        assert result.scores == {}
    text = report(result)
    assert clean_text(text), ascii(text)
    assert text.count("verdict   the server would not accept it: ") == 1
    assert not re.search("^verdict   the server would accept it", text, re.MULTILINE)
    if (tmp_path / "page.html").exists():
        page = (tmp_path / "page.html").read_text("utf-8")
        assert "<script" not in page
        assert "onerror=alert(1)>" not in page
    assert time.monotonic() - began < rules_of(expected).time_limit + 30  # it never hangs


def test_the_searches_would_find_the_labels(leaves, tmp_path):
    """The attacks that look for labels are worth something: where labels are, they are found, and used to the full."""
    images, order = load_folder(leaves), shuffled(16)
    hidden = images.images[order]
    reference = tmp_path / "scoring" / "input" / "ref"
    (reference / "images").mkdir(parents=True)
    write_reference(reference, images, order)
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as archive:
        archive.write(reference / "labels.txt", "reference_data/labels.txt")
    for search in (
        support.Search().walk(leaves),
        support.Search().walk(reference),
        support.Search().file(tmp_path / "bundle.zip", str(tmp_path / "bundle.zip")),
    ):
        assert (search.model(hidden)().predict(hidden) == images.labels[order]).all()
    with pytest.raises(RuntimeError, match="^found nothing$"):
        support.Search().walk(HERE / "good").model(hidden)


def test_an_open_system_would_give_the_labels_away(tmp_path, monkeypatch, leaves, untouched):
    """The same attack, once where nothing is hidden: it scores 100 %, and the grade says that nothing was hidden."""
    for module in (worker, grade_submission):
        monkeypatch.setattr(module, "isolation", lambda python: Isolation(False, False))
    path = zipped("attacks", "reads_the_target", tmp_path / "attack.zip", {"data": str(leaves), "zip": ""})
    result = grade(path, leaves, Rules(time_limit=20, layout="an2dl2024"))
    assert result.scores["accuracy"] == 1
    assert any("the files outside its folder" in note for note in result.notes)


@pytest.mark.parametrize("name", ["reads_the_target", "walks_parent_folders", "reads_other_processes"])
def test_labels_beside_the_zip_and_the_temporary_folder(tmp_path, monkeypatch, untouched, name):
    """The labelled images next to everything that the submission is made of."""
    data = tmp_path / "temporary" / "leaves"
    draw_folder(data, 2)
    try:
        path = zipped("attacks", name, tmp_path / "temporary" / "attack.zip", {"data": str(data), "zip": str(tmp_path / "attack.zip")})
        monkeypatch.setenv("LEAF_DATA", str(data))
        result = grade(path, data, rules_of(expected_of("attacks", name)))
        assert failed_of(result)["import and constructor"].reason == "RuntimeError: found nothing"
        assert result.scores == {}
    finally:
        grade_submission.shutil.rmtree(data)
        path.unlink()


# --- good submissions


@pytest.mark.parametrize("name", GOOD)
def test_good_submission(tmp_path, leaves, untouched, name):
    expected = expected_of("good", name)
    result = grade(zipped("good", name, tmp_path / "good.zip"), leaves, rules_of(expected), html=tmp_path / "page.html")
    assert result.passed, report(result)
    assert len(result.scores) == 5 + 3 * 8 + 64
    assert all(math.isfinite(value) for value in result.scores.values())
    page = (tmp_path / "page.html").read_text("utf-8")
    assert ("it keeps no probabilities" in page) != bool(expected.get("calibration"))


def test_counts():
    assert len(ATTACKS) >= 25
    assert len(GOOD) >= 10
    assert len(LOOK_FOR_LABELS) >= 6
    assert {path.name for path in (HERE / "attacks").iterdir() if path.is_dir() and not path.name.startswith((".", "_"))} == set(ATTACKS)
    assert {path.name for path in (HERE / "good").iterdir() if path.is_dir() and not path.name.startswith((".", "_"))} == set(GOOD)
