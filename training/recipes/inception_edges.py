"""InceptionV3 with its first and last 15 layers trained, about 830,000 parameters with the dense layer.

The augmentation is precomputed: Species1 and Species6 get one more copy, then every image one more. 25 epochs of those
are as many steps as 50 epochs of the plain images.

Command: python -m training run inception_edges --data data/leaves/train
"""

from training.config.recipe import Augmentation, Finetune, Head, Recipe
from training.data.augment import NO_TRANSFORMS
from training.fit.schedules import constant
from training.model.trainable import FirstLast

recipe = Recipe(
    augmentation=Augmentation(
        transforms=NO_TRANSFORMS,
        precomputed=((("Species1", "Species6"), 1), ((), 1)),
    ),
    finetune=Finetune(
        trainable=FirstLast(15, 15),
        resolution_schedule=((25, 96),),
        learning_rate=1e-3,
        schedule=constant,
        warmup_epochs=0.0,
        dense_units=(128,),
        dropout=0.3,
        dense_dropout=0.3,
    ),
    head=Head(kind="softmax"),
)
