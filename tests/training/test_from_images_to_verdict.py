"""The whole way of an entrant: train, build and grade by the three commands, and what the verdict says."""

import json
import subprocess
import sys

import pytest
from helpers import ROOT

from competition.synthetic import draw_folder

pytestmark = [pytest.mark.integration, pytest.mark.slow]
SETTINGS = (
    "augmentation.precomputed=()",
    "data.class_repeats={}",
    "data.validation_split=0.25",
    "finetune.batch_size=8",
    "finetune.resolution_schedule=((2, 48),)",
)


def command(*arguments):
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def entry(tmp_path_factory):
    """A folder with training images, other images of the same classes, and the zip of a run."""
    folder = tmp_path_factory.mktemp("entry")
    draw_folder(folder / "train", 8, classes=3, side=48)
    draw_folder(folder / "test", 4, classes=3, side=48, seed=5)
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    run = ["run", "scratch_vgg", "--data", folder / "train", "--out", folder / "run", "--backbone-weights", "none"]
    command("-m", "training", *run, *settings)
    command("build_submission.py", "--run", folder / "run", "--out", folder / "entry.zip")
    return folder


def grade(entry, data):
    printed = command("grade_submission.py", entry / "entry.zip", "--data", data, "--json", entry / "grade.json")
    return printed, json.loads((entry / "grade.json").read_text("utf-8"))


def test_images_that_the_run_has_not_seen_get_a_verdict_without_a_warning(entry):
    printed, graded = grade(entry, entry / "test")
    assert "trained on" not in printed
    assert (graded["passed"], graded["images"], graded["scores"]["images"]) == (True, 12, 12)


def test_training_images_are_recognized_and_held_out_ones_are_not(entry):
    record = json.loads((entry / "run" / "metrics.json").read_text("utf-8"))
    assert (record["training_images"], record["images"]) == (18, 6)
    printed, _ = grade(entry, entry / "train")
    assert "warning   the model was trained on 18 of these 24 images, so the accuracy is too high\n" in printed
