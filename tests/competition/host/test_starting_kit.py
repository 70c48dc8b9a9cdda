"""The starting kit: a sample submission that passes every check and is scored, and tells nothing about labels."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import load_module

from competition.grade.grade import grade
from competition.host.bundle import kit_path

bundles = load_module(Path(__file__).with_name("bundles.py"), "bundles")
hosted = load_module(Path(__file__).with_name("hosted.py"), "hosted")


@pytest.mark.integration
@pytest.mark.slow
def test_kit_is_scored_by_the_server(unpacked, tmp_path):
    result = hosted.submit(unpacked, tmp_path / "app", unpacked.folder / "starting_kit.zip", class_name="model")
    assert result.failed == {}, result.prediction.stderr
    assert result.scores["accuracy"] == (np.array(unpacked.labels, int) == 0).mean() > 0


@pytest.mark.integration
def test_kit_beside_the_bundle_passes_every_check_of_the_grader(unpacked, telltale_folder):
    graded = grade(kit_path(unpacked.zip), telltale_folder)
    assert [check for check in graded.checks if not check.passed] == []
    assert graded.scores["accuracy"] == 1 / bundles.CLASSES


@pytest.mark.unit
def test_kit_has_the_same_files_in_the_bundle_and_beside_it(unpacked, telltale_images):
    for path in (unpacked.folder / "starting_kit.zip", kit_path(unpacked.zip)):
        with zipfile.ZipFile(path) as archive:
            assert sorted(archive.namelist()) == ["classes.txt", "metadata", "model.py"]
            assert archive.read("classes.txt").decode().splitlines() == list(telltale_images.names)


@pytest.mark.unit
def test_pages_mention_the_kit_and_show_its_code(unpacked):
    page = (unpacked.folder / "starting_kit.md").read_text("utf-8")
    with zipfile.ZipFile(unpacked.folder / "starting_kit.zip") as archive:
        code = archive.read("model.py").decode().splitlines()
    assert all(not line or f"\n    {line}\n" in page + "\n" for line in code)
    assert "page *Starting kit*" in (unpacked.folder / "overview.md").read_text("utf-8")
    described = yaml.safe_load(unpacked.text)
    assert {"title": "Starting kit", "file": "starting_kit.md"} in described["pages"]
    assert described["phases"][0]["starting_kit"] == "starting_kit.zip"
