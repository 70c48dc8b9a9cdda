"""The base for comparisons on InceptionV3: all layers trained at 96×96 with augmentation, nothing balanced.

Command: python -m training run inception_online --data data/leaves/train
"""

from training.config.recipe import Augmentation, Finetune, Head, Recipe
from training.data.augment import RandomTransforms

recipe = Recipe(
    augmentation=Augmentation(
        transforms=RandomTransforms(
            quarter_turns=True,
            rotation=30.0,
            zoom=0.2,
            brightness=0.25,
            contrast=0.2,
            saturation=0.2,
            tint=0.05,
        ),
    ),
    finetune=Finetune(
        resolution_schedule=((3, 96),),
        learning_rate=3e-4,
        weight_decay=0.05,
        label_smoothing=0.1,
        dropout=0.3,
        dense_dropout=0.3,  # without dense layers, it has no effect
    ),
    head=Head(kind="softmax", learning_rate=1e-3),
)
