"""Recipes as JSON, and the records of earlier versions."""

import dataclasses
import json

import pytest
from helpers import change

from common.errors import UserError
from training.config.recipe import Finetune, Recipe
from training.config.record import RENAMED, SECTIONS, from_json, to_json, upgrade
from training.data.augment import cut_mix, mix_up
from training.data.balance import smote
from training.data.pipeline import folder_batches
from training.fit.schedules import constant
from training.model.backbones import inception_v3_small_init, vgg19
from training.model.trainable import All, FirstLast, ParameterBudget

pytestmark = pytest.mark.unit
RECIPE = Recipe()


def test_json_has_every_field_as_a_plain_value():
    recipe = change(RECIPE, trainable=FirstLast(3, 4), class_repeats={"Species1": 2})
    plain = to_json(recipe)
    assert json.loads(json.dumps(plain)) == plain
    assert plain.keys() == {field.name for field in dataclasses.fields(Recipe)}
    for name, section in SECTIONS.items():
        assert plain[name].keys() == {field.name for field in dataclasses.fields(section)}
    assert plain["finetune"]["backbone"] == "inception_v3"
    assert plain["finetune"]["trainable"] == {"name": "FirstLast", "first": 3, "last": 4}
    assert plain["augmentation"]["transforms"]["rotation"] == 20.0
    assert plain["finetune"]["resolution_schedule"] == [[10, 96]]
    assert plain["data"]["resampling"] == "natural"
    assert plain["data"]["pipeline"] == "array_batches"
    assert plain["finetune"]["schedule"] == "cosine"
    assert plain != to_json(RECIPE)


@pytest.mark.parametrize(
    ("section", "field", "value", "plain"),
    [
        ("finetune", "batch_augmentations", (cut_mix, mix_up), ["cut_mix", "mix_up"]),
        ("augmentation", "precomputed", ((("a",), 2),), [[["a"], 2]]),
        ("finetune", "trainable", All(), {"name": "All"}),
        ("finetune", "trainable", ParameterBudget(3), {"name": "ParameterBudget", "parameters": 3}),
        ("finetune", "init_from", None, None),
    ],
)
def test_json_of_a_field(section, field, value, plain):
    assert to_json(change(RECIPE, **{field: value}))[section][field] == plain


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"trainable": FirstLast(3, 4), "class_repeats": {"Species1": 2}},
        {"trainable": ParameterBudget(6_000_000), "dense_units": (64, 32), "backbone": vgg19},
        {"batch_augmentations": (cut_mix, mix_up), "precomputed": ((("a",), 2), ((), 1)), "resampling": smote},
        {"schedule": constant, "warmup_epochs": 0.0, "pipeline": folder_batches},
        {"init_from": Finetune(init_from=Finetune(swa_epochs=2, trainable=FirstLast(1, 2)), batch_size=8)},
        {"tta_transforms": ("none", "left"), "tta_threshold": 0.5, "checkpoint": "last", "seed": 3},
    ],
)
def test_recipe_is_read_as_it_was_written(changes):
    recipe = change(RECIPE, **changes)
    assert from_json(json.loads(json.dumps(to_json(recipe)))) == recipe


def test_missing_fields_have_their_defaults():
    plain = to_json(change(RECIPE, batch_size=8))
    for section, field in (("finetune", "init_from"), ("finetune", "swa_epochs"), ("prediction", "tta_threshold")):
        del plain[section][field]
    del plain["seed"], plain["head"]
    assert from_json(plain) == change(RECIPE, batch_size=8)
    assert from_json({}) == RECIPE


@pytest.mark.parametrize(
    "fields",
    [
        {"finetune": {"batsh_size": 3}},
        {"training": {}},
        {"finetune": {"backbone": "inception_v9"}},
        {"finetune": {"batch_augmentations": ["cut_mix", "sharpen"]}},
        {"finetune": {"trainable": {"first": 3}}},
        {"finetune": {"batch_size": 0}},
        {"finetune": 3},
    ],
)
def test_record_that_cannot_be_read_is_a_user_error(fields):
    with pytest.raises(UserError) as error:
        from_json(fields)
    assert "\n" not in str(error.value)


FLAT = {
    "validation": 0.1,
    "repeats": {"Species1": 2},
    "batch": 16,
    "phases": [[2, 80], [3, 160]],
    "keep": "best",
    "seed": 3,
    "thaw": {"name": "Edges", "first": 3, "last": 4},
    "backbone": "inception_v3_quiet",
    "augmentation": {"name": "Augmentation", "rotation": 45.0},
    "test_flips": ["none", "both"],
    "test_sure": 0.8,
    "head": "softmax",
    "head_features": 64,
    "start": {"validation": 0.1, "phases": [[4, 96]], "backbone": "inception_v3_quiet", "batch": 8, "seed": 3},
}


def test_flat_record_is_read_under_the_new_names():
    recipe = from_json(upgrade(FLAT))
    assert recipe.data.validation_split == 0.1
    assert recipe.data.class_repeats == {"Species1": 2}
    assert recipe.finetune.batch_size == 16
    assert recipe.finetune.resolution_schedule == ((2, 80), (3, 160))
    assert recipe.finetune.trainable == FirstLast(3, 4)
    assert recipe.finetune.backbone is inception_v3_small_init
    assert recipe.finetune.init_from.batch_size == 8
    assert recipe.finetune.earlier_epochs == 4
    assert recipe.augmentation.transforms.rotation == 45.0
    assert recipe.prediction.tta_transforms == ("none", "both")
    assert recipe.prediction.tta_threshold == 0.8
    assert (recipe.head.kind, recipe.head.fourier_features) == ("softmax", 64)
    assert (recipe.checkpoint, recipe.seed) == ("best_val_loss", 3)


@pytest.mark.parametrize(
    ("old", "new"), [("Everything", All()), ("Edges", FirstLast(1, 2)), ("Budget", ParameterBudget(3))]
)
def test_flat_names_of_what_is_trainable_are_read(old, new):
    record = {**FLAT, "thaw": {"name": old, **vars(new)}}
    assert from_json(upgrade(record)).finetune.trainable == new


def test_flat_names_are_those_of_different_fields():
    assert len(set(RENAMED.values())) == len(RENAMED)


@pytest.mark.parametrize(("kind", "share_of_head"), [("quasi_svm", 0.3), ("softmax", 0.0)])
def test_fields_that_moved_to_the_fine_tunings_are_read(kind, share_of_head):
    """Before 2.4, batch augmentations and the share of a teacher held for all fine-tunings of a recipe."""
    earlier = {"learning_rate": 1e-4, "init_from": {"learning_rate": 1e-5, "init_from": None}}
    old = {
        "data": {"teacher_share": 0.3, "split_seed": 2},
        "augmentation": {"batch_augmentations": ["mix_up"], "precomputed": []},
        "finetune": {"learning_rate": 1e-3, "init_from": earlier},
        "head": {"kind": kind},
    }
    recipe = from_json(upgrade(old))
    assert [one.learning_rate for one in recipe.finetune.with_earlier] == [1e-3, 1e-4, 1e-5]
    for one in recipe.finetune.with_earlier:
        assert (one.batch_augmentations, one.teacher_share) == ((mix_up,), 0.3)
    assert (recipe.data.split_seed, recipe.head.teacher_share) == (2, share_of_head)
    assert from_json(upgrade(to_json(recipe))) == recipe


def test_upgrade_does_not_change_a_nested_record():
    plain = to_json(RECIPE)
    assert upgrade(plain) is plain
