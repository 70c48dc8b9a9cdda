"""`inception_online` with scikit-learn's balanced class weights in the loss.

Command: python -m training run inception_class_weights --data data/leaves/train
"""

from training.config.override import change
from training.recipes.inception_online import recipe as inception_online

recipe = change(inception_online, {"data.class_weights": True})
