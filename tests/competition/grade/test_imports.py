"""Grading and hosting need neither `training` nor scikit-learn, and the grader itself does not load TensorFlow."""

import pkgutil

import pytest
from helpers import ROOT, python

import competition.grade
import competition.host

pytestmark = pytest.mark.integration

MODULES = [
    "grade_submission",
    *(f"competition.grade.{module.name}" for module in pkgutil.iter_modules(competition.grade.__path__)),
    *(f"competition.host.{module.name}" for module in pkgutil.iter_modules(competition.host.__path__)),
    "competition.__main__",
]
IMPORT = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
importlib.import_module(sys.argv[2])
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
HELP = """
import atexit, runpy, sys
sys.path.insert(0, sys.argv[1])
atexit.register(lambda: print("\\nloaded", *sorted({name.partition(".")[0] for name in sys.modules})))
sys.argv = ["competition", "--help"]
runpy.run_module("competition", run_name="__main__", alter_sys=True)
"""
FORBIDDEN = {"training", "sklearn", "tensorflow", "keras"}


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_no_training_library(module):
    done = python("-c", IMPORT, ROOT, module)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "competition" in loaded
    assert not loaded & FORBIDDEN


def test_help_of_the_competition_command_imports_no_training_library():
    done = python("-c", HELP, ROOT)
    assert done.returncode == 0, done.stderr
    assert "usage: python -m competition" in done.stdout
    assert not set(done.stdout.rpartition("loaded")[2].split()) & FORBIDDEN
