"""`scratch_vgg` with twice the depth and skip connections.

Command: python -m training run scratch_resnet --data data/leaves/train
"""

from training.config.override import change
from training.model.backbones import scratch_resnet
from training.recipes.scratch_vgg import recipe as scratch_vgg

recipe = change(scratch_vgg, {"finetune.backbone": scratch_resnet})
