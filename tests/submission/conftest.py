"""The zip of the committed model."""

import pytest

from competition.package.build import build


@pytest.fixture(scope="session")
def released_zip(tmp_path_factory):
    return build(out=tmp_path_factory.mktemp("released") / "submission.zip")
