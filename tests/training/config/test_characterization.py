"""Every recipe of the version with flat records equals today's recipe of that name under one rename map."""

import json

import pytest
from helpers import ROOT

from training.config.override import in_bfloat16
from training.config.record import RENAMED as RENAMED_FIELDS
from training.config.record import from_json, to_json, upgrade
from training.recipes import RENAMED, load_recipe, recipe_names
from training.recipes.ablations import ABLATIONS

pytestmark = pytest.mark.unit
FLAT = json.loads((ROOT / "tests" / "training" / "config" / "flat_records.json").read_text("utf-8"))
# Comparisons on InceptionV3 after three epochs, and earlier models of the released recipe, whose runs are in
# results/runs.csv; docs/history.md says how they were made.
DELETED = {
    "inception_class_weights",
    "inception_online",
    "inception_svm_160",
    "inception_svm_192",
    "inception_svm_averaged",
    "inception_svm_averaged_full",
    "inception_svm_mixed",
    "inception_svm_mixed_full",
    "inception_svm_quiet",
    "inception_svm_quiet_full",
}
# Recipes that are now trained to the end.
LONGER = {"scratch_vgg": [[40, 96]], "scratch_resnet": [[40, 96]]}
# Fields of the fine-tuning in which the rows of ablations.py differ, because they have another base now.
REBASED = ("backbone", "thaw", "phases", "learning_rate", "dense", "dense_l2")
RELEASED = ("leaderboard", "leaderboard_full")
KEPT = sorted(set(FLAT) - DELETED)
NEW = {"third_cycle"}  # recipes that the flat records do not have


def common_part(fields, wanted):
    """The fields that a record has, without those that recipes have got since."""
    if not isinstance(wanted, dict):
        return fields
    return {name: common_part(fields[name], value) for name, value in wanted.items()}


def earlier_epochs(flat):
    start = flat["start"]
    return sum(epochs for epochs, _ in start["phases"]) + earlier_epochs(start) if start else 0


def test_every_recipe_is_compared():
    assert {RENAMED.get(name, name) for name in KEPT} | NEW == set(recipe_names())


@pytest.mark.parametrize("name", KEPT)
def test_recipe_equals_its_flat_record(name):
    recipe = load_recipe(RENAMED.get(name, name))
    flat = {**FLAT[name], "phases": LONGER.get(name, FLAT[name]["phases"])}
    if name in RELEASED:
        flat["head_views"] = 0  # instead of 4
    if name in ABLATIONS:
        flat = {key: value for key, value in flat.items() if key not in REBASED}
    upgraded = upgrade(flat)
    for field in REBASED if name in ABLATIONS else ():
        inner = RENAMED_FIELDS[field].partition(".")[2]
        upgraded["finetune"][inner] = json.loads(json.dumps(to_json(recipe)["finetune"][inner]))
    found = from_json(upgraded)
    if name in RELEASED:  # `run` chooses the precision now, not the recipe
        found, recipe = in_bfloat16(found), in_bfloat16(recipe)
    assert found == recipe
    assert common_part(json.loads(json.dumps(to_json(recipe))), upgraded) == upgraded


@pytest.mark.parametrize("name", sorted(DELETED))
def test_record_of_an_earlier_model_is_read(name):
    recipe = from_json(upgrade(FLAT[name]))
    flat = FLAT[name]
    assert recipe.finetune.resolution_schedule == tuple(map(tuple, flat["phases"]))
    assert recipe.finetune.swa_epochs == flat["averaged_epochs"]
    assert recipe.head.fourier_features == flat["head_features"]
    assert recipe.prediction.tta_transforms == tuple(flat["test_flips"])
    assert recipe.finetune.earlier_epochs == earlier_epochs(flat)


def test_a_record_of_this_version_is_not_changed_by_the_upgrade():
    fields = to_json(load_recipe("released"))
    assert upgrade(fields) is fields
    assert from_json(json.loads(json.dumps(fields))) == load_recipe("released")
