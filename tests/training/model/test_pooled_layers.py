"""Features of several layers of a backbone."""

import keras
import numpy as np
import pytest
from helpers import tiny

from common.errors import UserError
from training.fit import features
from training.fit.features import FeatureSpec, cached_features, layer_features
from training.model.backbones import pooled_layers

pytestmark = pytest.mark.integration
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)
SPEC = FeatureSpec(75)


@pytest.fixture
def two_blocks():
    keras.utils.set_random_seed(0)
    return tiny("none")


def layer_names(two_blocks):
    return tuple(layer.name for layer in two_blocks.layers if isinstance(layer, keras.layers.ReLU))


def test_no_layers_are_the_backbone_itself(two_blocks):
    assert pooled_layers(two_blocks, ()) is two_blocks


def test_outputs_are_the_pooled_layers_side_by_side(two_blocks):
    names = layer_names(two_blocks)
    pixels = np.random.default_rng(1).normal(size=(3, 75, 75, 3)).astype(np.float32)
    outputs = [keras.Model(two_blocks.input, two_blocks.get_layer(name).output)(pixels) for name in names]
    expected = np.concatenate([keras.ops.convert_to_numpy(output).mean(axis=(1, 2)) for output in outputs], axis=-1)
    found = keras.ops.convert_to_numpy(pooled_layers(two_blocks, names)(pixels))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_unknown_layers_are_named(two_blocks):
    with pytest.raises(UserError, match="head.feature_layers must be layers.*got mixed99"):
        pooled_layers(two_blocks, ("mixed99",))


def test_several_layers_are_computed_in_one_pass_and_cached_one_by_one(two_blocks, tmp_path, monkeypatch):
    passes, extract = [], features.extract_features
    monkeypatch.setattr(features, "extract_features", lambda *rest: passes.append(1) or extract(*rest))
    names = layer_names(two_blocks)
    both = layer_features(tmp_path, two_blocks, names, IMAGES, SPEC)
    assert len(passes) == 1
    for name, part in zip(names, np.split(both, 2, axis=-1), strict=True):
        np.testing.assert_array_equal(cached_features(tmp_path, pooled_layers(two_blocks, (name,)), IMAGES, SPEC), part)
    np.testing.assert_array_equal(
        layer_features(tmp_path, two_blocks, names[::-1], IMAGES, SPEC)[..., :8], both[..., 8:]
    )
    assert len(passes) == 1


def test_precisions_have_files_of_their_own(two_blocks, tmp_path):
    cached_features(tmp_path, two_blocks, IMAGES, SPEC)
    cached_features(tmp_path, two_blocks, IMAGES, FeatureSpec(75, precision="bfloat16"))
    assert len(list(tmp_path.glob("*.npz"))) == 2
