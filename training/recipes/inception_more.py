"""`inception_svm` before the quasi-SVM: the fine-tuned InceptionV3 with its softmax head.

Command: python -m training run inception_more --data data/leaves/train
"""

from training.config.override import change
from training.recipes.inception_svm import recipe as inception_svm

recipe = change(inception_svm, {"head.kind": "softmax"})
