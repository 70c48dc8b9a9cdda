"""`leaderboard` on the whole training set, nothing held out.

`leaderboard` says what to expect of it: the same recipe and epochs, with a fifth of the images held out.

Not run: its turn comes next.

Command: python -m training run leaderboard_full --data data/leaves/train
"""

from dataclasses import replace

from training.recipes.leaderboard import recipe as leaderboard

recipe = replace(leaderboard, validation=0.0)
