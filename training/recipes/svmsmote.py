"""`online` with the rare species doubled by SVMSMOTE on the pixels; fewer epochs, as many steps.

Report: "a complete failure". Why: docs/questions.md.

Ours: 52.8 % (49.8 % to 55.8 %) on phase 1, epochs: 7, 1.8 minutes.

Command: python -m training run svmsmote --data data/leaves/train
"""

from dataclasses import replace

from training.balance import svmsmote
from training.recipes.online import recipe as online

recipe = replace(online, resampling=svmsmote, phases=((7, 48),))
