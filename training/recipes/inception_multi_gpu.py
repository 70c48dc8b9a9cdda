"""`inception_edges` on two devices that share each step (MirroredStrategy), with synchronized batch statistics.

docs/questions.md explains why two devices train less stably without synchronized statistics.

Command: python -m training run inception_multi_gpu --data data/leaves/train
"""

from training.config.override import change
from training.recipes.inception_edges import recipe as inception_edges

recipe = change(inception_edges, {"finetune.replicas": 2})
