"""`inception_online` with two views of each image made before training and none during it; as many steps.

Report: tried first, then left for augmentation during training.

Command: python -m training run inception_offline --data data/leaves/train
"""

from dataclasses import replace

from training.augment import NO_CHANGE
from training.recipes.inception_online import recipe as inception_online

recipe = replace(
    inception_online, offline=(((), 2),), offline_augmentation=inception_online.augmentation, augmentation=NO_CHANGE, phases=((1, 96),)
)
