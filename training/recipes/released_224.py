"""`released` with another second cycle: CutMix or MixUp, ten epochs each at 160×160, 192×192 and 224×224, longer SWA.

SWA averages the last ten epochs, all at 224×224. The first cycle is that of `released`, so that `--reuse` of a run of
`released` takes it over.

Command: python -m training run released_224 --data data/leaves/train
"""

from training.config.override import change
from training.data.augment import cut_mix_or_mix_up
from training.recipes.released import recipe as released

recipe = change(
    released,
    {
        "finetune.resolution_schedule": ((10, 160), (10, 192), (10, 224)),
        "finetune.batch_augmentations": (cut_mix_or_mix_up,),
        "finetune.swa_epochs": 10,
    },
)
