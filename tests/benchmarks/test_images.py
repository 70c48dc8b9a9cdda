"""The smallest measurement of loading photographs."""

import pytest

from benchmarks import images
from benchmarks.result import read_result

pytestmark = pytest.mark.integration


@pytest.mark.slow
def test_images(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "WIDTH", 2400)
    monkeypatch.setattr(images, "HEIGHT", 1800)
    path = tmp_path / "result.json"
    assert images.main(["--photographs", "20", "--timed", "8", "--rounds", "1", "--json", str(path)]) == 0
    result = read_result(path)
    assert result["speed"]["load_folder"]["images_per_second"] > 0
    assert result["loading"]["images"] == 20
    assert result["loading"]["arrays_mb"] == pytest.approx(20 * 288 * 384 * 3 / 1e6)
    assert result["predicting"]["images"] == 8


@pytest.mark.parametrize("options", [["--photographs", "7"], ["--timed", "1"]])
def test_too_few_photographs_are_refused(tmp_path, capsys, options):
    assert images.main([*options, "--json", str(tmp_path / "result.json")]) == 2
    assert "must be at least" in capsys.readouterr().err
