"""Rare classes seen more often, in the training part alone."""

import json
from dataclasses import replace

import numpy as np
import pytest

from training import run
from training.balance import oversample
from training.errors import UserError

LABELS = np.array([0, 1, 2, 0, 1, 2, 2])
NAMES = ("a", "b", "c")


def test_each_image_occurs_as_often_as_asked():
    rows = oversample(LABELS, NAMES, {"a": 3, "c": 2})
    assert np.bincount(rows).tolist() == [3, 1, 2, 3, 1, 2, 2]


def test_nothing_is_repeated_unasked():
    assert np.array_equal(oversample(LABELS, NAMES, {}), np.arange(7))
    assert np.array_equal(oversample(LABELS, NAMES, {"b": 1}), np.arange(7))


def test_an_unknown_class_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="Oak.*a, b, c.*--set repeats="):
        oversample(LABELS, NAMES, {"Oak": 2, "a": 2})


def test_a_run_splits_first_and_repeats_training_rows_only(leaf_folder, tmp_path, small, monkeypatch):
    parts = []

    def finetune(recipe, train, held, backbone_weights, out):
        parts.extend((train, held))
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "finetune", finetune)
    recipe = replace(small, repeats={"Species1": 3})
    with pytest.raises(KeyboardInterrupt):
        run.train(recipe, "small", leaf_folder, "none", tmp_path / "out")
    train, held = parts
    assert np.bincount(held.labels).tolist() == [2, 2, 2]
    assert np.bincount(train.labels).tolist() == [6, 6, 6]
    assert len({*held.paths, *train.paths}) == 24
    rows = oversample(train.labels, train.names, recipe.repeats)
    assert np.bincount(train.labels[rows]).tolist() == [18, 6, 6]
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["recipe"]["repeats"] == {"Species1": 3}
