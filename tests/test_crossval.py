"""crossval: every image predicted once by a network that has not seen it, and runs that go on where they stopped."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import tiny
from test_files import held_by_another

from competition.drawings import draw_folder
from training import __main__ as cli
from training import architectures, crossval, data, run
from training.data import load_folder, split_fold
from training.errors import UserError
from training.evaluate import calibration_error
from training.fit import is_kept, read_history
from training.recipe import Recipe

FOLDS = 3


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Three classes of 7, 6 and 6 drawn leaves, 32×32."""
    folder = tmp_path_factory.mktemp("crossval") / "leaves"
    draw_folder(folder, 6, classes=3, side=32)
    draw_folder(folder.with_name("more"), 1, classes=3, side=32, seed=9)
    (folder.with_name("more") / "Species1" / "00000.jpg").rename(folder / "Species1" / "more.jpg")
    return folder


@pytest.fixture(scope="module")
def recipe():
    return Recipe(backbone=tiny, head="softmax", phases=((2, 32),), batch=8, learning_rate=1e-2, warmup=0.0)


@pytest.fixture(scope="module")
def done(drawn, recipe, tmp_path_factory):
    """(folder, result) of a finished cross-validation with two seeds."""
    out = tmp_path_factory.mktemp("folds") / "runs"
    return out, crossval.crossval(recipe, "small", drawn, "none", out, FOLDS, 2)


def test_each_image_is_held_out_once(drawn):
    labels = load_folder(drawn).labels
    parts = [split_fold(labels, FOLDS, fold, 0) for fold in range(FOLDS)]
    assert sorted(np.concatenate([held for _, held in parts])) == list(range(len(labels)))
    for rows, held in parts:
        assert sorted([*rows, *held]) == list(range(len(labels)))
        assert set(np.bincount(labels[held])) <= {2, 3}  # as many of each class
    other = [split_fold(labels, FOLDS, fold, 1)[1].tolist() for fold in range(FOLDS)]
    assert other != [held.tolist() for _, held in parts]


def test_a_class_that_is_too_small(drawn):
    with pytest.raises(UserError, match="class Species2 has 6 images, too few for 7 folds"):
        split_fold(load_folder(drawn).labels, 7, 0, 0, load_folder(drawn).names)


def test_predictions_are_those_of_the_networks_that_have_not_seen_the_image(done, drawn, recipe, monkeypatch):
    monkeypatch.setattr(architectures, "tiny", tiny, raising=False)
    out, _ = done
    images = load_folder(drawn)
    with np.load(out / "out_of_fold.npz") as file:
        probabilities, labels = file["probabilities"], file["labels"]
    assert probabilities.shape == (2, 19, 3)
    assert labels.tolist() == images.labels.tolist()
    for seed in range(2):
        for fold in range(FOLDS):
            network, _, *views = run.load_network(out / f"seed{seed}-fold{fold}")
            _, held = data.split_fold(images.labels, FOLDS, fold, 0)
            np.testing.assert_allclose(probabilities[seed, held], run.predict(network, images.images[held], *views), atol=1e-5)


def test_numbers(done, drawn):
    out, result = done
    with np.load(out / "out_of_fold.npz") as file:
        right = file["probabilities"].argmax(axis=-1) == file["labels"]
    assert result["accuracy"] == pytest.approx(right[0].mean())
    assert result["accuracy_of_seeds"] == pytest.approx(right.mean(axis=1).tolist())
    assert len(result["accuracy_of_folds"]) == 2 * FOLDS
    assert result["images"] == 19
    assert json.loads((out / "crossval.json").read_text("utf-8")) == json.loads(json.dumps(result))
    for name in ("confusion.png", "calibration.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_the_last_epoch_is_kept():
    history = [{"val_loss": 1.0}, {"val_loss": 2.0}]
    assert is_kept(Recipe(keep="last"), history)
    assert not is_kept(Recipe(), history)
    assert is_kept(Recipe(), history[:1])
    assert is_kept(Recipe(), [{}, {}])  # nothing is held out


def test_each_fold_ends_with_its_last_epoch(done, drawn, recipe):
    out, _ = done
    record = json.loads((out / "seed0-fold1" / "recipe.json").read_text("utf-8"))["recipe"]
    assert (record["keep"], record["folds"], record["fold"], record["seed"]) == ("last", FOLDS, 1, 0)
    metrics = json.loads((out / "seed0-fold1" / "metrics.json").read_text("utf-8"))
    last = read_history(out / "seed0-fold1" / "history.csv")[-1]
    assert metrics["accuracy"] == pytest.approx(last["val_accuracy"], abs=1e-5)


def test_what_is_finished_is_left_out(done, drawn, recipe, monkeypatch, capsys):
    out, result = done
    monkeypatch.setattr(crossval, "train", None)
    assert crossval.crossval(recipe, "small", drawn, "none", out, FOLDS, 2) == result
    assert capsys.readouterr().out.count("finished already") == 2 * FOLDS


def test_a_fold_in_the_hands_of_another_process(drawn, recipe, tmp_path, monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(crossval, "train", lambda recipe, *rest: trained.append(recipe.fold) if recipe.fold != 1 else busy(tmp_path))

    def busy(folder):
        raise crossval.InUse(f"the run {folder} is in use by process 1")

    assert crossval.crossval(recipe, "small", drawn, "none", tmp_path, FOLDS) is None
    assert trained == [0, 2]
    text = capsys.readouterr().out
    assert "left out, the run" in text
    assert "1 folds are in other processes' hands" in text


def test_a_lock_is_respected(drawn, recipe, tmp_path, monkeypatch):
    place = tmp_path / "seed0-fold0"
    place.mkdir()
    with held_by_another(place / run.LOCK):
        assert crossval.crossval(replace(recipe, phases=((1, 32),)), "small", drawn, "none", tmp_path, 2) is None
    assert not (place / "metrics.json").exists()
    assert (tmp_path / "seed0-fold1" / "metrics.json").exists()


@pytest.mark.parametrize("change", [{"learning_rate": 1e-3}, {"seed": 5}, {"split_seed": 1}], ids=str)
def test_folds_of_another_recipe(done, drawn, recipe, change):
    with pytest.raises(UserError, match="is of another recipe or of other fields; give another --out"):
        crossval.crossval(replace(recipe, **change), "small", drawn, "none", done[0], FOLDS, 2)


@pytest.mark.parametrize(("folds", "seeds"), [(1, 1), (0, 1), (5, 0)])
def test_numbers_that_make_no_sense(drawn, recipe, tmp_path, folds, seeds):
    with pytest.raises(UserError, match="expected at least 2 folds and 1 seed"):
        crossval.crossval(recipe, "small", drawn, "none", tmp_path, folds, seeds)


@pytest.mark.parametrize("fields", [{"folds": 1}, {"folds": 3, "fold": 3}, {"fold": 1}, {"keep": "first"}], ids=str)
def test_recipes_that_make_no_sense(fields):
    with pytest.raises(UserError, match="expected"):
        Recipe(**fields)


def test_calibration_error():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1])
    expected = 0.5 * abs(0.9 - 0.5) + 0.5 * abs(0.625 - 1.0)
    assert calibration_error(labels, probabilities) == pytest.approx(expected)
    assert calibration_error(labels, np.eye(2)[labels]) == 0


def test_command_line(done, drawn, recipe, monkeypatch, capsys):
    monkeypatch.setattr(cli, "load_recipe", lambda name: recipe)
    arguments = ["crossval", "small", "--folds", str(FOLDS), "--seeds", "2", "--data", str(drawn), "--backbone-weights", "none"]
    assert cli.main([*arguments, "--out", str(done[0])]) == 0
    text = capsys.readouterr().out
    assert f"accuracy {done[1]['accuracy']:.1%}" in text
    assert "calibration error" in text
    assert cli.main([*arguments, "--out", str(done[0]), "--set", "batch=4"]) == 2
    assert "give another --out" in capsys.readouterr().err
