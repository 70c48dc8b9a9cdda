"""The report's final model: InceptionV3, fine-tuned at both ends, and a quasi-SVM on its frozen features.

Report: 88.5 % on the remote server. Ours: not run in full yet; `inception_svm_192` is the measured one.
Command: python -m training run inception_svm --data data/leaves/train --out runs/inception_svm

The thawed part's BatchNormalization is trained: with its ImageNet statistics kept, a learning rate that fits the rest
destroyed the pretrained features.
"""

from training.recipe import Recipe
from training.thaw import Budget

recipe = Recipe(
    repeats={"Species1": 2, "Species6": 2},
    thaw=Budget(6_000_000),
    phases=((50, 96),),
)
