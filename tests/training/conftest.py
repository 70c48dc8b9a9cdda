"""What the tests of training share."""

import pytest
from helpers import tiny


@pytest.fixture(scope="module")
def tiny_by_name():
    """Lets records of runs name the tiny backbone."""
    from training.model import backbones

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "tiny", tiny, raising=False)
        yield
