"""A finished run of a tiny recipe with a quasi-SVM, for the benchmarks that need one."""

import pytest
from helpers import tiny

from competition.synthetic import draw_folder
from training.config.recipe import Data, Finetune, Head, Recipe
from training.model import backbones
from training.run import Inputs, train

RECIPE = Recipe(
    data=Data(validation_split=0.25),
    finetune=Finetune(
        backbone=tiny, resolution_schedule=((1, 32),), batch_size=8, warmup_epochs=0.0, learning_rate=1e-2
    ),
    head=Head(views=2, epochs=2),
    checkpoint="last",
)


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
