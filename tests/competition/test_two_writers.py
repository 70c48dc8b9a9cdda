"""Two processes that write one competition at once: both end well, and the zip is whole."""

import subprocess
import sys
import zipfile

import pytest
from helpers import ROOT

pytestmark = pytest.mark.integration


def test_two_writers_of_one_competition(leaf_folder, tmp_path):
    out = tmp_path / "dist" / "c.zip"
    command = [sys.executable, "-m", "competition", leaf_folder, "--out", out]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)
    ]
    for process in processes:
        error = process.communicate(timeout=240)[1]
        assert process.returncode == 0, error
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None
        assert "competition.yaml" in archive.namelist()
    assert not [path.name for path in out.parent.iterdir() if path.name.startswith(".")]
