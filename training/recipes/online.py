"""The base of the comparisons: `scratch_vgg` at half the size, another view of each image in each epoch, nothing balanced.

Report: augmentation during training was the best kind.

Ours: 57.4 % (54.4 % to 60.3 %) on phase 1, mean of 3 seeds, epochs: 8, 2.4 minutes.

Command: python -m training run online --data data/leaves/train
"""

from dataclasses import replace

from training.augment import Augmentation
from training.recipes.scratch_vgg import recipe as scratch_vgg

recipe = replace(scratch_vgg, offline=(), augmentation=Augmentation(), phases=((8, 48),))
