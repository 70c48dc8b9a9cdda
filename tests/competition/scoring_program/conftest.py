"""Fixtures of the scoring program's tests."""

import pytest
from helpers import ROOT, load_module


@pytest.fixture(scope="session")
def score():
    """The scoring program as a module."""
    return load_module(ROOT / "competition" / "scoring_program" / "score.py", "score")
