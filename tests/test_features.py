"""Cached features: computed once, computed again where anything they depend on is another, and never half."""

import os
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import ROOT, tiny

from competition.drawings import draw_images
from training import features
from training.augment import Augmentation
from training.features import cached_features

IMAGES = draw_images(6, side=32)
AUGMENTATION = Augmentation()


@pytest.fixture(scope="module")
def backbone():
    keras.utils.set_random_seed(0)
    return tiny("none")


@pytest.fixture
def computed(monkeypatch):
    """Counts the computations, which are not done: features of ones instead."""
    calls = []

    def ones(backbone, images, size, augmentation=None, views=1, seed=0):
        calls.append((size, augmentation, views, seed))
        return np.full((views, len(images), 8), len(calls), np.float32)

    monkeypatch.setattr(features, "extract", ones)
    return calls


def test_features_are_computed_once(backbone, tmp_path, monkeypatch):
    first = cached_features(tmp_path / "cache", backbone, IMAGES, 48, AUGMENTATION, 2, 3)
    np.testing.assert_array_equal(first, features.extract(backbone, IMAGES, 48, AUGMENTATION, 2, 3))

    def never(*arguments):
        raise AssertionError("computed again")

    monkeypatch.setattr(features, "extract", never)
    again = cached_features(tmp_path / "cache", backbone, IMAGES.copy(), 48, replace(AUGMENTATION), 2, 3)
    np.testing.assert_array_equal(again, first)
    assert again.dtype == np.float32
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 1
    with pytest.raises(AssertionError, match="computed again"):
        cached_features(tmp_path / "cache", backbone, IMAGES, 48)


@pytest.mark.parametrize("other", ["weights", "statistics", "layers", "images", "size", "augmentation", "none", "views", "seed"])
def test_features_are_computed_again_where_anything_is_another(backbone, tmp_path, computed, other):
    arguments = {"backbone": backbone, "images": IMAGES, "size": 48, "augmentation": AUGMENTATION, "views": 2, "seed": 0}
    cached_features(tmp_path, **arguments)
    copy = tiny("none")
    copy.set_weights(backbone.get_weights())
    cached_features(tmp_path, **{**arguments, "backbone": copy})
    assert len(computed) == 1  # an equal network
    if other == "weights":
        copy.layers[1].kernel.assign(copy.layers[1].kernel + 1e-6)
    elif other == "statistics":
        copy.layers[2].moving_mean.assign(copy.layers[2].moving_mean + 1e-6)
    elif other == "layers":
        pixels = keras.Input((None, None, 3))
        copy = keras.Model(pixels, keras.layers.Rescaling(2.0)(backbone(pixels)))
    changed = IMAGES.copy()
    changed[3, 5, 5, 1] ^= 1
    changes = {"images": changed, "size": 49, "augmentation": replace(AUGMENTATION, tint=0.1), "none": None, "views": 1, "seed": 1}
    name = {"none": "augmentation"}.get(other, other)
    cached_features(tmp_path, **{**arguments, **({name: changes[other]} if other in changes else {"backbone": copy})})
    assert len(computed) == 2


DAMAGES = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "garbage": lambda data: b"no features" * 50,
    "flipped": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 255]) + data[len(data) // 2 + 1 :],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_computed_again_and_a_line_says_so(backbone, tmp_path, computed, capsys, damage):
    cached_features(tmp_path, backbone, IMAGES, 48)
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    check_recovery(backbone, tmp_path, computed, capsys, path)


@pytest.mark.parametrize(
    "kept", [{"features": np.ones((2, 6, 8))}, {"features": np.ones((1, 5, 8))}, {"features": np.ones((1, 6))}, {"x": np.ones(3)}]
)
def test_a_file_of_something_else_is_computed_again(backbone, tmp_path, computed, capsys, kept):
    cached_features(tmp_path, backbone, IMAGES, 48)
    (path,) = tmp_path.glob("*.npz")
    np.savez(path, **kept)
    check_recovery(backbone, tmp_path, computed, capsys, path)


def check_recovery(backbone, cache, computed, capsys, path):
    found = cached_features(cache, backbone, IMAGES, 48)
    assert len(computed) == 2
    assert found.min() == found.max() == 2
    line = capsys.readouterr().out
    assert f"{path} are damaged" in line
    assert "computing them again" in line
    assert line.count("\n") == 1
    cached_features(cache, backbone, IMAGES, 48)
    assert len(computed) == 2


def test_no_images_have_no_features(backbone, tmp_path):
    assert cached_features(tmp_path, backbone, IMAGES[:0], 48).shape == (1, 0, 8)


def test_a_computation_that_stops_leaves_no_file(backbone, tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(features, "extract", stop)
    with pytest.raises(KeyboardInterrupt):
        cached_features(tmp_path, backbone, IMAGES, 48)
    assert not list(tmp_path.glob("*.npz"))


# Takes until told to go on, so that the other process is certain to come in between.
SLOW = """
import sys
sys.path[:0] = sys.argv[2:4]
import keras, numpy as np
from conftest import tiny
from training import features

def slow(backbone, images, *others):
    print("computing", flush=True)
    sys.stdin.readline()
    return np.full((1, len(images), 8), 7, np.float32)

features.extract = slow
keras.utils.set_random_seed(0)
found = features.cached_features(sys.argv[1], tiny("none"), np.zeros((4, 32, 32, 3), np.uint8), 48)
print("got", found.shape, found.max(), flush=True)
"""


def test_of_two_processes_one_computes_and_the_other_waits(tmp_path):
    command = [sys.executable, "-c", SLOW, tmp_path / "cache", ROOT, ROOT / "tests"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}}
    with subprocess.Popen(command, **pipes) as first, subprocess.Popen(command, **pipes) as second:
        try:
            lines = {first: first.stdout.readline(), second: second.stdout.readline()}
            computing, waiting = (first, second) if lines[first] == "computing\n" else (second, first)
            assert lines[computing] == "computing\n"
            assert lines[waiting].startswith(f"waiting for process {computing.pid}, which writes the features")
            assert waiting.poll() is None
            ends = [process.communicate("go\n", timeout=120)[0] for process in (computing, waiting)]
        finally:
            first.kill()
            second.kill()
    assert ends == ["got (1, 4, 8) 7.0\n"] * 2
