"""Which layers of a pretrained backbone are trained. Frozen layers keep their weights and their batch statistics."""

import math
from dataclasses import dataclass

import keras

from training.errors import UserError


@dataclass(frozen=True)
class Everything:
    """All layers."""

    def choose(self, layers):
        return list(layers)


@dataclass(frozen=True)
class Edges:
    """The first and the last few layers, counted as `backbone.layers` does."""

    first: int
    last: int

    def __post_init__(self):
        _expect_whole(self, self.first, self.last)

    def choose(self, layers):
        return layers[: self.first] + layers[max(self.first, len(layers) - self.last) :]


@dataclass(frozen=True)
class Budget:
    """Layers from both ends inwards, in turn, for as long as their parameters fit into the budget."""

    parameters: int

    def __post_init__(self):
        _expect_whole(self, self.parameters)

    def choose(self, layers):
        front, back, spent, chosen = 0, len(layers) - 1, 0, []
        from_front = True
        while front <= back:
            layer = layers[front if from_front else back]
            spent += layer.count_params()
            if spent > self.parameters:
                break
            chosen.append(layer)
            front, back = (front + 1, back) if from_front else (front, back - 1)
            from_front = not from_front
        return chosen


def thaw(backbone, which, batch_norm):
    """Makes the chosen layers of a backbone trainable and freezes the rest. Compile the model afterwards.

    Args:
        backbone: `keras.Model`.
        which: `Everything`, `Edges` or `Budget`.
        batch_norm: whether BatchNormalization layers are trained as well; a frozen one normalises with the moving
            statistics it came with.

    Returns:
        Number of trainable parameters in the backbone.
    """
    backbone.trainable = True  # a frozen parent would hide its children's flags
    chosen = {id(layer) for layer in which.choose(backbone.layers)}
    for layer in backbone.layers:
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = id(layer) in chosen and (batch_norm or not is_norm)
    return sum(math.prod(variable.shape) for variable in backbone.trainable_variables)


def freeze(backbone):
    """Makes no layer of the backbone trainable."""
    backbone.trainable = False


def _expect_whole(which, *numbers):
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
        raise UserError(f"thaw={which}, expected whole numbers from 0, for example Edges(15, 15) or Budget(6_000_000)")
