"""`inception_svm` before the quasi-SVM, with an exponentially decaying learning rate.

Command: python -m training run inception_decay --data data/leaves/train
"""

from training.config.override import change
from training.fit.schedules import exponential
from training.recipes.inception_svm import recipe as inception_svm

changes = {"head.kind": "softmax", "finetune.schedule": exponential, "finetune.warmup_epochs": 0.0}
recipe = change(inception_svm, changes)
