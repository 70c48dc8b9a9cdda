"""A softmax on frozen InceptionV3 features; KerasTuner found its training, and that dense layers do not help.

The search is `python -m training tune tuned --data data/leaves/train --out runs/tune --trials 30`. The values below are
those of its best trial.

Command: python -m training run tuned --data data/leaves/train
"""

from training.config.recipe import Finetune, Head, Recipe

recipe = Recipe(
    finetune=Finetune(
        head_warmup_epochs=15,
        head_warmup_learning_rate=0.006476,
        resolution_schedule=((0, 128),),
        warmup_epochs=0.0,
        dense_units=(),
        dropout=0.2,
        batch_size=64,
    ),
    head=Head(kind="softmax", views=2),
)
