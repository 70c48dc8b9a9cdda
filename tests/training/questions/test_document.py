"""docs/questions.md, and the committed answers and pictures that it shows."""

import json
import math
import re

import pytest
from helpers import ROOT
from PIL import Image

pytestmark = pytest.mark.docs

NAMES = ("everything", "selection", "smote", "species1", "two_devices")
DOCUMENT = ROOT / "docs" / "questions.md"


def committed_answer(name):
    return json.loads((ROOT / "results" / "questions" / f"{name}.json").read_text("utf-8"))


def numbers(value):
    """All numbers in plain values, at any depth."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for part in value for number in numbers(part)]
    return [value] if isinstance(value, (int, float)) else []


def section(name):
    """The part of the document about one question."""
    parts = re.split(r"^## ", DOCUMENT.read_text("utf-8"), flags=re.MULTILINE)[1:]
    return next(part for part in parts if f"training.questions.{name} " in part)


@pytest.mark.parametrize("name", NAMES)
def test_document_has_the_command_and_the_picture(name):
    assert f"    python -m training.questions.{name} --data " in section(name)
    assert f"](img/question_{name}.png)" in section(name)


@pytest.mark.parametrize("name", NAMES)
def test_committed_answer_has_finite_numbers_and_a_picture(name):
    answer = committed_answer(name)
    assert numbers(answer)
    assert all(map(math.isfinite, numbers(answer)))
    with Image.open(ROOT / "docs" / "img" / f"question_{name}.png") as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize("name", NAMES)
def test_measured_numbers_of_the_text_are_in_the_answer(name):
    """Every percentage with a decimal and every number with three decimals is a number of the JSON file, rounded."""
    answer = committed_answer(name)
    known = {f"{value:.3f}" for value in numbers(answer)} | {f"{100 * value:.1f} %" for value in numbers(answer)}
    text = " ".join(section(name).split())
    stated = set(re.findall(r"(?<![\d.])0\.\d{3}(?!\d)", text)) | set(re.findall(r"\d+\.\d %", text))
    if name == "species1":  # it also states a score of the released model
        grade = json.loads((ROOT / "results" / "grades" / "phase1.json").read_text("utf-8"))
        known.add(f"{grade['scores']['f1_0']:.3f}")
    assert stated
    assert stated - known == set()


def test_every_question_has_a_module_that_names_its_command():
    modules = {path.stem for path in (ROOT / "training" / "questions").glob("*.py")} - {"__init__"}
    assert modules == set(NAMES)
    for name in NAMES:
        source = (ROOT / "training" / "questions" / f"{name}.py").read_text("utf-8")
        assert f"  python -m training.questions.{name} --data " in source


def test_committed_losses_of_synchronized_devices_agree_with_one_device():
    answer = committed_answer("two_devices")
    assert answer["difference"]["two devices, synchronized"]["agreeing_steps"] == answer["steps"]
