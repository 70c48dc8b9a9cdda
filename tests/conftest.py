"""Fixtures for all tests: synthetic class folders, a tiny recipe, InceptionV3, and the real images if present."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from helpers import ROOT, shrunk, tiny
from hypothesis.configuration import set_hypothesis_home_dir

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["SUBMISSION_PRECISION"] = "float32"  # of model.py: its answers are compared between processes and machines
if "MPLCONFIGDIR" not in os.environ:  # those of pytest-xdist inherit it; nothing is written to the home folder
    os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="matplotlib-")
    atexit.register(shutil.rmtree, os.environ["MPLCONFIGDIR"], ignore_errors=True)
set_hypothesis_home_dir(tempfile.mkdtemp(prefix="hypothesis-"))  # nothing is written to the repository


def pytest_collection_modifyitems(config, items):
    """Skips tests marked slow unless -m names that marker."""
    if "slow" in config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: run with -m slow"))


@pytest.fixture
def small(monkeypatch):
    """A shrunk recipe whose backbone is found by name when a record is read."""
    from training.config.recipe import Data, Finetune, Recipe
    from training.model import backbones

    monkeypatch.setattr(backbones, "tiny", tiny, raising=False)
    return shrunk(Recipe(data=Data(validation_split=0.25), finetune=Finetune(learning_rate=1e-2, warmup_epochs=0.5)))


@pytest.fixture
def leaf_folder(tmp_path):
    """Three classes of eight synthetic leaves each, 32×32 pixels."""
    from competition.synthetic import draw_folder

    draw_folder(tmp_path / "leaves", 8, classes=3, side=32)
    return tmp_path / "leaves"


@pytest.fixture(scope="session")
def inception():
    """InceptionV3 with random weights, shared because it takes seconds to build. Tests may change what is trainable."""
    from training.model.backbones import inception_v3

    return inception_v3("none")


@pytest.fixture(scope="session")
def leaves():
    """The competition's real images: the folder in the environment variable LEAVES, or one beside the repository."""
    folder = Path(os.environ.get("LEAVES") or ROOT.parent / "shared" / "leaves")
    if not (folder / "train").is_dir():
        pytest.skip(f"no real images: {folder} has no train folder, set LEAVES to a folder with train/ and phase1/")
    return folder
