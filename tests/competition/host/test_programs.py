"""The bundle's two programs: they run as they are in the bundle, and need only what the server has."""

import ast
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import load_module, stub

bundles = load_module(Path(__file__).with_name("bundles.py"), "bundles")
lines, PROGRAMS = bundles.lines, bundles.PROGRAMS


def lay_out_prediction(unpacked, folder, source):
    """Creates the prediction stage as the worker does, with a submission of one model.py."""
    shutil.copytree(unpacked.folder / "ingestion_program", folder / "program")
    shutil.copytree(unpacked.folder / "input_data", folder / "input_data")
    (folder / "output").mkdir()
    (folder / "ingested_program").mkdir()
    (folder / "ingested_program" / "model.py").write_text(source)
    (folder / "ingested_program" / "metadata").write_text("description: a stub\n")
    return folder


def lay_out_scoring(unpacked, folder, prediction, code):
    """Creates the scoring stage, with the prediction's output and the worker's note on how it ended."""
    shutil.copytree(unpacked.folder / "scoring_program", folder / "program")
    shutil.copytree(unpacked.folder / "reference_data", folder / "input" / "ref")
    shutil.copytree(prediction / "output", folder / "input" / "res")
    note = f"elapsedTime: 3.25\nexitCode: {code}\ningestionElapsedTime: 3.25\ningestionExitCode: {code}\n"
    (folder / "input" / "res" / "metadata").write_text(note)
    (folder / "output").mkdir()
    return folder


def run_stage(stage, cwd, arguments=None):
    """Runs the command of a stage's metadata.yaml with the stage in place of /app, or with other arguments."""
    if arguments is None:
        words = shlex.split(yaml.safe_load((stage / "program" / "metadata.yaml").read_text())["command"])
        assert words[0] == "python3"
        arguments = [word.replace("/app", str(stage), 1) for word in words[1:]]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.integration
def test_good_submission_is_scored(unpacked, tmp_path):
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    prediction = lay_out_prediction(unpacked, tmp_path / "stage one", stub("good % 4"))
    done = run_stage(prediction, elsewhere)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (prediction / "output").iterdir()) == ["checks.json", "predictions.txt"]
    journal = json.loads((prediction / "output" / "checks.json").read_text())
    assert [record["name"] for record in journal["checks"] if record["passed"] is not True] == []
    predictions = unpacked.images.astype(np.int64)[:, ::7, ::5].sum((1, 2, 3)) % 8 % 4
    assert lines(prediction / "output" / "predictions.txt") == [str(number) for number in predictions]

    scoring = lay_out_scoring(unpacked, tmp_path / "stage two", prediction, 0)
    done = run_stage(scoring, elsewhere)
    assert done.returncode == 0, done.stderr
    scores = json.loads((scoring / "output" / "scores.json").read_text())
    labels = np.array(unpacked.labels, int)
    assert scores["accuracy"] == pytest.approx((predictions == labels).mean())
    assert all(isinstance(value, (int, float)) and math.isfinite(value) for value in scores.values())
    assert {column["key"] for column in unpacked.columns} <= set(scores)
    assert (scoring / "output" / "scores.txt").is_file()
    page = (scoring / "output" / "detailed_results.html").read_text("utf-8")
    assert "row permutation" in page
    assert "data:image/jpeg" in page
    assert list(elsewhere.iterdir()) == []


@pytest.mark.integration
def test_failing_submission_is_refused_with_the_reason(unpacked, tmp_path):
    """The server runs the scoring all the same, which must write no scores. Here the paths are relative."""
    prediction = lay_out_prediction(unpacked, tmp_path / "one", "import no_such_module\n")
    arguments = ["program/ingestion.py", "input_data", "output", "program", "ingested_program"]
    done = run_stage(prediction, prediction, arguments)
    assert done.returncode == 1
    assert [path.name for path in (prediction / "output").iterdir()] == ["checks.json"]
    scoring = lay_out_scoring(unpacked, tmp_path / "two", prediction, done.returncode)
    done = run_stage(scoring, scoring, ["program/score.py", "input", "output"])
    assert done.returncode == 1
    assert done.stderr == "refused: the prediction stage ended with exit code 1\n"
    assert [path.name for path in (scoring / "output").iterdir()] == ["detailed_results.html"]
    assert "no_such_module" in (scoring / "output" / "detailed_results.html").read_text("utf-8")


def parsed(path):
    return ast.parse(path.read_text("utf-8"), str(path), feature_version=(3, 8))


@pytest.mark.unit
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_programs_import_only_what_the_server_has(path):
    beside = {other.stem for other in path.parent.glob("*.py")}
    newer = {"graphlib", "tomllib", "zoneinfo"}  # than Python 3.8
    allowed = (sys.stdlib_module_names - newer) | {"numpy"} | beside
    if path.name == "runner.py":
        allowed |= {"tensorflow", "model"}
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            assert {alias.name.partition(".")[0] for alias in node.names} <= allowed
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert node.module.partition(".")[0] in allowed


@pytest.mark.unit
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_programs_keep_to_python_3_8(path):
    for node in ast.walk(parsed(path)):
        assert not (
            isinstance(node, ast.Attribute)
            and node.attr in ("removeprefix", "removesuffix", "is_relative_to", "bit_count")
        )
        assert not (isinstance(node, ast.keyword) and node.arg == "strict")
        assert not isinstance(node, getattr(ast, "Match", ()))
