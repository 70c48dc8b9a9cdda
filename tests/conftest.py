"""What the tests share: drawn class folders, a tiny backbone and recipe, InceptionV3, real leaves where they are at hand."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def pytest_collection_modifyitems(config, items):
    """Tests marked slow run only where -m asks for them."""
    if config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: run with -m slow"))


def tiny(weights):
    """A backbone of 1,472 weights with the interface of `architectures.inception_v3`: trained within seconds."""
    import keras

    pixels = x = keras.Input((None, None, 3))
    for channels, side in ((8, 5), (8, 3)):
        x = keras.layers.Conv2D(channels, side, strides=4, use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=0.5)(x)
        x = keras.layers.ReLU()(x)
    backbone = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x), name="backbone")
    if weights not in ("imagenet", "none"):
        backbone.load_weights(weights)
    return backbone


def shrunk(recipe):
    """The recipe with everything that takes time made small."""
    return replace(recipe, backbone=tiny, phases=((1, 75), (1, 80)), batch=8, head_views=2, head_epochs=4, head_features=64, head_batch=16)


@pytest.fixture
def small(monkeypatch):
    """A shrunk recipe whose backbone is found again by name, as `run.load_network` does."""
    from training import architectures
    from training.recipe import Recipe

    monkeypatch.setattr(architectures, "tiny", tiny, raising=False)
    return shrunk(Recipe(validation=0.25, learning_rate=1e-2, warmup=0.5))


@pytest.fixture
def leaf_folder(tmp_path):
    """Three classes of eight drawn leaves each, 32×32."""
    from competition.drawings import draw_folder

    draw_folder(tmp_path / "leaves", 8, classes=3, side=32)
    return tmp_path / "leaves"


@pytest.fixture(scope="session")
def inception():
    """InceptionV3 with random weights, shared because it takes seconds to build; tests may change what is trainable."""
    from training.architectures import inception_v3

    return inception_v3("none")


@pytest.fixture(scope="session")
def leaves():
    """The competition's real images: the folder in the environment variable LEAVES, or one beside the repository."""
    folder = Path(os.environ.get("LEAVES") or ROOT.parent / "shared" / "leaves")
    if not (folder / "train").is_dir():
        pytest.skip(f"no real images: {folder} has no train folder, set LEAVES to a folder with train/ and phase1/")
    return folder
