"""Checkpoints and histories are read as they were written, and damaged ones are named."""

import keras
import numpy as np
import pytest

from common.errors import UserError
from training.fit.checkpoint import (
    COLUMNS,
    TrainState,
    read_history,
    require_finite,
    restore,
    snapshot,
    write_history,
)

pytestmark = pytest.mark.unit
ROWS = [
    {"epoch": 1, "loss": 0.1 + 0.2, "accuracy": 0.5, "seconds": 1.5},
    {"epoch": 2, "loss": 1e-9, "accuracy": 1.0, "seconds": 2.0},
]


def state(swa_weights=()):
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(50, 40)).astype(np.float32), np.arange(12), np.array(7, np.uint32)]
    return TrainState([*weights, *[np.full(1, number) for number in range(20)]], list(swa_weights), ROWS)


def check_equal(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("swa_weights", [[], [np.ones((3, 2), np.float32), np.zeros(5, np.float32)]])
def test_state_is_read_as_it_was_written(tmp_path, swa_weights):
    saved = state(swa_weights)
    saved.save(tmp_path / "checkpoint.npz")
    loaded = TrainState.load(tmp_path / "checkpoint.npz")
    check_equal(loaded.arrays, saved.arrays)  # also their order, with more than ten
    check_equal(loaded.swa_weights, saved.swa_weights)
    assert loaded.history == ROWS


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_an_error(bad):
    arrays = state().arrays
    require_finite(arrays, 0, "a=1")
    arrays[0][49, 39] = bad
    with pytest.raises(UserError, match="must be finite.*after epoch 3.*--set a=1 and another --out$"):
        require_finite(arrays, 2, "a=1")


def test_without_a_file_the_state_is_empty(tmp_path):
    assert TrainState.load(tmp_path / "checkpoint.npz") == TrainState(None, [], [])


def flipped(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]


DAMAGES = {
    "empty": lambda data: b"",
    "text": lambda data: b"not a checkpoint",
    "cut": lambda data: data[: len(data) // 2],
    "flipped": flipped,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_named(tmp_path, damage):
    path = tmp_path / "checkpoint.npz"
    TrainState([np.random.default_rng(0).normal(size=(100, 100))], [], ROWS).save(path)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(UserError, match=r"checkpoint\.npz is damaged") as error:
        TrainState.load(path)
    assert "\n" not in str(error.value)


def test_another_file_of_arrays_is_no_checkpoint(tmp_path):
    np.savez(tmp_path / "checkpoint.npz", np.ones(3))
    with pytest.raises(UserError, match=r"checkpoint\.npz is damaged"):
        TrainState.load(tmp_path / "checkpoint.npz")


def model_with_optimizer(seed):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.BatchNormalization()])
    model.compile(keras.optimizers.AdamW(1e-2), "mse")
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(seed)
    return model


def test_snapshot_restores_weights_statistics_and_optimizer():
    one, other = model_with_optimizer(1), model_with_optimizer(2)
    saved = snapshot(one)
    assert len(saved) == len(one.variables) + len(one.optimizer.variables)
    restore(other, saved)
    check_equal(snapshot(other), saved)
    assert int(other.optimizer.iterations) == 1


def test_restoring_nothing_changes_nothing():
    model = model_with_optimizer(1)
    before = snapshot(model)
    restore(model, None)
    check_equal(snapshot(model), before)


def test_history_is_read_as_it_was_written(tmp_path):
    write_history(tmp_path / "history.csv", ROWS)
    assert read_history(tmp_path / "history.csv") == ROWS
    assert (tmp_path / "history.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
