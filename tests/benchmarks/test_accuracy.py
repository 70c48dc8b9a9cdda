"""benchmarks.accuracy: the rows are those of the run's model, and wrong input is refused in one line."""

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers import change

from benchmarks import accuracy
from benchmarks.result import read_result
from common.images import load_folder
from competition.synthetic import draw_folder
from training.config.recipe import Prediction
from training.data.split import split_rows
from training.evaluate.crossval import crossval
from training.predict import TTA_TRANSFORMS, predict_proba
from training.run import Inputs, train
from training.trained import load_run

pytestmark = pytest.mark.integration


@pytest.fixture
def benchmark(finished_run, small_recipe, tmp_path, monkeypatch):
    """A function that runs the command line on the finished run. Returns its exit code."""
    monkeypatch.setattr(accuracy, "load_recipe", lambda name: small_recipe)

    def run(**options):
        defaults = {"run": finished_run / "run", "data": finished_run / "leaves", "json": tmp_path / "a.json"}
        return accuracy.main([f"--{name}={value}" for name, value in {**defaults, **options}.items()])

    return run


def test_rows_agree_with_the_model_and_the_metrics_of_the_run(
    benchmark, finished_run, small_recipe, tmp_path, monkeypatch
):
    monkeypatch.setattr(accuracy, "load_recipe", lambda name: change(small_recipe, views=0))  # a head of other views
    monkeypatch.setattr(accuracy, "SIZES", (32, 40))
    monkeypatch.setattr(accuracy, "HEADS", {"unchanged": {}, "1 view": {"head.views": 1}})
    monkeypatch.setattr(accuracy, "REFERENCE", "unchanged")
    assert benchmark(picture=tmp_path / "a.png") == 0
    result = read_result(tmp_path / "a.json")
    rows = result["rows"]
    metrics = json.loads((finished_run / "run" / "metrics.json").read_text("utf-8"))
    assert (result["recipe"], result["images"]) == ("small", metrics["images"])
    assert rows["quasi-SVM, 32×32, no TTA"]["accuracy"] == pytest.approx(metrics["accuracy"])
    assert rows["unchanged"]["seeds"][0] == pytest.approx(metrics["accuracy"])  # the same head with the same seed
    assert len(rows) == 3 * 4 + 4 + 3 + 2 + 2
    assert rows["unchanged"]["difference"]["accuracy"] == 0
    assert (tmp_path / "a.png").stat().st_size > 1000

    images = load_folder(finished_run / "leaves")
    val = images.rows(split_rows(small_recipe.data, images)[1])
    prediction = Prediction(tuple(TTA_TRANSFORMS), 0.9)
    probabilities = predict_proba(load_run(finished_run / "run").model, val.images, prediction)
    row = rows["quasi-SVM, 32×32, 8 transforms, threshold 0.9"]
    assert row["accuracy"] == pytest.approx((probabilities.argmax(axis=1) == val.labels).mean())
    assert 1 <= row["transforms_per_image"] <= 8
    log_loss = -np.log(probabilities[np.arange(len(val)), val.labels]).mean()
    assert row["log_loss"] == pytest.approx(log_loss, rel=1e-4)


@pytest.mark.slow
def test_rows_of_a_cross_validation_are_those_of_all_folds_together(finished_run, small_recipe, tmp_path, monkeypatch):
    """The tiny backbone's two blocks take the place of those of InceptionV3."""
    out = tmp_path / "folds"
    monkeypatch.setattr(accuracy, "load_recipe", lambda name: small_recipe)
    monkeypatch.setattr(accuracy, "SIZES", (32,))
    monkeypatch.setattr(accuracy, "HEADS", {accuracy.REFERENCE: {}, "logistic regression": {"head.kind": "linear"}})
    monkeypatch.setattr(accuracy, "LAYERS", {"both blocks": ("block5", "block3"), "no such block": ("mixed7",)})
    inputs = Inputs(finished_run / "leaves", "none")
    result = crossval(small_recipe, "small", inputs, out, 2)
    arguments = [f"--run={out}", f"--data={finished_run / 'leaves'}", f"--json={tmp_path / 'a.json'}", "--seeds=1"]
    assert accuracy.main(arguments) == 0
    measured = read_result(tmp_path / "a.json")
    rows = measured["rows"]
    assert (measured["images"], measured["folds"]) == (24, 2)
    assert rows["quasi-SVM, 32×32, no TTA"]["accuracy"] == pytest.approx(result["accuracy"])
    biased = {f"{name}, class biases" for name in (accuracy.REFERENCE, "50% softmax, 8 transforms")}
    assert {"logistic regression", "both blocks", "50% softmax, 8 transforms", *biased} < rows.keys()
    assert "no such block" not in rows
    row, reference = rows["logistic regression"], rows[accuracy.REFERENCE]
    assert row["difference"]["accuracy"] == pytest.approx(row["accuracy"] - reference["accuracy"])
    assert row["difference"]["images"] == 24


@pytest.mark.slow
def test_a_taught_run_needs_its_teacher(finished_run, small_recipe, tmp_path, monkeypatch, capsys):
    taught = change(small_recipe, teacher_share=0.5)
    monkeypatch.setattr(accuracy, "load_recipe", lambda name: small_recipe)
    monkeypatch.setattr(accuracy, "SIZES", (32,))
    names = (accuracy.REFERENCE, "logistic regression, C 0.01")
    monkeypatch.setattr(accuracy, "HEADS", {name: accuracy.HEADS[name] for name in names})
    inputs = Inputs(finished_run / "leaves", "none")
    crossval(small_recipe, "small", inputs, tmp_path / "folds", 2)
    train(taught, "small", replace(inputs, teacher=tmp_path / "folds"), tmp_path / "run")
    arguments = [f"--run={tmp_path / 'run'}", f"--data={inputs.data}", f"--json={tmp_path / 'a.json'}", "--seeds=1"]
    assert accuracy.main(arguments) == 2
    assert "give --teacher" in capsys.readouterr().err
    assert accuracy.main([*arguments, f"--teacher={tmp_path / 'folds'}"]) == 0
    rows = read_result(tmp_path / "a.json")["rows"]
    accuracy_of_run = json.loads((tmp_path / "run" / "metrics.json").read_text("utf-8"))["accuracy"]
    assert rows[accuracy.REFERENCE]["accuracy"] == pytest.approx(accuracy_of_run)


def test_a_run_with_other_held_out_images_is_refused(benchmark, finished_run, tmp_path, monkeypatch, capsys):
    """Groups change what is held out, and the benchmark does not read them."""
    read_record = accuracy.read_record
    monkeypatch.setattr(accuracy, "read_record", lambda run: replace(read_record(run), groups_sha256="1"))
    assert benchmark() == 2
    assert "trained without --groups and --validation" in capsys.readouterr().err
    monkeypatch.setattr(accuracy, "read_record", read_record)
    read_features = accuracy.read_features
    monkeypatch.setattr(
        accuracy, "read_features", lambda run: {**read_features(run), "val_labels": np.zeros(6, np.int64)}
    )
    assert benchmark() == 2
    assert "must hold out what its recipe does" in capsys.readouterr().err


def test_wrong_input_is_refused(benchmark, tmp_path, capsys):
    draw_folder(tmp_path / "other", 8, classes=3, side=32, seed=4)
    for options, words in (
        ({"run": tmp_path}, "no run"),
        ({"data": tmp_path / "other"}, "other images"),
        ({"json": tmp_path / "no" / "a.json"}, "no folder"),
        ({"picture": tmp_path / "no" / "a.png"}, "no folder"),
    ):
        assert benchmark(**options) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert words in error
        assert error.count("\n") == 1


def test_run_of_another_recipe_is_refused(benchmark, small_recipe, monkeypatch, capsys):
    monkeypatch.setattr(accuracy, "load_recipe", lambda name: change(small_recipe, kernel_scale=2.0))
    assert benchmark() == 2
    assert "recipe small" in capsys.readouterr().err


def test_run_whose_validation_part_selected_an_epoch_is_refused(benchmark, monkeypatch, capsys):
    read_record = accuracy.read_record

    def read(folder):
        record = read_record(folder)
        return replace(record, recipe=replace(record.recipe, checkpoint="best_val_loss"))

    monkeypatch.setattr(accuracy, "read_record", read)
    assert benchmark() == 2
    assert "checkpoint=last" in capsys.readouterr().err


def test_damaged_features_are_refused(benchmark, finished_run, capsys):
    path = finished_run / "run" / "features.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    try:
        assert benchmark() == 2
    finally:
        path.write_bytes(whole)
    assert "features.npz is damaged" in capsys.readouterr().err


def test_class_biases_of_other_images_correct_a_head_that_favours_a_class():
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    logits = rng.normal(size=(300, 3)) + 2.5 * np.eye(3)[labels] + [0, 3, 0]
    favouring = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows = accuracy.bias_rows({accuracy.REFERENCE: accuracy.Predicted([favouring], 1.0)}, labels)
    (predicted,) = rows[f"{accuracy.REFERENCE}, class biases"].seeds
    before, after = ((one.argmax(axis=1) == labels).mean() for one in (favouring, predicted))
    assert after > before + 0.1


def test_class_biases_need_two_images_of_each_class(capsys):
    rows = {accuracy.REFERENCE: accuracy.Predicted([np.full((3, 2), 0.5)], 1.0)}
    assert accuracy.bias_rows(rows, np.array([0, 0, 1])) == {}
    assert "were not measured" in capsys.readouterr().out
