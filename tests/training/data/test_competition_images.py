"""The competition's real images, where they are present."""

import numpy as np
import pytest

from common.images import load_folder
from training.data.deepweeds import COUNTS

pytestmark = pytest.mark.integration


def test_real_images_are_read_unchanged(leaves):
    images = load_folder(leaves / "train")
    assert images.images.shape[1:] == (96, 96, 3)
    assert images.names == tuple(f"Species{n}" for n in range(1, 9))
    assert np.bincount(images.labels).tolist() == [train for train, _ in COUNTS.values()]
    assert all("look nearly the same" in note for note in images.notes)  # one pair of them
