"""benchmarks.accuracy: what it measures is what the run's network says, and what it cannot use it refuses in one line."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import tiny

from benchmarks import accuracy
from competition.drawings import draw_folder
from training import architectures, run
from training.augment import FLIPS
from training.data import load_folder
from training.recipe import Recipe
from training.run import held_out

RECIPE = Recipe(
    validation=0.25, keep="last", backbone=tiny, phases=((1, 32),), batch=8, warmup=0.0, learning_rate=1e-2, head_views=2, head_epochs=2
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("accuracy")
    draw_folder(folder / "leaves", 8, classes=3, side=32)
    run.train(RECIPE, "small", folder / "leaves", "none", folder / "run")
    return folder


def test_its_rows_are_the_network_s(made, tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "load_recipe", lambda name: RECIPE)
    monkeypatch.setattr(architectures, "tiny", tiny, raising=False)
    monkeypatch.setattr(accuracy, "SIZES", (32, 40))
    monkeypatch.setattr(accuracy, "HEADS", {"as it is": {}, "one view": {"head_views": 1}})
    arguments = ["--run", str(made / "run"), "--data", str(made / "leaves"), "--json", str(tmp_path / "a.json")]
    assert accuracy.main([*arguments, "--picture", str(tmp_path / "a.png")]) == 0
    rows = json.loads((tmp_path / "a.json").read_text("utf-8"))["rows"]
    metrics = json.loads((made / "run" / "metrics.json").read_text("utf-8"))
    assert rows["quasi-SVM, 32×32, 1 view"]["accuracy"] == pytest.approx(metrics["accuracy"])
    assert rows["as it is"]["seeds"][0] == pytest.approx(metrics["accuracy"])  # the same head with the same seed
    network, *_ = run.load_network(made / "run")
    held = load_folder(made / "leaves").rows(held_out(RECIPE, load_folder(made / "leaves"))[1])
    answers = run.predict(network, held.images, tuple(FLIPS), 0.9)
    row = rows["quasi-SVM, 32×32, 8 views where at most 90% sure"]
    assert row["accuracy"] == pytest.approx((answers.argmax(axis=1) == held.labels).mean()) and 1 <= row["views"] <= 8
    assert row["log_loss"] == pytest.approx(-np.log(answers[np.arange(len(held)), held.labels]).mean(), rel=1e-4)
    assert len(rows) == 3 * 4 + 4 + 2 and (tmp_path / "a.png").stat().st_size > 1000


def test_what_it_cannot_use_is_refused(made, tmp_path, monkeypatch, capsys):
    draw_folder(tmp_path / "other", 8, classes=3, side=32, seed=4)
    monkeypatch.setattr(accuracy, "load_recipe", lambda name: RECIPE)
    run_folder, data = str(made / "run"), str(made / "leaves")
    for arguments, named in (
        (["--run", str(tmp_path), "--data", data], "no run"),
        (["--run", run_folder, "--data", str(tmp_path / "other")], "other images"),
        (["--run", run_folder, "--data", data, "--seeds", "0"], "--seeds 0"),
        (["--run", run_folder, "--data", data, "--json", str(tmp_path / "no" / "a.json")], "no folder"),
    ):
        assert accuracy.main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and named in error and error.count("\n") == 1
    monkeypatch.setattr(accuracy, "load_recipe", lambda name: replace(RECIPE, keep="best"))
    assert accuracy.main(["--run", run_folder, "--data", data]) == 2
    assert "keep=last" in capsys.readouterr().err
