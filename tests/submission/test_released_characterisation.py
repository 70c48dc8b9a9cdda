"""The released submission still has the files and gives the probabilities that were recorded in released.json.

released.json holds the SHA-256 of every entry of the zip except model.py, the order of the entries, and the
probabilities of `draw_images(24)`, rounded to five digits.
"""

import hashlib
import json
import zipfile

import numpy as np
import pytest
from helpers import ROOT, load_module

from competition.synthetic import draw_images

pytestmark = pytest.mark.integration

RECORDED = json.loads((ROOT / "tests" / "submission" / "released.json").read_text("utf-8"))
TOLERANCE = 2e-3  # processors differ in the order of their sums
MARGIN = 0.02  # between the two most probable classes


def test_zip_has_the_recorded_entries(released_zip):
    with zipfile.ZipFile(released_zip) as archive:
        assert archive.namelist() == RECORDED["order"]
        digests = {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}
        assert archive.read("model.py") == (ROOT / "submission" / "model.py").read_bytes()
    del digests["model.py"]
    assert digests == RECORDED["entries"]


def test_model_gives_the_recorded_probabilities():
    recorded = np.array(RECORDED["probabilities"])
    classifier = load_module(ROOT / "submission" / "model.py", "released").model(ROOT / "submission")
    probabilities = classifier.predict_proba(draw_images(len(recorded)))
    np.testing.assert_allclose(probabilities, recorded, atol=TOLERANCE)
    second, first = np.sort(recorded, axis=1)[:, -2:].T
    clear = first - second > MARGIN
    assert clear.sum() > len(recorded) / 2
    np.testing.assert_array_equal(probabilities[clear].argmax(axis=1), recorded[clear].argmax(axis=1))
