"""The released model, and that the documents say of it what was measured."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from build_submission import build
from competition.drawings import draw_images
from grade_submission import grade
from training.__main__ import load_recipe

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "submission" / "SubmissionModel"
RELEASED = "leaderboard_full"  # its recipe; without _full, that of the run that says what to expect of it


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    return build(out=tmp_path_factory.mktemp("dist") / "submission.zip")


def test_size():
    assert sum(path.stat().st_size for path in MODEL.rglob("*") if path.is_file()) <= 50e6


def test_the_server_would_accept_it(released):
    result = grade(released)
    assert result.passed, [check for check in result.checks if not check.passed]
    assert not result.scores


def test_classes_and_views():
    from submission.model import model

    network = model(ROOT / "submission")
    assert network.names == tuple(f"Species{number}" for number in range(1, 9))
    probabilities = network.predict_proba(draw_images(3))
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-4)
    recipe = load_recipe(RELEASED)
    assert network.flips == recipe.test_flips and network.sure == np.float32(recipe.test_sure)
    # All eight symmetries are averaged, so a turned image has the same answer, unless the first view was enough.
    network.sure = 1.0
    probabilities = network.predict_proba(draw_images(3))
    for turned in (np.rot90(draw_images(3), 1, (1, 2)), draw_images(3)[:, :, ::-1]):
        assert np.allclose(network.predict_proba(turned), probabilities, atol=1e-4)
    network.sure = 0.0
    assert not np.allclose(network.predict_proba(turned), network.predict_proba(draw_images(3)), atol=1e-3)


def test_documents_repeat_the_grade():
    graded = json.loads((ROOT / "docs" / "grade_phase1.json").read_text("utf-8"))
    scores = graded["scores"]
    older = json.loads((ROOT / "docs" / "grade_phase1_tensorflow_2.10.1.json").read_text("utf-8"))
    assert graded["passed"]
    assert older["passed"]
    assert older["scores"] == scores
    claims = [f"{scores['accuracy']:.2%}", f"{scores['accuracy_low']:.1%}", f"{scores['accuracy_high']:.1%}"]
    claims += [f"{scores[f'f1_{number}']:.3f}" for number in range(8)]
    for document in (ROOT / "README.md", ROOT / "docs" / "model_card.md"):
        text = document.read_text("utf-8").replace(" %", "%")
        assert not [claim for claim in claims if claim not in text], document.name


def test_documents_repeat_the_run():
    held, full = (
        json.loads((ROOT / "docs" / "runs" / name / "metrics.json").read_text("utf-8"))
        for name in (RELEASED.removesuffix("_full"), RELEASED)
    )
    claims = [f"{share:.1%}" for share in (held["accuracy"], *held["interval95"], held["test"]["accuracy"])]
    for document in ("model_card.md", "accuracy.md"):
        text = (ROOT / "docs" / document).read_text("utf-8").replace(" %", "%")
        assert not [claim for claim in claims if claim not in text], document
        for run in (held, full):
            minutes = f"{run['finetuning_minutes']:.0f}"
            assert re.search(rf"\b{minutes} minutes|\| {minutes} \|", text), (document, minutes)


def test_the_ladder_repeats_its_runs():
    text = (ROOT / "docs" / "accuracy.md").read_text("utf-8").replace(" %", "%")
    names = *(f"inception_svm_{step}" for step in ("192", "160", "averaged", "mixed", "quiet")), "leaderboard"
    runs = [json.loads((ROOT / "docs" / "runs" / name / "metrics.json").read_text("utf-8")) for name in names]
    assert all(f"{run['accuracy']:.1%}" in text for run in runs)
    first, second, third, one, quiet, longer = (run["finetuning_minutes"] for run in runs)
    for minutes in (first, second - first, third - second, one, quiet, longer - quiet):
        assert re.search(rf"\| {minutes:.0f} (more )?\|", text), minutes


def test_the_ladder_repeats_its_measurement():
    measured = json.loads((ROOT / "docs" / "benchmarks" / "accuracy.json").read_text("utf-8"))
    text = (ROOT / "docs" / "accuracy.md").read_text("utf-8").replace(" %", "%")
    assert measured["rows"]
    for name, row in measured["rows"].items():
        low, high = row["interval95"]
        assert f"| {name} | {row['accuracy']:.1%} | {low:.1%} to {high:.1%} |" in text


@pytest.mark.slow
def test_phase1_accuracy(released, leaves):
    result = grade(released, leaves / "phase1")
    recorded = json.loads((ROOT / "docs" / "grade_phase1.json").read_text("utf-8"))["scores"]
    assert result.passed
    assert abs(result.scores["accuracy"] - recorded["accuracy"]) < 0.003
    assert result.scores["accuracy"] >= 0.9


def test_readme_repeats_the_benchmarks():
    files = {
        name: json.loads((ROOT / "docs" / "benchmarks" / f"{name}.json").read_text("utf-8"))
        for name in ("inference", "training", "memory", "grading")
    }
    text = (ROOT / "README.md").read_text("utf-8")
    shipped, pipeline = files["inference"]["submission/model.py"], files["training"]["tf.data pipeline"]
    for numbers in (shipped, pipeline, files["training"]["flow_from_directory"]):
        assert "{ratio_median:.2f} ({ratio_min:.2f} to {ratio_max:.2f})".format(**numbers) in text
    assert f"{files['memory']['beyond_mb']:,.0f} MB beyond" in text
    cost, many = files["grading"]["own_cost"], files["grading"]["many"]
    assert "{own_seconds:.1f} s of its own on {images:,} images, of {grade:.0f} s in all".format(**cost) in text
    assert cost["processes_with_tensorflow"] == 1
    assert "{seconds:.0f} s and {peak_mb:,.0f} MB for the bundle of 10,000 images".format(**many["bundle"]) in text
    assert many["bundle"]["seconds"] <= 30 and many["bundle"]["peak_mb"] <= 1000
    head = files["training"]["quasi_svm_head"]
    cached = head["cached"]
    assert "{ratio_median:.0f} ({ratio_min:.0f} to {ratio_max:.0f}) times".format(**cached) in text
    assert f"{100 * cached['accuracy']:.1f} % right against {100 * head['uncached']['accuracy']:.1f} %" in text
    low, high = head["uncached"]["interval95"]
    assert low <= cached["accuracy"] <= high
    assert cached["ratio_min"] >= 30
