"""The smallest measurement of each benchmark that needs no run."""

import pytest
from contestants import STUBS

from benchmarks import Failed, grading, inference, memory, training
from benchmarks.result import read_result

pytestmark = pytest.mark.integration


def measured(module, folder, *options):
    """Runs a benchmark. Returns the values that it wrote."""
    path = folder / "result.json"
    assert module.main([*options, "--json", str(path)]) == 0
    return read_result(path)


@pytest.mark.slow
def test_memory(tmp_path):
    picture = tmp_path / "memory.png"
    rows = measured(memory, tmp_path, "--images", "8", "20", "--picture", str(picture))["rows"]
    assert [row["images"] for row in rows] == [8, 8, 8, 20, 20, 20]
    assert {(row["precision"], row["dtype"]) for row in rows[1:3]} == {("float32", "uint8"), ("float32", "float32")}
    assert all(0 < row["import_mb"] < row["peak_mb"] for row in rows)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_memory_names_the_missing_folder_of_the_picture(tmp_path, capsys):
    picture = tmp_path / "no" / "memory.png"
    assert memory.main(["--json", str(tmp_path / "memory.json"), "--picture", str(picture)]) == 2
    assert "no folder" in capsys.readouterr().err


@pytest.mark.slow
def test_inference(tmp_path):
    result = measured(inference, tmp_path, "--images", "16", "--rounds", "1")
    speed = result["speed"]
    assert speed[inference.BASELINE]["ratio_median"] == 1
    assert set(inference.CONTESTANTS) - set(speed) <= {"submission, bfloat16", "submission, bfloat16, TTA"}
    assert all(row["images_per_second"] > 0 for row in speed.values())
    assert set(result["start"]) == {"clock", "processor"}
    assert result["start"]["processor"]["answer_seconds"] > result["start"]["processor"]["import_seconds"] > 0


# --- contestants, as processes that import neither TensorFlow nor Keras


def stubs(*names):
    return {name: STUBS[name] for name in names}


def test_contestants_run_in_turn_and_absent_ones_are_named(capsys):
    seconds = inference.measure(stubs("half", "another", "absent", "missing"), images=16, rounds=3)
    assert {name: values.shape for name, values in seconds.items()} == {"half": (3,), "another": (3,)}
    out = capsys.readouterr().out
    assert "absent is left out: there is no such processor" in out
    assert "missing is left out: No module named 'a_package_that_nobody_has'" in out


@pytest.mark.parametrize(
    ("name", "reason"), [("different", "must agree with half"), ("broken", "process of broken ended")]
)
def test_contestants_that_differ_or_fail_are_refused(name, reason):
    with pytest.raises(Failed, match=reason):
        inference.measure(stubs("half", name), images=16, rounds=1)


@pytest.mark.slow
def test_grading(tmp_path, monkeypatch):
    monkeypatch.setattr(grading, "MANY", 80)
    monkeypatch.setattr(grading, "LARGE", 16)
    result = measured(grading, tmp_path, "--images", "16")
    assert result["own_cost"]["processes_with_tensorflow"] == 1
    assert 0 < result["own_cost"]["own_seconds"] < result["own_cost"]["grade"]
    assert result["many"]["images"] == 80
    assert result["many"]["bundle"]["peak_mb"] > 0


@pytest.mark.slow
def test_training(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "EPOCHS", 1)
    result = measured(training, tmp_path, "--images", "17", "--batches", "1", "--rounds", "1")
    assert set(result) == {
        "images", "rounds", "step alone", "tf.data pipeline", "flow_from_directory", "quasi_svm_head",
    }  # fmt: skip
    head = result["quasi_svm_head"]
    assert (head["images"], head["epochs"], head["views"]) == (17, 1, 8)
    assert 0 <= head["cached"]["accuracy"] <= 1
    assert head["uncached"]["seconds"] > 0
