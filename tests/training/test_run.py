"""Runs: several recipes in one command, test images, and fine-tunings that start from another."""

import json
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers import change, shrunk

from common.errors import UserError
from common.files import digest, locked
from common.images import load_folder
from competition.synthetic import draw_folder
from training import __main__ as cli
from training import inputs as run_inputs
from training.commands import train as train_commands
from training.config.override import field_names
from training.config.recipe import Data, Finetune, Head, Recipe
from training.data.augment import RandomTransforms, mix_up
from training.evaluate.compare import collect
from training.fit import finetune
from training.fit.checkpoint import read_history
from training.predict import predict_proba
from training.run import Inputs, train
from training.run_folder import INIT, LOCK, METRICS, RECORD, read_record
from training.trained import finetuned_model, load_run

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("tiny_by_name")]
BASE = change(
    shrunk(
        Recipe(
            data=Data(validation_split=0.25),
            finetune=Finetune(learning_rate=1e-2, warmup_epochs=0.0),
            head=Head(kind="softmax"),
        )
    ),
    resolution_schedule=((1, 48),),
    dense_units=(8,),
)
RECIPES = {"one": BASE, "two": change(BASE, learning_rate=2e-2), "bad": change(BASE, class_repeats={"Oak": 2})}
FIRST = change(BASE, learning_rate=2e-2, resolution_schedule=((2, 40),))
SECOND = change(BASE, init_from=FIRST.finetune, learning_rate=1e-5, batch_augmentations=(mix_up,))


@pytest.fixture(scope="module")
def run_data(tmp_path_factory):
    """Folders of class folders: train and test have three classes of synthetic leaves, other has four."""
    folder = tmp_path_factory.mktemp("run_data")
    draw_folder(folder / "train", 8, classes=3, side=32)
    draw_folder(folder / "test", 4, classes=3, side=40, seed=5)
    draw_folder(folder / "other", 3, classes=4, side=32, seed=6)
    return folder


@pytest.fixture
def run_recipes(run_data, tmp_path, monkeypatch, capsys):
    """`python -m training run` with synthetic images and `RECIPES`. Returns (exit code, stdout, stderr)."""
    monkeypatch.setattr(train_commands, "load_recipe", RECIPES.__getitem__)
    monkeypatch.setattr(train_commands, "recipe_names", lambda: sorted(RECIPES))

    def call(*arguments):
        data = ["--data", str(run_data / "train"), "--runs", str(tmp_path / "runs")]
        return cli.main(["run", *map(str, arguments), *data]), *capsys.readouterr()

    return call


@pytest.fixture
def runs_folder(tmp_path):
    return tmp_path / "runs"


def finished(folder):
    """Name of each run → whether it is finished."""
    return {path.name: (path / METRICS).is_file() for path in folder.iterdir() if not path.name.startswith(".")}


def weights_of(recipe, folder):
    """The fine-tuned weights in a run's folder."""
    return finetuned_model(recipe, ("a", "b", "c"), (32, 32), folder).get_weights()


def equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# Several recipes in one command


def test_each_recipe_has_a_folder_and_finished_runs_are_skipped(run_recipes, runs_folder, monkeypatch):
    read, load = [], run_inputs.load_labelled
    monkeypatch.setattr(run_inputs, "load_labelled", lambda inputs: read.append(inputs) or load(inputs))
    code, _, error = run_recipes("one", "two")
    assert (code, error.count("error"), len(read)) == (0, 0, 1)
    assert finished(runs_folder) == {"one": True, "two": True}
    shutil.rmtree(runs_folder / "two")
    code, out, _ = run_recipes("one", "two")
    assert code == 0
    assert f"{runs_folder / 'one'}: finished" in out
    assert "two: finished" not in out
    monkeypatch.setattr(finetune, "_one_epoch", None)
    assert run_recipes("one", "two")[0] == 0
    assert finished(runs_folder) == {"one": True, "two": True}


def test_a_finished_run_of_other_settings_is_not_taken_for_this_one(run_recipes, runs_folder, monkeypatch):
    assert run_recipes("one", "two")[0] == 0
    monkeypatch.setattr(finetune, "_one_epoch", None)
    for setting in ("finetune.learning_rate=0.5", "finetune.precision=mixed_bfloat16"):
        code, out, error = run_recipes("one", "two", "--set", setting)
        assert code == 2
    for name in ("one", "two"):
        assert f"{runs_folder / name}: holds a finished run with another recipe or --set; give another --runs" in error
    assert "finished\n" not in out
    (runs_folder / "one" / "run.json").write_text("{")
    code, out, error = run_recipes("one", "two")
    assert (code, "run.json is damaged" in error, f"{runs_folder / 'two'}: finished" in out) == (2, True, True)


@pytest.mark.slow
def test_a_failed_run_is_named_and_the_others_are_trained(run_recipes, runs_folder):
    code, _, error = run_recipes("--all")
    assert code == 2
    assert re.search(f"{runs_folder / 'bad'}: .*class_repeats.*Oak", error)
    assert re.fullmatch(f"error: 1 runs failed.*: {runs_folder / 'bad'}", error.splitlines()[-1])
    assert "Traceback" not in error
    assert finished(runs_folder) == {"one": True, "two": True}  # wrong class names leave no folder


@pytest.mark.slow
def test_a_run_that_another_process_finishes_in_the_meantime_is_no_failure(run_recipes, runs_folder, monkeypatch):
    original = train_commands._train

    def trained_twice(recipe, name, *given):
        if name == "two":  # here, the other process finishes it before this one begins
            original(recipe, name, *given)
        original(recipe, name, *given)

    monkeypatch.setattr(train_commands, "_train", trained_twice)
    code, out, error = run_recipes("one", "two")
    assert (code, f"{runs_folder / 'two'}: finished" in out, "failed" in error) == (0, True, False)


def test_a_run_of_another_process_is_skipped(run_recipes, runs_folder):
    out = runs_folder / "one"
    out.mkdir(parents=True)
    with locked(out / LOCK, "it"):
        code, text, _ = run_recipes("one", "two")
    assert code == 0
    assert re.search(rf"one: skipped, .*in use by process {os.getpid()}", text)
    assert finished(runs_folder) == {"one": False, "two": True}


@pytest.mark.slow
def test_each_seed_has_a_folder_and_all_have_one_split(run_recipes, runs_folder):
    assert run_recipes("one", "--seeds", 2)[0] == 0
    assert finished(runs_folder) == {"one": True, "one-seed1": True}
    folders = [runs_folder / name for name in ("one", "one-seed1")]
    recipes = [read_record(folder).recipe for folder in folders]
    assert [recipe.seed for recipe in recipes] == [0, 1]
    assert replace(recipes[1], seed=0) == recipes[0]
    losses = [read_history(folder / "history.csv")[0]["loss"] for folder in folders]
    assert losses[0] != losses[1]


def test_one_run_has_the_folder_of_its_name_and_takes_settings(run_recipes, runs_folder):
    settings = ("finetune.batch_size=4", "finetune.dropout=0.0", "finetune.precision=float32")
    code, out, _ = run_recipes("one", *(word for setting in settings for word in ("--set", setting)))
    assert code == 0
    assert f"done: {runs_folder / 'one'}; next: python build_submission.py" in out
    recipe = read_record(runs_folder / "one").recipe
    assert recipe == change(BASE, batch_size=4, dropout=0.0)


def test_the_record_has_every_field_of_the_recipe(run_recipes, runs_folder):
    assert run_recipes("one")[0] == 0
    fields = json.loads((runs_folder / "one" / RECORD).read_text("utf-8"))["recipe"]
    for name in field_names(BASE):
        value = fields
        for part in name.split("."):
            assert part in value, name
            value = value[part]


# Reuse on the command line


def test_reuse_is_an_option_of_run(run_recipes, runs_folder, monkeypatch):
    assert run_recipes("one")[0] == 0
    monkeypatch.setattr(finetune, "_one_epoch", None)
    code, out, _ = run_recipes(
        "one", "--set", "head.kind=quasi_svm", "--out", runs_folder / "svm", "--reuse", runs_folder / "one"
    )
    assert code == 0
    assert f"{runs_folder / 'one'}: reusing" in out
    assert equal(*(weights_of(BASE, runs_folder / name) for name in ("one", "svm")))


@pytest.mark.parametrize(
    ("run", "named"),
    [pytest.param("one", "--reuse: .*one", marks=pytest.mark.slow), ("nowhere", "no folder .*nowhere")],
)
def test_a_single_run_that_cannot_reuse_fails(run_recipes, runs_folder, run, named):
    assert run_recipes("one")[0] == 0
    code, _, error = run_recipes("two", "--reuse", runs_folder / run)
    assert code == 2
    assert re.search(named, error) and error.count("\n") == 1
    assert not (runs_folder / "two" / METRICS).exists()


@pytest.mark.slow
def test_several_runs_reuse_what_fits_and_train_the_rest(run_recipes, runs_folder):
    assert run_recipes("one", "--out", runs_folder / "given")[0] == 0
    code, out, _ = run_recipes("one", "two", "--reuse", runs_folder / "given")
    assert code == 0
    assert out.count(f"{runs_folder / 'given'}: reusing") == 1
    assert finished(runs_folder) == {"given": True, "one": True, "two": True}
    one, given, two = (weights_of(BASE, runs_folder / name) for name in ("one", "given", "two"))
    assert equal(one, given) and not equal(two, given)


# Test images


def test_test_images_are_reported_on_and_used_for_nothing_else(run_recipes, run_data, runs_folder):
    assert run_recipes("one")[0] == 0
    folder = runs_folder / "one"
    before = json.loads((folder / METRICS).read_text("utf-8"))
    weights = load_run(folder).model.get_weights()
    shutil.rmtree(folder)
    code, out, _ = run_recipes("one", "--test", run_data / "test")
    assert code == 0
    assert re.search("reporting only: accuracy", out)
    result = json.loads((folder / METRICS).read_text("utf-8"))
    assert result["test"]["images"] == 12
    row, tested = collect(folder), load_folder(run_data / "test", (32, 32))
    assert row.test_data == digest(tested.images, tested.labels)[:12]
    assert (result["confusion"], result["training_images"]) == (before["confusion"], before["training_images"])
    assert "test" not in before
    trained = load_run(folder)
    for a, b in zip(weights, trained.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    test = load_folder(run_data / "test", (32, 32))
    predicted = predict_proba(trained.model, test.images, trained.prediction).argmax(axis=1)
    assert result["test"]["accuracy"] == (predicted == test.labels).mean()


def test_test_images_of_other_classes_are_refused(run_recipes, run_data, runs_folder, tmp_path):
    code, _, error = run_recipes("one", "--test", run_data / "other")
    assert code == 2
    assert re.search("--test must have the classes of --data.*Species4", error)
    assert error.count("\n") == 1
    assert not runs_folder.exists()
    with pytest.raises(UserError, match="no folder"):
        train(BASE, "one", Inputs(run_data / "train", "none", run_data / "nowhere"), tmp_path / "out")


# Fine-tunings that start from another


def test_a_fine_tuning_that_starts_from_another_trains_that_one_first(run_data, tmp_path):
    inputs = Inputs(run_data / "train", "none")
    unchanged = change(SECOND, resolution_schedule=((0, 48),))  # its model is that of the first fine-tuning
    result = train(unchanged, "unchanged", inputs, tmp_path / "unchanged")
    first = tmp_path / "unchanged" / INIT
    assert (len(read_history(first / "history.csv")), result["epochs"]) == (2, 2)
    expected = weights_of(FIRST, first)
    assert equal(weights_of(unchanged, first.parent), expected)

    result = train(SECOND, "second", inputs, tmp_path / "second")
    fields = json.loads((tmp_path / "second" / RECORD).read_text("utf-8"))["recipe"]["finetune"]
    assert result["epochs"] == 3
    assert (fields["init_from"]["resolution_schedule"], fields["resolution_schedule"]) == ([[2, 40]], [[1, 48]])
    assert result["finetuning_minutes"] >= 0
    assert equal(weights_of(FIRST, tmp_path / "second" / INIT), expected)
    moved = weights_of(SECOND, tmp_path / "second")
    steps = [np.abs(a - b).max() for a, b in zip(moved, expected, strict=True) if a.ndim == 4]
    assert all(0 < step < 1e-3 for step in steps)  # it continued and did not start from random weights

    svm = replace(inputs, reuse=(tmp_path / "second",), require_reuse=True)
    result = train(change(SECOND, kind="quasi_svm"), "svm", svm, tmp_path / "svm")
    assert result["epochs"] == 3
    assert not (tmp_path / "svm" / INIT / "finetuned.weights.h5").exists()
    assert equal(weights_of(SECOND, tmp_path / "svm"), moved)


def test_the_first_fine_tuning_has_the_data_and_augmentation_of_the_run(run_data, tmp_path):
    """One section `augmentation` holds for both, also of the fine-tuning that the run starts from."""
    recipe = change(SECOND, transforms=RandomTransforms(tint=0.5), resolution_schedule=((0, 48),))
    plain = change(recipe, transforms=RandomTransforms())
    inputs = Inputs(run_data / "train", "none")
    for name, one in (("augmented", recipe), ("plain", plain)):
        train(one, name, inputs, tmp_path / name)
    assert not equal(*(weights_of(FIRST, tmp_path / name / INIT) for name in ("augmented", "plain")))


@pytest.mark.slow
def test_batch_augmentations_are_those_of_each_fine_tuning(run_data, tmp_path):
    """What the second fine-tuning mixes does not change the first one."""
    weights = []
    for name, layers in (("mixed", (mix_up,)), ("plain", ())):
        train(change(SECOND, batch_augmentations=layers), name, Inputs(run_data / "train", "none"), tmp_path / name)
        weights.append((weights_of(FIRST, tmp_path / name / INIT), weights_of(SECOND, tmp_path / name)))
    assert equal(weights[0][0], weights[1][0])
    assert not equal(weights[0][1], weights[1][1])


@pytest.mark.slow
def test_an_interrupted_first_fine_tuning_is_continued(run_data, tmp_path, monkeypatch):
    out, inputs, one_epoch = tmp_path / "run", Inputs(run_data / "train", "none"), finetune._one_epoch

    def interrupted(job, model, epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        return one_epoch(job, model, epoch)

    monkeypatch.setattr(finetune, "_one_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(SECOND, "second", inputs, out)
    with pytest.raises(UserError, match="another recipe"):
        train(change(SECOND, batch_size=4), "second", inputs, out)
    trained = []

    def counted(job, model, epoch):
        trained.append(epoch)
        return one_epoch(job, model, epoch)

    monkeypatch.setattr(finetune, "_one_epoch", counted)
    train(SECOND, "second", inputs, out)
    assert trained == [1, 0]  # the second epoch of the first fine-tuning, then the run's own
