"""The comparisons that matter most, repeated on InceptionV3: this is their base, `online` with everything thawed at 96×96.

Report: augmentation during training was the best kind.

Ours: 58.6 % (55.6 % to 61.5 %) on phase 1, epochs: 3, 26.9 minutes.

Command: python -m training run inception_online --data data/leaves/train
"""

from dataclasses import replace

from training.recipe import Recipe
from training.recipes.inception_svm_192 import recipe as inception_svm_192

recipe = replace(
    inception_svm_192,
    validation=Recipe.validation,
    repeats={},
    phases=((3, 96),),
    precision="float32",
    head="softmax",
    test_flips=("none",),
)
