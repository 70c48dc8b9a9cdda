"""benchmarks.accuracy: the rows are those of the run's model, and wrong input is refused in one line."""

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers import change

from benchmarks import accuracy
from common.images import load_folder
from competition.synthetic import draw_folder
from training.config.recipe import Prediction
from training.data.split import split_rows
from training.predict import TTA_TRANSFORMS, predict_proba
from training.run import load_run

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
    monkeypatch.setattr(accuracy, "SIZES", (32, 40))
    monkeypatch.setattr(accuracy, "HEADS", {"unchanged": {}, "1 view": {"head.views": 1}})
    assert benchmark(picture=tmp_path / "a.png") == 0
    result = json.loads((tmp_path / "a.json").read_text("utf-8"))
    rows = result["rows"]
    metrics = json.loads((finished_run / "run" / "metrics.json").read_text("utf-8"))
    assert (result["recipe"], result["images"]) == ("small", metrics["images"])
    assert rows["quasi-SVM, 32×32, no TTA"]["accuracy"] == pytest.approx(metrics["accuracy"])
    assert rows["unchanged"]["seeds"][0] == pytest.approx(metrics["accuracy"])  # the same head with the same seed
    assert len(rows) == 3 * 4 + 4 + 2
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


def test_wrong_input_is_refused(benchmark, tmp_path, capsys):
    draw_folder(tmp_path / "other", 8, classes=3, side=32, seed=4)
    for options, words in (
        ({"run": tmp_path}, "no run"),
        ({"data": tmp_path / "other"}, "other images"),
        ({"seeds": 0}, "--seeds"),
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
