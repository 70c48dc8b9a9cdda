"""`inception_svm` with the whole backbone fine-tuned, small images first, then 192×192.

Ours: 93.5 % (90.5 % to 95.6 %) on the validation part, epochs: 24, 55.2 minutes.
It was the first released model.

Command: python -m training run inception_svm_192 --data data/leaves/train --out runs/inception_svm_192
"""

from dataclasses import replace

from training.augment import Augmentation
from training.recipes.inception_svm import recipe as inception_svm
from training.thaw import Everything

recipe = replace(
    inception_svm,
    validation=0.1,
    repeats={"Species1": 3, "Species6": 2},
    augmentation=Augmentation(
        quarter_turns=True, rotation=30.0, zoom=0.2, shift=0.1, brightness=0.25, contrast=0.2, saturation=0.2, tint=0.05
    ),
    thaw=Everything(),
    batch_norm=True,
    phases=((8, 128), (16, 192)),
    learning_rate=3e-4,
    weight_decay=0.05,
    label_smoothing=0.1,
    dense=(),
    dropout=0.3,
    precision="mixed_bfloat16",
    head_learning_rate=1e-3,
    test_flips=("none", "horizontal", "vertical", "both"),
)
