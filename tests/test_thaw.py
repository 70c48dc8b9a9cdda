"""Which layers are trained, and that the others stay as they are."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny

from training.architectures import inception_v3, inception_v3_quiet, start_empty_kernels
from training.errors import UserError
from training.thaw import Budget, Edges, Everything, freeze, thaw


def trainable(backbone):
    return [layer for layer in backbone.layers if layer.trainable]


def test_inception_takes_any_size_from_75_pixels(inception):
    assert inception.input_shape == (None, None, None, 3)
    assert inception.output_shape == (None, 2048)
    assert inception.count_params() == 21_802_784


def test_edges_are_the_first_and_the_last_layers(inception):
    count = thaw(inception, Edges(15, 15), batch_norm=True)
    assert len(inception.layers) > 300
    assert trainable(inception) == inception.layers[:15] + inception.layers[-15:]
    expected = {id(v) for layer in inception.layers[:15] + inception.layers[-15:] for v in layer.trainable_variables}
    assert {id(v) for v in inception.trainable_variables} == expected
    assert count == sum(int(np.prod(v.shape)) for v in inception.trainable_variables) > 0


@pytest.mark.parametrize(("first", "last", "expected"), [(0, 2, 2), (2, 0, 2), (0, 0, 0), (5, 5, 8), (100, 100, 8)])
def test_edges_may_be_empty_or_meet(first, last, expected):
    backbone = tiny("none")
    assert len(backbone.layers) == 8
    chosen = Edges(first, last).choose(backbone.layers)
    assert len({id(layer) for layer in chosen}) == len(chosen) == expected


@pytest.mark.parametrize("parameters", [0, 100_000, 6_000_000, 15_000_000])
def test_budget_is_used_from_both_ends_and_kept(inception, parameters):
    layers = inception.layers
    chosen = {id(layer) for layer in Budget(parameters).choose(layers)}
    front = next(n for n, layer in enumerate(layers) if id(layer) not in chosen)
    back = next(n for n, layer in enumerate(reversed(layers)) if id(layer) not in chosen)
    assert len(chosen) == front + back
    assert front - back in (0, 1)  # in turn, the front first
    spent = sum(layer.count_params() for layer in layers[:front] + layers[len(layers) - back :])
    following = layers[front] if front == back else layers[len(layers) - 1 - back]
    assert spent <= parameters < spent + following.count_params()
    assert thaw(inception, Budget(parameters), batch_norm=True) <= spent


def test_a_large_budget_is_everything(inception):
    assert thaw(inception, Budget(30_000_000), batch_norm=True) == thaw(inception, Everything(), batch_norm=True)
    assert trainable(inception) == inception.layers
    # All but the moving averages: the count of the literature.
    assert sum(int(np.prod(v.shape)) for v in inception.trainable_variables) == 21_768_352


def test_batch_norm_can_be_left_out(inception):
    thaw(inception, Everything(), batch_norm=False)
    frozen = [layer for layer in inception.layers if not layer.trainable]
    assert len(frozen) == 94
    assert all(isinstance(layer, keras.layers.BatchNormalization) for layer in frozen)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_frozen_batch_norm_keeps_its_statistics(batch_norm):
    backbone = tiny("none")
    thaw(backbone, Everything(), batch_norm)
    before = [np.array(v) for v in backbone.non_trainable_variables]
    weights = [np.array(layer.moving_mean) for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    backbone(np.random.default_rng(0).uniform(-1, 1, (4, 75, 75, 3)).astype(np.float32), training=True)
    after = [np.array(layer.moving_mean) for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert [np.array_equal(a, b) for a, b in zip(weights, after, strict=True)] == [not batch_norm] * 2
    assert len(before) == (4 if batch_norm else 8)


def test_thawing_reaches_into_a_frozen_backbone():
    backbone = tiny("none")
    freeze(backbone)
    assert backbone.trainable_variables == []
    assert thaw(backbone, Edges(2, 0), batch_norm=False) == 5 * 5 * 3 * 8
    assert trainable(backbone) == backbone.layers[:2]


def test_an_empty_kernel_gets_a_start_and_lets_gradients_through():
    backbone = tiny("none")
    first, second = (layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D))
    second.kernel.assign(np.zeros(second.kernel.shape))
    untouched = np.array(first.kernel)
    images = np.random.default_rng(0).uniform(-1, 1, (4, 75, 75, 3)).astype(np.float32)

    def gradient():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(backbone(images, training=True) ** 2)
        return np.abs(tape.gradient(loss, first.kernel.value)).max()

    assert gradient() == 0
    assert start_empty_kernels(backbone) == [second.name]
    assert gradient() > 0
    np.testing.assert_array_equal(first.kernel, untouched)
    started = np.array(second.kernel)
    assert np.std(started) == pytest.approx(np.sqrt(2 / (3 * 3 * 8)), rel=0.2)
    assert start_empty_kernels(backbone) == []
    second.kernel.assign(np.zeros(second.kernel.shape))
    start_empty_kernels(backbone)
    np.testing.assert_array_equal(second.kernel, started)
    second.kernel.assign(np.zeros(second.kernel.shape))
    start_empty_kernels(backbone, scale=0.01)
    np.testing.assert_allclose(second.kernel, 0.01 * started, rtol=1e-6)


def test_a_quiet_start_is_the_same_network_with_smaller_empty_kernels(inception, tmp_path):
    def last(backbone):
        return [layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D)][-1]

    kernel, path = np.array(last(inception).kernel), tmp_path / "empty.weights.h5"
    last(inception).kernel.assign(np.zeros(kernel.shape))
    inception.save_weights(path)
    last(inception).kernel.assign(kernel)
    loud, quiet = (np.array(last(start(str(path))).kernel) for start in (inception_v3, inception_v3_quiet))
    np.testing.assert_allclose(quiet, 0.01 * loud, rtol=1e-6)
    assert np.any(quiet)


def test_no_kernel_of_the_backbone_is_empty(inception):
    assert all(np.any(np.array(layer.kernel)) for layer in inception.layers if isinstance(layer, keras.layers.Conv2D))


def test_missing_backbone_weights_are_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.weights\.h5.*imagenet, none"):
        inception_v3(str(tmp_path / "nowhere.weights.h5"))


def test_a_file_that_holds_no_weights_is_named(tmp_path):
    path = tmp_path / "wrong.weights.h5"
    path.write_text("no weights")
    with pytest.raises(UserError, match=r"wrong\.weights\.h5") as error:
        inception_v3(str(path))
    assert "\n" not in str(error.value)
