"""Recipes as JSON, and the records of older runs.

A run's record (`run.json`) holds its recipe. Runs made before recipes were nested have a `recipe.json` with flat
fields; `upgrade` is the one place that knows their names, and the fields that moved to another section since.
"""

import dataclasses
from types import ModuleType
from typing import Any

from common.errors import UserError
from training.config.recipe import QUASI_SVM, Augmentation, Data, Finetune, Head, Prediction, Recipe
from training.data import augment, balance, pipeline
from training.data.augment import RandomTransforms
from training.fit import schedules
from training.model import backbones, trainable

SECTIONS = {"data": Data, "augmentation": Augmentation, "finetune": Finetune, "head": Head, "prediction": Prediction}
# Fields that hold functions, and the modules that define them.
FUNCTIONS: dict[str, ModuleType] = {
    "resampling": balance,
    "pipeline": pipeline,
    "batch_augmentations": augment,
    "backbone": backbones,
    "schedule": schedules,
}

# Flat field of earlier versions → nested field.
RENAMED = {
    "validation": "data.validation_split",
    "split_seed": "data.split_seed",
    "folds": "data.folds",
    "fold": "data.fold",
    "resampling": "data.resampling",
    "repeats": "data.class_repeats",
    "class_weights": "data.class_weights",
    "pipeline": "data.pipeline",
    "augmentation": "augmentation.transforms",
    "offline": "augmentation.precomputed",
    "offline_augmentation": "augmentation.precomputed_transforms",
    "layers": "finetune.batch_augmentations",
    "start": "finetune.init_from",
    "backbone": "finetune.backbone",
    "frozen_epochs": "finetune.head_warmup_epochs",
    "frozen_learning_rate": "finetune.head_warmup_learning_rate",
    "thaw": "finetune.trainable",
    "batch_norm": "finetune.train_batch_norm",
    "phases": "finetune.resolution_schedule",
    "learning_rate": "finetune.learning_rate",
    "schedule": "finetune.schedule",
    "warmup": "finetune.warmup_epochs",
    "weight_decay": "finetune.weight_decay",
    "label_smoothing": "finetune.label_smoothing",
    "dense": "finetune.dense_units",
    "activation": "finetune.activation",
    "dense_l2": "finetune.dense_l2",
    "dropout": "finetune.dropout",
    "dense_dropout": "finetune.dense_dropout",
    "averaged_epochs": "finetune.swa_epochs",
    "batch": "finetune.batch_size",
    "precision": "finetune.precision",
    "replicas": "finetune.replicas",
    "head": "head.kind",
    "head_views": "head.views",
    "head_epochs": "head.epochs",
    "head_learning_rate": "head.learning_rate",
    "head_kernel": "head.kernel",
    "head_features": "head.fourier_features",
    "head_scale": "head.kernel_scale",
    "head_common_scale": "head.shared_feature_scale",
    "head_logit_adjustment": "head.logit_adjustment",
    "head_dropout": "head.dropout",
    "head_l2": "head.l2",
    "head_batch": "head.batch_size",
    "test_flips": "prediction.tta_transforms",
    "test_sure": "prediction.tta_threshold",
    "keep": "checkpoint",
    "seed": "seed",
}
RENAMED_VALUES = {
    "best": "best_val_loss",
    "inception_v3_quiet": "inception_v3_small_init",
    "Everything": "All",
    "Edges": "FirstLast",
    "Budget": "ParameterBudget",
}


def to_json(recipe: Recipe) -> dict:
    """A recipe as plain values; functions by their name."""
    return _plain(recipe)


def from_json(fields: dict) -> Recipe:
    """The recipe of a record. Fields that are missing have their defaults.

    Raises:
        UserError: an unknown field or function, or a value out of range.
    """
    try:
        sections = {
            name: _decoded(SECTIONS[name], value) if name in SECTIONS else value for name, value in fields.items()
        }
        return Recipe(**sections)
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"the record's recipe cannot be read ({error}); it may be from a newer version") from error


def upgrade(fields: dict) -> dict:
    """A recipe's fields of an earlier version as those of this one; fields of this version are returned unchanged."""
    if "validation" in fields or "phases" in fields:
        fields = _nested(fields)
    return _moved(fields)


def _moved(fields: dict) -> dict:
    """Before 2.4, two choices of the fine-tunings were in other sections, and one was also the head's."""
    data, augmentation, head = (dict(fields.get(name, {})) for name in ("data", "augmentation", "head"))
    moved = {}
    if "batch_augmentations" in augmentation:
        moved["batch_augmentations"] = augmentation.pop("batch_augmentations")
    if "teacher_share" in data:
        moved["teacher_share"] = data.pop("teacher_share")
        if head.get("kind", QUASI_SVM) == QUASI_SVM:
            head["teacher_share"] = moved["teacher_share"]
    if not moved:
        return fields
    finetune = _with_each(fields.get("finetune", {}), moved)
    return {**fields, "data": data, "augmentation": augmentation, "finetune": finetune, "head": head}


def _with_each(finetune: dict, moved: dict) -> dict:
    """A fine-tuning's fields with those that moved, and the same for those before it."""
    earlier = finetune.get("init_from")
    return {**finetune, **moved, "init_from": _with_each(earlier, moved) if earlier else None}


def _nested(fields: dict) -> dict:
    """The sections of a recipe from the flat fields of the first versions."""
    nested: dict[str, Any] = {name: {} for name in SECTIONS}
    for name, value in fields.items():
        if name not in RENAMED:
            continue
        section, dot, inner = RENAMED[name].partition(".")
        if dot:
            nested[section][inner] = _upgraded(name, value)
        else:
            nested[section] = _upgraded(name, value)
    return nested


def _upgraded(name: str, value: Any) -> Any:
    if name == "start":
        return upgrade(value)["finetune"] if value else None
    if name in ("augmentation", "offline_augmentation"):
        return {key: number for key, number in value.items() if key != "name"}
    if name == "thaw":
        return {**value, "name": RENAMED_VALUES[value["name"]]}
    if name in ("keep", "backbone"):
        return RENAMED_VALUES.get(value, value)
    return value


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        name = {"name": type(value).__name__} if isinstance(value, trainable.CHOICES) else {}
        return {**name, **{f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}}
    if callable(value):
        return value.__name__
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    return value


def _decoded(kind: Any, fields: dict) -> Any:
    """A section of a recipe from its plain values."""
    return kind(**{name: _decoded_field(name, value) for name, value in fields.items()})


def _decoded_field(name: str, value: Any) -> Any:
    if name in FUNCTIONS:
        module = FUNCTIONS[name]
        return tuple(getattr(module, one) for one in value) if isinstance(value, list) else getattr(module, value)
    if name == "init_from":
        return _decoded(Finetune, value) if value else None
    if name in ("transforms", "precomputed_transforms"):
        return RandomTransforms(**value)
    if name == "trainable":
        return getattr(trainable, value["name"])(**{key: number for key, number in value.items() if key != "name"})
    return _tuples(value)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
