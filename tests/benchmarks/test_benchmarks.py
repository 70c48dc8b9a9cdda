"""What the benchmarks share: timing, tables, the list of benchmarks, and their results in results/benchmarks."""

import importlib
import json
import re

import numpy as np
import pytest
from helpers import ROOT

from benchmarks import __main__ as listing
from benchmarks import benchmark_parser, run_benchmark, speed_record, speed_table, time_interleaved
from benchmarks.result import read_result, write_result

pytestmark = pytest.mark.unit

MEASURED = {
    "accuracy",
    "aspect",
    "grading",
    "growth",
    "images",
    "inference",
    "kernels",
    "memory",
    "own_data",
    "peers",
    "profile",
    "training",
    "variants",
}


def test_candidates_run_alternately_after_a_warm_up():
    calls = []
    candidates = {name: (lambda name=name: calls.append(name)) for name in ("a", "b")}
    seconds = time_interleaved(candidates, 3)
    assert calls == ["a", "b"] * 4
    assert {name: values.shape for name, values in seconds.items()} == {"a": (3,), "b": (3,)}
    assert all((values >= 0).all() for values in seconds.values())


def test_ratios_are_taken_within_each_round():
    seconds = {"base": np.array([1.0, 2.0, 4.0]), "fast": np.array([0.5, 0.5, 4.0])}
    record = speed_record(seconds, images=8, baseline="base")
    assert record["base"] == {"images_per_second": 4.0, "ratio_median": 1.0, "ratio_min": 1.0, "ratio_max": 1.0}
    assert record["fast"] == {"images_per_second": 16.0, "ratio_median": 2.0, "ratio_min": 1.0, "ratio_max": 4.0}
    head, _, fast = speed_table(seconds, 8, "base")
    assert "3 rounds" in head
    assert fast.split() == ["fast", "16.0", "2.00", "(1.00", "to", "4.00)"]


def test_list_names_every_benchmark_and_its_command(capsys):
    assert listing.main([]) == 0
    out = capsys.readouterr().out
    assert set(listing.summaries()) == MEASURED
    for name, summary in listing.summaries().items():
        assert f"python -m benchmarks.{name}\n    {summary}" in out
        assert summary.endswith(".")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("accuracy", ["--seeds"]),
        ("grading", ["--images", "--rounds"]),
        ("growth", ["--most"]),
        ("images", ["--photographs", "--timed", "--rounds"]),
        ("inference", ["--images", "--rounds"]),
        ("kernels", ["--views"]),
        ("memory", ["--images"]),
        ("own_data", ["--epochs", "--minutes"]),
        ("peers", ["--images", "--rounds", "--batch-size"]),
        ("profile", ["--steps", "--rounds"]),
        ("training", ["--batches", "--rounds", "--images"]),
        ("variants", ["--images", "--rounds"]),
    ],
)
def test_numbers_below_one_are_refused(name, options, capsys):
    module = importlib.import_module(f"benchmarks.{name}")
    for option in options:
        for number in ("0", "-1"):
            with pytest.raises(SystemExit, match="2"):
                module.main([f"{option}={number}"])
            assert re.search(rf"argument {option}: must be a (whole )?number", capsys.readouterr().err)


def test_result_is_written_to_the_benchmarks_file_by_default():
    assert benchmark_parser("memory", None).parse_args([]).json.as_posix() == "results/benchmarks/memory.json"


def test_result_is_written_and_named(tmp_path, capsys):
    options = benchmark_parser("memory", None).parse_args(["--json", str(tmp_path / "m.json")])
    assert run_benchmark(options, lambda options: {"images": 3}) == 0
    assert read_result(tmp_path / "m.json") == {"images": 3}
    assert str(tmp_path / "m.json") in capsys.readouterr().out


def test_result_names_its_machine_and_versions(tmp_path):
    write_result(tmp_path / "m.json", {"images": 3})
    found = json.loads((tmp_path / "m.json").read_text("utf-8"))["machine"]
    assert found["cores"] >= 1 and found["processor"] and isinstance(found["extensions"], list)
    assert f'\nversion = "{found["versions"]["project"]}"\n' in (ROOT / "pyproject.toml").read_text("utf-8")
    assert {"python", "keras"} <= set(found["versions"]) and {"tensorflow", "tensorflow-cpu"} & set(found["versions"])
    assert found["versions"]["numpy"] == np.__version__


def test_result_of_an_earlier_version_is_read(tmp_path):
    (tmp_path / "old.json").write_text('{"images": 3}', "utf-8")
    assert read_result(tmp_path / "old.json") == {"images": 3}


def test_nothing_is_measured_if_the_result_cannot_be_written(tmp_path, capsys):
    options = benchmark_parser("memory", None).parse_args(["--json", str(tmp_path / "no" / "m.json")])
    assert run_benchmark(options, lambda options: pytest.fail("measured")) == 2
    assert "no folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(MEASURED))
def test_committed_result_exists(name):
    assert json.loads((ROOT / "results" / "benchmarks" / f"{name}.json").read_text("utf-8"))
