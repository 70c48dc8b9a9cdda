"""Fine-tuning: an interruption does not change the weights, and errors keep the finished epochs."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import change, shrunk, tiny

import training.fit.finetune as fit
from common.errors import UserError
from training.config.recipe import Data, Finetune, Recipe
from training.data.split import TrainVal
from training.fit.checkpoint import COLUMNS, TrainState, read_history
from training.fit.finetune import finetune, make_backbone
from training.fit.optimizer import FusedAdamW
from training.fit.swa import add_to_mean
from training.model import fast_layers
from training.model.backbones import scratch_vgg
from training.model.build import build_model
from training.model.heads import softmax_head
from training.model.trainable import FirstLast

pytestmark = pytest.mark.integration
# Two epochs at one size and one at another: an interruption can fall within a stage, between two, and after the last.
STAGES = change(
    shrunk(
        Recipe(
            data=Data(validation_split=0.25),
            finetune=Finetune(learning_rate=3e-3, warmup_epochs=0.5, label_smoothing=0.1),
        )
    ),
    resolution_schedule=((2, 75), (1, 80)),
)


@pytest.fixture(scope="module")
def initial_weights(tmp_path_factory):
    """A file of weights of the backbone."""
    keras.utils.set_random_seed(1)
    path = tmp_path_factory.mktemp("initial") / "initial.weights.h5"
    tiny("none").save_weights(path)
    return str(path)


@pytest.fixture(scope="module")
def uninterrupted(train_val, initial_weights, tmp_path_factory):
    """The folder of three epochs without an interruption."""
    out = tmp_path_factory.mktemp("uninterrupted")
    finetune(STAGES, train_val, initial_weights, out, out / "features")
    return out


def arrays(out):
    with np.load(out / "checkpoint.npz") as file:
        return {name: file[name] for name in file.files if name != "history"}


def interrupt(monkeypatch, after, *arguments):
    """Runs `finetune` and interrupts it after the checkpoint of an epoch."""
    save = TrainState.save

    def save_and_stop(state, path):
        save(state, path)
        if len(state.history) == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainState, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            finetune(*arguments)


def kept(out, recipe=STAGES, classes=3):
    """The model whose weights a fine-tuning has kept."""
    backbone = tiny("none")
    head = softmax_head(recipe.finetune, 8, classes)
    model = build_model(backbone, head, (32, 32), recipe.finetune.input_size)
    model.load_weights(out / "finetuned.weights.h5")
    return model


def compiled(recipe, train_val):
    job = fit._Job(
        recipe, train_val, Path(), TrainState(), make_backbone(recipe, "none"), softmax_head(recipe.finetune, 8, 3)
    )
    return fit._compiled(job, 75)


def without_time(path):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in read_history(path)]


@pytest.mark.parametrize("after", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)])
def test_interrupted_run_ends_with_the_same_weights(
    train_val, initial_weights, uninterrupted, tmp_path, monkeypatch, after
):
    arguments = (STAGES, train_val, initial_weights, tmp_path, tmp_path / "features")
    interrupt(monkeypatch, after, *arguments)
    finetune(*arguments)
    expected, found = arrays(uninterrupted), arrays(tmp_path)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name].astype(float), array.astype(float), atol=1e-5, err_msg=name)
    one, other = (kept(folder) for folder in (uninterrupted, tmp_path))
    assert len(one.get_weights()) == len(tiny("none").get_weights()) + 2
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    rows, again = without_time(uninterrupted / "history.csv"), without_time(tmp_path / "history.csv")
    assert [row["epoch"] for row in again] == [1, 2, 3]
    for row, other_row in zip(rows, again, strict=True):
        assert row == pytest.approx(other_row, abs=1e-4)


SWA = change(STAGES, checkpoint="last", swa_epochs=2)


@pytest.fixture
def averaged(monkeypatch):
    """The weights that are passed to SWA's mean, in order."""
    seen = []

    def record(mean, weights, count):
        seen.append([np.array(w) for w in weights])
        return add_to_mean(mean, weights, count)

    monkeypatch.setattr(fit, "add_to_mean", record)
    return seen


def test_swa_keeps_the_mean_of_the_last_epochs_also_after_interruptions(
    train_val, initial_weights, tmp_path, monkeypatch, averaged
):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    for out in (whole, parted):
        out.mkdir()
    finetune(SWA, train_val, initial_weights, whole, tmp_path / "features")
    assert len(averaged) == 2
    second, third = averaged
    arguments = (SWA, train_val, initial_weights, parted, tmp_path / "features")
    for after in (1, 2):
        interrupt(monkeypatch, after, *arguments)
    finetune(*arguments)
    mean, again, moved, recalibrated = kept(whole), kept(parted), 0, 0
    for variable, two, three, other in zip(mean.weights, second, third, again.weights, strict=True):
        np.testing.assert_allclose(variable.numpy(), other.numpy(), atol=1e-5)
        if "moving" not in variable.path:
            np.testing.assert_allclose(variable.numpy(), (two + three) / 2, atol=1e-6)
            moved += np.abs(two - three).max()
        else:
            recalibrated += np.abs(variable.numpy() - (two + three) / 2).max()
    assert moved > 1e-3
    assert recalibrated > 1e-3, "the batch statistics are measured again, not averaged"
    saved = arrays(whole)  # the checkpoint has the weights of the last epoch, not the mean
    for number, three in enumerate(third[:3]):
        assert any(array.shape == three.shape and np.array_equal(array, three) for array in saved.values()), number


def test_the_layers_that_are_trained_are_the_fast_ones():
    backbone = make_backbone(change(STAGES, backbone=scratch_vgg, precision="mixed_bfloat16"), "none")
    kinds = {type(layer) for layer in backbone.layers}
    assert {fast_layers.BatchNormalization, fast_layers.Conv2D} <= kinds
    assert not {keras.layers.BatchNormalization, keras.layers.Conv2D} & kinds


@pytest.mark.slow
def test_class_weights_raise_the_probability_of_a_rare_class(train_val, initial_weights, tmp_path):
    names = train_val.train.names
    rows = np.flatnonzero((train_val.train.labels > 0) | (np.cumsum(train_val.train.labels == 0) <= 1))
    data = TrainVal(train_val.train.rows(rows), train_val.val)
    found = []
    for weighted in (False, True):
        recipe = change(
            STAGES, checkpoint="last", class_weights=weighted, resolution_schedule=((20, 75),), learning_rate=1e-2
        )
        out = tmp_path / str(weighted)
        out.mkdir()
        finetune(recipe, data, initial_weights, out, out / "features")
        probabilities = kept(out, recipe, len(names))(train_val.train.images.astype(np.float32), training=True)
        found.append(float(probabilities[:, 0].numpy().mean()))
    assert found[1] > found[0] + 0.1, found


def test_swa_on_several_machines_is_refused(train_val, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{}")
    with pytest.raises(UserError, match="finetune.swa_epochs must be 0.*TF_CONFIG"):
        finetune(SWA, train_val, "none", tmp_path, tmp_path / "features")


def test_training_changes_the_weights_and_the_history_has_each_epoch(initial_weights, uninterrupted):
    history = read_history(uninterrupted / "history.csv")
    assert [row["size"] for row in history] == [75, 75, 80]
    assert [row["images"] for row in history] == [24, 24, 24]  # 18, and 6 that fill the last batch
    for row in history:
        assert row.keys() == set(COLUMNS)
        assert 0 <= row["accuracy"] <= 1
    before, after = tiny(initial_weights), kept(uninterrupted).get_layer("backbone")
    assert all(np.abs(a - b).max() > 1e-4 for a, b in zip(before.get_weights(), after.get_weights(), strict=True))


def test_best_epoch_is_kept(train_val, tmp_path, monkeypatch):
    losses, weights = iter([0.5, 0.2, 0.9]), []
    one_epoch = fit._one_epoch

    def scored(job, model, epoch):
        row = {**one_epoch(job, model, epoch), "val_loss": next(losses)}
        weights.append(model.get_weights())
        return row

    monkeypatch.setattr(fit, "_one_epoch", scored)
    recipe = change(STAGES, resolution_schedule=((3, 75),))
    finetune(recipe, train_val, "none", tmp_path, tmp_path / "features")
    found = kept(tmp_path).get_weights()
    same = [all(np.array_equal(a, b) for a, b in zip(found, epoch, strict=True)) for epoch in weights]
    assert same == [False, True, False]


def test_given_initial_weights_are_continued_from(train_val, uninterrupted, tmp_path):
    recipe = change(STAGES, resolution_schedule=((1, 75),), learning_rate=1e-12, weight_decay=0.0, warmup_epochs=0.0)
    init = uninterrupted / "finetuned.weights.h5"
    finetune(recipe, train_val, "none", tmp_path, tmp_path / "features", init)
    before, after = kept(uninterrupted), kept(tmp_path, recipe)
    for one, other in zip(before.trainable_variables, after.trainable_variables, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_frozen_layers_do_not_change(train_val, initial_weights, tmp_path):
    recipe = change(
        STAGES, trainable=FirstLast(0, 4), train_batch_norm=False, resolution_schedule=((1, 75),)
    )  # of these four, only the second convolution has weights to train
    finetune(recipe, train_val, initial_weights, tmp_path, tmp_path / "features")
    before, after = tiny(initial_weights), kept(tmp_path).get_layer("backbone")
    changed = []
    for number, layers in enumerate(zip(before.layers, after.layers, strict=True)):
        one, other = (layer.get_weights() for layer in layers)
        if any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True)):
            changed.append(number)
    assert changed == [4]
    assert isinstance(after.layers[4], keras.layers.Conv2D)


def test_random_weights_depend_only_on_the_seed():
    one, same, other = (make_backbone(replace(STAGES, seed=seed), "none").get_weights() for seed in (1, 1, 2))
    np.testing.assert_array_equal(one[0], same[0])
    assert np.abs(one[0] - other[0]).max() > 0


def test_infinite_loss_stops_the_run_and_keeps_finished_epochs(train_val, initial_weights, tmp_path, monkeypatch):
    recipe = change(STAGES, resolution_schedule=((2, 75),))
    arguments = (train_val, initial_weights, tmp_path, tmp_path / "features")
    interrupt(monkeypatch, 1, recipe, *arguments)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {"checkpoint.npz", "finetuned.weights.h5"} <= before.keys()
    with pytest.raises(UserError, match="loss must be finite.*epoch 2.*finetune.learning_rate=") as error:
        finetune(change(recipe, learning_rate=1e38), *arguments)
    assert "\n" not in str(error.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    finetune(recipe, *arguments)
    assert len(read_history(tmp_path / "history.csv")) == 2


class Disturbed(FusedAdamW):
    """One number of a gradient is NaN in some steps, counted from 1."""

    def __init__(self, rate, decay, steps):
        super().__init__(rate, decay)
        self.steps, self.step = tf.constant(steps), tf.Variable(0, trainable=False)

    def apply(self, grads, trainable_variables=None):
        bad = tf.reduce_any(self.steps == self.step.assign_add(1))
        number = tf.reshape(tf.where(bad, np.nan, 0.0), [1] * len(grads[0].shape))
        padding = [[0, side - 1] for side in grads[0].shape]
        return super().apply([grads[0] + tf.pad(number, padding), *grads[1:]], trainable_variables)


def test_a_gradient_that_is_not_finite_is_skipped_and_reported(
    train_val, initial_weights, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(fit, "adamw", lambda rate, decay: Disturbed(rate, decay, [2, 3]))
    recipe = change(STAGES, resolution_schedule=((1, 75),), batch_size=2)  # 9 steps
    finetune(recipe, train_val, initial_weights, tmp_path, tmp_path / "features")
    assert "skipped 2 of 9 steps, because their gradients were not finite" in capsys.readouterr().out
    assert len(read_history(tmp_path / "history.csv")) == 1
    assert all(np.isfinite(array).all() for array in kept(tmp_path).get_weights())


def test_without_skipped_steps_nothing_is_reported(train_val, initial_weights, tmp_path, capsys):
    finetune(change(STAGES, resolution_schedule=((1, 75),)), train_val, initial_weights, tmp_path, tmp_path / "cache")
    assert "skipped" not in capsys.readouterr().out


def test_steps_are_counted_with_the_variables_of_several_devices():
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        optimizer = FusedAdamW(0.1, 0.0)
        optimizer.build([keras.Variable([1.0])])
    steps = fit._Steps(optimizer)
    for batch in range(3):
        steps.on_train_batch_end(batch)
    optimizer.iterations.assign(2)
    assert (steps.count, steps.skipped) == (3, 1)


@pytest.mark.parametrize(
    ("settings", "fix"),
    [({}, "finetune.learning_rate=0.001"), ({"precision": "mixed_bfloat16"}, "finetune.precision=float32")],
)
def test_most_steps_skipped_is_an_error(train_val, initial_weights, tmp_path, monkeypatch, settings, fix):
    monkeypatch.setattr(fit, "adamw", lambda rate, decay: Disturbed(rate, decay, [1, 2, 3, 5, 6]))
    recipe = change(STAGES, resolution_schedule=((1, 75),), batch_size=2, **settings)
    with pytest.raises(UserError, match=f"5 of 9 were not in epoch 1.*--set {fix} and another --out$"):
        finetune(recipe, train_val, initial_weights, tmp_path, tmp_path / "features")
    assert not (tmp_path / "checkpoint.npz").exists()


def test_weights_that_are_not_finite_are_not_kept(train_val, initial_weights, tmp_path, monkeypatch):
    class NanStep(keras.optimizers.SGD):  # the loss of the epoch's only step is finite
        def update_step(self, gradient, variable, learning_rate):
            variable.assign(variable * np.nan)

    monkeypatch.setattr(fit, "adamw", lambda rate, decay: NanStep(rate))
    recipe = change(STAGES, resolution_schedule=((1, 75),), batch_size=64)
    without_val = TrainVal(train_val.train, train_val.val.rows([]))
    with pytest.raises(UserError, match="weights must be finite.*after epoch 1.*finetune.learning_rate=0.001"):
        finetune(recipe, without_val, initial_weights, tmp_path, tmp_path / "features")
    assert not (tmp_path / "checkpoint.npz").exists()


def test_damaged_checkpoint_is_not_overwritten(train_val, tmp_path):
    path = tmp_path / "checkpoint.npz"
    path.write_text("not a checkpoint")
    with pytest.raises(UserError, match=r"checkpoint\.npz is damaged"):
        finetune(STAGES, train_val, "none", tmp_path, tmp_path / "features")
    assert path.read_text() == "not a checkpoint"


def test_half_precision_scales_its_loss_and_keeps_float32_weights(train_val):
    recipe = change(STAGES, precision="mixed_float16")
    backbone = make_backbone(recipe, "none")
    assert keras.config.dtype_policy().name == "float32"
    assert backbone.layers[1].compute_dtype == "float16"
    assert {v.dtype for v in backbone.weights} == {"float32"}
    # Without scaling, gradients below 6e-8 would be zero in half precision.
    assert isinstance(compiled(recipe, train_val).optimizer, keras.optimizers.LossScaleOptimizer)


def test_half_precision_trains_and_may_skip_all_steps_of_an_epoch(
    train_val, initial_weights, tmp_path, monkeypatch, capsys
):
    scaled = keras.optimizers.LossScaleOptimizer
    monkeypatch.setattr(keras.optimizers, "LossScaleOptimizer", lambda inner: scaled(inner, initial_scale=2.0**40))
    recipe = change(STAGES, resolution_schedule=((3, 75),), precision="mixed_float16", batch_size=2)
    finetune(recipe, train_val, initial_weights, tmp_path, tmp_path / "features")
    out = capsys.readouterr().out
    assert "skipped 9 of 9 steps" in out
    before, after = tiny(initial_weights).get_weights(), kept(tmp_path).get_layer("backbone").get_weights()
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(before, after, strict=True))
    assert len(read_history(tmp_path / "history.csv")) == 3


@pytest.mark.parametrize("warmup_epochs", [0.0, 0.5, 1.0, 2.0])
def test_learning_rate_rises_and_falls_within_the_run(train_val, warmup_epochs):
    recipe = change(STAGES, resolution_schedule=((2, 75),), warmup_epochs=warmup_epochs, batch_size=2)
    optimizer, steps = compiled(recipe, train_val).optimizer, 9  # of each epoch
    rates = []
    for step in range(2 * steps + 1):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    peak = round(warmup_epochs * steps)
    assert rates[peak] == pytest.approx(recipe.finetune.learning_rate)
    assert np.all(np.diff(rates[: peak + 1]) > 0)
    assert np.all(np.diff(rates[peak:]) < 0)
    assert peak == 2 * steps or rates[-1] == pytest.approx(0, abs=1e-9)


def test_label_smoothing_is_its_formula(train_val):
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32)
    model = compiled(change(STAGES, label_smoothing=0.3), train_val)
    loss = model.loss(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], np.float32), probabilities)
    targets = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    assert float(loss) == pytest.approx(-(targets * np.log(probabilities)).sum(axis=1).mean(), rel=1e-5)
