"""The zip of the committed model, and float32 for all tests that do not ask for another precision."""

import pytest

from competition.package.build import build


@pytest.fixture(scope="session")
def released_zip(tmp_path_factory):
    return build(out=tmp_path_factory.mktemp("released") / "submission.zip")


@pytest.fixture(scope="module", autouse=True)
def float32():
    """Probabilities are compared with recorded ones and between inputs, so they must not depend on the processor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUBMISSION_PRECISION", "float32")
        yield
