"""The scripts in benchmarks/baselines, which the benchmark own_data starts."""

import pytest
from helpers import python

from benchmarks import own_data
from competition.synthetic import draw_folder

pytestmark = pytest.mark.integration


@pytest.mark.slow
def test_the_twenty_lines_learn_drawn_leaves(tmp_path):
    """Measured on the images that they learn, because features of random weights differ from run to run."""
    draw_folder(tmp_path / "leaves", 8, classes=3, side=96)
    done = python(own_data.BASELINES / "twenty_lines.py", tmp_path / "leaves", tmp_path / "leaves", "none")
    assert done.returncode == 0, done.stderr
    assert 0.6 < float(done.stdout.split()[-1]) <= 1, "by chance, a third"
