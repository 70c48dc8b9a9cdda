"""What the tests of evaluation share."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def named_tiny_backbone(tiny_by_name):
    """See `tiny_by_name`; for every test of evaluation."""
