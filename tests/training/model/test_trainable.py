"""Which layers are trained, and that the others do not change."""

import keras
import numpy as np
import pytest
from helpers import tiny

from training.model.trainable import All, FirstLast, ParameterBudget, freeze, set_trainable


def trainable(backbone):
    return [layer for layer in backbone.layers if layer.trainable]


@pytest.mark.integration
def test_first_last_are_the_first_and_the_last_layers(inception):
    count = set_trainable(inception, FirstLast(15, 15), train_batch_norm=True)
    assert len(inception.layers) > 300
    assert trainable(inception) == inception.layers[:15] + inception.layers[-15:]
    expected = {id(v) for layer in inception.layers[:15] + inception.layers[-15:] for v in layer.trainable_variables}
    assert {id(v) for v in inception.trainable_variables} == expected
    assert count == sum(int(np.prod(v.shape)) for v in inception.trainable_variables) > 0


@pytest.mark.unit
@pytest.mark.parametrize(("first", "last", "expected"), [(0, 2, 2), (2, 0, 2), (0, 0, 0), (5, 5, 8), (100, 100, 8)])
def test_first_last_may_be_empty_or_overlap(first, last, expected):
    backbone = tiny("none")
    assert len(backbone.layers) == 8
    chosen = FirstLast(first, last).choose(backbone.layers)
    assert len({id(layer) for layer in chosen}) == len(chosen) == expected


@pytest.mark.integration
@pytest.mark.parametrize("parameters", [0, 100_000, 6_000_000, 15_000_000])
def test_budget_is_spent_from_both_ends_and_not_exceeded(inception, parameters):
    layers = inception.layers
    chosen = {id(layer) for layer in ParameterBudget(parameters).choose(layers)}
    front = next(n for n, layer in enumerate(layers) if id(layer) not in chosen)
    back = next(n for n, layer in enumerate(reversed(layers)) if id(layer) not in chosen)
    assert len(chosen) == front + back
    assert front - back in (0, 1)  # alternately, the front first
    spent = sum(layer.count_params() for layer in layers[:front] + layers[len(layers) - back :])
    following = layers[front] if front == back else layers[len(layers) - 1 - back]
    assert spent <= parameters < spent + following.count_params()
    assert set_trainable(inception, ParameterBudget(parameters), train_batch_norm=True) <= spent


@pytest.mark.integration
def test_large_budget_is_all(inception):
    parameters = set_trainable(inception, ParameterBudget(30_000_000), train_batch_norm=True)
    assert parameters == set_trainable(inception, All(), train_batch_norm=True)
    assert trainable(inception) == inception.layers
    # All but the moving averages, as in the literature.
    assert sum(int(np.prod(v.shape)) for v in inception.trainable_variables) == 21_768_352


@pytest.mark.integration
def test_batch_norm_can_be_frozen(inception):
    set_trainable(inception, All(), train_batch_norm=False)
    frozen = [layer for layer in inception.layers if not layer.trainable]
    assert len(frozen) == 94
    assert all(isinstance(layer, keras.layers.BatchNormalization) for layer in frozen)


@pytest.mark.unit
@pytest.mark.parametrize("train_batch_norm", [True, False])
def test_frozen_batch_norm_keeps_its_statistics(train_batch_norm):
    backbone = tiny("none")
    set_trainable(backbone, All(), train_batch_norm)
    before = [np.array(v) for v in backbone.non_trainable_variables]
    weights = [
        np.array(layer.moving_mean) for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    backbone(np.random.default_rng(0).uniform(-1, 1, (4, 75, 75, 3)).astype(np.float32), training=True)
    after = [
        np.array(layer.moving_mean) for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert [np.array_equal(a, b) for a, b in zip(weights, after, strict=True)] == [not train_batch_norm] * 2
    assert len(before) == (4 if train_batch_norm else 8)


@pytest.mark.unit
def test_layers_of_a_frozen_backbone_can_be_trained_again():
    backbone = tiny("none")
    freeze(backbone)
    assert backbone.trainable_variables == []
    assert set_trainable(backbone, FirstLast(2, 0), train_batch_norm=False) == 5 * 5 * 3 * 8
    assert trainable(backbone) == backbone.layers[:2]
