"""A finished run of a tiny recipe with a quasi-SVM, for the benchmarks that need one."""

import pytest
from helpers import tiny, tiny_recipe

from competition.synthetic import draw_folder
from training.config.recipe import Head
from training.model import backbones
from training.run import Inputs, train

RECIPE = tiny_recipe(head=Head(views=2, epochs=2), checkpoint="last")


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """A folder with the images in `leaves` and the run in `run`."""
    folder = tmp_path_factory.mktemp("benchmark")
    draw_folder(folder / "leaves", 8, classes=3, side=32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "tiny", tiny, raising=False)
        train(RECIPE, "small", Inputs(folder / "leaves", "none"), folder / "run")
    return folder


@pytest.fixture
def small_recipe(monkeypatch):
    """The recipe of `finished_run`; its record can be read while the test runs."""
    monkeypatch.setattr(backbones, "tiny", tiny, raising=False)
    return RECIPE
