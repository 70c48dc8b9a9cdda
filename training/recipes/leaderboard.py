"""To beat the leaderboard: `inception_svm_quiet` goes on, ten epochs at 160×160 and twenty at 192×192.

Its loss on the held-out part still fell when it ended; so a second cosine, two thirds as high, follows the first. The
quasi-SVM divides all features by one number: each by its own standard deviation makes those that hardly vary as
loud as those that tell the species apart. Its logits are adjusted to how rare each species is.

Not run: its turn comes next.

Command: python -m training run leaderboard --data data/leaves/train
"""

from dataclasses import replace

from training.recipes.inception_svm_quiet import recipe as inception_svm_quiet

recipe = replace(
    inception_svm_quiet,
    start=inception_svm_quiet,
    phases=((10, 160), (20, 192)),
    learning_rate=2e-4,
    head_common_scale=True,
    head_logit_adjustment=1.0,
)
