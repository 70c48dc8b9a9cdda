"""The smallest measurement of each benchmark that needs no run."""

import json

import numpy as np
import pytest

from benchmarks import Failed, grading, inference, memory, training

pytestmark = pytest.mark.integration


def measured(module, folder, *options):
    """Runs a benchmark. Returns the values that it wrote."""
    path = folder / "result.json"
    assert module.main([*options, "--json", str(path)]) == 0
    return json.loads(path.read_text("utf-8"))


@pytest.mark.slow
def test_memory(tmp_path):
    result = measured(memory, tmp_path, "--images", "8")
    assert result["images"] == 8
    assert result["input_mb"] == pytest.approx(8 * 96 * 96 * 3 / 1e6)
    assert result["beyond_mb"] > 0


@pytest.mark.slow
def test_inference(tmp_path):
    result = measured(inference, tmp_path, "--images", "4", "--rounds", "1")
    assert result["Keras model.predict"]["ratio_median"] == 1
    assert result["submission/model.py"]["images_per_second"] > 0


def test_inference_refuses_models_that_differ(monkeypatch):
    class Other:
        def predict_proba(self, images):
            return np.full((len(images), 8), 1 / 8)

        def predict(self, images, verbose):
            return np.eye(8)[np.zeros(len(images), int)]

    monkeypatch.setattr(inference, "committed_model", Other)
    monkeypatch.setattr(inference, "keras_model", Other)
    with pytest.raises(Failed, match="must agree"):
        inference.measure(np.zeros((2, 96, 96, 3), np.float32), 1)


@pytest.mark.slow
def test_grading(tmp_path, monkeypatch):
    monkeypatch.setattr(grading, "MANY", 80)
    result = measured(grading, tmp_path, "--images", "16")
    assert result["own_cost"]["processes_with_tensorflow"] == 1
    assert 0 < result["own_cost"]["own_seconds"] < result["own_cost"]["grade"]
    assert result["many"]["images"] == 80
    assert result["many"]["bundle"]["peak_mb"] > 0


@pytest.mark.slow
def test_training(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "EPOCHS", 1)
    result = measured(training, tmp_path, "--images", "16", "--batches", "1", "--rounds", "1")
    assert set(result) == {
        "images", "rounds", "step alone", "tf.data pipeline", "flow_from_directory", "quasi_svm_head",
    }  # fmt: skip
    head = result["quasi_svm_head"]
    assert (head["images"], head["epochs"], head["views"]) == (16, 1, 8)
    assert 0 <= head["cached"]["accuracy"] <= 1
    assert head["uncached"]["seconds"] > 0
