"""Features, and their cache: computed once, computed again if anything they depend on changes, never half."""

import os
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
from helpers import ROOT, tiny

from common.errors import UserError
from competition.synthetic import draw_images
from training.data.augment import RandomTransforms
from training.fit import features
from training.fit.features import FeatureSpec, cached_features, extract_features
from training.model.build import preprocessing

pytestmark = pytest.mark.integration
IMAGES = draw_images(6, side=32)
SPEC = FeatureSpec(48, RandomTransforms(), 2, 0)
PLAIN = FeatureSpec(48)


@pytest.fixture(scope="module")
def backbone():
    keras.utils.set_random_seed(0)
    return tiny("none")


@pytest.fixture
def computed(monkeypatch):
    """The specs of all computations, which return ones, twos, … instead of features."""
    calls = []

    def count(backbone, images, spec):
        calls.append(spec)
        return np.full((spec.views, len(images), 8), len(calls), np.float32)

    monkeypatch.setattr(features, "extract_features", count)
    return calls


def test_features_are_those_of_the_backbone_for_any_batch_size(backbone):
    images, spec = draw_images(7, side=32), FeatureSpec(75)
    found = extract_features(backbone, images, spec, batch_size=3)
    assert found.shape == (1, 7, 8)
    np.testing.assert_allclose(found[0], backbone.predict(np.asarray(preprocessing(75)(images)), verbose=0), atol=1e-5)
    spec = FeatureSpec(75, RandomTransforms(), 2)
    np.testing.assert_allclose(
        extract_features(backbone, images, spec, batch_size=3), extract_features(backbone, images, spec), atol=1e-4
    )


def test_features_of_each_view_depend_only_on_the_seed(backbone):
    spec = FeatureSpec(75, RandomTransforms(), 3, seed=1)
    views = extract_features(backbone, IMAGES, spec)
    assert views.shape == (3, 6, 8)
    np.testing.assert_array_equal(views, extract_features(backbone, IMAGES, spec))
    assert len({view.tobytes() for view in views}) == 3
    assert np.abs(views - extract_features(backbone, IMAGES, replace(spec, seed=2))).max() > 1e-3


def test_features_are_computed_once(backbone, tmp_path, monkeypatch):
    spec = replace(SPEC, seed=3)
    first = cached_features(tmp_path / "cache", backbone, IMAGES, spec)
    np.testing.assert_array_equal(first, extract_features(backbone, IMAGES, spec))

    def never(*arguments):
        raise AssertionError("computed again")

    monkeypatch.setattr(features, "extract_features", never)
    again = cached_features(tmp_path / "cache", backbone, IMAGES.copy(), replace(spec))
    np.testing.assert_array_equal(again, first)
    assert again.dtype == np.float32
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 1
    with pytest.raises(AssertionError, match="computed again"):
        cached_features(tmp_path / "cache", backbone, IMAGES, PLAIN)


def equal_backbone(backbone):
    copy = tiny("none")
    copy.set_weights(backbone.get_weights())
    return copy


def other_weights(backbone):
    copy = equal_backbone(backbone)
    copy.layers[1].kernel.assign(copy.layers[1].kernel + 1e-6)
    return copy


def other_statistics(backbone):
    copy = equal_backbone(backbone)
    copy.layers[2].moving_mean.assign(copy.layers[2].moving_mean + 1e-6)
    return copy


def other_layers(backbone):
    pixels = keras.Input((None, None, 3))
    return keras.Model(pixels, keras.layers.Rescaling(2.0)(backbone(pixels)))


@pytest.mark.parametrize("other", [other_weights, other_statistics, other_layers])
def test_features_of_another_backbone_are_computed(backbone, tmp_path, computed, other):
    cached_features(tmp_path, backbone, IMAGES, SPEC)
    cached_features(tmp_path, equal_backbone(backbone), IMAGES, SPEC)
    assert len(computed) == 1
    cached_features(tmp_path, other(backbone), IMAGES, SPEC)
    assert len(computed) == 2


def test_features_of_other_images_are_computed(backbone, tmp_path, computed):
    cached_features(tmp_path, backbone, IMAGES, SPEC)
    changed = IMAGES.copy()
    changed[3, 5, 5, 1] ^= 1
    cached_features(tmp_path, backbone, changed, SPEC)
    assert len(computed) == 2


@pytest.mark.parametrize(
    "changes",
    [{"input_size": 49}, {"transforms": RandomTransforms(tint=0.1)}, {"transforms": None}, {"views": 1}, {"seed": 1}],
    ids=str,
)
def test_features_of_another_spec_are_computed(backbone, tmp_path, computed, changes):
    cached_features(tmp_path, backbone, IMAGES, SPEC)
    cached_features(tmp_path, backbone, IMAGES, replace(SPEC, **changes))
    assert len(computed) == 2


DAMAGES = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "garbage": lambda data: b"no features" * 50,
    "flipped": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 255]) + data[len(data) // 2 + 1 :],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_is_computed_again_and_a_line_says_so(backbone, tmp_path, computed, capsys, damage):
    cached_features(tmp_path, backbone, IMAGES, PLAIN)
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    check_recovery(backbone, tmp_path, computed, capsys, path)


@pytest.mark.parametrize(
    "arrays",
    [
        {"features": np.ones((2, 6, 8))},
        {"features": np.ones((1, 5, 8))},
        {"features": np.ones((1, 6))},
        {"x": np.ones(3)},
    ],
)
def test_file_with_other_arrays_is_computed_again(backbone, tmp_path, computed, capsys, arrays):
    cached_features(tmp_path, backbone, IMAGES, PLAIN)
    (path,) = tmp_path.glob("*.npz")
    np.savez(path, **arrays)
    check_recovery(backbone, tmp_path, computed, capsys, path)


def check_recovery(backbone, cache, computed, capsys, path):
    found = cached_features(cache, backbone, IMAGES, PLAIN)
    assert len(computed) == 2
    assert found.min() == found.max() == 2
    line = capsys.readouterr().out
    assert f"{path} are damaged" in line
    assert "computed again" in line
    assert line.count("\n") == 1
    cached_features(cache, backbone, IMAGES, PLAIN)
    assert len(computed) == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_an_error_and_are_not_cached(backbone, tmp_path, bad):
    damaged = keras.Sequential([backbone, keras.layers.Rescaling(scale=1.0, offset=bad)])
    with pytest.raises(UserError, match=rf"finite, and those of {len(IMAGES)} of {len(IMAGES)} images are not"):
        cached_features(tmp_path, damaged, IMAGES, SPEC)
    assert not list(tmp_path.glob("*.npz"))


def test_no_images_have_no_features(backbone, tmp_path):
    assert cached_features(tmp_path, backbone, IMAGES[:0], PLAIN).shape == (1, 0, 8)


def test_interrupted_computation_leaves_no_file(backbone, tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(features, "extract_features", stop)
    with pytest.raises(KeyboardInterrupt):
        cached_features(tmp_path, backbone, IMAGES, PLAIN)
    assert not list(tmp_path.glob("*.npz"))


# Computes until it reads a line, so that the other process certainly starts in between.
SLOW = """
import sys
sys.path[:0] = sys.argv[2:4]
import keras, numpy as np
from helpers import tiny
from training.fit import features

def slow(backbone, images, spec):
    print("computing", flush=True)
    sys.stdin.readline()
    return np.full((1, len(images), 8), 7, np.float32)

features.extract_features = slow
keras.utils.set_random_seed(0)
spec = features.FeatureSpec(48)
found = features.cached_features(sys.argv[1], tiny("none"), np.zeros((4, 32, 32, 3), np.uint8), spec)
print("got", found.shape, found.max(), flush=True)
"""


@pytest.mark.slow
def test_of_two_processes_one_computes_and_the_other_waits(tmp_path):
    command = [sys.executable, "-c", SLOW, tmp_path / "cache", ROOT, ROOT / "tests"]
    pipes = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "text": True,
        "env": {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
    }
    with subprocess.Popen(command, **pipes) as first, subprocess.Popen(command, **pipes) as second:
        try:
            lines = {first: first.stdout.readline(), second: second.stdout.readline()}
            computing, waiting = (first, second) if lines[first] == "computing\n" else (second, first)
            assert lines[computing] == "computing\n"
            assert lines[waiting].startswith(f"waiting for process {computing.pid}, which is writing the features")
            assert waiting.poll() is None
            ends = [process.communicate("go\n", timeout=120)[0] for process in (computing, waiting)]
        finally:
            first.kill()
            second.kill()
    assert ends == ["got (1, 4, 8) 7.0\n"] * 2
