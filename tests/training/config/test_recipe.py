"""Recipes: fields that are out of range or contradict each other are refused, and what follows from the fields."""

import dataclasses

import pytest
from helpers import change

from common.errors import UserError
from training.config.override import override
from training.config.recipe import Finetune, Prediction, Recipe
from training.data.augment import RandomTransforms, cut_mix, mix_up, rand_augment
from training.data.balance import oversample, smote, svmsmote
from training.data.pipeline import folder_batches
from training.fit.schedules import constant, cosine_to_tenth, exponential
from training.model.backbones import vgg19

pytestmark = pytest.mark.unit
RECIPE = Recipe()
WITHOUT_WARMUP = change(RECIPE, warmup_epochs=0.0)

OUT_OF_RANGE = [
    "data.validation_split=1.0",
    "data.validation_split=-0.1",
    "data.split_seed=-1",
    "data.folds=-1",
    "data.folds=1",
    "data.fold=-1",
    "data.fold=1",
    "data.class_repeats={'Species1': 0}",
    "data.class_repeats={'Species1': 1.5}",
    "data.class_repeats={'Species1': 'twice'}",
    "data.class_repeats={1: 2}",
    "head.class_bias={0: 0.5}",
    "head.feature_layers=(1,)",
    "head.class_bias={'Species1': 1e999}",
    "head.class_bias={'Species1': True}",
    "head.class_bias={'Species1': 'much'}",
    "augmentation.transforms.rotation=-5",
    "augmentation.transforms.zoom=-0.1",
    "augmentation.precomputed=(3,)",
    "augmentation.precomputed=((3,),)",
    "augmentation.precomputed=(((), 0),)",
    "augmentation.precomputed=(((), 1.5),)",
    "augmentation.precomputed=(('Species1', 1),)",
    "augmentation.precomputed=(((1,), 1),)",
    "augmentation.precomputed=(((), 1, 1),)",
    "augmentation.precomputed_transforms.zoom=-0.1",
    "finetune.resolution_schedule=()",
    "finetune.resolution_schedule=((5, 31),)",
    "finetune.resolution_schedule=((5, 74),)",  # InceptionV3 needs 75 pixels
    "finetune.resolution_schedule=((-1, 96),)",
    "finetune.resolution_schedule=((True, 96),)",
    "finetune.resolution_schedule=((1, 96), (0, 31))",
    "finetune.resolution_schedule=((5, 96, 1),)",
    "finetune.resolution_schedule=(5, 96)",
    "finetune.resolution_schedule=(('five', 96),)",
    "finetune.resolution_schedule=((5, '96'),)",
    "finetune.resolution_schedule=((1.5, 96),)",
    "finetune.resolution_schedule=((5, 96.5),)",
    "finetune.learning_rate=0",
    "finetune.learning_rate=1e999",
    "finetune.warmup_epochs=11",
    "finetune.warmup_epochs=-1",
    "finetune.weight_decay=-0.1",
    "finetune.label_smoothing=1",
    "finetune.dropout=1",
    "finetune.dense_units=(0,)",
    "finetune.dense_units=(64, 1.5)",
    "finetune.dense_units=('wide',)",
    "finetune.dense_l2=-1",
    "finetune.dense_dropout=1",
    "finetune.activation=rellu",
    "finetune.batch_size=0",
    "finetune.replicas=0",
    "finetune.head_warmup_epochs=-1",
    "finetune.head_warmup_epochs=1.5",
    "finetune.head_warmup_learning_rate=0",
    "finetune.precision=float8",
    "finetune.swa_epochs=-1",
    "finetune.batch_augmentations=('mixup',)",
    "finetune.swa_epochs=1.5",
    "finetune.swa_epochs=99",
    "finetune.trainable=FirstLast(-1, 5)",
    "finetune.trainable=FirstLast('a', 5)",
    "finetune.trainable=FirstLast(15, 15, last=3)",
    "finetune.trainable=ParameterBudget('all')",
    "head.kind=svm",
    "head.kernel=polynomial",
    "head.views=-1",
    "head.softmax_share=1.0",
    "head.epochs=0",
    "head.fourier_features=0",
    "head.batch_size=0",
    "head.learning_rate=-1",
    "head.dropout=-0.1",
    "head.l2=-1",
    "head.logit_adjustment=-1",
    "head.kernel_scale=0",
    "prediction.tta_transforms=()",
    "prediction.tta_transforms=('slanted',)",
    "prediction.tta_transforms=(['none'],)",
    "prediction.tta_threshold=1.1",
    "prediction.tta_threshold=-0.1",
    "seed=-1",
    "checkpoint=first",
]


@pytest.mark.parametrize("setting", OUT_OF_RANGE)
def test_value_out_of_range_is_refused_with_its_field(setting):
    field = setting.split("=")[0].removesuffix(".rotation").removesuffix(".zoom")
    # Without a warm-up, so that fewer epochs do not contradict it.
    recipe = RECIPE if field == "finetune.warmup_epochs" else WITHOUT_WARMUP
    with pytest.raises(UserError, match=rf"^(recipe: |--set )?{field}\b") as error:
        override(recipe, [setting])
    assert "\n" not in str(error.value)


FILES = {"pipeline": folder_batches}


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("checkpoint", {"swa_epochs": 1}),
        ("finetune.replicas", {"swa_epochs": 1, "checkpoint": "last", "replicas": 2}),
        ("data.class_weights", {"class_weights": True, "batch_augmentations": (cut_mix,)}),
        ("data.class_weights", {"class_weights": True, "batch_augmentations": (rand_augment, mix_up)}),
        ("data.resampling", {**FILES, "resampling": smote}),
        ("data.resampling", {**FILES, "resampling": svmsmote}),
        ("augmentation.precomputed", {**FILES, "precomputed": (((), 1),)}),
        ("finetune.batch_augmentations", {**FILES, "batch_augmentations": (rand_augment,)}),
        ("augmentation.transforms.quarter_turns", {**FILES, "transforms": RandomTransforms(quarter_turns=True)}),
        ("augmentation.transforms.brightness", {**FILES, "transforms": RandomTransforms(brightness=0.1)}),
        ("augmentation.transforms.tint", {**FILES, "transforms": RandomTransforms(tint=0.1)}),
        ("finetune.warmup_epochs", {"schedule": exponential}),
        ("finetune.warmup_epochs", {"schedule": constant, "warmup_epochs": 0.5}),
        ("finetune.warmup_epochs", {"resolution_schedule": ((2, 96), (1, 96)), "warmup_epochs": 3.5}),
        ("finetune.batch_size", {"batch_size": 9, "replicas": 2}),
        (
            "head.kind",
            {
                "head": dataclasses.replace(RECIPE.head, kind="softmax"),
                "resolution_schedule": ((0, 96),),
                "warmup_epochs": 0.0,
            },
        ),
        ("data.class_weights", {"class_weights": True, "init_from": Finetune(batch_augmentations=(mix_up,))}),
        ("finetune.batch_augmentations", {**FILES, "init_from": Finetune(batch_augmentations=(mix_up,))}),
        ("finetune.dense_units", {"init_from": Finetune(dense_units=(8,))}),
        ("finetune.backbone", {"init_from": Finetune(backbone=vgg19)}),
    ],
)
def test_fields_that_contradict_each_other_are_refused(field, changes):
    with pytest.raises(UserError, match=f"^recipe: {field} must be") as error:
        change(RECIPE, **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"class_weights": True, "batch_augmentations": (rand_augment,)},
        {"batch_augmentations": (rand_augment, cut_mix, mix_up)},
        {**FILES, "resampling": oversample, "class_weights": True},
        {"resampling": smote, "precomputed": (((), 1),), "batch_augmentations": (cut_mix,)},
        {"schedule": exponential, "warmup_epochs": 0.0},
        {"schedule": cosine_to_tenth},
        {"batch_size": 8, "replicas": 2},
        {
            "head": dataclasses.replace(RECIPE.head, kind="softmax"),
            "resolution_schedule": ((0, 96),),
            "warmup_epochs": 0.0,
            "head_warmup_epochs": 1,
        },
        {"resolution_schedule": ((0, 96),), "warmup_epochs": 0.0},
        {"resolution_schedule": ((0, 96), (3, 75)), "warmup_epochs": 3.0},
    ],
)
def test_fields_that_do_not_contradict_each_other_are_accepted(changes):
    change(RECIPE, **changes)


def test_recipe_and_its_sections_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPE.seed = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPE.finetune.batch_size = 3


def test_epochs_input_size_and_replicas_follow_from_the_schedules():
    tune = Finetune(resolution_schedule=((2, 80), (3, 160)))
    assert (tune.epochs, tune.earlier_epochs, tune.input_size) == (5, 0, 160)
    middle = dataclasses.replace(tune, resolution_schedule=((4, 96),), init_from=tune)
    after = dataclasses.replace(tune, init_from=middle)
    assert (after.epochs, after.earlier_epochs, after.input_size) == (5, 9, 160)
    assert after.most_replicas == 1
    assert dataclasses.replace(after, init_from=dataclasses.replace(middle, replicas=2)).most_replicas == 2


@pytest.mark.parametrize("transforms", [("none", "left"), ("diagonal",)])
def test_transforms_that_swap_height_and_width_need_square_images(transforms):
    prediction = Prediction(tta_transforms=transforms)
    prediction.check_image_shape((32, 32, 3))
    with pytest.raises(UserError, match=f"tta_transforms.*{transforms[-1]}.*square.*24×32.*--set"):
        prediction.check_image_shape((24, 32, 3))


def test_transforms_that_keep_height_and_width_need_no_square_images():
    Prediction(tta_transforms=("none", "horizontal", "vertical", "both")).check_image_shape((24, 32, 3))


@pytest.mark.parametrize("other", [{"kind": "softmax"}, {"kind": "linear"}, {"softmax_share": 0.5}])
def test_class_biases_are_those_of_a_quasi_svm_alone(other):
    with pytest.raises(UserError, match="^recipe: head.class_bias must be {} with head"):
        dataclasses.replace(RECIPE.head, class_bias={"Species1": 0.5}, **other)
