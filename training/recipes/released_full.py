"""`released` trained on all images, nothing held out. This run is the committed model.

The accuracy to expect is that of the cross-validation of `released` in docs/accuracy.md: same recipe and epochs.

Duration: 190 minutes on two cores with AMX, in bfloat16.

Command: python -m training run released_full --data data/leaves/train
"""

from training.config.override import change
from training.recipes.released import recipe as released

recipe = change(released, {"data.validation_split": 0.0})
