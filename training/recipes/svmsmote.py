"""`online` with the rare species doubled by SVMSMOTE on the pixels; fewer epochs, as many steps.

Report: "a complete failure". Why: docs/questions.md.

Ours: 54.1 % (51.1 % to 57.1 %) on phase 1, mean of 3 seeds, epochs: 7, 7.1 minutes.

Command: python -m training run svmsmote --data data/leaves/train
"""

from dataclasses import replace

from training.balance import svmsmote
from training.recipes.online import recipe as online

recipe = replace(online, resampling=svmsmote, phases=((7, 48),))
