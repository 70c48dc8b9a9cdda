"""Fixtures of the grader's tests."""

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
    """Skips the test unless this system allows complete isolation."""
    if isolation(sys.executable) != Isolation(True, True):
        pytest.skip("this system does not allow complete isolation of a process")
