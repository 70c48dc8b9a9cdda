"""Cross-validation: every image is predicted once by a model that has not seen it; interrupted runs are continued."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers import change, tiny

from common.errors import InUse, UserError
from common.files import locked
from common.images import load_folder
from competition.synthetic import draw_folder
from training import __main__ as cli
from training.commands import train as train_commands
from training.config.recipe import Data, Finetune, Head, Recipe
from training.data.groups import write_groups
from training.data.split import split_fold
from training.evaluate import crossval as module
from training.evaluate.crossval import crossval
from training.evaluate.metrics import calibration_error
from training.fit.checkpoint import is_kept, read_history
from training.predict import predict_proba
from training.run import Inputs
from training.run_folder import LOCK, VAL, read_metrics, read_record
from training.trained import load_run

pytestmark = pytest.mark.integration
FOLDS = 3
RECIPE = Recipe(
    finetune=Finetune(
        backbone=tiny, resolution_schedule=((2, 32),), batch_size=8, learning_rate=1e-2, warmup_epochs=0.0
    ),
    head=Head(kind="softmax"),
)


@pytest.fixture(scope="module")
def crossval_data(tmp_path_factory):
    """Three classes of 7, 6 and 6 synthetic leaves, 32×32 pixels."""
    folder = tmp_path_factory.mktemp("crossval") / "leaves"
    draw_folder(folder, 6, classes=3, side=32)
    draw_folder(folder.with_name("more"), 1, classes=3, side=32, seed=9)
    (folder.with_name("more") / "Species1" / "00000.jpg").rename(folder / "Species1" / "more.jpg")
    return folder


@pytest.fixture(scope="module")
def crossval_inputs(crossval_data):
    return Inputs(crossval_data, "none")


@pytest.fixture(scope="module")
def finished_crossval(crossval_inputs, tmp_path_factory):
    """(folder, result) of a finished cross-validation with two seeds."""
    out = tmp_path_factory.mktemp("folds") / "runs"
    return out, crossval(RECIPE, "small", crossval_inputs, out, FOLDS, 2)


def test_each_image_is_held_out_once(crossval_data):
    labels = load_folder(crossval_data).labels
    parts = [split_fold(labels, FOLDS, fold, 0) for fold in range(FOLDS)]
    assert sorted(np.concatenate([val for _, val in parts])) == list(range(len(labels)))
    for train, val in parts:
        assert sorted([*train, *val]) == list(range(len(labels)))
        assert set(np.bincount(labels[val])) <= {2, 3}  # stratified
    other = [split_fold(labels, FOLDS, fold, 1)[1].tolist() for fold in range(FOLDS)]
    assert other != [val.tolist() for _, val in parts]


def test_a_class_with_fewer_images_than_folds_is_refused(crossval_data):
    images = load_folder(crossval_data)
    with pytest.raises(UserError, match="7 folds need 7 .*images of each class, Species2 has 6"):
        split_fold(images.labels, 7, 0, 0, images.names)


def test_predictions_are_those_of_models_that_have_not_seen_the_image(finished_crossval, crossval_data):
    out, _ = finished_crossval
    images = load_folder(crossval_data)
    with np.load(out / "out_of_fold.npz") as file:
        probabilities, labels = file["probabilities"], file["labels"]
    assert probabilities.shape == (2, 19, 3)
    assert labels.tolist() == images.labels.tolist()
    for seed in range(2):
        for fold in range(FOLDS):
            trained = load_run(out / f"seed{seed}-fold{fold}")
            _, val = split_fold(images.labels, FOLDS, fold, 0)
            expected = predict_proba(trained.model, images.images[val], trained.prediction)
            np.testing.assert_allclose(probabilities[seed, val], expected, atol=1e-5)


def test_the_result_has_the_metrics_of_the_predictions(finished_crossval):
    out, result = finished_crossval
    with np.load(out / "out_of_fold.npz") as file:
        probabilities, labels = file["probabilities"], file["labels"]
    correct = probabilities.argmax(axis=-1) == labels
    assert result["accuracy"] == pytest.approx(correct[0].mean())
    assert result["accuracy_of_seeds"] == pytest.approx(correct.mean(axis=1).tolist())
    averaged = probabilities.mean(axis=0).argmax(axis=-1) == labels
    assert result["accuracy_of_averaged_seeds"] == pytest.approx(averaged.mean())
    assert len(result["accuracy_of_folds"]) == 2 * FOLDS
    assert (result["images"], result["folds"], result["seeds"]) == (19, FOLDS, 2)
    assert json.loads((out / "crossval.json").read_text("utf-8")) == json.loads(json.dumps(result))
    for name in ("confusion.png", "calibration.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_is_kept():
    history = [{"val_loss": 1.0}, {"val_loss": 2.0}]
    assert is_kept("last", history)
    assert not is_kept("best_val_loss", history)
    assert is_kept("best_val_loss", history[:1])
    assert is_kept("best_val_loss", [{}, {}])  # nothing is held out


def test_each_fold_keeps_its_last_epoch(finished_crossval):
    folder = finished_crossval[0] / "seed0-fold1"
    recipe = read_record(folder).recipe
    assert (recipe.checkpoint, recipe.data.folds, recipe.data.fold, recipe.seed) == ("last", FOLDS, 1, 0)
    last = read_history(folder / "history.csv")[-1]
    assert read_metrics(folder)["accuracy"] == pytest.approx(last["val_accuracy"], abs=1e-5)


def test_each_seed_trains_on_the_same_folds(finished_crossval):
    first, second = (read_record(finished_crossval[0] / f"seed{seed}-fold1").recipe for seed in range(2))
    assert (first.seed, second.seed) == (0, 1)
    assert change(second, seed=0) == first


def test_finished_folds_are_skipped(finished_crossval, crossval_inputs, monkeypatch, capsys):
    out, result = finished_crossval
    monkeypatch.setattr(module, "train", None)
    assert crossval(RECIPE, "small", crossval_inputs, out, FOLDS, 2) == result
    assert len([line for line in capsys.readouterr().out.splitlines() if line.endswith("finished")]) == 2 * FOLDS


def test_a_fold_of_another_process_is_skipped(crossval_inputs, tmp_path, monkeypatch, capsys):
    trained, loaded = [], []

    def train(recipe, *rest):
        if recipe.data.fold == 1:
            raise InUse(f"the run {tmp_path} is in use by process 1")
        trained.append(recipe.data.fold)
        loaded.append(rest[-1][0])

    monkeypatch.setattr(module, "train", train)
    assert crossval(RECIPE, "small", crossval_inputs, tmp_path, FOLDS) is None
    assert trained == [0, 2]
    assert loaded[0] is loaded[1]  # the images are read once
    text = capsys.readouterr().out
    assert "skipped, the run" in text
    assert "1 folds are being trained by other processes" in text


def test_a_fold_that_another_process_has_finished_meanwhile_is_gathered(
    finished_crossval, crossval_inputs, tmp_path, monkeypatch
):
    out, result = tmp_path / "shared", finished_crossval[1]
    shutil.copytree(finished_crossval[0], out)
    metrics = out / "seed1-fold0" / "metrics.json"
    metrics.rename(tmp_path / "metrics.json")

    def train(recipe, *rest):
        (tmp_path / "metrics.json").rename(metrics)
        raise InUse("the run is in use by process 1")

    monkeypatch.setattr(module, "train", train)
    assert crossval(RECIPE, "small", crossval_inputs, out, FOLDS, 2) == result


def test_a_locked_fold_is_not_trained(crossval_inputs, tmp_path, capsys):
    folder = tmp_path / "seed0-fold0"
    folder.mkdir()
    recipe = change(RECIPE, resolution_schedule=((1, 32),))
    with locked(folder / LOCK, "it"):
        assert crossval(recipe, "small", crossval_inputs, tmp_path, 2) is None
    assert f"process {os.getpid()}" in capsys.readouterr().out
    assert not (folder / "metrics.json").exists()
    assert (tmp_path / "seed0-fold1" / "metrics.json").exists()


@pytest.mark.parametrize("changes", [{"learning_rate": 1e-3}, {"seed": 5}, {"split_seed": 1}], ids=str)
def test_folds_of_another_recipe_are_refused(finished_crossval, crossval_inputs, changes):
    with pytest.raises(UserError, match="trained with another recipe or --set; .* give another --out"):
        crossval(change(RECIPE, **changes), "small", crossval_inputs, finished_crossval[0], FOLDS, 2)


def test_folds_of_another_name_are_refused(finished_crossval, crossval_inputs):
    with pytest.raises(UserError, match="trained with another name; .* give another --out"):
        crossval(RECIPE, "other", crossval_inputs, finished_crossval[0], FOLDS, 2)


def test_folds_of_other_class_names_are_refused_naming_both(finished_crossval, crossval_data, tmp_path):
    """The images and the labels are the same, only one folder is called otherwise."""
    renamed = shutil.copytree(crossval_data, tmp_path / "renamed")
    (renamed / "Species3").rename(renamed / "Species9")
    with pytest.raises(UserError, match="Species1, Species2, Species3; got Species1, Species2, Species9"):
        crossval(RECIPE, "small", Inputs(renamed, "none"), finished_crossval[0], FOLDS, 2)


@pytest.mark.parametrize("option", ["groups", "size", "data"])
def test_finished_folds_of_other_inputs_are_refused_before_others_are_trained(
    finished_crossval, crossval_inputs, crossval_data, tmp_path, monkeypatch, option
):
    """Otherwise some images would never be held out, and count as the first class."""
    folder = shutil.copytree(finished_crossval[0], tmp_path / "runs")
    (folder / "seed0-fold2" / "metrics.json").unlink()
    monkeypatch.setattr(module, "train", None)
    images = load_folder(crossval_data)
    write_groups(tmp_path / "groups.csv", images, [f"{row // 2}" for row in range(len(images))], crossval_data)
    fewer = shutil.copytree(crossval_data, tmp_path / "fewer")
    (fewer / "Species1" / "more.jpg").unlink()
    inputs = {
        "groups": replace(crossval_inputs, groups=tmp_path / "groups.csv"),
        "size": replace(crossval_inputs, size=(24, 24)),
        "data": Inputs(fewer, "none"),
    }[option]
    with pytest.raises(UserError, match=f"seed0-fold0 was trained with another --{option}"):
        crossval(RECIPE, "small", inputs, folder, FOLDS, 2)


def test_folds_that_hold_out_an_image_twice_are_refused(finished_crossval, crossval_inputs, tmp_path):
    folder = shutil.copytree(finished_crossval[0], tmp_path / "runs")
    shutil.copy(folder / "seed0-fold0" / VAL, folder / "seed0-fold1" / VAL)
    with pytest.raises(UserError, match="must hold out each image once"):
        crossval(RECIPE, "small", crossval_inputs, folder, FOLDS, 2)


@pytest.mark.parametrize(("folds", "seeds"), [(1, 1), (0, 1), (5, 0)])
def test_too_few_folds_or_seeds_are_refused(crossval_inputs, tmp_path, folds, seeds):
    with pytest.raises(UserError, match=f"at least 2 folds and 1 seed, got --folds {folds} --seeds {seeds}"):
        crossval(RECIPE, "small", crossval_inputs, tmp_path, folds, seeds)


@pytest.mark.parametrize("fields", [{"folds": 1}, {"folds": 3, "fold": 3}, {"fold": 1}], ids=str)
def test_folds_out_of_range_are_refused(fields):
    with pytest.raises(UserError, match="data.fold.* must be"):
        Data(**fields)


def test_an_unknown_checkpoint_is_refused():
    with pytest.raises(UserError, match="checkpoint must be one of best_val_loss, last"):
        Recipe(checkpoint="first")


def test_calibration_error():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1])
    expected = 0.5 * abs(0.9 - 0.5) + 0.5 * abs(0.625 - 1.0)
    assert calibration_error(labels, probabilities) == pytest.approx(expected)
    assert calibration_error(labels, np.eye(2)[labels]) == 0


def test_command_line(finished_crossval, crossval_data, monkeypatch, capsys):
    monkeypatch.setattr(train_commands, "load_recipe", lambda name: RECIPE)
    arguments = ["crossval", "small", "--folds", str(FOLDS), "--seeds", "2", "--data", str(crossval_data)]
    arguments += ["--backbone-weights", "none", "--out", str(finished_crossval[0])]
    arguments += ["--set", "finetune.precision=float32"]  # as the finished folds
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert f"accuracy {finished_crossval[1]['accuracy']:.1%}" in text
    assert "calibration error" in text
    assert cli.main([*arguments, "--set", "finetune.batch_size=4"]) == 2
    assert "give another --out" in capsys.readouterr().err
