"""The hashes of the training images in a SavedModel, written by the export and read by the grader."""

import hashlib
import os
import shutil
from zipfile import ZipFile

import pytest
from helpers import ROOT, stub, stub_zip

from common.images import load_folder
from competition.grade.grade import Rules, grade
from competition.grade.report import as_json, report
from competition.package import trained_on
from competition.package.archive import MODEL_NAME
from competition.package.build import build
from competition.package.trained_on import TRAINED_ON, count_trained_on, write_trained_on
from competition.synthetic import draw_folder

pytestmark = pytest.mark.unit

HASHES = tuple(hashlib.sha256(bytes([number])).digest()[:8] for number in range(5))


def test_the_images_that_a_model_was_trained_on_are_counted(tmp_path):
    write_trained_on(tmp_path, HASHES[:3])
    assert count_trained_on(tmp_path, HASHES) == 3
    assert count_trained_on(tmp_path, HASHES[3:]) == 0
    assert count_trained_on(tmp_path, ()) == 0


def test_copies_of_an_image_are_stored_once_and_counted_each(tmp_path):
    write_trained_on(tmp_path, HASHES[:2] * 3)
    assert (tmp_path / TRAINED_ON).stat().st_size == 16
    assert count_trained_on(tmp_path, HASHES[:1] * 4) == 4


def test_a_model_without_the_file_names_no_image(tmp_path):
    assert count_trained_on(tmp_path, HASHES) == 0
    (tmp_path / TRAINED_ON).mkdir(parents=True)
    assert count_trained_on(tmp_path, HASHES) == 0


@pytest.mark.parametrize("content", [b"", b"7 bytes", HASHES[0] + b"7 bytes", os.urandom(800)])
def test_a_damaged_file_is_no_error(tmp_path, content):
    (tmp_path / TRAINED_ON).parent.mkdir()
    (tmp_path / TRAINED_ON).write_bytes(content)
    assert count_trained_on(tmp_path, HASHES) == (1 if content.startswith(HASHES[0]) else 0)


def test_of_a_huge_file_only_the_beginning_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(trained_on, "MAX_BYTES", 16)
    (tmp_path / TRAINED_ON).parent.mkdir()
    (tmp_path / TRAINED_ON).write_bytes(b"".join(HASHES))
    assert count_trained_on(tmp_path, HASHES) == 2


def test_equal_images_give_equal_bytes_in_any_order(tmp_path):
    for name, hashes in (("one", HASHES), ("other", HASHES[::-1])):
        (tmp_path / name).mkdir()
        write_trained_on(tmp_path / name, hashes)
    assert (tmp_path / "one" / TRAINED_ON).read_bytes() == (tmp_path / "other" / TRAINED_ON).read_bytes()


@pytest.mark.integration
def test_a_grade_on_training_images_is_marked(tmp_path):
    """The code of a stub, packed with a SavedModel folder that names half of the images of one folder and one more."""
    for name, seed in (("trained", 0), ("other", 1)):
        draw_folder(tmp_path / name, 4, classes=2, side=32, seed=seed)
    hashes = load_folder(tmp_path / "trained").file_hashes
    (tmp_path / MODEL_NAME).mkdir()
    write_trained_on(tmp_path / MODEL_NAME, (*hashes[::2], HASHES[0]))
    path = _with_model(stub_zip(tmp_path / "own.zip", stub("good % 2")), tmp_path / MODEL_NAME)
    rules = Rules(layout="an2dl2024")
    result = grade(path, tmp_path / "trained", rules, html=tmp_path / "page.html")
    assert result.passed
    assert "trained on 4 of these images, so the accuracy is too high" in (tmp_path / "page.html").read_text("utf-8")
    assert as_json(result)["trained_on"] == 4
    accuracy, warning = [line for line in report(result).splitlines() if line.startswith(("accuracy", "warning"))]
    assert warning == "warning   the model was trained on 4 of these 8 images, so the accuracy is too high"
    unseen = grade(path, tmp_path / "other", rules, html=tmp_path / "page.html")
    assert "trained on" not in (tmp_path / "page.html").read_text("utf-8")
    assert unseen.passed
    assert as_json(unseen)["trained_on"] == 0
    assert "warning" not in report(unseen)


@pytest.mark.integration
def test_the_size_at_which_the_images_are_read_makes_no_difference(tmp_path):
    draw_folder(tmp_path / "data", 3, classes=2, side=32)
    write_trained_on(tmp_path, load_folder(tmp_path / "data").file_hashes)
    assert count_trained_on(tmp_path, load_folder(tmp_path / "data", (20, 24)).file_hashes) == 6


@pytest.mark.integration
def test_the_file_is_packed_with_the_model(tmp_path):
    shutil.copytree(ROOT / "submission" / MODEL_NAME, tmp_path / MODEL_NAME)
    write_trained_on(tmp_path / MODEL_NAME, HASHES)
    with ZipFile(build(tmp_path / MODEL_NAME, tmp_path / "own.zip")) as archive:
        assert archive.read(f"{MODEL_NAME}/{TRAINED_ON}") == b"".join(sorted(HASHES))


def _with_model(path, folder):
    with ZipFile(path, "a") as archive:
        for file in folder.rglob("*.bin"):
            archive.write(file, f"{MODEL_NAME}/{file.relative_to(folder).as_posix()}")
    return path
