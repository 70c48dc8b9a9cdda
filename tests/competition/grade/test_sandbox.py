"""What the sandbox withholds from a submission, what it shows, and what the grade says where it is not available."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from helpers import ROOT, load_module, stub_zip

from common.errors import UserError
from competition.grade import grade as grade_module
from competition.grade import sandbox, worker
from competition.grade.grade import Rules, grade
from competition.grade.report import report
from competition.grade.sandbox import Isolation, interpreter_path, isolation

pytestmark = pytest.mark.sandbox

support = load_module(Path(__file__).with_name("grading.py"), "grading")
CONSTRUCTOR, failed_checks, graded = support.CONSTRUCTOR, support.failed_checks, support.graded
COMPLETE = Isolation(True, True)
NONE = Isolation(False, False)
REMOUNT = """
import subprocess
for line in open("/proc/self/mounts"):
    subprocess.run(["mount", "-o", "remount,bind,rw", line.split()[1]], stderr=subprocess.DEVNULL)
"""
WRITE_AND_CONNECT = """
import os, socket, tempfile
wrote = []
for place in {places}:
    try:
        open(place, "w").close()
        wrote.append(place)
    except OSError:
        pass
with tempfile.NamedTemporaryFile() as file:
    wrote.append("its own temporary folder")
print("wrote", wrote)
socket.create_connection(("127.0.0.1", {port}), timeout=5)
"""


@pytest.mark.usefixtures("isolated")
@pytest.mark.parametrize("prelude", ["", REMOUNT], ids=["plain", "after remounting"])
def test_other_folders_and_the_network_are_out_of_reach(tmp_path, prelude):
    name = f"written-by-a-stub-{os.getpid()}"
    folders = (ROOT, tmp_path, Path(tempfile.gettempdir()), Path.home(), Path("/dev/shm"))
    places = [str(folder / name) for folder in folders]
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(0)
        source = prelude + WRITE_AND_CONNECT.format(places=places, port=server.getsockname()[1])
        try:
            result = grade(stub_zip(tmp_path / "a.zip", source), rules=Rules(classes=8))
            written = [place for place in places if os.path.lexists(place)]
        finally:
            for place in places:
                Path(place).unlink(missing_ok=True)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert written == []
    assert "its own temporary folder" in result.log
    assert str(ROOT) not in result.log
    assert re.search("^OSError: .*Network is unreachable", failed_checks(result)[CONSTRUCTOR].reason)
    assert result.notes == ()


def test_missing_isolation_is_noted(tmp_path, monkeypatch):
    for module in (worker, grade_module):
        monkeypatch.setattr(module, "isolation", lambda python: NONE)
    result = grade(stub_zip(tmp_path / "a.zip", "import os\nos._exit(7)"))
    assert "exited with code 7" in failed_checks(result)[CONSTRUCTOR].reason
    for what in ("the network", "the files outside its folder"):
        assert re.search(f"^note  .*{what}", report(result), re.MULTILINE)


@pytest.mark.usefixtures("isolated")
@pytest.mark.parametrize("allowed", [COMPLETE, NONE], ids=["isolated", "not isolated"])
def test_no_process_stays_behind(tmp_path, monkeypatch, allowed):
    """A child in its own session, without a parent, and with nothing in its environment that gives it away."""
    monkeypatch.setattr(worker, "isolation", lambda python: allowed)
    seconds = f"{os.getpid()}{time.time_ns() % 10**9}"
    source = f"""
import os, subprocess
ours, theirs = os.pipe()
if os.fork():
    os.close(theirs)
    raise RuntimeError("started" if os.read(ours, 1) else "not started")
subprocess.Popen(['sleep', '{seconds}'], start_new_session=True, env={{}})
os.write(theirs, b"1")
os._exit(0)
"""
    try:
        checks = graded(tmp_path, source)
        assert checks[CONSTRUCTOR].reason == "RuntimeError: started"
    finally:
        left = [process for process in psutil.process_iter(["cmdline"]) if seconds in (process.info["cmdline"] or [])]
        for process in left:
            process.kill()
    assert left == []


@pytest.mark.parametrize("name", ["plain", "with a space", "link"])
def test_any_temporary_folder_works(tmp_path, monkeypatch, name):
    folder = tmp_path / name
    if name == "link":
        (tmp_path / "target").mkdir()
        folder.symlink_to(tmp_path / "target")
    else:
        folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    checks = graded(tmp_path, "import os\nos._exit(7)")
    assert checks[CONSTRUCTOR].reason == "the process exited with code 7"
    assert list(folder.iterdir()) == []


def test_temporary_folder_is_empty_after_a_folder_without_permissions(tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    locked = "import os\nhome = os.path.expanduser('~/locked')\nos.makedirs(home + '/in')\nos.chmod(home, 0)\n1 / 0"
    grade(stub_zip(tmp_path / "a.zip", locked))
    assert list(temporary.iterdir()) == []


@pytest.mark.usefixtures("isolated")
def test_hidden_paths_stay_hidden_inside_of_shown_folders(tmp_path):
    """For example labels beside the interpreter, whose folder the submission needs."""
    stage, shown = tmp_path / "stage", tmp_path / "shown"
    for name in ("program", "home", "tmp"):
        (stage / name).mkdir(parents=True)
    (shown / "labels").mkdir(parents=True)
    (shown / "labels" / "a.txt").write_text("secret")
    (shown / "zip").write_text("secret")
    (shown / "library").write_text("useful")
    read = "[open(name).read() for name in ('library', 'zip')], os.listdir('labels')"
    code = f"import os; os.chdir({str(shown)!r}); print({read})"
    command = COMPLETE.command(stage, sys.executable, [shown / "labels", shown / "zip"])
    command.insert(command.index("--"), str(shown))
    command += [sys.executable, "-I", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": os.defpath})
    assert done.stdout == "['useful', ''] []\n", done.stderr
    assert (shown / "labels" / "a.txt").read_text() == "secret"


@pytest.mark.usefixtures("isolated")
def test_the_environment_may_be_within_the_labelled_images(tmp_path):
    """Of the folder of images, the submission then sees the environment alone."""
    stage, images = tmp_path / "stage", tmp_path / "images"
    for name in ("program", "home", "tmp"):
        (stage / name).mkdir(parents=True)
    (images / "Species1").mkdir(parents=True)
    (images / "labels.csv").write_text("secret")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", images / ".venv"], check=True)
    own = str(images / ".venv" / "bin" / "python")
    command = [*COMPLETE.command(stage, own, [images, images / "labels.csv"]), own, "-I", "-c"]
    command.append(f"import os, sys; print(sys.prefix == {str(images / '.venv')!r}, os.listdir({str(images)!r}))")
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": os.defpath})
    assert done.stdout == "True ['.venv']\n", done.stderr


@pytest.mark.usefixtures("isolated")
def test_a_failed_isolation_is_no_fault_of_the_zip(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "ENTER_ROOT", sandbox.ENTER_ROOT.replace('cd "$root"', "mount /nowhere /nothing", 1))
    monkeypatch.setattr(grade_module, "isolation", lambda python: COMPLETE)
    monkeypatch.setattr(worker, "isolation", lambda python: COMPLETE)
    with pytest.raises(UserError, match="this machine cannot isolate the submission: mount: "):
        grade(stub_zip(tmp_path / "a.zip", ""))


@pytest.mark.usefixtures("isolated")
def test_isolation_is_complete_for_an_interpreter_under_a_roundabout_path():
    path = Path(sys.executable)
    roundabout = path.parent / ".." / path.parent.name / path.name
    assert interpreter_path(roundabout) == interpreter_path(sys.executable)
    assert isolation(interpreter_path(roundabout)) == COMPLETE
