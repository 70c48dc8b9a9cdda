"""The released model: size, classes, recipe, grading and accuracy."""

import json

import numpy as np
import pytest
from helpers import NAMES, ROOT, load_module

from competition.grade.grade import grade
from competition.synthetic import draw_images

pytestmark = pytest.mark.integration

RESULTS = ROOT / "results"
MODEL = ROOT / "submission" / "SubmissionModel"


@pytest.fixture
def released_model():
    return load_module(ROOT / "submission" / "model.py", "released").model(ROOT / "submission")


def test_model_is_at_most_50_mb():
    assert sum(path.stat().st_size for path in MODEL.rglob("*") if path.is_file()) <= 50e6


@pytest.mark.slow  # `make submission` does the same
def test_zip_passes_the_grading(released_zip):
    result = grade(released_zip)
    assert result.passed, [check for check in result.checks if not check.passed]
    assert not result.scores


def test_model_names_the_eight_species(released_model):
    assert released_model.names == NAMES
    np.testing.assert_allclose(released_model.predict_proba(draw_images(3)).sum(axis=1), 1, atol=1e-4)


def test_model_agrees_with_its_recipe(released_model):
    from training.recipes.released_full import recipe

    assert released_model.tta_transforms == recipe.prediction.tta_transforms
    assert released_model.tta_threshold == np.float32(recipe.prediction.tta_threshold)


@pytest.mark.slow
def test_rotated_and_flipped_images_agree_if_all_are_augmented(released_model):
    """The average covers all eight symmetries of the square, so it is invariant under each of them."""
    images = draw_images(3)
    rotated, flipped = np.rot90(images, 1, (1, 2)), images[:, :, ::-1]
    released_model.tta_threshold = 1.0
    probabilities = released_model.predict_proba(images)
    for changed in (rotated, flipped):
        np.testing.assert_allclose(released_model.predict_proba(changed), probabilities, atol=1e-4)
    released_model.tta_threshold = 0.0  # no augmentation
    single = released_model.predict_proba(images)
    assert not np.allclose(released_model.predict_proba(flipped), single, atol=1e-3)


@pytest.mark.slow
def test_phase1_accuracy_is_the_recorded_one(released_zip, leaves):
    result = grade(released_zip, leaves / "phase1")
    assert result.passed
    assert abs(result.scores["accuracy"] - recorded("grades/phase1.json")["scores"]["accuracy"]) < 0.003
    assert result.scores["accuracy"] >= 0.9


# --- the records of the released model


def recorded(name):
    return json.loads((RESULTS / name).read_text("utf-8"))


def test_recorded_grades_passed_and_agree_between_tensorflow_versions():
    current, oldest = recorded("grades/phase1.json"), recorded("grades/phase1_tensorflow_2.10.1.json")
    assert current["passed"]
    assert oldest["passed"]
    assert current["scores"] == oldest["scores"]


def test_recorded_benchmarks_meet_their_limits():
    grading, head = recorded("benchmarks/grading.json"), recorded("benchmarks/training.json")["quasi_svm_head"]
    assert grading["own_cost"]["processes_with_tensorflow"] == 1
    assert grading["many"]["bundle"]["seconds"] <= 30
    assert grading["many"]["bundle"]["peak_mb"] <= 1000
    low, high = head["uncached"]["interval95"]
    assert low <= head["cached"]["accuracy"] <= high
    assert head["cached"]["ratio_min"] >= 30
