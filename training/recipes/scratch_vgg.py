"""A small network in the style of VGG, trained from scratch with under 140,000 parameters on precomputed augmentation.

Species1 and Species6 get one more copy first, then every image three more: 12,640 images that do not change during
training. The validation loss of our run was lowest after 18 of the 40 epochs, and these weights are kept.

Command: python -m training run scratch_vgg --data data/leaves/train
"""

from training.config.recipe import Augmentation, Finetune, Head, Recipe
from training.data.augment import NO_TRANSFORMS
from training.model.backbones import scratch_vgg

recipe = Recipe(
    augmentation=Augmentation(
        transforms=NO_TRANSFORMS,
        precomputed=((("Species1", "Species6"), 1), ((), 3)),
    ),
    finetune=Finetune(
        backbone=scratch_vgg,
        resolution_schedule=((40, 96),),
        learning_rate=3e-3,
        weight_decay=0.01,
        dense_units=(64,),
        dense_l2=1e-4,
    ),
    head=Head(kind="softmax"),
)
