"""Checks of a recipe's fields."""

import math
from typing import Any

from common.errors import UserError

MAX_SEED = 2**32 - 1  # that NumPy, scikit-learn and Keras take


class Check:
    """Raises a UserError that names a section's field, what it must be and what it is."""

    def __init__(self, section: str, fields: Any) -> None:
        self.prefix, self.fields = f"{section}." if section else "", fields

    def __call__(self, name: str, holds: Any, expected: str) -> None:
        require(self.prefix + name, getattr(self.fields, name), holds, expected)

    def whole(self, least: int, *names: str) -> None:
        for name in names:
            self(name, is_whole(getattr(self.fields, name), least), f"a whole number from {least}")

    def seed(self, *names: str) -> None:
        for name in names:
            value = getattr(self.fields, name)
            self(name, is_whole(value, 0) and value <= MAX_SEED, f"a whole number from 0 to {MAX_SEED}")

    def within_one(self, *names: str) -> None:
        for name in names:
            self(name, 0 <= getattr(self.fields, name) < 1, "from 0 to below 1")

    def positive(self, *names: str) -> None:
        for name in names:
            self(name, 0 < getattr(self.fields, name) < math.inf, "a number above 0")

    def not_negative(self, *names: str) -> None:
        for name in names:
            self(name, 0 <= getattr(self.fields, name) < math.inf, "0 or more")

    def one_of(self, name: str, known: tuple) -> None:
        self(name, getattr(self.fields, name) in known, f"one of {', '.join(known)}")


def require(name: str, value: Any, holds: Any, expected: str) -> None:
    """Raises a UserError unless `holds`."""
    if not holds:
        raise UserError(f"recipe: {name} must be {expected}, got {value!r}")


def is_whole(value: Any, least: int) -> bool:
    """Whether a value is an integer of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_finite(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_stage(stage: Any) -> bool:
    """Whether a value is (epochs, size) of a resolution schedule."""
    return isinstance(stage, tuple) and len(stage) == 2 and is_whole(stage[0], 0) and is_whole(stage[1], 32)


def is_round(made: Any) -> bool:
    """Whether a value is ((class names), copies), a round of precomputed augmentation."""
    named = (
        isinstance(made, tuple)
        and len(made) == 2
        and isinstance(made[0], tuple)
        and all(isinstance(n, str) for n in made[0])
    )
    return named and is_whole(made[1], 1)
