"""`online` with images of every species repeated up to the commonest's number; fewer epochs, as many steps.

Report: tried on folders, then left. Here the rows are drawn in memory, so no image is copied on a disk.

Ours: 53.7 % (50.7 % to 56.7 %) on phase 1, mean of 3 seeds, epochs: 7, 2.4 minutes.

Command: python -m training run oversample --data data/leaves/train
"""

from dataclasses import replace

from training.balance import oversample
from training.recipes.online import recipe as online

recipe = replace(online, resampling=oversample, phases=((7, 48),))
