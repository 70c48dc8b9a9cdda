"""The grader's verdict is what the server does: each submission of a table goes over both."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import load_module, stub

from common.images import load_folder
from competition.grade.grade import Rules, grade
from competition.grade.report import as_json, report, verdict
from competition.host.bundle import build
from competition.synthetic import draw_folder

pytestmark = pytest.mark.integration

bundles = load_module(Path(__file__).with_name("bundles.py"), "bundles")
hosted = load_module(Path(__file__).with_name("hosted.py"), "hosted")
ACCEPTED, REFUSED = "the server would accept it", "the server would not accept it: "
UNKNOWN = "not accepted here, but the server may score it: "
HERE = "import os\nhere = os.path.dirname(os.path.abspath(__file__))\n"
SHIFT = "(good + np.concatenate([[0], good[:-1]])) % 8"

# Source of model.py → verdict.
SOURCES = {
    "good": (stub(), ACCEPTED),
    "depends on the order": (stub(SHIFT), REFUSED),
    "depends on neighbours": (stub("np.random.default_rng(x.sum()).permutation(8)[good]"), REFUSED),
    "depends on the dtype": (stub("good if np.asarray(X).dtype != np.uint8 else (good + 1) % 8"), REFUSED),
    "random": (stub("np.random.default_rng().integers(0, 8, len(x))"), REFUSED),
    "fails for one image only": (stub("good if len(x) > 1 else good / 1.0"), REFUSED),
    "fails for three images only": (stub("good if len(x) != 3 else good[:2]"), REFUSED),
    "fails for all images only": (stub("good if len(x) < 16 else good[:2]"), REFUSED),
    "floats": (stub("good / 1.0"), REFUSED),
    "out of range": (stub("good + 8"), REFUSED),
    "raises": ("1 / 0", REFUSED),
    "exits with code 0": ("import os\nos._exit(0)", REFUSED),
    "no class": ("class Wrong: pass", REFUSED),
    "writes beside model.py": (HERE + "open(os.path.join(here, 'cache'), 'w').close()\n" + stub(), REFUSED),
    "writes to the output": (HERE + "open(os.path.join(here, '../output/a'), 'w').close()\n" + stub(), REFUSED),
    "writes to the temporary folder": ("import tempfile\ntempfile.mkstemp()\n" + stub(), ACCEPTED),
    "takes too long": ("import time\ntime.sleep(60)", REFUSED),
    "leaves a process": ("import subprocess\nsubprocess.Popen(['sleep', '61'])\n" + stub(), ACCEPTED),
    "prints too much": (
        "for _ in range(1100):\n    print('x' * 99_999)\nimport time\ntime.sleep(1)\n" + stub(),
        UNKNOWN,
    ),
}


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """The folder of eight classes of four synthetic leaves, and a bundle of them as the server has it."""
    folder = tmp_path_factory.mktemp("eight")
    draw_folder(folder / "leaves", 4, side=32)
    path = build(load_folder(folder / "leaves"), bundles.SETTINGS, folder / "a.zip")
    return folder / "leaves", bundles.unpack(path, folder / "unpacked")


def both(eight, tmp_path, path, seconds=60):
    """Grades a zip here and on the server. Returns (grade, hosted)."""
    data, unpacked = eight
    graded = grade(path, data, Rules(layout="an2dl2024", time_limit=seconds))
    return graded, hosted.submit(unpacked, tmp_path / "app", path, seconds=seconds)


def assert_equal(graded, result, expected):
    """The verdict is the expected one, and if it is certain, the server does what it says."""
    said = verdict(graded)
    assert said.startswith(expected) and (said == expected) == (expected == ACCEPTED), report(graded)
    assert f"\nverdict   {said}\n" in report(graded)
    assert as_json(graded)["verdict"] == said
    assert graded.passed == (expected == ACCEPTED)
    if expected != UNKNOWN:
        assert bool(result.scores) == bool(graded.scores) == graded.passed, result.scoring.stderr
        assert set(result.scores) == set(graded.scores)


@pytest.mark.parametrize("case", SOURCES)
def test_verdict_on_a_model_is_what_the_server_does(eight, tmp_path, case):
    source, expected = SOURCES[case]
    path = hosted.submission(tmp_path / "a.zip", source, "")
    graded, result = both(eight, tmp_path, path, 4 if case == "takes too long" else 60)
    assert_equal(graded, result, expected)
    if expected == REFUSED:  # for the same reasons, except that the report ends at the first failure of some checks
        failed = {check.name for check in graded.checks if not check.passed} - {"limits", "scoring"}
        assert failed
        assert failed <= set(result.failed)


def test_scores_are_those_of_the_server(eight, tmp_path):
    path = hosted.submission(tmp_path / "a.zip", stub("(good + (x[:, 0, 0, 0] > 90)) % 8"), "")
    graded, result = both(eight, tmp_path, path)
    assert len(graded.scores) == 5 + 3 * 8 + 64
    assert graded.scores == result.scores
    images = load_folder(eight[0])
    x = images.images.astype(np.int64)
    answers = (x[:, ::7, ::5].sum((1, 2, 3)) + (x[:, 0, 0, 0] > 90)) % 8  # as the stub
    right = int((answers == images.labels).sum())
    assert 0 < right < len(images)
    assert graded.scores["accuracy"] == right / len(images)


def no_metadata(archive):
    archive.writestr("model.py", stub())


def an_address(archive):
    archive.writestr("model.py", stub())
    archive.writestr("metadata", "program: http://127.0.0.1:9/\n")


def metadata_in_yaml_only(archive):
    archive.writestr("model.py", stub())
    archive.writestr("metadata.yaml", "description: a stub\n")


def no_model(archive):
    archive.writestr("metadata", "")


def wrapper(archive):
    archive.writestr("submission/model.py", stub())
    archive.writestr("submission/metadata", "")


def two_cases(archive):
    for name in ("model.py", "metadata", "weights", "Weights"):
        archive.writestr(name, stub() if name == "model.py" else "")


def outside(archive):
    for name in ("model.py", "metadata", "../outside"):
        archive.writestr(name, stub() if name == "model.py" else "")


ZIPS = {
    no_metadata: REFUSED,
    an_address: REFUSED,
    metadata_in_yaml_only: REFUSED,
    no_model: REFUSED,
    wrapper: REFUSED,
    two_cases: UNKNOWN,
    outside: UNKNOWN,
}


@pytest.mark.parametrize("write", ZIPS, ids=lambda write: write.__name__)
def test_verdict_on_a_zip_is_what_the_server_does(eight, tmp_path, write):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        write(archive)
    graded, result = both(eight, tmp_path, tmp_path / "a.zip")
    assert_equal(graded, result, ZIPS[write])
    if ZIPS[write] == UNKNOWN:
        assert result.scores  # as the verdict warns
