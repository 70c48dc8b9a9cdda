"""Fixtures for the tests of the questions: folders of synthetic leaves."""

import pytest

from competition.synthetic import draw_folder


@pytest.fixture(scope="module")
def small_leaves(tmp_path_factory):
    """A folder with train and test: three classes of ten synthetic leaves each."""
    folder = tmp_path_factory.mktemp("few")
    draw_folder(folder / "train", 10, classes=3, side=32)
    draw_folder(folder / "test", 10, classes=3, side=32, seed=5)
    return folder
