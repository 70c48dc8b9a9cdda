"""Strict overrides of a recipe's fields, from the command line and from Python."""

import dataclasses
from functools import reduce

import pytest

from common.errors import UserError
from training.config.override import change, field_names, in_bfloat16, override
from training.config.recipe import SOFTMAX, Finetune, Head, Recipe
from training.config.record import RENAMED
from training.data.augment import NO_TRANSFORMS
from training.fit.schedules import constant
from training.model.backbones import scratch_resnet, scratch_vgg
from training.model.trainable import All, FirstLast, ParameterBudget

pytestmark = pytest.mark.unit
RECIPE = Recipe()


def value_of(recipe, name):
    return reduce(getattr, name.split("."), recipe)


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("finetune.batch_size=16", "finetune.batch_size", 16),
        (" finetune.batch_size = 16 ", "finetune.batch_size", 16),
        ("head.batch_size=16", "head.batch_size", 16),
        ("finetune.learning_rate=1", "finetune.learning_rate", 1.0),
        ("finetune.learning_rate=3e-4", "finetune.learning_rate", 3e-4),
        ("finetune.train_batch_norm=False", "finetune.train_batch_norm", False),
        ("finetune.precision=mixed_bfloat16", "finetune.precision", "mixed_bfloat16"),
        ("finetune.precision='mixed_float16'", "finetune.precision", "mixed_float16"),
        ("finetune.resolution_schedule=((5, 96),)", "finetune.resolution_schedule", ((5, 96),)),
        ("finetune.resolution_schedule=((2, 75), (3, 150))", "finetune.resolution_schedule", ((2, 75), (3, 150))),
        ("finetune.resolution_schedule=((0, 96), (10, 128))", "finetune.resolution_schedule", ((0, 96), (10, 128))),
        ("data.class_repeats={'Species1': 2}", "data.class_repeats", {"Species1": 2}),
        ("finetune.trainable=FirstLast(15, 15)", "finetune.trainable", FirstLast(15, 15)),
        ("finetune.trainable=FirstLast(first=1, last=2)", "finetune.trainable", FirstLast(1, 2)),
        ("finetune.trainable=ParameterBudget(6_000_000)", "finetune.trainable", ParameterBudget(6_000_000)),
        ("finetune.trainable=All()", "finetune.trainable", All()),
        ("finetune.dense_units=(64, 32)", "finetune.dense_units", (64, 32)),
        ("augmentation.precomputed=((('a', 'b'), 1), ((), 3))", "augmentation.precomputed", ((("a", "b"), 1), ((), 3))),
        ("data.class_weights=True", "data.class_weights", True),
        ("head.kind=softmax", "head.kind", "softmax"),
        ("augmentation.precomputed_transforms.rotation=5", "augmentation.precomputed_transforms.rotation", 5.0),
        ("augmentation.transforms.rotation=45", "augmentation.transforms.rotation", 45.0),
        ("augmentation.transforms.quarter_turns=True", "augmentation.transforms.quarter_turns", True),
        ("prediction.tta_transforms=('none', 'both')", "prediction.tta_transforms", ("none", "both")),
        ("seed=3", "seed", 3),
    ],
)
def test_setting_changes_its_field_and_no_other(setting, field, value):
    changed = override(RECIPE, [setting])
    assert value_of(changed, field) == value
    assert type(value_of(changed, field)) is type(value)
    others = [name for name in field_names(RECIPE) if name != field]
    assert [value_of(changed, name) for name in others] == [value_of(RECIPE, name) for name in others]
    assert change(RECIPE, {field: value}) == changed


def test_bfloat16_replaces_float32_everywhere():
    first = Finetune(precision="mixed_float16")
    changed = in_bfloat16(Recipe(finetune=Finetune(init_from=first), head=Head(kind=SOFTMAX)))
    assert changed.finetune.precision == "mixed_bfloat16"
    assert changed.finetune.init_from == first
    assert changed.head.feature_precision == "float32"  # it has no cached features
    cached = in_bfloat16(Recipe())
    assert (cached.finetune.precision, cached.head.feature_precision) == ("mixed_bfloat16", "bfloat16")
    assert in_bfloat16(cached) == cached


@pytest.mark.parametrize("backbone", [scratch_vgg, scratch_resnet])
def test_networks_with_few_channels_stay_in_float32(backbone):
    small = Recipe(finetune=Finetune(backbone=backbone))
    assert in_bfloat16(small) == small


def test_settings_add_up_and_the_last_one_of_a_field_is_used():
    settings = ["transforms.zoom=0.5", "transforms.shift=0.3"]
    changed = override(
        RECIPE,
        [*(f"augmentation.{setting}" for setting in settings), "finetune.batch_size=8", "finetune.batch_size=4"],
    )
    assert (changed.augmentation.transforms.zoom, changed.augmentation.transforms.shift) == (0.5, 0.3)
    assert changed.finetune.batch_size == 4
    assert Recipe() == RECIPE


def test_settings_are_checked_together_and_in_any_order():
    settings = [
        "finetune.swa_epochs=2",
        "checkpoint=last",
        "augmentation.transforms.zoom=0.3",
        "augmentation.transforms.rotation=45",
    ]
    for order in (settings, settings[::-1]):
        made = override(RECIPE, order)
        assert (made.finetune.swa_epochs, made.checkpoint) == (2, "last")
        assert (made.augmentation.transforms.zoom, made.augmentation.transforms.rotation) == (0.3, 45.0)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("finetune.batsh_size=16", "finetune.batch_size"),
        ("finetune.lerning_rate=1", "finetune.learning_rate"),
        ("lerning_rate=1", "finetune.learning_rate"),
        ("augmentation.transforms.rotate=5", "augmentation.transforms.rotation"),
        ("qqq=1", "data.validation_split, data.split_seed, data.folds"),
        ("finetune.head_warmup_epoch=1", "finetune.head_warmup_epochs"),
        ("head.fourier_feature=1", "head.fourier_features"),
        ("=5", "no field"),
        ("augmentation.=5", "no field"),
        ("finetune.batch_size", "field=value"),
        ("finetune.batch_size.x=5", "no field finetune.batch_size.x"),
        ("augmentation.transforms.rotation.x=5", "no field augmentation.transforms.rotation.x"),
        ("finetune.trainable.first=3", "no field finetune.trainable.first"),
        ("finetune.init_from.batch_size=8", "no field finetune.init_from.batch_size"),
    ],
)
def test_unknown_field_is_refused_with_the_near_ones(setting, named):
    with pytest.raises(UserError, match=named) as error:
        override(RECIPE, [setting])
    assert setting in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("old", sorted(set(RENAMED) - {"seed", "head", "augmentation"}))
def test_flat_name_of_an_earlier_version_is_answered_with_the_new_one(old):
    with pytest.raises(UserError, match=rf"--set {old}=1: .*now called {RENAMED[old]}$"):
        override(RECIPE, [f"{old}=1"])


def test_batch_is_now_called_finetune_batch_size():
    with pytest.raises(UserError, match="batch is now called finetune.batch_size"):
        override(RECIPE, ["batch=16"])


def test_every_flat_name_leads_to_an_existing_field():
    groups = {"augmentation.transforms", "augmentation.precomputed_transforms", "finetune.init_from"}
    assert set(RENAMED.values()) <= {*field_names(RECIPE), *groups}


@pytest.mark.parametrize("section", ["data", "augmentation", "augmentation.transforms", "finetune", "head"])
def test_section_is_refused_with_its_fields(section):
    inner = [name for name in field_names(RECIPE) if name.startswith(f"{section}.")]
    with pytest.raises(UserError, match=f"--set {section}=3: .*{', '.join(inner)}"):
        override(RECIPE, [f"{section}=3"])


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("batch_size", "finetune.batch_size, head.batch_size"),
        ("epochs", "head.epochs"),
        ("views", "head.views"),
        ("kind", "head.kind"),
        ("swa_epochs", "finetune.swa_epochs"),
        ("tta_threshold", "prediction.tta_threshold"),
        ("rotation", "augmentation.transforms.rotation, augmentation.precomputed_transforms.rotation"),
    ],
)
def test_name_without_its_section_is_answered_with_the_full_names(name, fields):
    with pytest.raises(UserError, match=rf"no field {name}; did you mean {fields}\?"):
        override(RECIPE, [f"{name}=16"])


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("finetune.batch_size=16.0", "type int, got float"),
        ("finetune.batch_size='16'", "type int, got str"),
        ("finetune.batch_size=True", "type int, got bool"),
        ("finetune.batch_size=None", "type int, got NoneType"),
        ("finetune.train_batch_norm=1", "type bool, got int"),
        ("finetune.learning_rate=True", "type float, got bool"),
        ("finetune.precision=16", "type str, got int"),
        ("finetune.resolution_schedule=[[5, 96]]", "type tuple, got list"),
        ("data.class_repeats=2", "type dict, got int"),
        ("finetune.trainable=15", "got int"),
        ("data.class_weights=1", "type bool, got int"),
        ("augmentation.precomputed=3", "type tuple, got int"),
        ("finetune.batch_size=ParameterBudget(3)", "type int, got ParameterBudget"),
        ("data.resampling='smote'", "recipe file"),
        ("data.pipeline='folder_batches'", "recipe file"),
        ("finetune.schedule='constant'", "recipe file"),
        ("finetune.backbone='inception_v3'", "recipe file"),
        ("finetune.backbone=inception_v3", "recipe file"),
        ("finetune.init_from=3", "recipe file"),
        ("finetune.learning_rate=fast", "Python literal.*fast"),
        ("finetune.learning_rate=nan", "Python literal.*nan"),
        ("finetune.batch_size=4*4", "Python literal"),
        ("finetune.batch_size=", "Python literal"),
        ("finetune.trainable=FirstLast(15)", "Python literal.*FirstLast"),
        ("finetune.trainable=All", "Python literal.*All"),
        ("finetune.resolution_schedule=open('x')", "Python literal.*open"),
    ],
)
def test_value_of_another_type_is_refused(setting, named):
    with pytest.raises(UserError, match=named) as error:
        override(RECIPE, [setting])
    assert str(error.value).startswith(f"--set {setting}: ")
    assert "\n" not in str(error.value)


def test_setting_of_the_fine_tuning_that_is_continued():
    recipe = change(RECIPE, {"finetune.init_from": Finetune()})
    changed = override(recipe, ["finetune.batch_size=4", "finetune.init_from.batch_size=8"])
    assert (changed.finetune.batch_size, changed.finetune.init_from.batch_size) == (4, 8)
    assert recipe.finetune.init_from.batch_size == Finetune().batch_size


def test_change_replaces_fields_of_all_sections_at_once():
    changes = {
        "data.validation_split": 0.0,
        "augmentation.transforms": NO_TRANSFORMS,
        "augmentation.precomputed_transforms.zoom": 0.5,
        "finetune.schedule": constant,
        "finetune.warmup_epochs": 0.0,
        "head.kind": "softmax",
        "checkpoint": "last",
    }
    changed = change(RECIPE, changes)
    assert {name: value_of(changed, name) for name in changes} == changes
    assert changed.finetune.batch_size == RECIPE.finetune.batch_size
    assert dataclasses.replace(changed.augmentation.precomputed_transforms, zoom=0.15) == (
        RECIPE.augmentation.precomputed_transforms
    )
    assert change(RECIPE, {}) == RECIPE == Recipe()


def test_change_keeps_a_dictionary_whole():
    recipe = change(RECIPE, {"data.class_repeats": {"Species1": 2}})
    assert change(recipe, {"data.class_repeats": {"Species6": 3}}).data.class_repeats == {"Species6": 3}


@pytest.mark.parametrize("name", ["batch_size", "finetune.batsh_size", "training.batch_size"])
def test_change_refuses_an_unknown_field(name):
    with pytest.raises(AttributeError):
        change(RECIPE, {name: 16})


def test_change_refuses_a_value_out_of_range():
    with pytest.raises(UserError, match="finetune.batch_size"):
        change(RECIPE, {"finetune.batch_size": 0})
