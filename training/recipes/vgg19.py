"""VGG19 in two phases: the new layers alone on frozen features, then VGG19's last 14 layers at a low learning rate.

Report: 77 % on the remote server, no better than the small network.

Not run: VGG19's ImageNet weights are a download that the measuring machine could not make; tested with random weights.

Command: python -m training run vgg19 --data data/leaves/train
"""

from training.architectures import vgg19
from training.recipe import Recipe
from training.thaw import Edges

recipe = Recipe(
    backbone=vgg19,
    head="softmax",
    repeats={"Species1": 2, "Species6": 2},
    frozen_epochs=30,
    thaw=Edges(0, 15),  # the last 14, and the pooling behind them
    phases=((30, 96),),
    learning_rate=1e-5,
    dense=(128,),
    dropout=0.3,
    dense_dropout=0.3,
)
