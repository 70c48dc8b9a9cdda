"""Which processors compute in bfloat16."""

import keras
import pytest

from training.fit import precision

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("processor: 0\nflags\t\t: fpu avx512_bf16 amx_tile\n", True),
        ("processor: 0\nflags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("processor: 0\nflags\t\t: fpu avx2\n", False),
        ("processor: 0\nFeatures\t: fp asimd bf16\n", False),  # of ARM
        ("", False),
    ],
)
def test_the_processor_is_asked(tmp_path, monkeypatch, text, known):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(precision, "Path", {"/proc/cpuinfo": tmp_path / "cpuinfo"}.get)
    assert precision.has_bfloat16() == known


def test_a_system_without_that_file_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "Path", lambda path: tmp_path / "none")
    assert not precision.has_bfloat16()


@pytest.mark.parametrize(
    ("backend", "known", "gpu", "expected"),
    [
        ("tensorflow", True, False, "bfloat16"),
        ("tensorflow", True, True, "float32"),
        ("tensorflow", False, False, "float32"),
        ("jax", True, False, "float32"),
    ],
)
def test_bfloat16_is_for_tensorflow_without_a_gpu(monkeypatch, backend, known, gpu, expected):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    monkeypatch.setattr(precision, "has_bfloat16", lambda: known)
    monkeypatch.setattr(precision, "_has_gpu", lambda: gpu)
    assert precision.fastest() == expected
