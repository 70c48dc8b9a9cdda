"""`inception_svm_averaged` on the whole training set, nothing held out: the first released model of weights averaged.

Ours: 93.7 % (92.1 % to 95.0 %) on phase 1, epochs: 52, 240.9 minutes.

Command: python -m training run inception_svm_averaged_full --data data/leaves/train
"""

from dataclasses import replace

from training.recipes.inception_svm_averaged import recipe as inception_svm_averaged

recipe = replace(inception_svm_averaged, validation=0.0)
