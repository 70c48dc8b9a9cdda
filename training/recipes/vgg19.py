"""VGG19 in two phases: the new layers alone on frozen features, then VGG19's last 14 layers at a low learning rate.

Command: python -m training run vgg19 --data data/leaves/train
"""

from training.config.recipe import Data, Finetune, Head, Recipe
from training.model.backbones import vgg19
from training.model.trainable import FirstLast

recipe = Recipe(
    data=Data(class_repeats={"Species1": 2, "Species6": 2}),
    finetune=Finetune(
        backbone=vgg19,
        head_warmup_epochs=30,
        trainable=FirstLast(0, 15),  # the last 14 layers and the global pooling after them
        resolution_schedule=((30, 96),),
        learning_rate=1e-5,
        dense_units=(128,),
        dropout=0.3,
        dense_dropout=0.3,
    ),
    head=Head(kind="softmax"),
)
