"""Recipes: every one makes sense and keeps its docstring's word, and overrides are strict."""

import dataclasses
import importlib
import json

import numpy as np
import pytest

from training.__main__ import load_recipe, recipe_names
from training.architectures import vgg19
from training.augment import FLIPS, Augmentation, cut_mix, mix_up, rand_augment
from training.balance import oversample, smote, svmsmote
from training.errors import UserError
from training.pipeline import folder_batches
from training.recipe import Recipe, override
from training.schedules import constant, cosine_to_tenth, exponential
from training.thaw import Budget, Edges, Everything, thaw

RECIPE = Recipe()


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("batch=16", "batch", 16),
        (" batch = 16 ", "batch", 16),
        ("learning_rate=1", "learning_rate", 1.0),
        ("learning_rate=3e-4", "learning_rate", 3e-4),
        ("batch_norm=False", "batch_norm", False),
        ("precision=mixed_bfloat16", "precision", "mixed_bfloat16"),
        ("precision='mixed_float16'", "precision", "mixed_float16"),
        ("phases=((5, 96),)", "phases", ((5, 96),)),
        ("phases=((2, 75), (3, 150))", "phases", ((2, 75), (3, 150))),
        ("repeats={'Species1': 2}", "repeats", {"Species1": 2}),
        ("thaw=Edges(15, 15)", "thaw", Edges(15, 15)),
        ("dense=(64, 32)", "dense", (64, 32)),
        ("phases=((0, 32), (10, 64))", "phases", ((0, 32), (10, 64))),
        ("offline=((('a', 'b'), 1), ((), 3))", "offline", ((("a", "b"), 1), ((), 3))),
        ("class_weights=True", "class_weights", True),
        ("head=softmax", "head", "softmax"),
        ("offline_augmentation.rotation=5", "offline_augmentation", dataclasses.replace(Augmentation(), rotation=5.0)),
        ("thaw=Budget(6_000_000)", "thaw", Budget(6_000_000)),
        ("thaw=Everything()", "thaw", Everything()),
        ("test_flips=('none', 'both')", "test_flips", ("none", "both")),
        ("augmentation.rotation=45", "augmentation", dataclasses.replace(Augmentation(), rotation=45.0)),
        ("augmentation.quarter_turns=True", "augmentation", dataclasses.replace(Augmentation(), quarter_turns=True)),
    ],
)
def test_a_setting_changes_its_field_and_no_other(setting, field, value):
    changed = override(RECIPE, [setting])
    assert changed == dataclasses.replace(RECIPE, **{field: value})
    assert type(getattr(changed, field)) is type(value)


def test_settings_add_up_and_the_last_one_wins():
    changed = override(RECIPE, ["augmentation.zoom=0.5", "batch=8", "augmentation.shift=0.3", "batch=4"])
    assert (changed.batch, changed.augmentation.zoom, changed.augmentation.shift) == (4, 0.5, 0.3)
    assert Recipe() == RECIPE


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("batsh=16", "batch"),
        ("lerning_rate=1", "learning_rate"),
        ("augmentation.rotate=5", "rotation"),
        ("qqq=1", "validation, split_seed, folds"),
        ("frozen_epoch=1", "frozen_epochs"),
        ("head_feature=1", "head_features"),
        ("=5", "no field"),
        ("augmentation.=5", "no field"),
        ("batch", "field=value"),
        ("batch.x=5", "batch has no fields"),
        ("augmentation.rotation.x=5", "rotation has no fields"),
    ],
)
def test_an_unknown_field_is_refused_with_the_near_ones(setting, named):
    with pytest.raises(UserError, match=named) as error:
        override(RECIPE, [setting])
    assert setting in str(error.value)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("batch=16.0", "expected int, got float"),
        ("batch='16'", "expected int, got str"),
        ("batch=True", "expected int, got bool"),
        ("batch=None", "expected int, got NoneType"),
        ("batch_norm=1", "expected bool, got int"),
        ("learning_rate=True", "expected float, got bool"),
        ("precision=16", "expected str, got int"),
        ("phases=[[5, 96]]", "expected tuple, got list"),
        ("repeats=2", "expected dict, got int"),
        ("thaw=15", "got int"),
        ("resampling='smote'", "recipe file"),
        ("pipeline='folder_batches'", "recipe file"),
        ("schedule='constant'", "recipe file"),
        ("class_weights=1", "expected bool, got int"),
        ("offline=3", "expected tuple, got int"),
        ("batch=Budget(3)", "expected int, got Budget"),
        ("augmentation=3", "expected Augmentation, got int"),
        ("backbone='inception_v3'", "recipe file"),
        ("backbone=inception_v3", "backbone"),
        ("learning_rate=fast", "no Python literal"),
        ("learning_rate=nan", "no Python literal"),
        ("batch=4*4", "no Python literal"),
        ("batch=", "no Python literal"),
        ("thaw=Edges(15)", "Edges"),
        ("thaw=Everything", "Everything"),
        ("phases=open('x')", "no Python literal"),
    ],
)
def test_a_value_of_another_kind_is_refused(setting, named):
    with pytest.raises(UserError, match=named):
        override(RECIPE, [setting])


@pytest.mark.parametrize(
    "setting",
    [
        "validation=1.0",
        "validation=-0.1",
        "phases=()",
        "phases=((5, 31),)",
        "phases=((-1, 96),)",
        "phases=((True, 96),)",
        "phases=((1, 96), (0, 31))",
        "phases=((5, 96, 1),)",
        "phases=(5, 96)",
        "phases=(('five', 96),)",
        "phases=((5, '96'),)",
        "phases=((1.5, 96),)",
        "phases=((5, 96.5),)",
        "repeats={'Species1': 0}",
        "repeats={'Species1': 1.5}",
        "repeats={'Species1': 'twice'}",
        "learning_rate=0",
        "learning_rate=1e999",
        "head_learning_rate=-1",
        "warmup=11",
        "warmup=-1",
        "weight_decay=-0.1",
        "label_smoothing=1",
        "dropout=1",
        "head_dropout=-0.1",
        "head_l2=-1",
        "head_logit_adjustment=-1",
        "head_scale=0",
        "head_kernel=polynomial",
        "head_views=0",
        "head_epochs=0",
        "head_features=0",
        "head_batch=0",
        "batch=0",
        "replicas=0",
        "frozen_epochs=-1",
        "frozen_epochs=1.5",
        "frozen_learning_rate=0",
        "split_seed=-1",
        "dense=(0,)",
        "dense=(64, 1.5)",
        "dense=('wide',)",
        "dense_l2=-1",
        "dense_dropout=1",
        "activation=rellu",
        "head=svm",
        "offline=(3,)",
        "offline=((3,),)",
        "offline=(((), 0),)",
        "offline=(((), 1.5),)",
        "offline=(('Species1', 1),)",
        "offline=(((1,), 1),)",
        "offline=(((), 1, 1),)",
        "offline_augmentation.zoom=-0.1",
        "seed=-1",
        "precision=float8",
        "test_sure=1.1",
        "test_sure=-0.1",
        "averaged_epochs=-1",
        "averaged_epochs=1.5",
        "averaged_epochs=99",
        "test_flips=()",
        "test_flips=('slanted',)",
        "test_flips=(['none'],)",
        "thaw=Edges(-1, 5)",
        "thaw=Edges('a', 5)",
        "thaw=Edges(15, 15, last=3)",
        "thaw=Budget('all')",
        "augmentation.rotation=-5",
        "augmentation.zoom=-0.1",
    ],
)
def test_a_recipe_that_makes_no_sense_cannot_be_built(setting):
    field = setting.split("=")[0].split(".")[0]
    with pytest.raises(UserError, match=rf"^(recipe: |--set .*)?{field}=") as error:
        # Without a warm-up, so that none is in the way of fewer epochs.
        override(RECIPE if field == "warmup" else dataclasses.replace(RECIPE, warmup=0.0), [setting])
    assert "\n" not in str(error.value)


def test_settings_must_make_sense_together_and_in_any_order():
    settings = ["averaged_epochs=2", "keep=last", "augmentation.zoom=0.3", "augmentation.rotation=45"]
    for order in (settings, settings[::-1]):
        made = override(RECIPE, order)
        assert (made.averaged_epochs, made.keep, made.augmentation.zoom, made.augmentation.rotation) == (2, "last", 0.3, 45.0)
    with pytest.raises(UserError, match="--set thaw.first=3: thaw is set as a whole already"):
        override(dataclasses.replace(RECIPE, thaw=Edges(1, 1)), ["thaw=Edges(1, 2)", "thaw.first=3"])


FOLDERS = {"pipeline": folder_batches}


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("keep", {"averaged_epochs": 1}),
        ("replicas", {"averaged_epochs": 1, "keep": "last", "replicas": 2}),
        ("class_weights", {"class_weights": True, "layers": (cut_mix,)}),
        ("class_weights", {"class_weights": True, "layers": (rand_augment, mix_up)}),
        ("resampling", {**FOLDERS, "resampling": smote}),
        ("resampling", {**FOLDERS, "resampling": svmsmote}),
        ("offline", {**FOLDERS, "offline": (((), 1),)}),
        ("layers", {**FOLDERS, "layers": (rand_augment,)}),
        ("warmup", {"schedule": exponential}),
        ("warmup", {"schedule": constant, "warmup": 0.5}),
        ("warmup", {"phases": ((2, 96), (1, 96)), "warmup": 3.5}),
        ("batch", {"batch": 9, "replicas": 2}),
        ("head", {"head": "softmax", "phases": ((0, 96),), "warmup": 0.0}),
        ("dense", {"start": dataclasses.replace(RECIPE, dense=(8,))}),
        ("backbone", {"start": dataclasses.replace(RECIPE, backbone=vgg19)}),
    ],
)
def test_fields_that_contradict_each_other_make_no_recipe(field, changes):
    with pytest.raises(UserError, match=f"^recipe: {field}=") as error:
        dataclasses.replace(RECIPE, **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"class_weights": True, "layers": (rand_augment,)},
        {"layers": (rand_augment, cut_mix, mix_up)},
        {**FOLDERS, "resampling": oversample, "class_weights": True},
        {"resampling": smote, "offline": (((), 1),), "layers": (cut_mix,)},
        {"schedule": exponential, "warmup": 0.0},
        {"schedule": cosine_to_tenth},
        {"batch": 8, "replicas": 2},
        {"head": "softmax", "phases": ((0, 96),), "warmup": 0.0, "frozen_epochs": 1},
        {"phases": ((0, 96),), "warmup": 0.0},
        {"phases": ((0, 96), (3, 32)), "warmup": 3.0},
    ],
)
def test_fields_that_do_not_contradict_each_other_make_one(changes):
    dataclasses.replace(RECIPE, **changes)


def test_a_recipe_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPE.batch = 3


def test_epochs_and_size_follow_from_the_phases():
    recipe = dataclasses.replace(RECIPE, phases=((2, 80), (3, 160)))
    assert (recipe.epochs, recipe.size) == (5, 160)
    after = dataclasses.replace(recipe, start=dataclasses.replace(recipe, phases=((4, 96),), start=recipe))
    assert (after.epochs, after.earlier_epochs, after.size) == (5, 9, 160)
    assert dataclasses.replace(after, start=dataclasses.replace(after.start, replicas=2)).most_replicas == 2


def test_a_setting_reaches_into_the_fine_tuning_that_comes_first():
    recipe = dataclasses.replace(RECIPE, start=RECIPE)
    changed = override(recipe, ["start.batch=8", "start.augmentation.rotation=5"])
    assert (changed.batch, changed.start.batch, changed.start.augmentation.rotation) == (RECIPE.batch, 8, 5.0)
    with pytest.raises(UserError, match="start"):
        override(RECIPE, ["start.batch=8"])
    both = dataclasses.replace(recipe, validation=0.1, seed=3, keep="last", folds=4, fold=2)  # one split and one seed for both
    assert [getattr(both.start, name) for name in ("validation", "seed", "keep", "folds", "fold")] == [0.1, 3, "last", 4, 2]
    plain = changed.to_json()
    assert json.loads(json.dumps(plain)) == plain and plain["start"]["batch"] == 8


def test_to_json_is_plain_and_whole():
    recipe = dataclasses.replace(RECIPE, thaw=Edges(3, 4), repeats={"Species1": 2})
    plain = recipe.to_json()
    assert json.loads(json.dumps(plain)) == plain
    assert plain.keys() == {field.name for field in dataclasses.fields(Recipe)}
    assert plain["backbone"] == "inception_v3"
    assert plain["thaw"] == {"name": "Edges", "first": 3, "last": 4}
    assert plain["augmentation"]["rotation"] == 20.0
    assert plain["phases"] == [[10, 96]]
    assert (plain["resampling"], plain["pipeline"], plain["schedule"]) == ("natural", "array_batches", "cosine")
    assert dataclasses.replace(recipe, layers=(cut_mix, mix_up)).to_json()["layers"] == ["cut_mix", "mix_up"]
    assert dataclasses.replace(recipe, offline=((("a",), 2),)).to_json()["offline"] == [[["a"], 2]]
    assert recipe.to_json() != RECIPE.to_json()


def test_an_unknown_recipe_is_refused_with_the_near_ones():
    with pytest.raises(UserError, match="inception_smv.*inception_svm"):
        load_recipe("inception_smv")
    with pytest.raises(UserError, match="no recipe qqq.*class_weights.*vgg19"):
        load_recipe("qqq")


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_built_and_says_what_it_is(name):
    recipe = load_recipe(name)
    assert isinstance(recipe, Recipe)
    assert recipe.to_json() == dataclasses.replace(recipe).to_json()
    assert len(importlib.import_module(f"training.recipes.{name}").__doc__.strip().splitlines()[0]) > 20


def test_inception_svm_fine_tunes_both_ends_within_six_million_parameters(inception):
    recipe = load_recipe("inception_svm")
    count = thaw(inception, recipe.thaw, recipe.batch_norm)
    flags = [bool(layer.trainable_variables) for layer in inception.layers]
    assert 5_000_000 < count <= 6_000_000
    assert any(flags[:15])
    assert any(flags[-15:])
    assert not any(flags[140:180])
    assert recipe.batch_norm
    assert recipe.size == 96
    assert recipe.repeats == {"Species1": 2, "Species6": 2}


def test_inception_svm_192_fine_tunes_everything_on_small_images_first(inception):
    recipe = load_recipe("inception_svm_192")
    assert thaw(inception, recipe.thaw, recipe.batch_norm) == 21_768_352
    sizes = [size for _, size in recipe.phases]
    assert sizes == sorted(set(sizes))
    assert np.all(np.diff(sizes) > 0)
    assert recipe.size == 192


def test_inception_svm_160_goes_on_from_inception_svm_192_and_keeps_its_first_layers(inception):
    recipe = load_recipe("inception_svm_160")
    assert recipe.start == dataclasses.replace(load_recipe("inception_svm_192"), keep="last")  # the held-out part chooses nothing
    assert (recipe.keep, recipe.layers, recipe.earlier_epochs) == ("last", (mix_up,), 24)
    thaw(inception, recipe.thaw, recipe.batch_norm)
    names = [layer.name for layer in inception.layers]
    kept = names.index("mixed2") + 1
    assert not any(layer.trainable for layer in inception.layers[:kept])
    assert all(layer.trainable for layer in inception.layers[kept:])


def test_inception_svm_averaged_averages_all_its_epochs_at_one_learning_rate():
    recipe, before = load_recipe("inception_svm_averaged"), load_recipe("inception_svm_160")
    assert recipe.start == before and recipe.earlier_epochs == before.earlier_epochs + before.epochs
    assert recipe.averaged_epochs == recipe.epochs and recipe.schedule is constant and recipe.keep == "last"
    own = {"start", "phases", "learning_rate", "schedule", "warmup", "averaged_epochs", "test_flips", "test_sure"}
    assert {f.name for f in dataclasses.fields(recipe) if getattr(recipe, f.name) != getattr(before, f.name)} == own
    everything = dataclasses.replace(recipe, validation=0.0)  # holds for all that comes first
    assert everything.start.validation == everything.start.start.validation == 0.0


@pytest.mark.parametrize("name", ["inception_svm_mixed", "inception_svm_quiet"])
def test_one_fine_tuning_whose_mean_is_of_one_size(name):
    recipe = load_recipe(name)
    assert recipe.start is None and recipe.keep == "last" and recipe.layers == (mix_up,)
    assert 1 < recipe.averaged_epochs <= recipe.phases[-1][0]
    sizes = [size for _, size in recipe.phases]
    assert sizes == sorted(set(sizes)) and recipe.size == sizes[-1]
    assert recipe.test_flips == tuple(FLIPS) and 0.5 < recipe.test_sure < 1


def test_leaderboard_goes_on_and_its_mean_is_of_one_size():
    recipe, before = load_recipe("leaderboard"), load_recipe("inception_svm_quiet")
    assert recipe.start == before and recipe.size == before.size and recipe.learning_rate < before.learning_rate
    assert 1 < recipe.averaged_epochs <= recipe.phases[-1][0]
    everything = load_recipe("leaderboard_full")
    assert everything.validation == everything.start.validation == 0.0
