"""The tiny submission in place of submission/, for tests that build from it."""

import shutil

import pytest
from helpers import tiny_submission

from competition.package import build


@pytest.fixture
def submission_folder(tmp_path, monkeypatch):
    """A copy of the tiny submission as `build.SOURCE`, with files that do not belong into a zip."""
    folder = tmp_path / "source"
    shutil.copytree(tiny_submission(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "model.cpython-311.pyc").write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    monkeypatch.setattr(build, "SOURCE", folder)
    return folder
