"""Stochastic weight averaging (SWA): the mean of several epochs' weights, which generalizes better than each.

Source: P. Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from common.progress import progress
from training.fit.features import FeatureSpec, view_batches


def add_to_mean(mean: list, weights: list, count: int) -> list:
    """Updates a running mean of weights.

    Args:
        mean: list of float32 arrays, the mean of `count` models; not used if `count` is 0.
        weights: list of arrays of the same shapes.
        count: number of models in `mean`.

    Returns:
        List of float32 arrays, the mean of `count` + 1 models.
    """
    arrays = [keras.ops.convert_to_numpy(w).astype(np.float32) for w in weights]
    if count == 0:
        return arrays
    return [m + (w - m) / (count + 1) for m, w in zip(mean, arrays, strict=True)]


def update_batch_norm(backbone: keras.Model, images: np.ndarray, spec: FeatureSpec, batch_size: int) -> None:
    """Recomputes the moving statistics of BatchNormalization over one view of each image.

    Averaged weights have other activations than each of the models that were averaged, so none of their statistics fit.
    Frozen layers keep theirs, as in training.

    Args:
        backbone: `keras.Model`, [b, input_size, input_size, 3] of -1 to 1 → [b, d]; changed in place.
        images: uint8 [n, h, w, 3], at least one. They are shuffled, so that each batch has images of all classes.
        spec: input size, transforms and seed of the views.
        batch_size: images per batch. A last batch that is not full is left out, unless it is the only one.
    """
    is_norm = keras.layers.BatchNormalization
    norms = [layer for layer in backbone.layers if isinstance(layer, is_norm) and layer.trainable]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    statistics = [variable for norm in norms for variable in (norm.moving_mean, norm.moving_variance)]
    images = images[np.random.default_rng(spec.seed).permutation(len(images))]
    images = images[: max(batch_size, len(images) // batch_size * batch_size)]
    batches = view_batches(images, spec, view=0, batch_size=batch_size)
    count = -(-len(images) // batch_size)
    for norm in norms:
        norm.momentum = 0.0  # the moving statistics become those of the batch
    update = _training_call(backbone)
    mean: list[np.ndarray] = []
    for number, pixels in enumerate(progress(batches, "batch statistics", unit="batch", total=count)):
        update(pixels)
        mean = add_to_mean(mean, statistics, number)
    for variable, value in zip(statistics, mean, strict=True):
        variable.assign(value)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _training_call(model: keras.Model) -> Callable[[Any], Any]:
    """A function that passes a batch through a model as in training, which updates the moving statistics.

    Under JAX it is compiled, because single operations take long to start there.
    """
    if keras.backend.backend() != "jax":
        return lambda batch: model(batch, training=True)
    import jax

    @jax.jit
    def updated(weights, state, batch):
        return model.stateless_call(weights, state, batch, training=True)[1]

    def update(batch: Any) -> None:
        weights, state = model.trainable_variables, model.non_trainable_variables
        values = updated([v.value for v in weights], [v.value for v in state], batch)
        for variable, value in zip(state, values, strict=True):
            variable.assign(value)

    return update
