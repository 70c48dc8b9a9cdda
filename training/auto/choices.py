"""The recipes of `training.auto`, and the values that it tries."""

from dataclasses import replace

import numpy as np

from training.config.recipe import LINEAR, QUASI_SVM, SOFTMAX, Augmentation, Data, Finetune, Head, Prediction, Recipe
from training.data.augment import NO_TRANSFORMS, RandomTransforms
from training.fit.schedules import cosine_to_tenth
from training.model.backbones import inception_v3_frozen, inception_v3_small_init

INPUT_SIZE = 192  # pixels
LARGE_SIZE = 256  # pixels, tried on images that are at least that large
SMALL_SIZE = 128  # pixels, at which a fine-tuning begins that has little time
LAST_SHARE = 1 / 3  # of the epochs of a fine-tuning that ends at a larger size than it begins
FEW_EPOCHS = 4  # at INPUT_SIZE: with less time a fine-tuning begins smaller
MANY_EPOCHS = 10  # with more time it may end larger
MAX_EPOCHS = 80
FROZEN_BACKBONE, BACKBONE = inception_v3_frozen, inception_v3_small_init
LAYERS = ("mixed7", "mixed8", "mixed10")
LAYER_SETS: tuple[tuple[str, ...], ...] = (("mixed8", "mixed10"), ("mixed7", "mixed10"), LAYERS)
STRENGTHS = (0.01, 0.003, 0.03)  # head.c of the linear head; the first is used while the layers are selected
KERNEL_SCALES = (1.0, 3.0)  # head.kernel_scale of the quasi-SVM
SOFTMAX_SHARES = (0.0, 0.5)  # head.softmax_share of a head on the fine-tuned backbone
MAX_REPEATS = 3  # of each image of a rare class
MIRRORED = ("none", "horizontal")
TURNED = (*MIRRORED, "vertical", "both")
TRANSFORMS = RandomTransforms(
    vertical_flips=False, rotation=10.0, zoom=0.15, shift=0.08, brightness=0.2, contrast=0.2, saturation=0.2
)
TURNING = replace(TRANSFORMS, vertical_flips=True, quarter_turns=True, rotation=20.0)


def class_repeats(names: tuple[str, ...], counts: np.ndarray) -> dict[str, int]:
    """How often the images of rare classes are repeated: round(sqrt(largest class / class)), at most `MAX_REPEATS`.

    Args:
        names: class names.
        counts: number of training images of each class.
    """
    repeats = np.minimum(MAX_REPEATS, np.sqrt(counts.max() / np.maximum(counts, 1)).round()).astype(int)
    return {name: int(count) for name, count in zip(names, repeats, strict=True) if count > 1}


def base_recipe(repeats: dict[str, int], precision: str) -> Recipe:
    """What all steps share.

    Args:
        repeats: see `class_repeats`.
        precision: "float32" or "bfloat16", see `training.fit.precision.fastest`.
    """
    return Recipe(
        data=Data(class_repeats=repeats),
        augmentation=Augmentation(transforms=NO_TRANSFORMS),
        finetune=Finetune(backbone=FROZEN_BACKBONE, resolution_schedule=((0, INPUT_SIZE),), warmup_epochs=0.0),
        head=Head(kind=LINEAR, views=0, c=STRENGTHS[0], feature_precision=precision),
        prediction=Prediction(MIRRORED, precision=precision),
        checkpoint="last",
    )


def quick_heads(base: Recipe, kernels: bool) -> list[Head]:
    """The heads that are tried on features of the pretrained backbone, the base's first, and quasi-SVMs if wanted."""
    heads = [replace(base.head, c=c) for c in STRENGTHS]
    return heads + [replace(base.head, kind=QUASI_SVM, kernel_scale=scale) for scale in KERNEL_SCALES if kernels]


def finetuned_heads(base: Recipe) -> list[Head]:
    """The heads that are tried on the fine-tuned backbone's features, each with the `SOFTMAX_SHARES`."""
    return quick_heads(replace(base, head=replace(base.head, feature_layers=())), kernels=True)


def stages(affordable: float, large: bool) -> tuple[tuple[int, int], ...]:
    """The epochs of a fine-tuning and their input sizes, as `finetune.resolution_schedule` has them.

    Args:
        affordable: number of epochs at `INPUT_SIZE` that fit into the time.
        large: whether a larger input is better.
    """
    first = SMALL_SIZE if affordable < FEW_EPOCHS else INPUT_SIZE
    last = LARGE_SIZE if large and affordable >= MANY_EPOCHS else INPUT_SIZE
    cost = (1 - LAST_SHARE) * relative_cost(first) + LAST_SHARE * relative_cost(last)
    epochs = min(MAX_EPOCHS, int(affordable / cost))
    count = round(LAST_SHARE * epochs)
    if first == last or not count:
        return ((epochs, first),)
    return ((epochs - count, first), (count, last))


def relative_cost(size: int) -> float:
    """The time for an image at an input size, relative to `INPUT_SIZE`: the number of pixels."""
    return (size / INPUT_SIZE) ** 2


def finetuning_recipe(base: Recipe, schedule: tuple[tuple[int, int], ...], turns: bool) -> Recipe:
    """The fine-tuning of the whole backbone under a softmax.

    Args:
        base: see `base_recipe`. Images are mirrored if its test-time augmentation mirrors them.
        schedule: see `stages`.
        turns: whether the images may also be turned by quarter turns.
    """
    epochs = sum(count for count, _ in schedule)
    bfloat16, mirrors = base.head.feature_precision == "bfloat16", base.prediction.tta_transforms == MIRRORED
    return replace(
        base,
        augmentation=Augmentation(transforms=TURNING if turns else replace(TRANSFORMS, flips=mirrors)),
        finetune=Finetune(
            backbone=BACKBONE,
            resolution_schedule=schedule,
            learning_rate=3e-4,
            schedule=cosine_to_tenth,
            warmup_epochs=min(1.0, epochs / 4),
            weight_decay=0.05,
            label_smoothing=0.1,
            dropout=0.3,
            swa_epochs=max(1, epochs // 5),
            precision="mixed_bfloat16" if bfloat16 else "float32",
        ),
        head=Head(kind=SOFTMAX),
        prediction=replace(base.prediction, tta_transforms=TURNED) if turns else base.prediction,
    )
