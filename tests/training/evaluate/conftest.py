"""What the tests of evaluation share."""

import pytest
from helpers import tiny


@pytest.fixture(scope="module", autouse=True)
def named_tiny_backbone():
    """Lets records of runs name the tiny backbone."""
    from training.model import backbones

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "tiny", tiny, raising=False)
        yield
