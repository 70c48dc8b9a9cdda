"""`inception_online` with the rare species' images concatenated once more to the training set; a tenth more steps.

Report: acceptable, used in every notebook.

Command: python -m training run inception_concat --data data/leaves/train
"""

from dataclasses import replace

from training.recipes.inception_online import recipe as inception_online

recipe = replace(inception_online, repeats={"Species1": 2, "Species6": 2})
