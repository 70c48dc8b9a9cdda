"""`inception_online` with scikit-learn's balanced class weights in the loss.

Report: used in most experiments.

Command: python -m training run inception_class_weights --data data/leaves/train
"""

from dataclasses import replace

from training.recipes.inception_online import recipe as inception_online

recipe = replace(inception_online, class_weights=True)
