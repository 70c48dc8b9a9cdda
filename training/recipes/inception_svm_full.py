"""`inception_svm` trained on all images: nothing is held out, and the last epoch is kept.

docs/questions.md shows how its accuracy can be estimated all the same.

Command: python -m training run inception_svm_full --data data/leaves/train
"""

from training.config.override import change
from training.recipes.inception_svm import recipe as inception_svm

recipe = change(inception_svm, {"data.validation_split": 0.0})
