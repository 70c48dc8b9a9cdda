"""A cross-validation as the teacher: its out-of-fold predictions in the targets of another training."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers import change, tiny_recipe

from common.errors import UserError
from common.images import load_folder
from competition.synthetic import draw_folder
from training import __main__ as cli
from training.commands import train as train_commands
from training.config.recipe import Augmentation, Head
from training.data.augment import mix_up
from training.data.balance import oversample, smote
from training.data.pipeline import array_batches, folder_batches, one_hot, soft_targets
from training.data.teacher import with_teacher
from training.evaluate.crossval import crossval
from training.fit.checkpoint import read_history
from training.fit.head import Features, fit_head
from training.run import Inputs, train
from training.run_folder import INIT, OUT_OF_FOLD, read_record

pytestmark = [pytest.mark.integration, pytest.mark.slow]  # each trains several times
RECIPE = tiny_recipe()
TAUGHT = change(RECIPE, teacher_share=0.4)


@pytest.fixture(scope="module")
def taught(tmp_path_factory, tiny_by_name):
    """The folders of images and of their cross-validation."""
    folder = tmp_path_factory.mktemp("teacher")
    draw_folder(folder / "leaves", 8, classes=3, side=32)
    crossval(RECIPE, "small", Inputs(folder / "leaves", "none"), folder / "folds", 2, seeds=2)
    return folder


def test_soft_targets_are_a_mean_of_labels_and_teacher():
    labels, teacher = one_hot(np.array([0, 1]), 2), np.array([[0.3, 0.7], [0.1, 0.9]], np.float32)
    np.testing.assert_allclose(soft_targets(labels, teacher, 0.5), [[0.65, 0.35], [0.05, 0.95]], atol=1e-6)
    assert soft_targets(labels, teacher, 0.0) is labels
    assert soft_targets(labels, None, 0.0) is labels
    with pytest.raises(UserError, match="teacher_share=0.5 needs a teacher"):
        soft_targets(labels, None, 0.5)


def test_the_teacher_is_the_mean_of_the_seeds_out_of_fold_predictions(taught):
    images = with_teacher(load_folder(taught / "leaves"), TAUGHT, taught / "folds")
    with np.load(taught / "folds" / OUT_OF_FOLD) as file:
        np.testing.assert_allclose(images.teacher, file["probabilities"].mean(axis=0), atol=1e-6)
    rows = np.array([5, 2, 20])
    assert np.array_equal(images.rows(rows).teacher, images.teacher[rows])
    assert np.array_equal(oversample(images, 0).rows([0]).teacher, images.teacher[:1])


def test_batches_have_soft_targets_for_their_images(taught):
    """The images have one colour each, so that a batch tells whose targets it has."""
    images = with_teacher(load_folder(taught / "leaves"), TAUGHT, taught / "folds")
    shades = np.arange(24, dtype=np.uint8) * 10
    images = replace(images, images=shades[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8))
    expected = soft_targets(one_hot(images.labels, 3), images.teacher, 0.4)
    count = 0
    for pixels, targets in array_batches(images, np.arange(24), TAUGHT, 0):
        rows = np.rint(np.asarray(pixels).mean(axis=(1, 2, 3)) / 10).astype(int)
        np.testing.assert_allclose(np.asarray(targets), expected[rows], atol=1e-6)
        count += len(rows)
    assert count == 24


def test_the_quasi_svm_learns_from_the_teacher():
    """The labels are noise and the teacher is right, so the head follows it as far as its share goes."""
    rng = np.random.default_rng(0)
    classes = np.arange(200) % 2
    features = (rng.normal(size=(1, 200, 6)) + 2 * classes[None, :, None]).astype(np.float32)
    labels = rng.integers(2, size=200)
    train_on = Features(features, labels, features[0, :0], labels[:0], ("a", "b"), one_hot(classes, 2))
    accuracies = []
    for share in (0.0, 0.9):
        recipe = change(RECIPE, head=Head(epochs=40, fourier_features=64, dropout=0.0, teacher_share=share))
        head = fit_head(recipe, train_on)
        accuracies.append((head.predict(features[0], verbose=0).argmax(axis=1) == classes).mean())
    assert accuracies[1] > 0.95 > 0.8 > accuracies[0]


def test_a_taught_run_records_its_teacher_and_differs_from_an_untaught_one(taught, tmp_path):
    inputs = Inputs(taught / "leaves", "none")
    train(change(RECIPE), "small", inputs, tmp_path / "plain")
    train(TAUGHT, "small", replace(inputs, teacher=taught / "folds"), tmp_path / "taught")
    plain, record = read_record(tmp_path / "plain"), read_record(tmp_path / "taught")
    assert plain.teacher_sha256 == "" and len(record.teacher_sha256) == 64
    assert record.recipe.finetune.teacher_share == 0.4
    losses = [read_history(tmp_path / run / "history.csv")[0]["loss"] for run in ("plain", "taught")]
    assert losses[0] != losses[1]


def test_the_fine_tuning_of_another_teacher_is_not_reused(taught, tmp_path, capsys):
    other = shutil.copytree(taught / "folds", tmp_path / "folds")
    with np.load(other / OUT_OF_FOLD) as file:
        np.savez(other / OUT_OF_FOLD, labels=file["labels"], probabilities=file["probabilities"][:, :, ::-1])
    inputs = Inputs(taught / "leaves", "none", teacher=taught / "folds")
    train(TAUGHT, "small", inputs, tmp_path / "first")
    with pytest.raises(UserError, match="no run among .* has the fine-tuning of small"):
        again = replace(inputs, teacher=other, reuse=(tmp_path / "first",), require_reuse=True)
        train(TAUGHT, "small", again, tmp_path / "second")
    train(TAUGHT, "small", replace(inputs, reuse=(tmp_path / "first",), require_reuse=True), tmp_path / "third")
    assert "reusing its weights" in capsys.readouterr().out


def test_a_taught_cross_validation_refuses_folds_of_another_teacher(taught, tmp_path):
    inputs = Inputs(taught / "leaves", "none", teacher=taught / "folds")
    crossval(TAUGHT, "small", inputs, tmp_path / "taught", 2)
    with pytest.raises(UserError, match="with another --teacher"):
        crossval(TAUGHT, "small", replace(inputs, teacher=tmp_path / "taught"), tmp_path / "taught", 2)


def test_wrong_teachers_are_refused(taught, tmp_path):
    images = load_folder(taught / "leaves")
    with pytest.raises(UserError, match="teacher_share=0.4 needs the folder of a cross-validation; give --teacher"):
        with_teacher(images, TAUGHT, None)
    with pytest.raises(UserError, match="--teacher has no effect while .* and head.teacher_share are 0"):
        with_teacher(images, RECIPE, taught / "folds")
    with pytest.raises(UserError, match="must be the folder of a finished cross-validation"):
        with_teacher(images, TAUGHT, tmp_path)
    with pytest.raises(UserError, match="must be trained on the images and classes of --data"):
        with_teacher(images.rows(np.arange(23)), TAUGHT, taught / "folds")
    damaged = shutil.copytree(taught / "folds", tmp_path / "damaged")
    (damaged / OUT_OF_FOLD).write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match="is damaged .*repeat the crossval command"):
        with_teacher(images, TAUGHT, damaged)


@pytest.mark.parametrize(
    "changes",
    [
        {"class_weights": True},
        {"resampling": smote},
        {"pipeline": folder_batches},
        {"augmentation": Augmentation(precomputed=(((), 2),))},
        {"teacher_share": 1.0},
        {"teacher_share": -0.1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_a_teacher_cannot_be_combined_with_is_refused(changes):
    with pytest.raises(UserError, match=r"teacher_share( of finetune and head)? must be"):
        change(TAUGHT, **changes)


@pytest.mark.parametrize("kind", ["linear", "softmax"])
def test_a_head_without_soft_targets_has_no_teacher(kind):
    with pytest.raises(UserError, match=rf"head\.teacher_share must be 0 with head\.kind={kind}"):
        Head(kind=kind, teacher_share=0.4)


@pytest.mark.parametrize("share_of", ["head", "earlier fine-tuning"])
def test_a_teacher_of_the_head_or_of_an_earlier_fine_tuning_is_needed(share_of, taught):
    recipe = {
        "head": change(RECIPE, head=Head(teacher_share=0.4)),
        "earlier fine-tuning": change(RECIPE, init_from=TAUGHT.finetune),
    }[share_of]
    with pytest.raises(UserError, match="teacher_share=0.4 needs the folder"):
        with_teacher(load_folder(taught / "leaves"), recipe, None)


@pytest.mark.slow
def test_a_taught_variant_reuses_the_first_fine_tuning_of_the_folds(taught, tmp_path, capsys):
    """The teacher is of the second fine-tuning alone, so that it is the first run's that it starts from."""
    two = change(RECIPE, init_from=RECIPE.finetune, batch_augmentations=(mix_up,))
    inputs = Inputs(taught / "leaves", "none")
    crossval(two, "small", inputs, tmp_path / "folds", 2)
    variant = change(two, teacher_share=0.4, batch_augmentations=())
    reusing = replace(inputs, teacher=tmp_path / "folds", reuse=(tmp_path / "folds",), require_reuse=True)
    capsys.readouterr()
    crossval(variant, "small", reusing, tmp_path / "taught", 2)
    assert capsys.readouterr().out.count("reusing its weights") == 2
    for fold in ("seed0-fold0", "seed0-fold1"):
        runs = [tmp_path / name / fold for name in ("folds", "taught")]
        assert len({(run / INIT / "history.csv").read_bytes() for run in runs}) == 1
        assert len({read_history(run / "history.csv")[0]["loss"] for run in runs}) == 2


def test_the_command_line_takes_a_teacher(taught, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_commands, "load_recipe", lambda name: TAUGHT)
    arguments = ["--data", str(taught / "leaves"), "--backbone-weights", "none", "--teacher", str(taught / "folds")]
    assert cli.main(["run", "small", *arguments, "--out", str(tmp_path / "run")]) == 0
    assert cli.main(["crossval", "small", *arguments, "--folds", "2", "--out", str(tmp_path / "folds")]) == 0
    run, fold = read_record(tmp_path / "run"), read_record(tmp_path / "folds" / "seed0-fold0")
    assert run.teacher_sha256 == fold.teacher_sha256 != ""
    assert cli.main(["run", "small", *arguments[:-2], "--out", str(tmp_path / "other")]) == 2
    assert "give --teacher" in capsys.readouterr().err


def test_predictions_of_removed_folds_are_no_teacher(taught, tmp_path, monkeypatch):
    """A cross-validation that begins anew in a folder removes what was gathered there."""
    folder = shutil.copytree(taught / "folds", tmp_path / "folds")
    for fold in folder.glob("seed0-fold*"):
        shutil.rmtree(fold)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("training.evaluate.crossval.train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        crossval(change(RECIPE), "small", Inputs(taught / "leaves", "none"), folder, 2)
    assert not (folder / OUT_OF_FOLD).exists() and not (folder / "crossval.json").exists()
