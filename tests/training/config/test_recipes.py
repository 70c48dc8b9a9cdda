"""The recipes: names, summaries, and that variants differ from their base only in what they name."""

import ast
import dataclasses

import pytest
from helpers import ROOT

from common.errors import UserError
from training.config.recipe import Recipe
from training.config.record import from_json, to_json
from training.data.augment import NO_TRANSFORMS, cut_mix, mix_up, rand_augment
from training.data.balance import natural, oversample, smote, svmsmote, undersample
from training.data.pipeline import array_batches, folder_batches
from training.predict import TTA_TRANSFORMS
from training.recipes import load_recipe, recipe_names, recipe_summary
from training.recipes.ablations import ABLATIONS

pytestmark = pytest.mark.unit
FOLDER = ROOT / "training" / "recipes"
FILES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "ablations"))


def test_names_are_those_of_the_files_and_of_the_table():
    assert recipe_names() == sorted([*FILES, *ABLATIONS])
    assert len(set(recipe_names())) == len(recipe_names())


def test_unknown_recipe_is_refused_with_the_near_ones():
    with pytest.raises(UserError, match="inception_smv.*inception_svm"):
        load_recipe("inception_smv")
    with pytest.raises(UserError, match="no recipe qqq.*class_weights.*vgg19"):
        load_recipe("qqq")


@pytest.mark.parametrize(("old", "new"), [("leaderboard", "released"), ("leaderboard_full", "released_full")])
def test_old_name_of_a_recipe_is_answered_with_the_new_one(old, new):
    with pytest.raises(UserError, match=f"{old} is now called {new}$"):
        load_recipe(old)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_built_and_has_a_summary(name):
    recipe = load_recipe(name)
    assert isinstance(recipe, Recipe)
    assert from_json(to_json(recipe)) == dataclasses.replace(recipe) == recipe
    assert len(recipe_summary(name)) > 15
    assert recipe_summary(name).endswith(".")
    assert "\n" not in recipe_summary(name)


@pytest.mark.parametrize("name", FILES)
def test_docstring_of_a_recipe_begins_with_its_summary_and_gives_its_command(name):
    docstring = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text("utf-8")))
    assert docstring.splitlines()[0] == recipe_summary(name)
    assert f"python -m training run {name} --data data/leaves/train" in docstring


def differences(name, base):
    """Full names of the fields in which two recipes differ."""
    one, other, found = load_recipe(name), load_recipe(base), set()
    for field in dataclasses.fields(Recipe):
        part, other_part = getattr(one, field.name), getattr(other, field.name)
        if not dataclasses.is_dataclass(part):
            found |= {field.name} if part != other_part else set()
            continue
        for inner in dataclasses.fields(part):
            if getattr(part, inner.name) != getattr(other_part, inner.name):
                found.add(f"{field.name}.{inner.name}")
    return found


SCHEDULE = "finetune.resolution_schedule"
TRANSFORMS, PRECOMPUTED = "augmentation.transforms", "augmentation.precomputed"
BATCH = "finetune.batch_augmentations"
DIFFERENCES = {
    ("inception_svm", "inception_more"): {"head.kind"},
    ("inception_svm_full", "inception_svm"): {"data.validation_split"},
    ("inception_decay", "inception_more"): {"finetune.schedule", "finetune.warmup_epochs"},
    ("inception_multi_gpu", "inception_edges"): {"finetune.replicas"},
    ("scratch_resnet", "scratch_vgg"): {"finetune.backbone"},
    ("class_weights", "online"): {"data.class_weights"},
    ("concat", "online"): {"data.class_repeats", SCHEDULE},
    ("oversample", "online"): {"data.resampling", SCHEDULE},
    ("undersample", "online"): {"data.resampling", SCHEDULE},
    ("smote", "online"): {"data.resampling", SCHEDULE},
    ("svmsmote", "online"): {"data.resampling", SCHEDULE},
    ("offline", "online"): {PRECOMPUTED, TRANSFORMS, SCHEDULE},
    ("selective", "online"): {PRECOMPUTED, TRANSFORMS, SCHEDULE},
    ("randaug", "online"): {TRANSFORMS, BATCH},
    ("cutmix", "online"): {BATCH},
    ("mixup", "online"): {BATCH},
    ("randaug_cutmix_mixup", "randaug"): {BATCH},
    ("folders", "online"): {"data.pipeline"},
    ("released_full", "released"): {"data.validation_split"},
    ("third_cycle", "released"): {"finetune.init_from", "finetune.learning_rate", SCHEDULE, BATCH},
}


@pytest.mark.parametrize(("pair", "fields"), DIFFERENCES.items(), ids=["-".join(pair) for pair in DIFFERENCES])
def test_variant_differs_only_in_what_it_names(pair, fields):
    assert differences(*pair) == fields


def test_every_row_of_the_table_is_compared_with_the_base():
    assert {name for name, _ in DIFFERENCES} >= set(ABLATIONS) - {"online"}


def test_variants_are_what_their_names_say():
    resampling = {
        name: load_recipe(name).data.resampling for name in ("oversample", "undersample", "smote", "svmsmote")
    }
    assert resampling == {
        "oversample": oversample,
        "undersample": undersample,
        "smote": smote,
        "svmsmote": svmsmote,
    }
    assert load_recipe("online").data.resampling is natural
    mixing = {"randaug": (rand_augment,), "cutmix": (cut_mix,), "mixup": (mix_up,)}
    assert {name: load_recipe(name).finetune.batch_augmentations for name in mixing} == mixing
    assert load_recipe("randaug_cutmix_mixup").finetune.batch_augmentations == (rand_augment, cut_mix, mix_up)
    assert load_recipe("folders").data.pipeline is folder_batches
    assert load_recipe("online").data.pipeline is array_batches
    assert load_recipe("class_weights").data.class_weights
    for name in ("offline", "selective", "scratch_vgg"):
        assert (
            load_recipe(name).augmentation.transforms == NO_TRANSFORMS != load_recipe("online").augmentation.transforms
        )


def test_released_continues_a_fine_tuning_and_averages_epochs_of_one_size():
    recipe = load_recipe("released")
    first, second = recipe.finetune.init_from, recipe.finetune
    assert first.init_from is None
    assert second.input_size == first.input_size
    assert second.learning_rate < first.learning_rate
    for tune in (first, second):
        assert 1 < tune.swa_epochs <= tune.resolution_schedule[-1][0]
        sizes = [size for _, size in tune.resolution_schedule]
        assert sizes == sorted(set(sizes)) and tune.input_size == sizes[-1]
    assert recipe.checkpoint == "last"
    assert recipe.finetune.batch_augmentations == (mix_up,)
    assert recipe.prediction.tta_transforms == tuple(TTA_TRANSFORMS)
    assert 0.5 < recipe.prediction.tta_threshold < 1


def test_full_recipes_hold_nothing_out():
    for name in ("released_full", "inception_svm_full"):
        assert load_recipe(name).data.validation_split == 0.0
