"""benchmarks.kernels on the features of a finished run."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import kernels, read_features
from benchmarks.result import read_result
from training.config.recipe import Recipe

pytestmark = pytest.mark.integration


def test_every_classifier_is_evaluated_on_the_validation_images(finished_run, small_recipe, tmp_path):
    assert kernels.main(["--run", str(finished_run / "run"), "--json", str(tmp_path / "kernels.json")]) == 0
    result = read_result(tmp_path / "kernels.json")
    assert (result.pop("views"), result.pop("images")) == (2, 6)
    assert list(result) == [
        "softmax, no kernel",
        "exact Gaussian kernel (SVC)",
        "256 random Fourier features",
        "1024 random Fourier features",
        "4096 random Fourier features",
    ]
    for row in result.values():
        low, high = row["interval95"]
        assert low <= row["accuracy"] <= high


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_far_apart_are_all_told_apart(tmp_path, monkeypatch, classes):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % classes
    features = (5 * np.eye(classes)[labels] + rng.normal(0, 0.3, (2, 60, classes))).astype(np.float32)
    arrays = {"train": features, "train_labels": labels, "val": features[:1], "val_labels": labels}
    monkeypatch.setattr(kernels, "read_features", lambda run: arrays)
    monkeypatch.setattr(kernels, "read_record", lambda run: SimpleNamespace(recipe=Recipe()))
    result = kernels.measure(tmp_path, 2)
    assert {row["accuracy"] for row in result.values() if isinstance(row, dict)} == {1.0}


def test_features_of_an_earlier_version_are_read(finished_run, tmp_path):
    arrays = read_features(finished_run / "run")
    old = {name.replace("val", "held"): array for name, array in arrays.items()}
    np.savez(tmp_path / "features.npz", **old)
    read = read_features(tmp_path)
    assert set(read) == set(arrays) == {"train", "train_labels", "val", "val_labels"}
    assert all(np.array_equal(read[name], arrays[name]) for name in arrays)


def test_more_views_than_the_run_has_are_refused(finished_run, small_recipe, tmp_path, capsys):
    options = ["--run", str(finished_run / "run"), "--views", "99", "--json", str(tmp_path / "kernels.json")]
    assert kernels.main(options) == 2
    assert re.search(r"--views must be from 1 to \d+, the views of .*; got 99", capsys.readouterr().err)


def test_folder_without_a_run_is_refused(tmp_path, capsys):
    assert kernels.main(["--run", str(tmp_path), "--json", str(tmp_path / "kernels.json")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --run")
    assert error.count("\n") == 1
