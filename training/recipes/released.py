"""The released recipe: all of InceptionV3 fine-tuned in two cosine cycles with MixUp and SWA, and a quasi-SVM.

A fifth of the images is held out.

The first cycle has 36 epochs at 128×128, 160×160 and 192×192, the second one 30 epochs at two thirds of its learning
rate. Each ends at a tenth of its peak, so that SWA averages the different weights of its last eight epochs. If the
top-1 confidence is at most 0.85, predictions are averaged over the 8 flips and rotations.

Duration: 166 minutes on one core with AVX-512.

Command: python -m training run released --data data/leaves/train
"""

from dataclasses import replace

from training.config.recipe import Augmentation, Data, Finetune, Head, Prediction, Recipe
from training.data.augment import RandomTransforms, mix_up
from training.fit.schedules import cosine_to_tenth
from training.model.backbones import inception_v3_small_init
from training.model.trainable import All
from training.predict import TTA_TRANSFORMS

first_cycle = Finetune(
    backbone=inception_v3_small_init,
    trainable=All(),
    train_batch_norm=True,
    resolution_schedule=((12, 128), (12, 160), (12, 192)),
    learning_rate=3e-4,
    schedule=cosine_to_tenth,
    warmup_epochs=1.0,
    weight_decay=0.05,
    label_smoothing=0.1,
    batch_augmentations=(mix_up,),
    dropout=0.3,
    dense_dropout=0.3,  # without dense layers, it has no effect; finished runs have it
    swa_epochs=8,
    batch_size=32,
)

second_cycle = replace(
    first_cycle,
    init_from=first_cycle,
    resolution_schedule=((10, 160), (20, 192)),
    learning_rate=2e-4,
)

recipe = Recipe(
    data=Data(
        validation_split=0.2,
        class_repeats={"Species1": 3, "Species6": 2},
    ),
    augmentation=Augmentation(
        transforms=RandomTransforms(
            flips=True,
            quarter_turns=True,
            rotation=30.0,
            zoom=0.2,
            shift=0.1,
            brightness=0.25,
            contrast=0.2,
            saturation=0.2,
            tint=0.05,
        ),
    ),
    finetune=second_cycle,
    head=Head(
        kind="quasi_svm",
        views=0,  # flips and rotations of `prediction`; random views lower the recall of rare, similar species
        epochs=60,
        learning_rate=3e-2,
        fourier_features=1024,
        kernel="gaussian",
        kernel_scale=1.0,
        shared_feature_scale=True,  # per-feature standardization amplifies low-variance, uninformative features
        logit_adjustment=1.0,
    ),
    prediction=Prediction(tta_transforms=tuple(TTA_TRANSFORMS), tta_threshold=0.85),
    checkpoint="last",
)
