"""Searches that take seconds: a small backbone, few images, and few epochs."""

import numpy as np
import pytest
from helpers import tiny_mixed

from competition.synthetic import draw_folder
from training.auto import choices, search
from training.config.override import change
from training.model import backbones


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch):
    monkeypatch.setattr(backbones, "tiny_mixed", tiny_mixed, raising=False)
    monkeypatch.setattr(choices, "BACKBONE", tiny_mixed)
    monkeypatch.setattr(choices, "FROZEN_BACKBONE", tiny_mixed)
    monkeypatch.setattr(choices, "INPUT_SIZE", 75)
    monkeypatch.setattr(search, "REPEAT_FACTOR", np.inf)  # nothing is trained a second time
    base = choices.base_recipe
    # Few epochs of the quasi-SVMs, of which each search tries several.
    monkeypatch.setattr(choices, "base_recipe", lambda *arguments: change(base(*arguments), {"head.epochs": 5}))


@pytest.fixture
def auto_data(tmp_path):
    """Three classes of synthetic leaves, one of them rare."""
    draw_folder(tmp_path / "leaves", 12, classes=3, side=32)
    for path in sorted((tmp_path / "leaves" / "Species2").iterdir())[5:]:
        path.unlink()
    return tmp_path / "leaves"


@pytest.fixture
def one_epoch(monkeypatch):
    """A fine-tuning of one epoch fits into the time, however fast the machine is."""
    monkeypatch.setattr(search, "seconds_per_image", lambda *rest: 0.1)
    monkeypatch.setattr(choices, "MAX_EPOCHS", 1)
    monkeypatch.setattr(choices, "FEW_EPOCHS", 0)
    monkeypatch.setattr(search, "MIN_EPOCHS", 1)
