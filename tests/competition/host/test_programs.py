"""The bundle's two programs: they run as they are in the bundle, and need only what the server has."""

import ast
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import load_module, stub

bundles = load_module(Path(__file__).with_name("bundles.py"), "bundles")
hosted = load_module(Path(__file__).with_name("hosted.py"), "hosted")
lay_out_prediction, lay_out_scoring, run_stage = hosted.lay_out_prediction, hosted.lay_out_scoring, hosted.run_stage
lines, PROGRAMS = bundles.lines, bundles.PROGRAMS


@pytest.mark.integration
def test_good_submission_is_scored(unpacked, tmp_path):
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    path = hosted.submission(tmp_path / "a.zip", stub("good % 4"))
    prediction = lay_out_prediction(unpacked, tmp_path / "stage one", path)
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
    assert "<img" not in page
    assert list(elsewhere.iterdir()) == []


@pytest.mark.integration
def test_failing_submission_is_refused_with_the_reason(unpacked, tmp_path):
    """The server runs the scoring all the same, which must write no scores. Here the paths are relative."""
    path = hosted.submission(tmp_path / "a.zip", "import no_such_module\n")
    prediction = lay_out_prediction(unpacked, tmp_path / "one", path)
    arguments = ["program/ingestion.py", "input_data", "output", "program", "ingested_program"]
    done = run_stage(prediction, prediction, arguments)
    assert done.returncode == 1
    assert [path.name for path in (prediction / "output").iterdir()] == ["checks.json"]
    reason = (
        "- import and constructor: model.py cannot be imported: No module named 'no_such_module'\n  fix: import only"
    )
    assert f"\nfailed checks:\n{reason}" in done.stderr
    scoring = lay_out_scoring(unpacked, tmp_path / "two", prediction, done.returncode)
    done = run_stage(scoring, scoring, ["program/score.py", "input", "output"])
    assert done.returncode == 1
    assert done.stderr.startswith(reason)
    assert done.stderr.endswith("\nrefused: failed checks: import and constructor\n")
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
    allowed |= {"runner.py": {"tensorflow", "model"}, "decoder.py": {"tensorflow", "PIL"}}.get(path.name, set())
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
