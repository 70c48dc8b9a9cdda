"""`inception_edges` on two devices that share each step (MirroredStrategy), their batch statistics taken together.

Report: similar to one device, but numerically less stable. Why, and the mend: docs/questions.md.

Ours: 26.8 % (24.2 % to 29.6 %) on phase 1, epochs: 1, 10.8 minutes.

Command: python -m training run inception_multi_gpu --data data/leaves/train
"""

from dataclasses import replace

from training.recipes.inception_edges import recipe as inception_edges

recipe = replace(inception_edges, replicas=2)
