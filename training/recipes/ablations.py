"""The report's small comparisons: one base and, for each row, what is different.

The base is a small network trained from scratch at 48×48 with augmentation during training and nothing balanced. Rows
with more or fewer images per epoch have as many steps as the base.

Command: python -m training run online smote mixup --seeds 3 --data data/leaves/train
"""

from training.config.override import change
from training.config.recipe import Finetune, Head, Recipe
from training.data.augment import NO_TRANSFORMS, cut_mix, mix_up, rand_augment
from training.data.balance import oversample, smote, svmsmote, undersample
from training.data.pipeline import folder_batches
from training.model.backbones import scratch_vgg

BASE = Recipe(
    finetune=Finetune(
        backbone=scratch_vgg,
        resolution_schedule=((8, 48),),
        learning_rate=3e-3,
        weight_decay=0.01,
        dense_units=(64,),
        dense_l2=1e-4,
    ),
    head=Head(kind="softmax"),
)

PRECOMPUTED, TRANSFORMS = "augmentation.precomputed", "augmentation.transforms"
BATCH, SCHEDULE = "augmentation.batch_augmentations", "finetune.resolution_schedule"
RARE = ("Species1", "Species6")

# name → (what is different from the base, changed fields)
ABLATIONS: dict = {
    "online": ("The base: a new random view of each image in each epoch, nothing balanced.", {}),
    "offline": (
        "Three copies of each image augmented before training, none during it.",
        {PRECOMPUTED: (((), 3),), TRANSFORMS: NO_TRANSFORMS, SCHEDULE: ((2, 48),)},
    ),
    "selective": (
        "Two copies of the rare species' images alone, augmented before training.",
        {PRECOMPUTED: ((RARE, 2),), TRANSFORMS: NO_TRANSFORMS, SCHEDULE: ((7, 48),)},
    ),
    "randaug": (
        "Keras' RandAugment instead of the affine transforms.",
        {TRANSFORMS: NO_TRANSFORMS, BATCH: (rand_augment,)},
    ),
    "cutmix": ("With Keras' CutMix.", {BATCH: (cut_mix,)}),
    "mixup": ("With Keras' MixUp.", {BATCH: (mix_up,)}),
    "randaug_cutmix_mixup": (
        "RandAugment instead of the affine transforms, then CutMix, then MixUp.",
        {TRANSFORMS: NO_TRANSFORMS, BATCH: (rand_augment, cut_mix, mix_up)},
    ),
    "concat": (
        "The rare species' images concatenated once more to the training set.",
        {"data.class_repeats": dict.fromkeys(RARE, 2), SCHEDULE: ((7, 48),)},
    ),
    "class_weights": (
        "scikit-learn's balanced class weights in the loss.",
        {"data.class_weights": True},
    ),
    "oversample": (
        "Images of every species repeated up to the size of the largest one.",
        {"data.resampling": oversample, SCHEDULE: ((7, 48),)},
    ),
    "undersample": (
        "Every species reduced to the size of the smallest one.",
        {"data.resampling": undersample, SCHEDULE: ((19, 48),)},
    ),
    "smote": (
        "The rare species doubled by SMOTE on the pixels.",
        {"data.resampling": smote, SCHEDULE: ((7, 48),)},
    ),
    "svmsmote": (
        "The rare species doubled by SVMSMOTE on the pixels.",
        {"data.resampling": svmsmote, SCHEDULE: ((7, 48),)},
    ),
    "folders": (
        "Fed by ImageDataGenerator.flow_from_directory, which reads and transforms files in Python.",
        {"data.pipeline": folder_batches},
    ),
}


def recipe(name: str) -> Recipe:
    """The recipe of one row."""
    _, changes = ABLATIONS[name]
    return change(BASE, changes)
