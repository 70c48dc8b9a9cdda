"""Hostile submissions: the verdict on each, and that they leave nothing behind. Good submissions: none is refused.

Each folder in attacks/ and good/ becomes a zip. Its expected.json has the checks that must fail in their order
("failed"), a pattern for the first one's reason ("reason"), words of its fix ("fix"), checks that may fail by chance
("may_fail"), and the rules ("layout", "time_limit", "memory_limit_mb"). `RETURNS` has submissions that differ only in
what `predict` returns.
"""

import contextlib
import json
import math
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
import zipfile
from pathlib import Path

import psutil
import pytest
from helpers import ROOT, load_module

from common.images import load_folder
from competition.grade import grade as grade_module
from competition.grade import worker
from competition.grade.grade import Rules, grade
from competition.grade.report import report
from competition.grade.sandbox import Isolation
from competition.host.bundle import shuffled, write_reference
from competition.synthetic import draw_folder

pytestmark = pytest.mark.sandbox

HERE = Path(__file__).resolve().parent
CLEANUP_SECONDS = 30  # that grading may take beyond the time limit


def source_of(name):
    """The attack's model.py, or "" if it has none."""
    path = HERE / "attacks" / name / "model.py"
    return path.read_text("utf-8") if path.is_file() else ""


ATTACKS = sorted(path.parent.name for path in (HERE / "attacks").glob("*/expected.json"))
GOOD = sorted(path.parent.name for path in (HERE / "good").glob("*/expected.json"))
SEARCHES = [name for name in ATTACKS if re.search(r"\.model\(\)|answering\(", source_of(name))]
WORDS = {word for path in (HERE / "attacks").glob("*/*.py") for word in re.findall(r"[\w.-]+", path.read_text("utf-8"))}
MARK = f"61.{secrets.randbelow(10**9):09}"  # seconds that an attack's child sleeps, by which it is recognised
IGNORED_FOLDERS = (".git", ".venv", "runs", "dist", "__pycache__", ".pytest_cache", ".ruff_cache", ".mypy_cache")
support = load_module(HERE / "attacks" / "support.py", "support")
failed_checks = load_module(HERE / "grading.py", "grading").failed_checks
STARTING = re.compile("oneDNN custom operations|cpu_feature_guard|absl::InitializeLog")  # TensorFlow's

RETURNING = """
import numpy as np
from support import classes

class Liar(np.ndarray):  # says that it has another shape than it has
    shape = (1,)

def lying(X):
    lies = np.append(classes(X), [1, 2]).view(Liar)
    Liar.shape = (len(X),)
    return lies

class model:
    def __init__(self, path=None):
        pass

    def predict(self, X):
        return {value}

Model = model
"""
ONE, ODD = {"failed": ["one image", "scoring"]}, {"failed": ["odd batch", "scoring"]}
# What predict returns → what is expected, as in expected.json. test_checks.py has more, without processes.
RETURNS = {
    "classes(X)[:, None]": {**ONE, "reason": r"^predict returned the shape \[1, 1\] for 1 images$"},
    "lying(X)": {**ODD, "reason": "^it wrote to the pipes between the grader and itself$"},
    "classes(X) / 1.0": {**ONE, "reason": "^predict returned float64, not integers$"},
    "classes(X) + 8": {**ONE, "reason": r"^predict returned (\d+) to \1, there are 8 classes$"},
    "classes(X).tolist()": {**ONE, "reason": "^predict returned list, not a tensor$"},
    "classes(X)[: max(1, len(X) // 4 * 4)]": {
        **ODD,
        "reason": r"^predict returned the shape \[1\] for 3 images$",
    },
}


@pytest.fixture(scope="module")
def few_leaves(tmp_path_factory):
    """Eight classes of two synthetic leaves."""
    folder = tmp_path_factory.mktemp("labelled") / "leaves"
    draw_folder(folder, 2)
    return folder


@pytest.fixture(scope="module")
def listeners(tmp_path_factory):
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
def nothing_left(tmp_path, monkeypatch):
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
    subprocess.run(["rm", "-rf", str(temporary)])  # pytest cannot remove it if it is nested too deeply
    assert described == []
    assert new == []


def lasting(new):
    """The part that still exists a little later. Tests in other processes have files that come and go."""
    if new:
        time.sleep(2)
        new &= snapshot()
    return sorted(new)


def snapshot():
    """Everything in the places that a submission might write to, as far as an attack can have written it."""
    found = {f"shared memory {line.split()[1]}" for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}
    for folder in (Path.home(), Path("/dev/shm")):  # libraries write to both, in other tests that run at the same time
        found |= {str(path) for path in folder.iterdir() if is_of_an_attack(path.name)}
    found |= {str(path) for path in Path("/tmp").glob("*left-by*")}
    for folder, below, files in os.walk(ROOT):
        below[:] = [name for name in below if name not in IGNORED_FOLDERS]
        found |= {f"{folder}/{name}" for name in (*below, *files)}
    return found


def is_of_an_attack(name):
    """Whether a file's name can be an attack's: a word of its source, also with digits or a suffix, or unprintable."""
    stem = Path(name).stem.rstrip("0123456789")
    return not name.isprintable() or stem in WORDS or stem == ""


def is_ours(process):
    """Whether a process descends from this one, or sleeps as the attacks' children do."""
    with contextlib.suppress(psutil.Error):
        if os.getpid() in [parent.pid for parent in process.parents()]:
            return True
        return any(MARK in word for word in process.cmdline())
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


def zip_folder(kind, name, path, targets=None):
    """Zips a folder of attacks/ or good/. An attack also gets the attacks' tools and what it needs to know."""
    folder = HERE / kind / name
    if (folder / "make_zip.py").is_file():
        load_module(folder / "make_zip.py").make(path)
        return path
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.name != "expected.json" and "__pycache__" not in file.parts:
                archive.write(file, file.relative_to(folder))
        if kind == "attacks":
            add_tools(archive, targets)
    return path


def add_tools(archive, targets=None):
    archive.write(HERE / "attacks" / "support.py", "support.py")
    archive.writestr("target.json", json.dumps({"mark": MARK, **(targets or {})}))


def is_printable(text):
    """Whether a terminal can show a text: no control characters except newlines, no half characters."""
    return not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", text)


def check_attack(path, folder, expected):
    """Grades a hostile zip: exactly the expected checks fail, and neither report nor page is misled.

    Returns the first failed check.
    """
    page = path.with_name("page.html")
    began, rules = time.monotonic(), rules_of(expected)
    result = grade(path, folder, rules, html=page)
    assert time.monotonic() - began < rules.time_limit + CLEANUP_SECONDS
    failed = failed_checks(result)
    names = [name for name in failed if name not in expected.get("may_fail", ())]
    assert names == expected["failed"], report(result)
    assert re.search(expected["reason"], failed[names[0]].reason)
    assert expected.get("fix", "") in failed[names[0]].fix
    assert not result.passed
    assert result.scores == {}
    text = report(result)
    assert is_printable(text), ascii(text)
    assert len(re.findall("verdict   (?:the server would not accept it|not accepted here, but .*): ", text)) == 1
    assert not re.search("^verdict   the server would accept it", text, re.MULTILINE)
    if page.exists():
        assert "<script" not in page.read_text("utf-8")
        assert "onerror=alert(1)>" not in page.read_text("utf-8")
    return failed[names[0]]


# --- attacks


@pytest.mark.parametrize("name", ["left-by-an-attack", "large0", "7", "sitecustomize.py", "\udcff", "a\nverdict"])
def test_names_that_attacks_give_are_watched(name):
    assert is_of_an_attack(name)


@pytest.mark.parametrize("name", [".config", ".cache", ".org.chromium.Chromium.x1y2z3", "sem.mp-abc123"])
def test_names_that_libraries_give_are_not_watched(name):
    """Other tests, which run at the same time, import matplotlib and start Chromium and pools of processes."""
    assert not is_of_an_attack(name)


@pytest.mark.usefixtures("isolated", "nothing_left")
@pytest.mark.parametrize("name", ATTACKS)
def test_attack_fails_the_expected_checks(tmp_path, monkeypatch, few_leaves, listeners, name):
    servers, addresses = listeners
    monkeypatch.setenv("LEAF_LABELS", " ".join(str(number // 2) for number in range(16)))
    monkeypatch.setattr(worker, "FILES_LIMIT", 3000)  # 20,000 files take long
    path = tmp_path / "attack.zip"
    zip_folder("attacks", name, path, {"data": str(few_leaves), "zip": str(path), **addresses})
    check_attack(path, few_leaves, expected_of("attacks", name))
    for server in servers:
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.usefixtures("isolated", "nothing_left")
@pytest.mark.parametrize("value", RETURNS)
def test_wrong_return_value_fails_the_expected_checks(tmp_path, few_leaves, value):
    with zipfile.ZipFile(tmp_path / "attack.zip", "w") as archive:
        archive.writestr("model.py", RETURNING.format(value=value))
        archive.writestr("metadata", "")
        add_tools(archive)
    failed = check_attack(tmp_path / "attack.zip", few_leaves, {"layout": "an2dl2024", **RETURNS[value]})
    assert re.search(r"\[1\]|\[3\]|0 to 7|file descriptors", failed.fix)


def test_searches_find_labels_where_there_are_some(few_leaves, tmp_path):
    """The attacks that search for labels are effective: where labels exist, they are found and used."""
    images, order = load_folder(few_leaves), shuffled(16)
    hidden = images.images[order]
    reference = tmp_path / "scoring" / "input" / "ref"
    (reference / "images").mkdir(parents=True)
    write_reference(reference, images, order)
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as archive:
        archive.write(reference / "labels.txt", "reference_data/labels.txt")
    for search in (
        support.Search().walk(few_leaves),
        support.Search().walk(reference),
        support.Search().file(tmp_path / "bundle.zip", str(tmp_path / "bundle.zip")),
    ):
        assert (search.model(hidden)().predict(hidden) == images.labels[order]).all()
    with pytest.raises(RuntimeError, match="^found nothing$"):
        support.Search().walk(HERE / "good").model(hidden)


@pytest.mark.usefixtures("nothing_left")
def test_without_isolation_a_search_succeeds_and_the_grade_has_a_note(tmp_path, monkeypatch, few_leaves):
    for module in (worker, grade_module):
        monkeypatch.setattr(module, "isolation", lambda python: Isolation(False, False))
    path = zip_folder("attacks", "reads_the_target", tmp_path / "attack.zip", {"data": str(few_leaves), "zip": ""})
    result = grade(path, few_leaves, Rules(time_limit=20, layout="an2dl2024"))
    assert result.scores["accuracy"] == 1
    assert any("the files outside its folder" in note for note in result.notes)


@pytest.mark.usefixtures("isolated", "nothing_left")
@pytest.mark.parametrize("name", ["reads_the_target", "walks_parent_folders", "reads_other_processes"])
def test_labels_beside_the_zip_in_the_temporary_folder_stay_hidden(tmp_path, monkeypatch, name):
    data = tmp_path / "temporary" / "leaves"
    draw_folder(data, 2)
    path = tmp_path / "temporary" / "attack.zip"
    try:
        zip_folder("attacks", name, path, {"data": str(data), "zip": str(tmp_path / "attack.zip")})
        monkeypatch.setenv("LEAF_DATA", str(data))
        result = grade(path, data, rules_of(expected_of("attacks", name)))
        assert failed_checks(result)["import and constructor"].reason == "RuntimeError: found nothing"
        assert result.scores == {}
    finally:
        shutil.rmtree(data)
        path.unlink()


# --- good submissions


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("name", GOOD)
def test_good_submission_passes_every_check(tmp_path, few_leaves, name):
    expected = expected_of("good", name)
    path, page = zip_folder("good", name, tmp_path / "good.zip"), tmp_path / "page.html"
    result = grade(path, few_leaves, rules_of(expected), html=page)
    assert result.passed, report(result)
    assert not STARTING.search(result.log)
    assert len(result.scores) == 5 + 3 * 8 + 64
    assert all(math.isfinite(value) for value in result.scores.values())
    assert ("keeps no probabilities" in page.read_text("utf-8")) != bool(expected.get("calibration"))


def test_every_folder_is_tested():
    assert len(ATTACKS) + len(RETURNS) >= 25
    assert len(GOOD) >= 10
    assert len(SEARCHES) >= 6
    for kind, names in (("attacks", ATTACKS), ("good", GOOD)):
        folders = {path.name for path in (HERE / kind).iterdir() if path.is_dir()}
        assert {name for name in folders if not name.startswith((".", "_"))} == set(names)
