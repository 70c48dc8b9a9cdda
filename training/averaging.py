"""Stochastic weight averaging: the mean of several epochs' weights, which generalises better than any one of them.

Source: P. Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018.
"""

import keras
import numpy as np

from training.features import view_batches
from training.progress import progress


def add_to_mean(mean, weights, count):
    """The mean of `count` + 1 networks' weights from that of `count` ones.

    Args:
        mean: list of float32 arrays; anything while `count` is 0.
        weights: list of arrays of the same shapes.
        count: how many networks `mean` is of.

    Returns:
        A list of float32 arrays.
    """
    weights = [keras.ops.convert_to_numpy(w).astype(np.float32) for w in weights]
    if count == 0:
        return weights
    return [m + (w - m) / (count + 1) for m, w in zip(mean, weights, strict=True)]


def recalibrate(backbone, images, size, augmentation, seed, batch):
    """Measures the means and variances of BatchNormalization anew, over one view of each image.

    Averaged weights give activations that none of the averaged networks had, so the moving statistics of those fit none
    of them. Frozen layers keep theirs, as they do in training.

    Args:
        backbone: `keras.Model`, [b, size, size, 3] of -1 to 1 → [b, d]; changed in place.
        images: uint8 [n, h, w, 3], at least one; drawn in random order, for a batch's statistics should be of all classes.
        size: side in pixels that the backbone sees.
        augmentation: `Augmentation` of the views, or None for the images as they are.
        seed: integer.
        batch: images in a batch. A last one that is not full is left out, unless it is the only one.
    """
    norms = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    images = images[np.random.default_rng(seed).permutation(len(images))]
    images = images[: max(batch, len(images) // batch * batch)]
    batches = view_batches(images, size, augmentation, seed, view=0, batch=batch)
    for number, pixels in enumerate(progress(batches, "batch statistics", unit="batch", total=-(-len(images) // batch))):
        for norm in norms:
            norm.momentum = number / (number + 1)  # the plain mean over all batches
        backbone(pixels, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
