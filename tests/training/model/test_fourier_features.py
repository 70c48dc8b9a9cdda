"""Random Fourier features approximate their kernels, are saved completely, and are equal on every backend."""

import importlib.util
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import ROOT
from sklearn.metrics.pairwise import laplacian_kernel, rbf_kernel

from training.model.fourier_features import KERNELS, RandomFourierFeatures

X = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)


def features(*args, inputs=X, **kwargs):
    return keras.ops.convert_to_numpy(RandomFourierFeatures(*args, **kwargs)(inputs))


def exact(kernel, scale):
    return rbf_kernel(X, gamma=1 / (2 * scale**2)) if kernel == "gaussian" else laplacian_kernel(X, gamma=1 / scale)


def rms_error(kernel, scale, output_dim, seeds=12):
    errors = []
    for seed in range(seeds):
        z = features(output_dim, kernel, scale, seed).astype(np.float64)
        errors.append((z @ z.T - exact(kernel, scale))[np.triu_indices(len(X), 1)])
    return np.sqrt(np.mean(np.square(errors)))


@pytest.mark.unit
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [0.7, 2.0, 8.0])
def test_inner_products_are_the_kernel(kernel, scale):
    z = features(20_000, kernel, scale).astype(np.float64)
    # The product of two features is within ±2 / output_dim: five standard deviations of the sum are below 0.05.
    np.testing.assert_allclose(z @ z.T, exact(kernel, scale), atol=0.05)


@pytest.mark.integration
@pytest.mark.parametrize("kernel", KERNELS)
def test_error_falls_with_the_root_of_the_number_of_features(kernel):
    ratio = rms_error(kernel, 2.0, 256) / rms_error(kernel, 2.0, 256 * 16)
    assert 3.2 < ratio < 5.0


@pytest.mark.unit
@pytest.mark.parametrize(("kernel", "scale"), [("gaussian", np.sqrt(3)), ("laplacian", 1.0)])
def test_default_scale(kernel, scale):
    np.testing.assert_allclose(features(64, kernel), features(64, kernel, float(scale)), atol=1e-6)


@pytest.mark.unit
def test_features_are_bounded_and_have_the_computed_output_shape():
    layer = RandomFourierFeatures(50)
    z = keras.ops.convert_to_numpy(layer(X))
    assert z.shape == layer.compute_output_shape(X.shape) == (40, 50)
    assert np.abs(z).max() <= np.sqrt(2 / 50) + 1e-6


@pytest.mark.unit
def test_features_depend_on_the_seed():
    np.testing.assert_array_equal(features(32, seed=1), features(32, seed=1))
    assert np.abs(features(32, seed=1) - features(32, seed=2)).max() > 0.1


@pytest.mark.integration
def test_training_does_not_change_its_weights():
    model = keras.Sequential([keras.Input((6,)), RandomFourierFeatures(32, name="fourier"), keras.layers.Dense(1)])
    fourier = model.get_layer("fourier")
    assert fourier.trainable_weights == []
    assert len(fourier.weights) == 3
    before, dense = fourier.get_weights(), model.layers[-1].get_weights()[0]
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(X, X[:, :1], epochs=1, verbose=0)
    for old, new in zip(before, fourier.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert np.abs(model.layers[-1].get_weights()[0] - dense).max() > 0


@pytest.mark.unit
@pytest.mark.parametrize("arguments", [(16,), (16, "laplacian", 0.5, 9)])
def test_config_gives_the_same_layer(arguments):
    layer = RandomFourierFeatures(*arguments, name="fourier")
    config = json.loads(json.dumps(layer.get_config()))
    again = RandomFourierFeatures.from_config(config)
    assert again.get_config() == layer.get_config()
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(again(X)), keras.ops.convert_to_numpy(layer(X)))


@pytest.mark.integration
def test_layer_is_saved_and_loaded_in_a_keras_file(tmp_path):
    model = keras.Sequential([keras.Input((6,)), RandomFourierFeatures(16, "laplacian", 2.0, 3), keras.layers.Dense(2)])
    model.layers[0].kernel_scale.assign(0.5)  # a scale that is only in the saved weights
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-6)


@pytest.mark.unit
@pytest.mark.parametrize(
    "arguments",
    [
        {"output_dim": 0},
        {"output_dim": -3},
        {"output_dim": 2.5},
        {"output_dim": "8"},
        {"output_dim": 8, "kernel": "polynomial"},
        {"output_dim": 8, "scale": 0.0},
        {"output_dim": 8, "scale": -1.0},
        {"output_dim": 8, "scale": float("nan")},
        {"output_dim": 8, "scale": float("inf")},
    ],
)
def test_argument_out_of_range_is_refused(arguments):
    name = list(arguments)[-1]
    with pytest.raises(ValueError, match=f"{name} must be"):
        RandomFourierFeatures(**arguments)


@pytest.mark.unit
@pytest.mark.parametrize("shape", [(6,), (2, 3, 6), (2, None)])
def test_inputs_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="batch, input_dim"):
        RandomFourierFeatures(8).build(shape)


BACKEND = """
import json, sys
import keras, numpy as np
from training.model.fourier_features import RandomFourierFeatures
x = np.asarray(json.loads(sys.stdin.read()), np.float32)
layers = [RandomFourierFeatures(64, kernel, 2.0, 5) for kernel in ("gaussian", "laplacian")]
outputs = [keras.ops.convert_to_numpy(layer(x)).tolist() for layer in layers]
print(json.dumps([keras.backend.backend(), outputs]))
"""


@pytest.mark.integration
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_give_the_same_numbers(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, "-c", BACKEND],
        input=json.dumps(X.tolist()),
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    name, outputs = json.loads(done.stdout.splitlines()[-1])
    assert name == backend
    # A Cauchy frequency may be in the thousands. In float32, the angle of such a product is accurate to 1e-4.
    for kernel, output, tolerance in zip(("gaussian", "laplacian"), outputs, (1e-5, 1e-4), strict=True):
        np.testing.assert_allclose(output, features(64, kernel, 2.0, 5), atol=tolerance)
