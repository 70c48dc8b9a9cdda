"""Which processors compute in bfloat16."""

import pytest

from training.fit import precision

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("processor: 0\nflags\t\t: fpu avx512_bf16 amx_tile\n", True),
        ("processor: 0\nflags\t\t: fpu avx2\n", False),
        ("processor: 0\nFeatures\t: fp asimd bf16\n", False),  # of ARM
        ("", False),
    ],
)
def test_the_processor_is_asked(tmp_path, monkeypatch, text, known):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(precision, "Path", lambda path: tmp_path / "cpuinfo")
    assert precision.has_bfloat16() == known


def test_a_system_without_that_file_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "Path", lambda path: tmp_path / "none")
    assert not precision.has_bfloat16()
