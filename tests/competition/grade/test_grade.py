"""grade(): its verdict on stubs that run in processes of their own."""

import re
import sys
import zipfile
from pathlib import Path

import pytest
from helpers import ROOT, load_module, stub, stub_zip

import grade_submission
from competition.grade import grade as grade_module
from competition.grade.grade import STEPS, Rules, grade
from competition.grade.report import report, verdict

pytestmark = pytest.mark.integration

support = load_module(Path(__file__).with_name("grading.py"), "grading")
CONSTRUCTOR, failed_checks, graded = support.CONSTRUCTOR, support.failed_checks, support.graded

# --- submissions that fail before the first image

EARLY = {
    "raises at import": ("raise KeyError('weights')", r"^KeyError: 'weights'$"),
    "is not Python": ("class model(:", "^SyntaxError: "),
    "raises in the constructor": ("class Model:\n    def __init__(self):\n        1 / 0", "^ZeroDivisionError: "),
    "no class": ("class model: pass", "^model.py has no class Model$"),
    "imports training": ("import training", "^model.py cannot be imported: No module named 'training'$"),
    "imports the grader": ("import competition", "^model.py cannot be imported: No module named 'competition'$"),
    "raises SystemExit": ("raise SystemExit(0)", "exited with code 0$"),
    "kills itself": ("import os\nos.kill(os.getpid(), 9)", "killed by signal 9$"),
    "several lines": ("raise ValueError('one\\ntwo')", "^ValueError: one"),
}


@pytest.mark.parametrize("case", EARLY)
def test_early_failure_is_the_only_failed_check(tmp_path, case):
    source, reason = EARLY[case]
    checks = graded(tmp_path, source)
    assert list(checks) == [CONSTRUCTOR]
    assert re.search(reason, checks[CONSTRUCTOR].reason)


def test_labels_are_not_among_the_files_of_the_prediction_stage(tmp_path, labelled_folder):
    source = """
import os
stage = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
folders = ("input_data", "output", "program", "ingested_program")
raise RuntimeError([sorted(os.listdir(os.path.join(stage, name))) for name in folders])
"""
    program = ["contract.json", "decoder.py", "ingestion.py", "metadata.yaml", "runner.py"]
    expected = [["classes.txt", "images.npy"], ["checks.json"], program, ["metadata", "model.py"]]
    result = grade(stub_zip(tmp_path / "a.zip", source), data=labelled_folder)
    assert failed_checks(result)[CONSTRUCTOR].reason == f"RuntimeError: {expected}"
    assert result.labelled
    assert "accuracy  not measured, see the failed checks" in report(result)


def test_environment_of_the_grader_is_not_inherited(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("SUBMISSION_PRECISION", "bfloat16")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    source = f"""
import os, sys
names = [name for name in ("HOME", "SECRET", "PYTHONPATH") if name in os.environ]
values = [os.environ[name] for name in ("SUBMISSION_PRECISION", "CUDA_VISIBLE_DEVICES")]
raise RuntimeError([names, *values, {str(ROOT)!r} in sys.path])
"""
    assert graded(tmp_path, source)[CONSTRUCTOR].reason == "RuntimeError: [['HOME'], 'bfloat16', '-1', False]"


def test_only_the_submission_is_run_by_the_given_interpreter(tmp_path, labelled_folder, monkeypatch):
    """The scoring program is the grader's own: its interpreter has what the submission's may lack."""
    given, run, ran = tmp_path / "python", grade_module.run, []
    given.symlink_to(sys.executable)

    def recorded(stage, limits, python=sys.executable, *rest):
        ran.append((stage.name, str(python)))
        return run(stage, limits, sys.executable, *rest)

    monkeypatch.setattr(grade_module, "run", recorded)
    path = stub_zip(tmp_path / "a.zip", stub())
    options = ["--data", str(labelled_folder), "--layout", "an2dl2024", "--python", str(given)]
    assert grade_submission.main([str(path), *options]) == 0
    assert ran == [("prediction", str(given)), ("scoring", sys.executable)]


@pytest.mark.parametrize("returned", ["tf.zeros(len(X), tf.int64)", "np.zeros(len(X), int)"])
def test_an_array_in_place_of_a_tensor_is_warned_of_once(tmp_path, returned):
    source = f"""
import numpy as np
import tensorflow as tf
class model:
    def __init__(self, path):
        pass
    def predict(self, X):
        return {returned}
"""
    result = grade(stub_zip(tmp_path / "a.zip", source), rules=Rules(layout="codalab"))
    assert result.passed, report(result)
    assert report(result).count("Warning: predict returned a NumPy array") == ("np" in returned)


# --- limits

HOARD = "import time, numpy as np; a = np.ones(50_000_000); time.sleep(3600)"
EXCEEDED = {
    "time": ("import time\ntime.sleep(3600)", {"time_limit": 2}, "ran longer than the limit of 2 s", "smaller network"),
    "memory": (
        "import time\nimport numpy as np\nhoard = []\n"
        "while True:\n    hoard.append(np.ones(5_000_000))\n    time.sleep(0.02)",
        {"memory_limit_mb": 400},
        "used more memory than the limit of 400 MB",
        "predict in batches",
    ),
    "memory of children": (
        f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', '{HOARD}'])\ntime.sleep(3600)",
        {"memory_limit_mb": 300, "time_limit": 60},
        "used more memory than the limit of 300 MB",
        "predict in batches",
    ),
}


@pytest.mark.parametrize("case", EXCEEDED)
def test_exceeded_limit_is_reported_with_a_fix(tmp_path, case):
    source, limits, reason, fix = EXCEEDED[case]
    checks = graded(tmp_path, source, **limits)
    assert list(checks) == [CONSTRUCTOR, "limits"]
    assert all(reason in check.reason for check in checks.values())
    assert fix in checks["limits"].fix


def test_endless_output_is_stopped_and_the_log_is_short(tmp_path):
    result = grade(stub_zip(tmp_path / "a.zip", "while True:\n    print('x' * 99_999)"))
    checks = failed_checks(result)
    assert list(checks) == [CONSTRUCTOR, "limits"]
    assert checks["limits"].reason == "it printed more than 100 MB"
    assert checks["limits"].fix == "print less"
    assert len(result.log) <= 20_000


def test_wrong_answer_before_an_exceeded_limit_is_refused_by_the_server_too(tmp_path):
    source = """
import time
def flood():
    for _ in range(1100):
        print("x" * 99_999)
    time.sleep(60)
""" + stub("good / 1.0 if len(x) == 1 else flood()")
    result = grade(stub_zip(tmp_path / "a.zip", source), rules=Rules(layout="an2dl2024"))
    assert list(failed_checks(result)) == ["one image", "limits"]
    assert verdict(result) == "the server would not accept it: one image, limits"


def test_files_left_behind_are_named(tmp_path):
    source = """
import os, sys, tempfile
here = os.path.dirname(os.path.abspath(__file__))
tempfile.mkstemp()  # allowed: the temporary folder is its own
open(os.path.expanduser("~/cache"), "w").close()
for name in ("weights.tmp", "cache/a", "cache/b", "cache/c"):
    os.makedirs(os.path.dirname(os.path.join(here, name)), exist_ok=True)
    open(os.path.join(here, name), "w").close()
raise RuntimeError("done")
"""
    checks = graded(tmp_path, source)
    assert checks[CONSTRUCTOR].reason == "RuntimeError: done"
    assert checks["no files left"].reason == (
        "it wrote ingested_program/cache/a, ingested_program/cache/b, ingested_program/cache/c and 1 more"
    )


# --- submissions that predict wrongly; test_attacks.py has more


def test_random_predictions(tmp_path):
    checks = graded(tmp_path, stub("np.random.default_rng().integers(0, 8, len(x))"))
    assert {"row permutation", "repeatability", "uint8 images"} <= set(checks)
    assert re.search(r"^a second call .* \(\d+ of \d+\)", checks["repeatability"].reason)


# --- zips


def test_refused_zip_is_not_run(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("submission/model.py", stub())
        archive.writestr("submission/metadata", "")
    result = grade(path)
    assert list(failed_checks(result)) == ["model.py", "metadata"]
    assert not set(STEPS) & {check.name for check in result.checks}


def test_zip_that_cannot_be_unpacked(tmp_path, monkeypatch):
    """As on a file system that takes two of its names for one."""

    def fail(*_):
        raise FileExistsError(17, "File exists", "a")

    monkeypatch.setattr(grade_module, "extract", fail)
    checks = failed_checks(grade(stub_zip(tmp_path / "a.zip", stub())))
    assert list(checks) == ["unpacking"]
    assert "File exists" in checks["unpacking"].reason


def test_size_limit(tmp_path):
    path = stub_zip(tmp_path / "a.zip", stub())
    assert list(failed_checks(grade(path, rules=Rules(limit_mb=0.0001)))) == ["size"]
