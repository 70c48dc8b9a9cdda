"""`hide_tensorflow_log`: TensorFlow's own lines are hidden, everything else on standard error is shown."""

import subprocess
import sys

import pytest
from helpers import ROOT, python

pytestmark = pytest.mark.integration

HIDE = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom common.tensorflow_log import hide_tensorflow_log as hide\n"
# What several versions of TensorFlow write while they are imported, and one line of another library.
FAKE = r"""
import os
os.write(2, b'''WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795633900.287210    5386 port.cc:153] oneDNN custom operations are on.
2026-11-25 19:28:53.792710: I tensorflow/core/platform/cpu_feature_guard.cc:210] This TensorFlow binary is optimized
To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow.
E0000 00:00:1758131045.203198 3722035 cuda_dnn.cc:8579] Unable to register cuDNN factory
another library: a warning
''')
class config:
    def list_physical_devices():
        os.write(2, b'2026-11-25 19:28:53.792710: E external/xla/cuda_platform.cc:51] failed call to cuInit\n')
"""


@pytest.fixture
def fake(tmp_path):
    (tmp_path / "tensorflow.py").write_text(FAKE)
    return f"{HIDE}sys.path.insert(0, {str(tmp_path)!r})\n"


def errors(code, **environment):
    """What a fresh interpreter writes to standard error."""
    done = python("-c", code, environment=environment)
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()


def test_tensorflow_writes_nothing():
    assert errors(HIDE + "hide()\nimport keras, tensorflow\ntensorflow.zeros(1)") == []


def test_other_lines_and_later_lines_are_shown(fake):
    later = "import os, tensorflow; hide(); os.write(2, b'W0000 later.cc:1] shown\\n')"
    assert errors(f"{fake}hide(); hide()\n{later}") == ["another library: a warning", "W0000 later.cc:1] shown"]


def test_level_0_hides_nothing(fake):
    assert len(errors(f"{fake}hide()\nimport tensorflow", TF_CPP_MIN_LOG_LEVEL="0")) == 6


def test_an_import_that_fails_shows_its_reason(tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise ImportError('no such library')")
    done = python("-c", f"{HIDE}sys.path.insert(0, {str(tmp_path)!r})\nhide()\nimport tensorflow")
    assert done.returncode == 1 and "no such library" in done.stderr


def test_an_import_that_aborts_shows_its_last_words(tmp_path):
    words = b"The TensorFlow library was compiled to use AVX instructions, but these aren't available.\n"
    (tmp_path / "tensorflow.py").write_text(f"import os\nos.write(2, {words!r})\nos.abort()")
    done = python("-c", f"{HIDE}sys.path.insert(0, {str(tmp_path)!r})\nhide()\nimport tensorflow")
    assert done.returncode < 0 and "AVX instructions" in done.stderr


def test_works_with_a_closed_standard_error(tmp_path):
    (tmp_path / "tensorflow.py").write_text("class config:\n    list_physical_devices = int")
    program = tmp_path / "program.py"
    program.write_text(f"{HIDE}hide()\nimport tensorflow\nprint('done')")
    done = subprocess.run(f"{sys.executable} {program} 2>&-", shell=True, capture_output=True, text=True)
    assert done.stdout == "done\n"
