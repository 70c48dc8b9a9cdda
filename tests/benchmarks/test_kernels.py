"""benchmarks.kernels on the features of a finished run."""

import json

import numpy as np
import pytest

from benchmarks import kernels, read_features

pytestmark = pytest.mark.integration


def test_every_classifier_is_evaluated_on_the_validation_images(finished_run, small_recipe, tmp_path):
    assert kernels.main(["--run", str(finished_run / "run"), "--json", str(tmp_path / "kernels.json")]) == 0
    result = json.loads((tmp_path / "kernels.json").read_text("utf-8"))
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


def test_features_of_an_earlier_version_are_read(finished_run, tmp_path):
    arrays = read_features(finished_run / "run")
    old = {name.replace("val", "held"): array for name, array in arrays.items()}
    np.savez(tmp_path / "features.npz", **old)
    read = read_features(tmp_path)
    assert set(read) == set(arrays) == {"train", "train_labels", "val", "val_labels"}
    assert all(np.array_equal(read[name], arrays[name]) for name in arrays)


def test_folder_without_a_run_is_refused(tmp_path, capsys):
    assert kernels.main(["--run", str(tmp_path), "--json", str(tmp_path / "kernels.json")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --run")
    assert error.count("\n") == 1
