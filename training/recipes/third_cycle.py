"""`released` with a third cycle: 12 epochs at 224×224 with CutMix or MixUp. Not released.

It predicts at 224×224, 1.36 times the pixels of `released`. docs/accuracy.md compares the folds.

Duration: about 40 minutes after the fine-tuning of `released`, on two cores with AMX.

Command: python -m training run third_cycle --data data/leaves/train --reuse runs/released
"""

from dataclasses import replace

from training.data.augment import cut_mix_or_mix_up
from training.recipes.released import recipe as released

recipe = replace(
    released,
    finetune=replace(
        released.finetune,
        init_from=released.finetune,
        resolution_schedule=((12, 224),),
        learning_rate=1.3e-4,
        batch_augmentations=(cut_mix_or_mix_up,),
    ),
)
