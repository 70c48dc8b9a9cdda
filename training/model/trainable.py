"""Which layers of a pretrained backbone are trained. The others keep their weights and batch statistics."""

import math
from dataclasses import dataclass

import keras

from common.errors import UserError


@dataclass(frozen=True)
class All:
    """All layers."""

    def choose(self, layers: list) -> list:
        return list(layers)


@dataclass(frozen=True)
class FirstLast:
    """The first and the last few layers, counted in the order of `backbone.layers`."""

    first: int
    last: int

    def __post_init__(self) -> None:
        _check_whole(self, self.first, self.last)

    def choose(self, layers: list) -> list:
        return layers[: self.first] + layers[max(self.first, len(layers) - self.last) :]


@dataclass(frozen=True)
class ParameterBudget:
    """Layers from both ends inwards, alternately, until their parameters exceed the budget."""

    parameters: int

    def __post_init__(self) -> None:
        _check_whole(self, self.parameters)

    def choose(self, layers: list) -> list:
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


CHOICES = (All, FirstLast, ParameterBudget)


def set_trainable(backbone: keras.Model, which: All | FirstLast | ParameterBudget, train_batch_norm: bool) -> int:
    """Makes the chosen layers of a backbone trainable and freezes the others. Compile the model afterwards.

    Args:
        backbone: `keras.Model`.
        which: `All`, `FirstLast` or `ParameterBudget`.
        train_batch_norm: whether BatchNormalization layers are trained too. Frozen ones use the moving statistics they
        have.

    Returns:
        Number of trainable parameters of the backbone.
    """
    backbone.trainable = True  # a frozen parent would hide its children's flags
    chosen = {id(layer) for layer in which.choose(backbone.layers)}
    for layer in backbone.layers:
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = id(layer) in chosen and (train_batch_norm or not is_norm)
    return count_parameters(backbone.trainable_variables)


def freeze(backbone: keras.Model) -> None:
    """Makes no layer of the backbone trainable."""
    backbone.trainable = False


def count_parameters(variables: list) -> int:
    """The number of values in some variables."""
    return sum(math.prod(variable.shape) for variable in variables)


def _check_whole(which: object, *numbers: int) -> None:
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
        example = "FirstLast(15, 15) or ParameterBudget(6_000_000)"
        raise UserError(f"finetune.trainable must have whole numbers from 0, for example {example}, got {which}")
