"""Synthetic leaves for the tests of fine-tuning."""

import pytest

from common.images import load_folder
from competition.synthetic import draw_folder
from training.data.split import TrainVal, split


@pytest.fixture(scope="session")
def class_folder(tmp_path_factory):
    """Three classes of eight synthetic leaves each, 32×32 pixels."""
    folder = tmp_path_factory.mktemp("fit") / "leaves"
    draw_folder(folder, 8, classes=3, side=32)
    return folder


@pytest.fixture(scope="session")
def train_val(class_folder):
    """18 training and 6 validation images."""
    images = load_folder(class_folder)
    return TrainVal(*(images.rows(rows) for rows in split(images.labels, 0.25, 0)))
