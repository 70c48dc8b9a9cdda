"""The report's small comparisons: one base and, for each row, what is different.

The base is InceptionV3 with all layers trained at 96×96, with augmentation during training and nothing balanced. Rows
with more or fewer images per epoch have as many steps as the base.

Command: python -m training run online smote mixup --seeds 3 --data data/leaves/train
"""

from training.config.override import change
from training.config.recipe import Finetune, Head, Recipe
from training.data.augment import NO_TRANSFORMS, cut_mix, mix_up, rand_augment
from training.data.balance import oversample, smote, svmsmote, undersample
from training.data.pipeline import folder_batches
from training.model.backbones import inception_v3_small_init

BASE = Recipe(
    finetune=Finetune(
        backbone=inception_v3_small_init,
        resolution_schedule=((12, 96),),
        learning_rate=3e-4,
        weight_decay=0.01,
    ),
    head=Head(kind="softmax"),
)

PRECOMPUTED, TRANSFORMS = "augmentation.precomputed", "augmentation.transforms"
BATCH, SCHEDULE = "finetune.batch_augmentations", "finetune.resolution_schedule"
RARE = ("Species1", "Species6")

# name → (what is different from the base, changed fields)
ABLATIONS: dict = {
    "online": ("The base: a new random view of each image in each epoch, nothing balanced.", {}),
    "offline": (
        "Three copies of each image augmented before training, none during it.",
        {PRECOMPUTED: (((), 3),), TRANSFORMS: NO_TRANSFORMS, SCHEDULE: ((3, 96),)},
    ),
    "selective": (
        "Two copies of the rare species' images alone, augmented before training.",
        {PRECOMPUTED: ((RARE, 2),), TRANSFORMS: NO_TRANSFORMS, SCHEDULE: ((10, 96),)},
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
        {"data.class_repeats": dict.fromkeys(RARE, 2), SCHEDULE: ((11, 96),)},
    ),
    "class_weights": (
        "scikit-learn's balanced class weights in the loss.",
        {"data.class_weights": True},
    ),
    "oversample": (
        "Images of every species repeated up to the size of the largest one.",
        {"data.resampling": oversample, SCHEDULE: ((10, 96),)},
    ),
    "undersample": (
        "Every species reduced to the size of the smallest one.",
        {"data.resampling": undersample, SCHEDULE: ((29, 96),)},
    ),
    "smote": (
        "The rare species doubled by SMOTE on the pixels.",
        {"data.resampling": smote, SCHEDULE: ((11, 96),)},
    ),
    "svmsmote": (
        "The rare species doubled by SVMSMOTE on the pixels.",
        {"data.resampling": svmsmote, SCHEDULE: ((11, 96),)},
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
