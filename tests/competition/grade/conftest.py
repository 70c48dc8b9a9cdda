"""Fixtures of the grader's tests."""

import shutil
import subprocess
import sys

import pytest

from competition.grade.sandbox import Isolation, isolation
from competition.synthetic import draw_folder


@pytest.fixture(scope="session")
def labelled_folder(tmp_path_factory):
    """Eight classes of four synthetic leaves."""
    folder = tmp_path_factory.mktemp("labelled") / "leaves"
    draw_folder(folder, 4)
    return folder


@pytest.fixture
def isolated():
    """Skips the test unless this system allows complete isolation, which the sandbox must then achieve."""
    namespaces = ["unshare", "--map-root-user", "--mount", "--net", "--ipc", "--pid", "--fork"]
    mounts = "mount -t tmpfs tmpfs /tmp && mkdir /tmp/proc && mount -t proc proc /tmp/proc && setpriv --version"
    if not shutil.which("unshare") or subprocess.run([*namespaces, "sh", "-c", mounts], capture_output=True).returncode:
        pytest.skip("this system does not allow complete isolation of a process")
    assert isolation(sys.executable) == Isolation(True, True)
