"""Keras' backend and settings: those of other projects change nothing, and a missing backend is a clear error."""

import json
import os
import shlex
import subprocess
import sys

import pytest
from helpers import ROOT

from training import __main__ as cli

pytestmark = pytest.mark.integration

# Trains a tiny network, and packs it.
TRAIN_AND_PACK = """
import sys
sys.path[:0] = sys.argv[1:3]
from helpers import change, shrunk, tiny
from training import __main__ as cli
from training.commands import train
import build_submission

def load_recipe(name):
    from training.config.recipe import Recipe
    from training.model import backbones
    backbones.tiny = tiny
    return change(shrunk(Recipe()), warmup_epochs=0.5)

train.load_recipe = load_recipe
data, out = sys.argv[3:]
code = cli.main(["run", "tiny", "--data", data, "--out", out, "--backbone-weights", "none"])
sys.exit(code or build_submission.main(["--run", out, "--out", out + ".zip"]))
"""
OTHER_PROJECT = {"image_data_format": "channels_first", "floatx": "float16", "epsilon": 0.1, "backend": "torch"}


@pytest.mark.parametrize(
    "settings",
    [OTHER_PROJECT, {"floatx": "float64", "backend": "nonsense"}],
    ids=str,
)
@pytest.mark.slow
def test_settings_of_other_projects_change_nothing(settings, leaf_folder, tmp_path):
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "keras.json").write_text(json.dumps(settings))
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    command = [sys.executable, "-c", TRAIN_AND_PACK, ROOT, ROOT / "tests", leaf_folder, tmp_path / "run"]
    done = subprocess.run(
        command,
        env={**environment, "KERAS_HOME": str(tmp_path / "keras")},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run.zip").is_file()
    assert "tensorflow" in json.loads((tmp_path / "run" / "run.json").read_text())["versions"]


@pytest.fixture
def without_keras(monkeypatch):
    """Lets the choice of the backend see a process that has not imported Keras yet."""
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.setenv("KERAS_BACKEND", "")


@pytest.mark.parametrize(
    ("variable", "named"),
    [("torch", "KERAS_BACKEND must be tensorflow or jax, got torch"), ("nonsense", "got nonsense")],
)
def test_another_backend_in_the_environment_is_refused(without_keras, monkeypatch, capsys, variable, named):
    monkeypatch.setenv("KERAS_BACKEND", variable)
    assert cli.main(["run", "released", "--data", "x"]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert "--backend" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("how", ["option", "variable"])
def test_backend_that_is_not_installed_is_refused(without_keras, monkeypatch, capsys, how):
    monkeypatch.setattr(cli, "_is_installed", lambda module: False)
    if how == "variable":
        monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert cli.main(["run", "released", "--data", "x", *(["--backend", "jax"] if how == "option" else [])]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {'--backend' if how == 'option' else 'KERAS_BACKEND'} jax is not installed")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("installed", "option", "variable", "expected"),
    [
        (("tensorflow", "jax"), None, "", "tensorflow"),
        (("jax",), None, "", "jax"),
        (("tensorflow", "jax"), None, "jax", "jax"),
        (("tensorflow", "jax"), "tensorflow", "jax", "tensorflow"),
        (("tensorflow", "jax"), "jax", "torch", "jax"),
    ],
)
def test_backend_is_the_option_then_the_variable_then_an_installed_one(
    without_keras, monkeypatch, installed, option, variable, expected
):
    monkeypatch.setattr(cli, "_is_installed", lambda module: module in installed)
    monkeypatch.setenv("KERAS_BACKEND", variable)
    cli._choose_backend(option)
    assert os.environ["KERAS_BACKEND"] == expected


@pytest.mark.parametrize(
    "script",
    ["$P 2>&1 | true", *(pytest.param(one, marks=pytest.mark.slow) for one in ("$P | true", "$P 2>&- | true"))],
)
def test_run_whose_reader_has_ended_fails_before_it_trains(leaf_folder, tmp_path, script):
    program = [sys.executable, "-m", "training", "run", "scratch_vgg", "--data", str(leaf_folder)]
    program += ["--out", str(tmp_path / "run"), "--backbone-weights", "none"]
    lines = f"set -o pipefail; {script.replace('$P', shlex.join(program))}"
    done = subprocess.run(["bash", "-c", lines], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 2
    assert not (tmp_path / "run" / "metrics.json").exists()
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == (1 if script == "$P | true" else 0)
    assert "disk" not in "".join(errors)
    assert "Traceback" not in done.stderr
