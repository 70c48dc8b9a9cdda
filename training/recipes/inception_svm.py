"""The report's final model: InceptionV3 with six million parameters fine-tuned, and a quasi-SVM on its frozen features.

The layers are trained from both ends inwards. Each image is augmented anew in each epoch, and the rare species' images
are repeated. BatchNormalization of the trained layers is trained too: with its ImageNet statistics, a learning rate
that suits the other layers destroys the pretrained features.

Command: python -m training run inception_svm --data data/leaves/train
With a finished run of `inception_more`, which has the same fine-tuning: --reuse runs/inception_more
"""

from training.config.recipe import Data, Finetune, Head, Recipe
from training.model.trainable import ParameterBudget

recipe = Recipe(
    data=Data(
        validation_split=0.1,
        class_repeats={"Species1": 2, "Species6": 2},
    ),
    finetune=Finetune(
        trainable=ParameterBudget(6_000_000),
        resolution_schedule=((50, 96),),
        learning_rate=1e-4,
        dense_units=(128,),
        dropout=0.3,
        dense_dropout=0.3,
    ),
    head=Head(kind="quasi_svm"),
)
